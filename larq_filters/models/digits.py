"""A small network for scikit-learn's handwritten digits, which trains in seconds."""

import os
from typing import Any

from larq_filters.models import pretrained
from larq_filters.models._common import Quantizers, batch_norm, classifier

import tensorflow as tf

__all__ = ["DigitsNet"]


def DigitsNet(
    *,
    input_quantizer: Any = "approx_sign",
    kernel_quantizer: Any = None,
    kernel_initializer: Any = "glorot_uniform",
    kernel_constraint: Any = None,
    weights: str | os.PathLike[str] | None = None,
    name: str = "digits",
) -> tf.keras.Model:
    """A convolution and two binary ones, for images of 8×8 pixels in one colour.

    Images are numbers from −1 to 1: those of `sklearn.datasets.load_digits`, x, as x/8 − 1.

    Args:
        input_quantizer: Binarizes the inputs of the binary convolutions.
        kernel_quantizer: Of the binary convolutions; by default
            `larq.quantizers.NoOp(precision=1)`, which has no latent weights.
        kernel_initializer: Of the binary convolutions.
        kernel_constraint: Of the binary convolutions; latent weights want 'weight_clip'.
        weights: None, which are random ones, 'digits', or the path of a file that
            `model.save_weights` wrote.
        name: Name of the model.

    Returns:
        The model, not compiled; its outputs are logits, of shape (batch, 10).

    Raises:
        ValueError: `weights` are unknown.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> images = load_digits().images[..., np.newaxis] / 8 - 1
        >>> logits = lqf.models.DigitsNet(weights="digits").predict(images, verbose=0)
        >>> int(100 * np.mean(np.argmax(logits, axis=1) == load_digits().target)) > 95
        True
    """
    quantizers = Quantizers(
        input_quantizer, kernel_quantizer, kernel_initializer, kernel_constraint
    )
    pretrained.check(weights, "digits", {})
    inputs = tf.keras.layers.Input((8, 8, 1))
    x = tf.keras.layers.Conv2D(32, 3, padding="same", use_bias=False)(inputs)
    x = quantizers.conv(64, 3, name="binary_1")(batch_norm(x))
    x = tf.keras.layers.MaxPooling2D()(batch_norm(x))
    x = batch_norm(quantizers.conv(64, 3, name="binary_2")(x))
    model = classifier(inputs, x, 10, name)
    return pretrained.load(model, weights, "digitsnet", "digits")
