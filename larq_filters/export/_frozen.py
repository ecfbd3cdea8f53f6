"""An uncompiled clone of a model whose kernels hold what they are quantized to."""

import dataclasses
from typing import Any

from larq_filters import _layers

import larq as lq
import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A kernel of the clone.

    Args:
        layer: The layer that it belongs to.
        attribute: Its name there.
        precision: The bits that its quantizer asks for, 32 without one.
        values: What it is quantized to, in the shape that the layer keeps it.
    """

    layer: Any
    attribute: str
    precision: int
    values: np.ndarray


def freeze(model: tf.keras.Model) -> tuple[tf.keras.Model, list[Kernel]]:
    """The clone, and its kernels; `check_clone` compares it with the model.

    Args:
        model: The model.

    Raises:
        ValueError: The model cannot be cloned, or a binary kernel is not ± one scale per channel.
    """
    try:
        clone = _layers.clone(model)
    except ValueError as error:
        raise ValueError(
            f"export works on a clone, and model '{model.name}' cannot be cloned. Give its class "
            "and its layers a get_config and a from_config, and register functions that are "
            "quantizers with larq.utils.register_keras_custom_object. Received: "
            f"{error.__cause__ or error}"
        ) from error
    kernels, seen = [], set()
    for layer in clone._flatten_layers():
        for attribute, quantizer_name, _ in _layers.KERNELS:
            variable = getattr(layer, attribute, None)
            if not isinstance(variable, tf.Variable) or id(variable) in seen:
                continue
            seen.add(id(variable))
            quantizer = getattr(variable, "quantizer", None)
            values = tf.convert_to_tensor(variable).numpy()  # the latent ones
            if quantizer is not None:
                values = np.asarray(_layers.fresh(quantizer)(values))
                _keep(layer, variable, quantizer_name, values)
            precision = getattr(variable, "precision", None) or 32
            kernel = Kernel(layer, attribute, precision, values)
            if precision == 1:
                _check_kernel(kernel, quantizer)
            kernels.append(kernel)
    return clone, kernels


def check_clone(model: tf.keras.Model, clone: tf.keras.Model, structure: Any) -> None:
    """Refuses a clone with other outputs: its config does not say all that the model computes.

    Args:
        model: The model.
        clone: Its clone.
        structure: That of its input, of tensors or specs.
    """
    rng = np.random.default_rng(0)
    specs = tf.nest.flatten(structure)
    values = [
        tf.cast(rng.normal(size=[1, *s.shape[1:]]) * (2 if s.dtype.is_floating else 0), s.dtype)
        for s in specs
    ]
    inputs = tf.nest.pack_sequence_as(structure, values)
    one, two = (tf.nest.flatten(m(inputs, training=False)) for m in (model, clone))
    for a, b in zip(one, two, strict=True):
        if not np.allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(a).max(initial=0), equal_nan=True):
            raise ValueError(
                "the clone that export works on has other outputs. Give every layer of your "
                "own a get_config that holds all its arguments. Received: model "
                f"'{model.name}', and outputs that differ by {np.abs(a - b).max():.3g}"
            )


def _keep(layer: Any, variable: Any, quantizer_name: str, values: np.ndarray) -> None:
    """Makes a kernel hold what it is quantized to, so that this is what the file gets."""
    quantizer = lq.quantizers.NoOp(precision=variable.precision)
    if hasattr(layer, quantizer_name):
        setattr(layer, quantizer_name, quantizer)
    variable.quantizer = quantizer
    variable.assign(values)


def _check_kernel(kernel: Kernel, quantizer: Any) -> None:
    """Refuses a binary kernel that is not ± one positive scale per output channel."""
    magnitudes = np.abs(kernel.values).reshape(-1, kernel.values.shape[-1])
    good = np.isfinite(magnitudes) & (magnitudes > 0.0) & (magnitudes == magnitudes[:1])
    if good.all():
        return
    bad = int(np.argmin(good))
    received = kernel.values.reshape(magnitudes.shape).ravel()[bad]
    if isinstance(quantizer, lq.quantizers.NoOp):
        way_out = (
            "train it with a FilteredFlip, which makes and keeps it ±1, or make it ±1 with "
            "layer.set_weights"
        )
    else:
        way_out = "give the layer a kernel quantizer such as 'ste_sign'"
    raise ValueError(
        f"the {kernel.attribute} of layer '{kernel.layer.name}' asks for 1 bit and is not ±1, nor "
        "± one scale per output channel, so it would silently become a float layer. "
        f"{way_out[0].upper()}{way_out[1:]}. Received: {int((~good).sum())} of {good.size} weights "
        f"off, the first of them {received:g}, with quantizer '{_layers.name(quantizer)}'"
    )
