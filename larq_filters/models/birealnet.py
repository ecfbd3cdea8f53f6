"""Bi-Real Net: residual binary networks with a shortcut around every binary convolution."""

import os
from collections.abc import Sequence
from typing import Any

from larq_filters._warnings import warn
from larq_filters.models import pretrained
from larq_filters.models._common import Quantizers, batch_norm, classifier

import numpy as np
import tensorflow as tf

__all__ = ["BiRealNet18", "BiRealNet20", "BiRealNet34", "preprocess_cifar10"]

# Of CIFAR-10's training images, for each channel.
CIFAR10_MEAN, CIFAR10_STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)


def BiRealNet18(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    *,
    width: int = 64,
    input_quantizer: Any = "approx_sign",
    kernel_quantizer: Any = None,
    kernel_initializer: Any = "glorot_uniform",
    kernel_constraint: Any = None,
    name: str = "birealnet18",
) -> tf.keras.Model:
    """Bi-Real Net with 18 layers, for images of about 224×224 such as ImageNet.

    A real 7×7 convolution and max pool, then binary 3×3 convolutions, each with a shortcut around
    it, in four stages of 4, 4, 4 and 4 with `width`, 2·`width`, 4·`width` and 8·`width` channels,
    and a real dense layer. Where the resolution halves, the shortcut is an average pool and a real
    1×1 convolution.

    Args:
        input_shape: Height, width and channels of an image.
        num_classes: Number of classes.
        width: Channels of the first stage.
        input_quantizer: Binarizes the inputs of the binary convolutions.
        kernel_quantizer: Of the binary convolutions; by default
            `larq.quantizers.NoOp(precision=1)`, which has no latent weights. 'ste_sign' makes a
            latent-weight network, `larq.quantizers.NoOp(precision=32)` one of real weights.
        kernel_initializer: Of the binary convolutions.
        kernel_constraint: Of the binary convolutions; latent weights want 'weight_clip'.
        name: Name of the model.

    Returns:
        The model, not compiled; its outputs are logits, of shape (batch, `num_classes`).

    Example:
        >>> lqf.models.BiRealNet18((64, 64, 3), width=8).output_shape
        (None, 1000)

    Source:
        Liu, Wu, Luo, Yang, Liu, Cheng, "Bi-Real Net: Enhancing the Performance of 1-bit CNNs With
        Improved Representational Capability and Advanced Training Algorithm", ECCV 2018 (arXiv
        1808.00278).
    """
    quantizers = Quantizers(
        input_quantizer, kernel_quantizer, kernel_initializer, kernel_constraint
    )
    return _imagenet_net(input_shape, num_classes, (4, 4, 4, 4), width, quantizers, name)


def BiRealNet34(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    *,
    width: int = 64,
    input_quantizer: Any = "approx_sign",
    kernel_quantizer: Any = None,
    kernel_initializer: Any = "glorot_uniform",
    kernel_constraint: Any = None,
    name: str = "birealnet34",
) -> tf.keras.Model:
    """Bi-Real Net with 34 layers: `BiRealNet18` with stages of 6, 8, 12 and 6 convolutions.

    Args:
        input_shape: Height, width and channels of an image.
        num_classes: Number of classes.
        width: Channels of the first stage.
        input_quantizer: As for `BiRealNet18`.
        kernel_quantizer: As for `BiRealNet18`.
        kernel_initializer: As for `BiRealNet18`.
        kernel_constraint: As for `BiRealNet18`.
        name: Name of the model.

    Returns:
        The model, not compiled; its outputs are logits, of shape (batch, `num_classes`).

    Example:
        >>> lqf.models.BiRealNet34((32, 32, 3), width=4).output_shape
        (None, 1000)

    Source:
        As for `BiRealNet18`.
    """
    quantizers = Quantizers(
        input_quantizer, kernel_quantizer, kernel_initializer, kernel_constraint
    )
    return _imagenet_net(input_shape, num_classes, (6, 8, 12, 6), width, quantizers, name)


def BiRealNet20(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    width: int = 16,
    input_quantizer: Any = "approx_sign",
    kernel_quantizer: Any = None,
    kernel_initializer: Any = "glorot_uniform",
    kernel_constraint: Any = None,
    weights: str | os.PathLike[str] | None = None,
    include_top: bool = True,
    name: str = "birealnet20",
) -> tf.keras.Model:
    """Bi-Real Net with 20 layers, for images of about 32×32 such as CIFAR-10.

    A real 3×3 convolution, 18 binary 3×3 convolutions in three stages of `width`, 2·`width` and
    4·`width` channels, each with a shortcut around it, and a real dense layer.

    Args:
        input_shape: Height, width and channels of an image.
        num_classes: Number of classes.
        width: Channels of the first stage.
        input_quantizer: As for `BiRealNet18`.
        kernel_quantizer: As for `BiRealNet18`.
        kernel_initializer: As for `BiRealNet18`.
        kernel_constraint: As for `BiRealNet18`.
        weights: None, which are random ones; 'cifar10', which were trained on CIFAR-10 at width 16
            by `FilteredFlip`, and whose accuracy docs/results.md has; or the path of a file that
            `model.save_weights` wrote. `preprocess_cifar10` makes their inputs.
        include_top: Whether the model ends in the dense layer. False: it ends in the last
            convolution's shortcut, to be followed by layers of your own; `num_classes` then has no
            effect.
        name: Name of the model.

    Returns:
        The model, not compiled; its outputs are logits, of shape (batch, `num_classes`), or without
        the top features, of shape (batch, height/4, width/4, 4·`width`).

    Raises:
        ValueError: `weights` are unknown, or 'cifar10' together with another `width`, other
            channels than 3, or, with the top, another `num_classes` than 10.

    Example:
        >>> lqf.models.BiRealNet20(width=8).output_shape
        (None, 10)
        >>> images = np.random.randint(256, size=(2, 32, 32, 3))
        >>> model = lqf.models.BiRealNet20(weights="cifar10")
        >>> model.predict(lqf.models.preprocess_cifar10(images), verbose=0).shape
        (2, 10)

    Source:
        As for `BiRealNet18`, on the layers of the ResNet-20 of He, Zhang, Ren, Sun, "Deep Residual
        Learning for Image Recognition", CVPR 2016.
    """
    quantizers = Quantizers(
        input_quantizer, kernel_quantizer, kernel_initializer, kernel_constraint
    )
    needs = {"width": (width, 16), "channels of input_shape": (input_shape[-1], 3)}
    if include_top:
        needs["num_classes"] = (num_classes, 10)
    pretrained.check(weights, "cifar10", needs)
    inputs = tf.keras.layers.Input(input_shape)
    x = tf.keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(inputs)
    x = _stages(batch_norm(x), (6, 6, 6), width, quantizers)
    if include_top:
        model = classifier(inputs, x, num_classes, name)
    else:
        model = tf.keras.Model(inputs, x, name=name)
    return pretrained.load(model, weights, "birealnet20", "cifar10")


def preprocess_cifar10(images: Any) -> Any:
    """Images as the weights 'cifar10' want them: each channel less its mean, by its deviation.

    Args:
        images: Numbers from 0 to 255, of shape (..., height, width, 3): an array or a tensor.

    Returns:
        float32 of the same shape, an array for an array and else a tensor: (x − mean)/deviation,
        with mean and deviation of CIFAR-10's training images.

    Raises:
        ValueError: The last axis has no three channels.

    Warns:
        UserWarning: An array of floats has no number above 1, as if it were already divided by 255.

    Example:
        >>> lqf.models.preprocess_cifar10(np.full((1, 1, 3), 255)).round(1)
        array([[[2.1, 2.1, 2.1]]], dtype=float32)
    """
    shape = tf.TensorShape(images.shape if tf.is_tensor(images) else np.shape(images))
    if not shape[-1:].is_compatible_with([3]):
        raise ValueError(
            "preprocess_cifar10 takes images with red, green and blue in the last axis: repeat the "
            f"channel of grey ones three times. Received: images of shape {tuple(shape.as_list())}"
        )
    if tf.is_tensor(images):
        return (tf.cast(images, tf.float32) - CIFAR10_MEAN) / CIFAR10_STD
    mean, std = np.asarray([CIFAR10_MEAN, CIFAR10_STD], "float32")
    images = np.asarray(images)
    if images.dtype.kind == "f" and 0.0 < images.max(initial=0.0) <= 1.0:
        warn(
            "preprocess_cifar10 takes numbers from 0 to 255: do not divide them by 255. Received: "
            f"numbers from {images.min():g} to {images.max():g}"
        )
    return (images.astype("float32") - mean) / std


def _imagenet_net(
    input_shape: tuple[int, int, int],
    num_classes: int,
    stages: Sequence[int],
    width: int,
    quantizers: Quantizers,
    name: str,
) -> tf.keras.Model:
    layers = tf.keras.layers
    inputs = layers.Input(input_shape)
    x = layers.Conv2D(width, 7, strides=2, padding="same", use_bias=False)(inputs)
    x = layers.MaxPooling2D(3, strides=2, padding="same")(batch_norm(x))
    return classifier(inputs, _stages(x, stages, width, quantizers), num_classes, name)


def _stages(x: Any, stages: Sequence[int], width: int, quantizers: Quantizers) -> Any:
    """Stages of so many binary convolutions, the channels doubling from one to the next."""
    for stage, depth in enumerate(stages):
        for i in range(depth):
            x = _unit(x, width * 2**stage, 2 if stage > 0 and i == 0 else 1, quantizers)
    return x


def _unit(x: Any, filters: int, strides: int, quantizers: Quantizers) -> Any:
    layers, shortcut = tf.keras.layers, x
    if strides > 1:
        shortcut = layers.AveragePooling2D(strides, padding="same")(shortcut)
        shortcut = batch_norm(layers.Conv2D(filters, 1, use_bias=False)(shortcut))
    return layers.add([batch_norm(quantizers.conv(filters, 3, strides)(x)), shortcut])
