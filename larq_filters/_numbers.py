"""What a coefficient may be: a number in its range, or a schedule of Keras."""

import math
import numbers
from collections.abc import Callable
from typing import Any, TypeAlias

from larq_filters._serialization import register

import tensorflow as tf
from tf_keras.optimizers.schedules import LearningRateSchedule as Schedule

Coefficient: TypeAlias = float | Schedule


def share(name: str, value: Any) -> Coefficient:
    """A number in (0, 1] or a schedule."""
    value = number(name, value)
    if not isinstance(value, Schedule) and not 0.0 < value <= 1.0:
        raise ValueError(
            f"{name} must be in (0, 1]. It is a share per step. Received: {name}={value:g}"
        )
    return value


def leak(name: str, value: Any) -> Coefficient:
    """A number in [0, 1], or a schedule."""
    value = number(name, value)
    if not isinstance(value, Schedule) and not 0.0 <= value <= 1.0:
        raise ValueError(
            f"{name} must be in [0, 1]. It is a share per step. Received: {name}={value:g}"
        )
    return value


def below_one(name: str, value: Any) -> float:
    """A number in [0, 1)."""
    value = real(name, value)
    if not 0.0 <= value < 1.0:
        raise ValueError(f"{name} must be a number in [0, 1). Received: {name}={value}")
    return value


def not_negative(name: str, value: Any) -> float:
    """A finite number from 0 on."""
    value = real(name, value)
    if not 0.0 <= value < math.inf:
        raise ValueError(f"{name} must be a finite number, 0 or more. Received: {name}={value}")
    return value


def rate(name: str, value: Any) -> Coefficient:
    """A finite number above 0, or a schedule."""
    return value if isinstance(value, Schedule) else positive(name, value)


def positive(name: str, value: Any) -> float:
    """A finite number above 0."""
    value = real(name, value)
    if not 0.0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite. Received: {name}={value:g}")
    return value


def number(name: str, value: Any) -> Coefficient:
    """A Python float or a schedule."""
    if isinstance(value, Schedule):
        return value
    schedule = " or a tf.keras.optimizers.schedules.LearningRateSchedule"
    return real(name, value, or_else=schedule)


def real(name: str, value: Any, or_else: str = "") -> float:
    """A Python float; `or_else` says what else could have been given."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number{or_else}. Received: {name}={call(value)}")
    return float(value)


def check_fields(instance: Any, **checks: Callable[[str, Any], Any]) -> None:
    """Replaces fields of a frozen dataclass by what a check makes of them: its name, its value."""
    for name, check in checks.items():
        object.__setattr__(instance, name, check(name, getattr(instance, name)))


def whole_number(
    name: str,
    value: Any,
    *,
    least: int = 0,
    below: int | None = None,
    meaning: str = "",
) -> int:
    """A whole number of any type, NumPy's included.

    Args:
        name: Of the argument.
        value: What was given for it.
        least: The smallest that is taken.
        below: The smallest that is too large, or None.
        meaning: What to say of it, in place of its range.
    """
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_whole or value < least or (below is not None and value >= below):
        text = meaning or f"a whole number from {least} on"
        raise ValueError(f"{name} is {text}. Received: {name}={value!r}")
    return int(value)


def fixed(value: Coefficient) -> float:
    """A coefficient for a response, which a schedule does not have."""
    if isinstance(value, Schedule):
        raise ValueError(
            "a filter with a schedule has no fixed response. Take the filter at one step with "
            f"`at(step)`. Received: {call(value)}"
        )
    return value


def short(value: Any) -> str:
    """A number to six digits, a schedule of Keras by its name: for people, not for machines."""
    if isinstance(value, float):
        return f"{value:g}"
    keras = isinstance(value, Schedule) and type(value).__str__ is object.__str__
    return type(value).__name__ if keras else str(value)


def call(value: Any) -> str:
    """The Python call that makes a coefficient: `repr`, also of a schedule of Keras."""
    if not isinstance(value, Schedule) or type(value).__repr__ is not object.__repr__:
        return repr(value)
    config = {k: v for k, v in value.get_config().items() if k != "name" or v is not None}
    return f"{type(value).__name__}({', '.join(f'{k}={call(v)}' for k, v in config.items())})"


@register
class Scaled(Schedule):
    """A schedule times a number: k·s(t).

    It is what becomes of a schedule when its coefficient is set, and in a recipe's filter of the
    product of a learning rate and another number.

    Args:
        schedule: s, a Keras schedule.
        factor: k.

    Example:
        >>> halved = tf.keras.optimizers.schedules.PolynomialDecay(0.5, 100, 0.0)
        >>> [float(lqf.optimizers.Scaled(halved, factor=0.5)(t)) for t in (0, 50)]
        [0.25, 0.125]
    """

    def __init__(self, schedule: Schedule, factor: float) -> None:
        self.schedule, self.factor = schedule, factor

    def __repr__(self) -> str:
        return f"Scaled({call(self.schedule)}, factor={self.factor!r})"

    def __call__(self, step: Any) -> Any:
        """The value at a step."""
        return self.schedule(step) * self.factor

    def __str__(self) -> str:
        return f"{self.factor:g} × {short(self.schedule)}"

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        schedule = tf.keras.utils.legacy.serialize_keras_object(self.schedule)
        return {"schedule": schedule, "factor": self.factor}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Scaled":
        """The inverse of `get_config`."""
        schedules = tf.keras.optimizers.schedules
        return cls(
            schedules.deserialize(config["schedule"], use_legacy_format=True), config["factor"]
        )


def times(rate: Coefficient, factor: float) -> Coefficient:
    if isinstance(rate, Schedule) and factor not in (0.0, 1.0):
        return Scaled(rate, factor)
    return rate if factor == 1.0 else rate * factor if factor else 0.0
