"""larq's layers: which variables are binary and can be trained, their names, and clones."""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

from larq_filters._warnings import warn

import numpy as np
import tensorflow as tf


class KernelNames(NamedTuple):
    """A layer's attributes that belong to one of its kernels."""

    kernel: str
    quantizer: str
    constraint: str


KERNELS = (
    KernelNames("kernel", "kernel_quantizer", "kernel_constraint"),
    KernelNames("depthwise_kernel", "depthwise_quantizer", "depthwise_constraint"),
    KernelNames("pointwise_kernel", "pointwise_quantizer", "pointwise_constraint"),
    KernelNames("recurrent_kernel", "recurrent_quantizer", "recurrent_constraint"),
)

BATCH_NORMS = (
    tf.keras.layers.BatchNormalization,
    tf.keras.layers.experimental.SyncBatchNormalization,  # which is no subclass of it
)


def is_binary(variable: Any) -> bool:
    """Whether larq marked a variable as 1-bit; replicas under tf.distribute lack the mark."""
    return getattr(variable, "precision", None) == 1


def warn_of_regularizers(model: tf.keras.Model) -> None:
    """Warns where a regularizer pulls at binary weights; an optimizer alone does not see it."""
    layers = [
        layer.name
        for layer, names in binary_kernels(model)
        if getattr(layer, names.constraint.replace("constraint", "regularizer"), None)
    ]
    if layers:
        warn(
            "a regularizer on a binary kernel pushes every bit to flip, as ±1 cannot shrink: leave "
            f"it out. Received: a kernel regularizer in the layers {layers}"
        )


def binary_kernels(
    model: tf.keras.Model,
) -> list[tuple[tf.keras.layers.Layer, KernelNames]]:
    """The layers with a 1-bit kernel quantizer, once for each of these; also before `build`."""
    return [
        (layer, names)
        for layer in model._flatten_layers()
        for names in KERNELS
        if getattr(getattr(layer, names.quantizer, None), "precision", None) == 1
    ]


def layer_name(variable: Any) -> str:
    """The layer that a variable belongs to, by its name: `block/conv` of `block/conv/kernel:0`."""
    return variable.name.rsplit("/", 1)[0]


def layer_names(model: tf.keras.Model) -> list[tuple[tf.Variable, str]]:
    """The trainable variables, each with the name of the innermost layer that has it."""
    if not model.built:
        return []
    names = {}
    for layer in model._flatten_layers():  # outer layers first
        names.update({id(variable): layer.name for variable in layer.trainable_variables})
    return [(variable, names[id(variable)]) for variable in model.trainable_variables]


def margins(
    model: tf.keras.Model, optimizer: Any
) -> dict[tuple[str, str], tuple[np.ndarray, float]]:
    """By layer and kernel, θ·y of its weights, and the root mean square of the filter's output y.

    A weight flips where θ·y > τ. Of kernels that a FilteredFlip trains by a filter with state.
    """
    found = {}
    for variable, layer in layer_names(model):
        output = optimizer.output(variable)
        if output is None:
            continue
        y = np.asarray(output, "float64").ravel()
        weights = tf.convert_to_tensor(variable).numpy().ravel()
        kernel = variable.name.rsplit("/", 1)[-1].split(":")[0]
        scale = float(np.sqrt(np.mean(y**2))) or 1.0
        found[layer, kernel] = np.where(weights < 0, -y, y), scale
    return found


def check_trainable(variable: Any) -> None:
    """Refuses a quantizer whose pseudo-gradient at ±1, where binary weights live, is not positive.

    Raises:
        ValueError: It is zero, so that the weights would never flip, or negative.
    """
    quantizer = getattr(variable, "quantizer", None)
    if quantizer is None:
        return
    _, gradients = probe(quantizer, [-1.0, 1.0], rank=len(variable.shape))
    gradient = gradients.min()
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


def probe(quantizer: Any, weights: Sequence[float], rank: int) -> tuple[np.ndarray, np.ndarray]:
    """What a kernel quantizer makes of some weights, and its pseudo-gradient at each."""
    quantizer = fresh(quantizer)

    # Not a tape: optimizers build in an init_scope, which pauses tapes.
    @tf.function(autograph=False)
    def run() -> tuple[tf.Tensor, tf.Tensor]:
        x = tf.reshape(tf.constant(weights, tf.float32), [len(weights)] + [1] * (rank - 1))
        y = quantizer(x)
        (gradient,) = tf.gradients(y, x)
        return y, tf.zeros_like(x) if gradient is None else gradient

    # Called itself, it would be counted as another retracing, of which TensorFlow warns.
    outputs, gradients = run.get_concrete_function()()
    return outputs.numpy().ravel(), gradients.numpy().ravel()


def clone(model: tf.keras.Model) -> tf.keras.Model:
    try:
        if isinstance(model, tf.keras.Sequential) or model._is_graph_network:
            copied = tf.keras.models.clone_model(model, clone_function=_clone_layer)
        else:
            copied = _clone_layer(model)
        if model.built:
            if not copied.built:
                copied.build(model._build_input_shape)
        _freeze_as(model, copied)
        if model.built:
            copied.set_weights(model.get_weights())
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"model '{model.name}' cannot be cloned: give its class and its layers a get_config "
            "and a from_config, register functions that are quantizers with "
            "larq.utils.register_keras_custom_object, or make it with kernel quantizers "
            "larq.quantizers.NoOp(precision=1) in the first place. Received: "
            f"{type(error).__name__}: {error}"
        ) from error
    return copied


def _freeze_as(model: tf.keras.Model, copied: tf.keras.Model) -> None:
    """Freezes what is frozen in the model: configs say it of outer layers only.

    The order of weights depends on it, as frozen ones come last in the layer that holds them.
    """
    ones, others = (
        [layer for layer in m._flatten_layers() if not m.built or layer.weights]
        for m in (model, copied)
    )
    for one, other in zip(ones, others, strict=True):  # outer layers first, which set inner ones
        other.trainable = one.trainable


def _clone_layer(layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer:
    """A layer of the same config, sharing no layer with the first where its config holds some."""

    def deep(value: Any) -> Any:
        return _clone_layer(value) if isinstance(value, tf.keras.layers.Layer) else value

    return type(layer).from_config(tf.nest.map_structure(deep, layer.get_config()))
