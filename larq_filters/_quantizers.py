"""Kernel quantizers: which variables they make binary, and whether those can be trained."""

import copy
from typing import Any

import tensorflow as tf


def is_binary(variable: Any) -> bool:
    """Whether larq marked a variable as 1-bit; replicas under tf.distribute lack the mark."""
    return getattr(variable, "precision", None) == 1


def layer_name(variable: Any) -> str:
    """The layer that a variable belongs to, by its name: `block/conv` of `block/conv/kernel:0`."""
    return variable.name.rsplit("/", 1)[0]


def check_trainable(variable: Any) -> None:
    """Refuses a quantizer whose pseudo-gradient at ±1, where binary weights live, is not positive.

    Raises:
        ValueError: It is zero, so that the weights would never flip, or negative.
    """
    quantizer = getattr(variable, "quantizer", None)
    if quantizer is None:
        return
    gradient = _pseudo_gradient(quantizer, rank=len(variable.shape))
    if gradient <= 0.0:
        effect = "never flip" if gradient == 0.0 else "flip the wrong way"
        raise ValueError(
            f"the weights of layer '{layer_name(variable)}' would {effect}: they are exactly ±1, "
            f"and there the pseudo-gradient of their quantizer is {gradient:g}. Convert the model "
            "with larq_filters.conversion.to_latent_free(model), or give the layer a kernel "
            "quantizer such as 'ste_sign' or larq.quantizers.NoOp(precision=1). Received: kernel "
            f"quantizer '{name(quantizer)}'"
        )


def name(quantizer: Any) -> str:
    """What to call a quantizer, which may be a layer or any callable."""
    return str(getattr(quantizer, "name", None) or getattr(quantizer, "__name__", quantizer))


def fresh(quantizer: Any) -> Any:
    """The same quantizer without its metrics: calling a layer's own would build or update them."""
    if not isinstance(quantizer, tf.keras.layers.Layer):
        return quantizer
    return type(quantizer).from_config(copy.deepcopy(quantizer.get_config()))


def _pseudo_gradient(quantizer: Any, rank: int) -> float:
    """The smaller of the pseudo-gradients at −1 and +1."""
    quantizer = fresh(quantizer)

    @tf.function(
        autograph=False
    )  # not a tape: optimizers build in an init_scope, which pauses tapes
    def gradients() -> list[tf.Tensor | None]:
        weights = tf.reshape([-1.0, 1.0], [2] + [1] * (rank - 1))
        return tf.gradients(quantizer(weights), weights)

    (gradient,) = gradients()
    return 0.0 if gradient is None else float(tf.reduce_min(gradient))
