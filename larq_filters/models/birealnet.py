"""Bi-Real Net: residual binary networks with a shortcut around every binary convolution."""

from typing import Any

import larq as lq
import tensorflow as tf

__all__ = ["BiRealNet20"]


def BiRealNet20(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    width: int = 16,
    input_quantizer: Any = "approx_sign",
    kernel_quantizer: Any = None,
    kernel_constraint: Any = None,
    name: str = "birealnet20",
) -> tf.keras.Model:
    """Bi-Real Net with 20 layers, for images of about 32×32 such as CIFAR-10.

    A real 3×3 convolution, 18 binary 3×3 convolutions in three stages of `width`, 2·`width` and
    4·`width` channels, each with a shortcut around it, and a real dense layer. Where the resolution
    halves, the shortcut is an average pool and a real 1×1 convolution.

    Args:
        input_shape: Height, width and channels of an image.
        num_classes: Number of classes.
        width: Channels of the first stage.
        input_quantizer: Binarizes the inputs of the binary convolutions.
        kernel_quantizer: Of the binary convolutions; by default
            `larq.quantizers.NoOp(precision=1)`, which has no latent weights. 'ste_sign' makes a
            latent-weight network.
        kernel_constraint: Of the binary convolutions; latent weights want 'weight_clip'.
        name: Name of the model.

    Returns:
        The model, not compiled; its outputs are logits, of shape (batch, `num_classes`).

    Example:
        >>> lqf.models.BiRealNet20(width=8).output_shape
        (None, 10)

    Source:
        Liu, Wu, Luo, Yang, Liu, Cheng, "Bi-Real Net: Enhancing the Performance of 1-bit CNNs With
        Improved Representational Capability and Advanced Training Algorithm", ECCV 2018 (arXiv
        1808.00278).
    """
    layers = tf.keras.layers

    def batch_norm(x: Any) -> Any:
        return layers.BatchNormalization(momentum=0.9)(x)

    def unit(x: Any, filters: int, strides: int) -> Any:
        shortcut = x
        if strides > 1:
            shortcut = layers.AveragePooling2D(strides, padding="same")(shortcut)
            shortcut = batch_norm(layers.Conv2D(filters, 1, use_bias=False)(shortcut))
        x = lq.layers.QuantConv2D(
            filters,
            3,
            strides=strides,
            padding="same",
            pad_values=1.0,
            use_bias=False,
            input_quantizer=input_quantizer,
            kernel_quantizer=kernel_quantizer or lq.quantizers.NoOp(precision=1),
            kernel_constraint=kernel_constraint,
        )(x)
        return layers.add([batch_norm(x), shortcut])

    inputs = layers.Input(input_shape)
    x = batch_norm(layers.Conv2D(width, 3, padding="same", use_bias=False)(inputs))
    for stage in range(3):
        for i in range(6):
            x = unit(x, filters=width * 2**stage, strides=2 if stage > 0 and i == 0 else 1)
    x = layers.GlobalAveragePooling2D()(x)
    return tf.keras.Model(inputs, layers.Dense(num_classes)(x), name=name)
