"""Latent-weight larq models to latent-free ones."""

import warnings
from typing import Any, NamedTuple

from larq_filters import _quantizers

import larq as lq
import numpy as np
import tensorflow as tf

__all__ = ["to_latent_free"]


class _Kernel(NamedTuple):
    """A binary kernel of a larq layer: which of the layer's attributes belong to it."""

    layer: tf.keras.layers.Layer
    variable: str
    quantizer: str
    constraint: str


_ATTRIBUTES = (
    ("kernel", "kernel_quantizer", "kernel_constraint"),
    ("depthwise_kernel", "depthwise_quantizer", "depthwise_constraint"),
    ("pointwise_kernel", "pointwise_quantizer", "pointwise_constraint"),
)


def to_latent_free(model: tf.keras.Model) -> tf.keras.Model:
    """The same network without latent weights: binary kernels hold ±1 and nothing else.

    Each binary kernel w becomes sign(w), with sign(0) = +1, a `larq.quantizers.NoOp(precision=1)`
    as quantizer and no constraint. All else is as it was: architecture, names, shared layers, real
    weights, input quantizers. Where no kernel quantizer scales its output, so are the predictions.

    Args:
        model: A Sequential or functional larq model, or one whose class can be made from its
            config; larq layers may sit inside layers of your own. It is left as it was.

    Returns:
        The new model, not compiled.

    Raises:
        TypeError: `model` is not a Keras 2 model.
        ValueError: `model` cannot be cloned (as by `tf.keras.models.clone_model`), or a kernel
            quantizer has other outputs than a scale times the sign, such as `ste_heaviside`.

    Warns:
        UserWarning: A kernel quantizer scales its output (`magnitude_aware_sign`): the new kernel
            has no scale, so predictions differ until training adapts what follows, usually a batch
            norm.
        UserWarning: A layer of your own makes larq layers in its code: saved and loaded again, that
            code makes the latent kernels anew, which hold the same ±1.

    Example:
        >>> latent = tf.keras.Sequential([
        ...     lq.layers.QuantDense(8, kernel_quantizer="ste_sign", input_shape=(4,)),
        ... ])
        >>> model = lqf.conversion.to_latent_free(latent)
        >>> bool((model(np.eye(4)) == latent(np.eye(4))).numpy().all())
        True
    """
    if not isinstance(model, tf.keras.Model):
        raise TypeError(
            "to_latent_free takes a model of Keras 2 (tf.keras.Model). Received: "
            f"{type(model).__module__}.{type(model).__name__}"
        )
    _check_quantizers(_binary_kernels(model))
    clone = _clone(model)
    for kernel in _binary_kernels(clone):
        _drop_latent(kernel)
    _check_config(clone)
    return clone


def _clone(model: tf.keras.Model) -> tf.keras.Model:
    try:
        if isinstance(model, tf.keras.Sequential) or model._is_graph_network:
            clone = tf.keras.models.clone_model(model, clone_function=_clone_layer)
        else:
            clone = _clone_layer(model)
        if model.built:
            if not clone.built:
                clone.build(model._build_input_shape)
            clone.set_weights(model.get_weights())
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"model '{model.name}' cannot be cloned: give its class and its layers a get_config "
            "and a from_config, or make it with kernel quantizers "
            "larq.quantizers.NoOp(precision=1) in the first place. Received: "
            f"{type(error).__name__}: {error}"
        ) from error
    return clone


def _clone_layer(layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer:
    """A layer of the same config, sharing no layer with the first where its config holds some."""

    def clone(value: Any) -> Any:
        return _clone_layer(value) if isinstance(value, tf.keras.layers.Layer) else value

    return type(layer).from_config(tf.nest.map_structure(clone, layer.get_config()))


def _binary_kernels(model: tf.keras.Model) -> list[_Kernel]:
    return [
        _Kernel(layer, *names)
        for layer in model._flatten_layers()
        for names in _ATTRIBUTES
        if getattr(getattr(layer, names[1], None), "precision", None) == 1
    ]


def _check_quantizers(kernels: list[_Kernel]) -> None:
    """Refuses quantizers that are not a scale times the sign; warns of scales."""
    scaled = []
    for layer, variable, quantizer, _ in kernels:
        kernel = getattr(layer, variable, None)
        if kernel is None or isinstance(getattr(layer, quantizer), lq.quantizers.NoOp):
            continue
        latent = _latent(kernel)
        scale = np.asarray(_quantizers.fresh(getattr(layer, quantizer))(latent)) * _sign(latent)
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            raise ValueError(
                f"the kernel quantizer of layer '{layer.name}' has other outputs than a scale "
                "times the sign of the weight, which ±1 cannot stand for: use a quantizer such as "
                f"'ste_sign'. Received: {quantizer}={_quantizers.name(getattr(layer, quantizer))}"
            )
        if not (scale == 1.0).all():
            scaled.append(layer.name)
    if scaled:
        warnings.warn(
            "kernel quantizers that scale their output: the latent-free kernels are ±1 without "
            "the scale, so predictions differ until training adapts what follows. Received: "
            f"layers {scaled}",
            stacklevel=3,
        )


def _drop_latent(kernel: _Kernel) -> None:
    layer, variable_name, quantizer_name, constraint_name = kernel
    quantizer = lq.quantizers.NoOp(precision=1)
    setattr(layer, quantizer_name, quantizer)
    setattr(layer, constraint_name, None)
    variable = getattr(layer, variable_name, None)
    if variable is None:  # not built yet: it will be with the new quantizer
        return
    variable.quantizer = quantizer
    variable.assign(_sign(_latent(variable)))
    for replica in tf.distribute.get_strategy().experimental_local_results(
        variable.latent_variable
    ):
        getattr(
            replica, "_variable", replica
        )._constraint = None  # under mixed precision, one deeper


def _latent(kernel: Any) -> np.ndarray:
    return tf.convert_to_tensor(
        kernel
    ).numpy()  # outside of larq's quantized_scope: the latent value


def _sign(weights: np.ndarray) -> np.ndarray:
    return np.where(weights < 0, -1, 1).astype(weights.dtype)


def _check_config(model: tf.keras.Model) -> None:
    """Warns of kernels that the model's config makes latent again."""
    again = _clone(model)
    latent = [
        k
        for k in _binary_kernels(again)
        if not isinstance(getattr(k.layer, k.quantizer), lq.quantizers.NoOp)
    ]
    if latent:
        warnings.warn(
            "layers whose kernel quantizer is set in the code of another layer: this model is "
            "latent-free, but a copy of it, such as one that is saved and loaded, has their "
            "latent kernels back, with the same ±1. "
            f"Received: layers {[kernel.layer.name for kernel in latent]}",
            stacklevel=3,
        )
