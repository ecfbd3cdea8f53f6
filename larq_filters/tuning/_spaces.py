"""The spaces that a search looks through."""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from larq_filters._numbers import Coefficient, whole_number
from larq_filters.optimizers import FilteredFlip
from larq_filters.recipes import SGD

import tensorflow as tf

_FASTEST = 0.1  # α of a filter that remembers ten steps
_QUARTER = 10**0.25  # of a decade
_REAL_RATE = 1e-2
_DECAYS = {"linear": 1.0, "quadratic": 2.0, "cosine": None}  # powers of polynomials
Real: TypeAlias = tf.keras.optimizers.Optimizer | str | Mapping[str, Any]


def filtered_flip(
    hp: Any, *, steps: int, real_optimizer: Real | None = None, inertia: float | None = None
) -> FilteredFlip:
    r"""A `FilteredFlip` with its three hyperparameters, declared for a search.

    - `alpha`, on a log scale from 1/`steps` to 0.1. A gradient counts for about 1/α steps. Below
      1/`steps`, the filter is a plain sum of all gradients, whatever α is. Above 0.1, it follows
      the noise of single batches.
    - `gamma`, on a log scale from 0.01 to 1 in quarters of a decade. The filter first smooths
      gradients over 1/γ steps, at most 100. More adds nothing, because constant α and γ can be
      exchanged. γ = 1 does not smooth: it is the first-order filter, `EMA(alpha)`.
    - `alpha_decay`: α stays "constant", or decays to 0 over `steps`: "linear", "quadratic" as
      `FilteredFlip(decay_steps=)` does it, or as a "cosine".

    Args:
        hp: KerasTuner's hyperparameters, as a model-building function gets them.
        steps: Steps of a whole training, batches times epochs, 20 or more. With `Hyperband`, steps
            of `max_epochs`.
        real_optimizer: A Keras optimizer, its name or its config, for all variables that are not
            binary. None: Adam, whose learning rate decays linearly from 1e-2 to 0 over `steps`, as
            with `FilteredFlip(decay_steps=)`. Each trial gets its own copy of an optimizer.
        inertia: As for `FilteredFlip`.

    Returns:
        The optimizer of this trial.

    Raises:
        ValueError: `steps` is not a whole number from 20 on.

    Example:
        >>> hp = lqf.tuning.HyperParameters()
        >>> optimizer = lqf.tuning.filtered_flip(hp, steps=10_000)
        >>> [(p.name, p.min_value, p.max_value) for p in hp.space[:2]]
        [('alpha', 0.0001, 0.1), ('gamma', 0.01, 1.0)]
        >>> hp.values.update(gamma=1.0, alpha_decay="constant")
        >>> lqf.tuning.filtered_flip(hp, steps=10_000).filter
        EMA(alpha=0.01)
    """
    steps = _check_steps(steps)
    slowest = 1.0 / steps
    alpha = hp.Float("alpha", slowest, _FASTEST, sampling="log", default=max(1e-2, slowest))
    gamma = hp.Float("gamma", 0.01, 1.0, sampling="log", step=_QUARTER, default=0.1)
    decay = hp.Choice("alpha_decay", ["constant", *_DECAYS], default="linear")
    return FilteredFlip(
        alpha=_decayed(alpha, decay, steps),
        gamma=None if gamma > 0.99 else gamma,
        inertia=inertia,
        real_optimizer=_real(real_optimizer, steps),
    )


class LatentRecipe(NamedTuple):
    """The result of `latent_sgd`: the optimizer, and the arguments of the binary layers.

    Attributes:
        optimizer: SGD on the latent weights, the real optimizer on all others.
        kernel: `kernel_quantizer`, `kernel_initializer` and `kernel_constraint`, as arguments of
            larq's layers or of a network of `larq_filters.models`.

    Example:
        >>> recipe = lqf.tuning.latent_sgd(lqf.tuning.HyperParameters(), steps=1000)
        >>> layer = lq.layers.QuantConv2D(8, 3, input_quantizer="ste_sign", **recipe.kernel)
        >>> recipe.kernel["kernel_constraint"]
        'weight_clip'
    """

    optimizer: tf.keras.optimizers.Optimizer
    kernel: dict[str, Any]


def latent_sgd(hp: Any, *, steps: int, real_optimizer: Real | None = None) -> LatentRecipe:
    """SGD on latent weights with its seven hyperparameters, to compare `filtered_flip` with.

    - `initial_scale`, on a log scale from 0.1 to 10: times Glorot's normal distribution.
    - `learning_rate`, on a log scale from 1e-3 to 1.
    - `learning_rate_decay`: "constant", or over `steps` to 0, "linear" or as a "cosine".
    - `weight_decay`, decoupled, on a log scale from 1e-6 to 0.1.
    - `momentum`: 1 − momentum on a log scale from 0.01 to 1 in quarters of a decade, as `gamma` of
      `filtered_flip`.
    - `clipping`: whether latent weights are held within ±1, larq's `weight_clip`.
    - `scaling`: whether each output channel is scaled by the mean magnitude of its latent weights
      (XNOR-Net), larq's `magnitude_aware_sign`.

    Learning rate times weight decay is the α of `filtered_flip`. The ranges cover α from 1e-9,
    which forgets nothing, to 0.1.

    Args:
        hp: KerasTuner's hyperparameters, as a model-building function gets them.
        steps: Steps of a whole training, batches times epochs, 20 or more.
        real_optimizer: As for `filtered_flip`.

    Returns:
        The optimizer of this trial, and the arguments of its binary layers.

    Raises:
        ValueError: `steps` is not a whole number from 20 on.

    Example:
        >>> hp = lqf.tuning.HyperParameters()
        >>> model = lqf.models.BiRealNet20(
        ...     width=4, **lqf.tuning.latent_sgd(hp, steps=1000).kernel
        ... )
        >>> len(hp.values)
        7
    """
    steps = _check_steps(steps)
    scale = hp.Float("initial_scale", 0.1, 10.0, sampling="log", default=1.0)
    rate = hp.Float("learning_rate", 1e-3, 1.0, sampling="log", default=0.1)
    decay = hp.Choice("learning_rate_decay", ["constant", "linear", "cosine"], default="linear")
    weight_decay = hp.Float("weight_decay", 1e-6, 0.1, sampling="log", default=1e-4)
    momenta = [round(1.0 - 0.01 * _QUARTER**i, 4) for i in range(9)]
    momentum = hp.Choice("momentum", momenta, ordered=True, default=0.9)
    clipping = hp.Boolean("clipping", default=True)
    scaling = hp.Boolean("scaling")
    recipe = SGD(_decayed(rate, decay, steps), momentum, weight_decay)
    return LatentRecipe(
        recipe.optimizer(_real(real_optimizer, steps)),
        {
            "kernel_quantizer": "magnitude_aware_sign" if scaling else "ste_sign",
            # As a config: an initializer shared by layers would give all the same numbers.
            "kernel_initializer": {
                "class_name": "VarianceScaling",
                "config": {"scale": scale**2, "mode": "fan_avg"},
            },
            "kernel_constraint": "weight_clip" if clipping else None,
        },
    )


def _check_steps(steps: Any) -> int:
    meaning = (
        "the number of steps of a whole training, batches times epochs: a whole number from 20 on"
    )
    return whole_number("steps", steps, least=20, meaning=meaning)


def _decayed(value: float, decay: str, steps: int) -> Coefficient:
    schedules = tf.keras.optimizers.schedules
    if decay == "cosine":
        return schedules.CosineDecay(value, steps)
    if decay in _DECAYS:
        return schedules.PolynomialDecay(value, steps, 0.0, power=_DECAYS[decay])
    return value


def _real(real_optimizer: Real | None, steps: int) -> Real:
    """An optimizer trains one model only, and each trial has its own."""
    if real_optimizer is None:
        return tf.keras.optimizers.Adam(_decayed(_REAL_RATE, "linear", steps))
    if isinstance(real_optimizer, tf.keras.optimizers.Optimizer):
        return type(real_optimizer).from_config(real_optimizer.get_config())
    return real_optimizer
