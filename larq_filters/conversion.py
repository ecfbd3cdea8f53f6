"""Converts larq models with latent weights to models without."""

import dataclasses
import warnings
from typing import Any, NamedTuple

from larq_filters import _layers, recipes
from larq_filters._warnings import warn
from larq_filters.optimizers import FilteredFlip, LatentSGD

import larq as lq
import numpy as np
import tensorflow as tf

__all__ = ["continue_from_latent", "to_latent_free"]


class _Latent(NamedTuple):
    """A binary kernel of a layer, by the layer's attributes that belong to it."""

    layer: tf.keras.layers.Layer
    variable: str
    quantizer: str
    constraint: str


def to_latent_free(model: tf.keras.Model) -> tf.keras.Model:
    """Returns the same network without latent weights: its binary kernels are ±1.

    Each binary kernel w becomes sign(w), with sign(0) = +1, a `larq.quantizers.NoOp(precision=1)`
    as quantizer and no constraint. Architecture, names, shared layers, real weights and input
    quantizers stay. Predictions stay, too, unless a kernel quantizer scales its output.

    A `FilteredFlip` that trains the new model keeps its bits at first: `inertia` says how long.

    Args:
        model: A Sequential or functional larq model, or a model of a class that Keras can make from
            its config. larq layers may be inside layers of your own. It is not changed.

    Returns:
        The new model, not compiled.

    Raises:
        TypeError: `model` is not a Keras 2 model.
        ValueError: `model` cannot be cloned (as by `tf.keras.models.clone_model`), or a kernel
            quantizer does not return a scale times the sign, such as `ste_heaviside`.

    Warns:
        UserWarning: A kernel quantizer scales its output (`magnitude_aware_sign`). The new kernel
            has no scale, so predictions differ until training adapts the next layer, usually a
            batch norm.
        UserWarning: A binary kernel has a regularizer. It stays, and pushes every bit to flip.
        UserWarning: A layer of your own makes larq layers in its code. When it is saved and loaded,
            that code makes latent kernels again. They hold the same ±1.

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
    clone = _layers.clone(model)
    for kernel in _binary_kernels(clone):
        _drop_latent(kernel)
    _layers.warn_of_regularizers(clone)
    _check_config(clone)
    return clone


def continue_from_latent(model: tf.keras.Model) -> tf.keras.Model:
    """Converts a larq model in the middle of training, including its optimizer's state.

    The optimizer of the binary weights becomes its equivalent filter (`recipes.from_optimizer`).
    The state of the filter comes from latent weights, momentum and step count. Real weights keep
    their optimizer and its state. After every further step, both models have the same binary
    weights, up to rounding where a latent weight is close to 0.

    Args:
        model: A larq model compiled with `tf.keras.optimizers.SGD`, `Adam` or `AdamW`, at any point
            of its training, whose kernel quantizers are 'ste_sign', usually with 'weight_clip'. It
            is not changed.

    Returns:
        The new model, compiled with a `FilteredFlip` and the same loss, metrics and settings.

    Raises:
        TypeError: Another optimizer.
        ValueError: The training cannot be converted: a model that is not compiled or has no binary
            weight, loss scaling, AMSGrad, averaged weights, variables excluded from weight decay, a
            regularizer on a binary kernel, a kernel quantizer whose gradient depends on the size of
            the weight, or constraints that differ between layers.

    Example:
        >>> binary = {"kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}
        >>> latent = tf.keras.Sequential([lq.layers.QuantDense(8, input_shape=(4,), **binary)])
        >>> latent.compile(tf.keras.optimizers.Adam(1e-2), loss="mse")
        >>> _ = latent.fit(np.eye(4), np.ones((4, 8)), epochs=3, verbose=0)
        >>> model = lqf.conversion.continue_from_latent(latent)
        >>> int(model.optimizer.iterations)
        3
    """
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        raise ValueError(
            "continue_from_latent needs a model with an optimizer. Compile the model first, or use "
            f"to_latent_free. Received: model '{getattr(model, 'name', model)}', not compiled"
        )
    if isinstance(optimizer, tf.keras.mixed_precision.LossScaleOptimizer):
        raise ValueError(
            "the state of loss scaling cannot be converted. Use the policy float32 or "
            "mixed_bfloat16. Received: a LossScaleOptimizer"
        )
    if isinstance(optimizer, LatentSGD):
        raise TypeError(
            "continue_from_latent takes a model that SGD, Adam or AdamW trains as a whole. Convert "
            "this one with to_latent_free, and train it by FilteredFlip(filter=recipes.recipe_of("
            "optimizer).filter, real_optimizer=optimizer.real_optimizer). Received: LatentSGD"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the filter does not clip")  # it is passed on
        recipe = recipes.recipe_of(optimizer)
    recipe = dataclasses.replace(recipe, clip=_check_latent(model, _binary_kernels(model)))

    new_model = to_latent_free(model)
    config = optimizer.get_config()
    clipping = {name: config.pop(name) for name in ("clipnorm", "clipvalue", "global_clipnorm")}
    new = FilteredFlip(
        filter=recipe.filter,
        real_optimizer=type(optimizer).from_config(config),
        **clipping,
    )
    compiled = model._get_compile_args()
    given = model.get_compile_config() or {}
    compiled |= {name: given.get(name) for name in ("steps_per_execution", "jit_compile")}
    new_model.compile(**{**compiled, "optimizer": new}, run_eagerly=model._run_eagerly)
    optimizer.build(model.trainable_variables)  # if it has not trained yet
    new.build(new_model.trainable_variables)
    new.iterations.assign(optimizer.iterations)
    names = ("momentums",) if isinstance(recipe, recipes.SGD) else ("_momentums", "_velocities")
    for latent, variable in zip(
        model.trainable_variables, new_model.trainable_variables, strict=True
    ):
        moments = [_moments(optimizer, name, latent) for name in names]
        if not _layers.is_binary(latent):
            for name, moment in zip(names, moments, strict=True):
                _moments(new.real_optimizer, name, variable).assign(moment)
            continue
        if isinstance(recipe, recipes.SGD):
            state = recipe.state(_latent(latent), moments[0])
        else:
            steps = int(tf.keras.backend.get_value(optimizer.iterations))
            state = recipe.state(_latent(latent), *moments, steps=steps)
        for slot, value in state.items():
            new.slots(variable)[slot].assign(value)
    return new_model


def _moments(optimizer: Any, name: str, variable: tf.Variable) -> tf.Variable:
    return getattr(optimizer, name)[optimizer._index_dict[optimizer._var_key(variable)]]


def _check_latent(model: tf.keras.Model, kernels: list["_Latent"]) -> float | None:
    """The bound of the latent weights. Refuses what has no equivalent filter."""
    if not kernels:
        raise ValueError(f"there is no binary kernel to convert. Received: model '{model.name}'")
    clips = []
    for layer, _, quantizer_name, constraint_name in kernels:
        constraint = getattr(layer, constraint_name)
        if constraint is not None and not isinstance(constraint, lq.constraints.WeightClip):
            raise ValueError(
                f"the {constraint_name} of layer '{layer.name}' cannot be converted. Only larq's "
                f"weight_clip has an equivalent filter. Received: {type(constraint).__name__}"
            )
        clip = None if constraint is None else float(constraint.clip_value)
        regularizer = constraint_name.replace("constraint", "regularizer")
        if getattr(layer, regularizer, None) is not None:
            raise ValueError(
                f"the {regularizer} of layer '{layer.name}' cannot be converted. Its gradient "
                "depends on the latent weight. Use the optimizer's weight_decay instead. "
                f"Received: {type(getattr(layer, regularizer)).__name__}"
            )
        quantizer = getattr(layer, quantizer_name)
        bound = clip or 1e3
        points = [sign * share * bound for share in (1e-3, 0.3, 0.7, 1.0) for sign in (-1, 1)]
        outputs, gradients = _layers.probe(quantizer, points, rank=2)
        if not ((outputs == np.sign(points)).all() and (gradients == 1.0).all()):
            raise ValueError(
                f"the {quantizer_name} of layer '{layer.name}' cannot be converted. Its "
                "gradient depends on the size of the latent weight. Use 'ste_sign' with the "
                "constraint 'weight_clip', or larq.quantizers.SteSign(clip_value=None). "
                f"Received: {_layers.name(quantizer)} with weights within ±{bound:g}"
            )
        clips.append((f"{layer.name}.{constraint_name}", clip))
    if len({clip for _, clip in clips}) > 1:
        raise ValueError(
            "one filter trains all binary kernels, but their constraints differ. Give all the same "
            f"weight_clip. Received: {dict(clips)}"
        )
    return clips[0][1]


def _binary_kernels(model: tf.keras.Model) -> list[_Latent]:
    return [_Latent(layer, *names) for layer, names in _layers.binary_kernels(model)]


def _check_quantizers(kernels: list[_Latent]) -> None:
    """Refuses quantizers that do not return a scale times the sign. Warns of scales."""
    scaled = []
    for layer, variable, quantizer, _ in kernels:
        kernel = getattr(layer, variable, None)
        if kernel is None or isinstance(getattr(layer, quantizer), lq.quantizers.NoOp):
            continue
        latent = _latent(kernel)
        scale = np.asarray(_layers.fresh(getattr(layer, quantizer))(latent)) * _sign(latent)
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            raise ValueError(
                f"the kernel quantizer of layer '{layer.name}' does not return a scale "
                "times the sign of the weight, so ±1 cannot replace the weight. Use a quantizer "
                "such as 'ste_sign'. Received: "
                f"{quantizer}={_layers.name(getattr(layer, quantizer))}"
            )
        if not (scale == 1.0).all():
            scaled.append(layer.name)
    if scaled:
        warn(
            "some kernel quantizers scale their output, but the new kernels are ±1 without a "
            "scale. Predictions differ until training adapts the next layers. Received: "
            f"layers {scaled}",
        )


def _drop_latent(kernel: _Latent) -> None:
    layer, variable_name, quantizer_name, constraint_name = kernel
    quantizer = lq.quantizers.NoOp(precision=1)
    setattr(layer, quantizer_name, quantizer)
    setattr(layer, constraint_name, None)
    variable = getattr(layer, variable_name, None)
    if variable is None:  # not built yet: it will be with the new quantizer
        return
    variable.quantizer = quantizer
    variable.assign(_sign(_latent(variable)))
    strategy = tf.distribute.get_strategy()
    for replica in strategy.experimental_local_results(variable.latent_variable):
        # Under mixed precision, one deeper.
        getattr(replica, "_variable", replica)._constraint = None


def _latent(kernel: Any) -> np.ndarray:
    # Outside of larq's quantized_scope, it is the latent value.
    return tf.convert_to_tensor(kernel).numpy()


def _sign(weights: np.ndarray) -> np.ndarray:
    return np.where(weights < 0, -1, 1).astype(weights.dtype)


def _check_config(model: tf.keras.Model) -> None:
    """Warns of kernels that the model's config makes latent again."""
    again = _layers.clone(model)
    latent = [
        k
        for k in _binary_kernels(again)
        if not isinstance(getattr(k.layer, k.quantizer), lq.quantizers.NoOp)
    ]
    if latent:
        warn(
            "the code of another layer sets some kernel quantizers. This model has no latent "
            "weights, but a copy of it, for instance saved and loaded, has latent kernels with the "
            "same ±1. "
            f"Received: layers {[kernel.layer.name for kernel in latent]}",
        )
