"""ReActNet: a binary MobileNet whose signs and activations are shifted by learned biases."""

from typing import Any

from larq_filters._serialization import register
from larq_filters.models._common import Quantizers, batch_norm, classifier

import tensorflow as tf

__all__ = ["LearnableShift", "ReActNetA"]

_STAGES = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)),
    *((512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1)),
    *((1024, 2), (1024, 1)),
)  # channels at width 32, and strides


@register
class LearnableShift(tf.keras.layers.Layer):
    """Adds a learned bias to each channel: y = x + b, b starting at 0.

    Before a sign, it learns the threshold (ReActNet's RSign). Before and after a PReLU, it learns
    where the PReLU bends (RPReLU).

    Example:
        >>> lqf.models.LearnableShift()(np.ones((1, 4, 4, 3))).shape
        TensorShape([1, 4, 4, 3])
    """

    def build(self, input_shape: Any) -> None:
        """Makes a bias for each channel, the last axis."""
        self.bias = self.add_weight("bias", (input_shape[-1],), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        """The shifted inputs."""
        return tf.nn.bias_add(inputs, self.bias)


def ReActNetA(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    *,
    width: int = 32,
    input_quantizer: Any = "approx_sign",
    kernel_quantizer: Any = None,
    kernel_initializer: Any = "glorot_uniform",
    kernel_constraint: Any = None,
    name: str = "reactnet_a",
) -> tf.keras.Model:
    """ReActNet-A, for images of about 224×224 such as ImageNet.

    A real 3×3 convolution of `width` channels, 13 blocks of a binary 3×3 and a binary 1×1
    convolution, each with a shortcut around it and an RPReLU after it, up to 32·`width` channels,
    and a real dense layer. Where the channels double, two 1×1 convolutions of the same inputs are
    concatenated, each with its shortcut around it. So no shortcut needs a real convolution.

    Args:
        input_shape: Height, width and channels of an image.
        num_classes: Number of classes.
        width: Channels of the first convolution.
        input_quantizer: Binarizes the inputs of the binary convolutions, after the learned shift.
        kernel_quantizer: Of the binary convolutions; by default
            `larq.quantizers.NoOp(precision=1)`, which has no latent weights. 'ste_sign' makes a
            latent-weight network, `larq.quantizers.NoOp(precision=32)` one of real weights. The
            authors' kernels have a scale per channel (`magnitude_aware_sign`), which the batch norm
            behind each convolution makes redundant.
        kernel_initializer: Of the binary convolutions.
        kernel_constraint: Of the binary convolutions; latent weights want 'weight_clip'.
        name: Name of the model.

    Returns:
        The model, not compiled; its outputs are logits, of shape (batch, `num_classes`).

    Example:
        >>> lqf.models.ReActNetA((32, 32, 3), 10, width=4).output_shape
        (None, 10)

    Source:
        Liu, Shen, Savvides, Cheng, "ReActNet: Towards Precise Binary Neural Network with
        Generalized Activation Functions", ECCV 2020 (arXiv 2003.03488).
    """
    quantizers = Quantizers(
        input_quantizer, kernel_quantizer, kernel_initializer, kernel_constraint
    )
    layers = tf.keras.layers
    inputs = layers.Input(input_shape)
    x = layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False)(inputs)
    x = batch_norm(x)
    for filters, strides in _STAGES:
        x = _block(x, filters * width // 32, strides, quantizers)
    return classifier(inputs, x, num_classes, name)


def _block(x: Any, filters: int, strides: int, quantizers: Quantizers) -> Any:
    layers, channels = tf.keras.layers, x.shape[-1]
    shortcut = layers.AveragePooling2D(2, padding="same")(x) if strides > 1 else x
    x = quantizers.conv(channels, 3, strides)(LearnableShift()(x))
    x = _rprelu(layers.add([batch_norm(x), shortcut]))

    shortcut, x = x, LearnableShift()(x)
    copies = [
        layers.add([batch_norm(quantizers.conv(channels, 1)(x)), shortcut])
        for _ in range(filters // channels)
    ]
    return _rprelu(copies[0] if len(copies) == 1 else layers.concatenate(copies))


def _rprelu(x: Any) -> Any:
    slopes = tf.keras.layers.PReLU(
        alpha_initializer=tf.keras.initializers.Constant(0.25), shared_axes=[1, 2]
    )
    return LearnableShift()(slopes(LearnableShift()(x)))
