"""The filter that α, γ and `decay_steps` stand for, and the Adam that goes with it."""

import numbers
from collections.abc import Mapping
from typing import Any

from larq_filters._numbers import Coefficient, Schedule, call, number, share, whole_number
from larq_filters.filters import EMA, CascadedEMA, Filter
from larq_filters.optimizers import _feedback
from larq_filters.optimizers._partition import ALL, Partition
from larq_filters.optimizers._schedules import InverseSquareRootDecay

import tensorflow as tf

_ALPHA, _HALVED = 1e-2, 200  # without an end α_t = 1e-2/(1 + t/200)
_REAL_STEPS = 390  # and the rate of real weights is 1e-2/√(1 + t/390)


class Default(float):
    """A default that can be told apart from the same number given by the user."""


def flip_ratio_of(value: Any, alpha: Any, decay_steps: Any) -> Coefficient | None:
    """A number in (0, 0.5], which `decay_steps` lets decay linearly, or a schedule; or None."""
    if value is None:
        return None
    if alpha is not None:
        raise ValueError(
            "flip_ratio finds alpha: give one of them. "
            f"Received: flip_ratio={call(value)}, alpha={call(alpha)}"
        )
    ratio = number("flip_ratio", value)
    _feedback.first(ratio)
    return decayed("flip_ratio", ratio, decay_steps, power=1.0)


def filters_of(
    filter: Any, alpha: Any, gamma: Any, decay_steps: int | None, ratio: Coefficient | None
) -> Partition:
    """The filter or filters that were given, or that of the coefficients that were."""
    if ratio is not None:
        decay_steps = None  # that of the flip ratio
    if isinstance(filter, Partition):
        return filter
    if isinstance(filter, Mapping):
        for key, value in filter.items():
            _check_entry(key, value)
        if ALL not in filter:
            return Partition({**filter, ALL: filter_of(None, alpha, gamma, decay_steps, ratio)})
    if filter is not None and (both := _given(alpha=alpha, gamma=gamma, decay_steps=decay_steps)):
        raise ValueError(
            "`filter` replaces `alpha`, `gamma` and `decay_steps`: give either the filter, which "
            f"may have schedules, or these. Received: filter={filter}, {both}"
        )
    if isinstance(filter, Mapping):
        return Partition(filter)
    return Partition({ALL: filter_of(filter, alpha, gamma, decay_steps, ratio)})


def filter_of(
    filter: Any, alpha: Any, gamma: Any, decay_steps: int | None, ratio: Coefficient | None
) -> Filter:
    """The filter that was given, or that of the coefficients that were."""
    if filter is None:
        if ratio is not None:
            second = gamma(0) if isinstance(gamma, Schedule) else gamma
            alpha = _feedback.alpha_of_noise(_feedback.first(ratio), second)
        if alpha is None and decay_steps is None:
            alpha = tf.keras.optimizers.schedules.InverseTimeDecay(_ALPHA, _HALVED, 1.0)
        alpha = decayed("alpha", _ALPHA if alpha is None else alpha, decay_steps)
        return EMA(alpha) if gamma is None else CascadedEMA(alpha, gamma)
    if not isinstance(filter, Filter):
        raise TypeError(
            "filter is an instance of a class in larq_filters.filters, such as "
            "larq_filters.filters.EMA(0.01), or a mapping from layers to such. "
            f"Received: filter={filter!r}"
        )
    return filter


def _check_entry(key: Any, value: Any) -> None:
    names = (key,) if isinstance(key, str) else key
    is_names = isinstance(names, tuple) and names and all(isinstance(n, str) for n in names)
    if not is_names and not callable(key):
        raise TypeError(
            "filter: a key is the name of a layer, a pattern such as 'block_*', a tuple of them, "
            f"a layer, or a function of a variable. Received: {key!r}"
        )
    if value is not None and not isinstance(value, Filter):
        raise TypeError(
            "filter: a value is an instance of a class in larq_filters.filters, or None for layers "
            f"whose binary weights are not trained. Received: {key!r}: {value!r}"
        )


def _given(**arguments: Any) -> str:
    """The arguments that were given explicitly."""
    return ", ".join(
        f"{name}={value}"
        for name, value in arguments.items()
        if not isinstance(value, Default) and (value is not None or name == "gamma")
    )


def decayed(name: str, value: Any, steps: Any, power: float = 2.0) -> Any:
    """A number as the schedule that takes it to 0 over so many steps, if there are any."""
    if steps is None:
        return value
    meaning = (
        "the number of steps of the whole training, epochs times steps per epoch: a whole number "
        "from 1 on, or None"
    )
    is_number = isinstance(steps, numbers.Real) and not isinstance(steps, bool)
    if is_number and float(steps).is_integer():  # such as epochs * images / batch_size
        steps = int(float(steps))
    steps = whole_number("decay_steps", steps, least=1, meaning=meaning)
    if isinstance(value, Schedule):
        raise ValueError(
            f"`{name}` has a schedule, which decay_steps would replace: give one of them. "
            f"Received: {name}={call(value)}, decay_steps={steps}"
        )
    return tf.keras.optimizers.schedules.PolynomialDecay(
        share(name, value), steps, end_learning_rate=0.0, power=power
    )


def adam_beside(
    filter: Any, alpha: Any, flip_ratio: Any, decay_steps: Any
) -> tf.keras.optimizers.Optimizer:
    """Adam with a rate that starts like alpha, at 1e-2 at most, and decays with it."""
    is_free = filter is None or (isinstance(filter, Mapping) and ALL not in filter)
    if not is_free or isinstance(alpha, Schedule) or isinstance(flip_ratio, Schedule):
        return tf.keras.optimizers.Adam()
    start = _ALPHA if alpha is None else min(float(alpha), _ALPHA)
    if decay_steps is not None:
        rate = tf.keras.optimizers.schedules.PolynomialDecay(start, decay_steps, 0.0)
    else:
        rate = start if alpha is not None else InverseSquareRootDecay(start, _REAL_STEPS)
    return tf.keras.optimizers.Adam(rate)
