"""Checks of arguments; each error names the value and the way out."""

import math
import numbers
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from larq_filters._filter import Coefficient, Schedule

import numpy as np
import tensorflow as tf

_NO_MAGNITUDE = {
    "learning_rate": "a binary weight has no magnitude for it to scale. Set `alpha`, which Keras' "
    "callbacks then know as `learning_rate`",
    "lr": "a binary weight has no magnitude for it to scale. Set `alpha`, which Keras' callbacks "
    "then know as `lr`",
    "weight_decay": "a binary weight has no magnitude to shrink. What it does to a latent weight "
    "is alpha = learning rate · weight decay",
    "use_ema": "an average of binary weights is not binary",
}
_TOLERANCE = 1e-12  # distance to the unit circle below which a pole counts as on it


def share(name: str, value: Any) -> Coefficient:
    """A number in (0, 1] or a schedule."""
    value = number(name, value)
    if not isinstance(value, Schedule) and not 0.0 < value <= 1.0:
        raise ValueError(
            f"{name} is a share per step and must be in (0, 1]; 1 does not filter at all. "
            f"Received: {name}={value:g}"
        )
    return value


def rate(name: str, value: Any) -> Coefficient:
    """A finite number above 0, or a schedule."""
    return value if isinstance(value, Schedule) else positive(name, value)


def positive(name: str, value: Any) -> float:
    """A finite number above 0."""
    value = number(name, value)
    if isinstance(value, Schedule):
        raise TypeError(f"{name} must be a number. Received: {name}={value!r}")
    if not 0.0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite. Received: {name}={value:g}")
    return value


def threshold(value: Any) -> Coefficient:
    """A finite number from 0 on, or a schedule."""
    value = number("threshold", value)
    if not isinstance(value, Schedule) and not 0.0 <= value < math.inf:
        raise ValueError(
            "threshold must be 0 or more and finite: below 0 every weight would flip at every "
            f"step. Received: threshold={value:g}"
        )
    return value


def current(name: str, value: float) -> float:
    """A value a coefficient may take while training: as when made, or 0 at the end of a decay."""
    if name == "threshold":
        return threshold(value)
    return value if value == 0.0 else share(name, value)


def number(name: str, value: Any) -> Coefficient:
    """A Python float or a schedule."""
    if isinstance(value, Schedule):
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"{name} must be a number or a tf.keras.optimizers.schedules.LearningRateSchedule. "
            f"Received: {name}={value!r}"
        )
    return float(value)


def section(row: Sequence[Any]) -> tuple[Coefficient, ...]:
    """A second-order section b0 b1 b2 1 a1 a2, divided by its a0."""
    b0, b1, b2, a0, a1, a2 = values = tuple(number("a coefficient", value) for value in row)
    numeric = [value for value in values if not isinstance(value, Schedule)]
    if not np.isfinite(numeric).all():
        raise ValueError(f"coefficients must be finite. Received: {list(row)}")
    if isinstance(a0, Schedule) or a0 == 0.0:
        raise ValueError(f"a0 must be a number other than 0. Received: a0={a0}")
    if a0 == 1.0:
        return values
    if len(numeric) < len(values):
        raise ValueError(f"a0 must be 1 beside a coefficient that is a schedule. Received: a0={a0}")
    return b0 / a0, b1 / a0, b2 / a0, 1.0, a1 / a0, a2 / a0


def stable(sections: Sequence[Sequence[Coefficient]]) -> None:
    """Refuses poles outside the unit circle, or twice on it; warns of poles on it.

    Sections with a schedule in their denominator are not checked.
    """
    on_circle: list[complex] = []
    for *_, a1, a2 in sections:
        if isinstance(a1, Schedule) or isinstance(a2, Schedule):
            continue
        poles = np.roots([1.0, a1, a2])
        # Jury's criterion, exact in the coefficients where the computed roots are not.
        margin = min(1.0 - a2, 1.0 + a2 - abs(a1))
        if margin < -_TOLERANCE:
            raise ValueError(
                "the filter is unstable: a pole lies outside the unit circle, so its output grows "
                f"without bound. Received: a pole at |z|={np.abs(poles).max():.6g}, section a=[1, "
                f"{a1:g}, {a2:g}]"
            )
        if margin <= _TOLERANCE:
            on_circle += [pole for pole in poles if abs(abs(pole) - 1.0) < 1e-7]
    for i, pole in enumerate(on_circle):
        if any(abs(pole - other) < 1e-7 for other in on_circle[:i]):
            raise ValueError(
                "the filter is unstable: two poles at the same place on the unit circle make its "
                f"output grow without bound. Received: two poles at z={pole:.6g}"
            )
    if on_circle:
        warnings.warn(
            "a pole on the unit circle: the filter never forgets its start, nor any gradient. "
            f"Received: poles at z={[complex(np.round(pole, 6)) for pole in on_circle]}",
            UserWarning,
            stacklevel=5,
        )


def no_magnitude(kwargs: Mapping[str, Any]) -> None:
    """Refuses arguments of Keras optimizers that only a weight with a magnitude can have."""
    for name, reason in _NO_MAGNITUDE.items():
        if kwargs.get(name):
            raise ValueError(
                f"FilteredFlip has no `{name}`: {reason}. For the real variables, set it on "
                f"`real_optimizer`. Received: {name}={kwargs[name]}"
            )


def real_optimizer(identifier: Any, refused: type) -> tf.keras.optimizers.Optimizer:
    """A Keras 2 optimizer, of the current class, that can train on its own."""
    way_out = "give the name, config or instance of a tf.keras optimizer, such as 'adam'"
    if isinstance(identifier, tf.keras.optimizers.legacy.Optimizer):
        name = type(identifier).__name__
        raise TypeError(
            "real_optimizer is of Keras' legacy class, which the current one cannot hold: use "
            f"tf.keras.optimizers.{name}. "
            f"Received: real_optimizer=tf.keras.optimizers.legacy.{name}"
        )
    if isinstance(identifier, refused | tf.keras.mixed_precision.LossScaleOptimizer):
        raise TypeError(
            "real_optimizer trains the real variables only, so it is neither a FilteredFlip nor a "
            f"LossScaleOptimizer, which goes around one: {way_out}. "
            f"Received: real_optimizer={type(identifier).__name__}"
        )
    try:
        return tf.keras.optimizers.get(identifier)
    except (AttributeError, TypeError, ValueError) as error:
        raise TypeError(
            f"real_optimizer is not an optimizer of Keras 2: {way_out}. "
            f"Received: real_optimizer={identifier!r}"
        ) from error
