"""Variables that hold coefficients, and that know whether somebody set them."""

import math
import re
from collections.abc import Callable
from typing import Any

from larq_filters.optimizers._partition import short_name

import tensorflow as tf

# The largest value that a coefficient can have, by its short name; the smallest is 0.
_LIMITS = {
    **dict.fromkeys(("alpha", "gamma", "sigma", "leak"), 1.0),
    "flip_ratio": 0.5,
    **dict.fromkeys(("rate", "threshold"), math.inf),
}


def limit(key: str) -> float | None:
    """The largest value that a coefficient can have, by its name."""
    return _LIMITS.get(short_name(key))


def make(key: str, value: Any, dtype: str) -> tf.Variable:
    """A scalar variable, named after a coefficient."""
    # tf.cast alone would take a Python float through float32.
    value = tf.cast(value, dtype) if tf.is_tensor(value) else tf.constant(value, dtype)
    return tf.Variable(value, name=re.sub(r"\W", "_", key), trainable=False)


def named(name: str, meaning: str) -> Any:
    """A property of an optimizer: the variable of the coefficient of that name."""
    return property(
        lambda self: self._coefficients[self._key(name)],
        lambda self, value: self._set(name, value),
        doc=f"{meaning} as it is now; setting it scales the rest of a schedule.",
    )


def constant(value: float, reason: str) -> tf.Variable:
    """A variable that refuses another value than its own, as callbacks set it."""
    variable = tf.Variable(value, trainable=False)
    refuse(variable, "learning_rate", reason)
    return variable


def refuse(variable: tf.Variable, name: str, reason: str) -> None:
    """Lets a variable refuse another value than its own from all but `write`."""

    def assign(new: Any, *args: Any, **kwargs: Any) -> Any:
        if float(new) != float(tf.keras.backend.get_value(variable)):
            raise AttributeError(f"{reason}. Received: {name}={float(new):g}")
        return variable

    vars(variable)["assign"] = assign


def mark(variable: tf.Variable) -> tf.Variable:
    """A variable that becomes 1 when somebody assigns to the other, even the value it has already.

    `write` does not count, and neither does restoring a checkpoint. Before the first step it is −1.
    """
    is_set = make("is_set", -1.0, variable.dtype)
    on_assign(variable, lambda value: is_set.assign(1.0))
    return is_set


def on_assign(variable: tf.Variable, act: Callable[[Any], Any]) -> None:
    """Calls a function with what somebody assigns to a variable, before that; not of `write`."""
    assign = variable.assign

    def assign_and_act(value: Any, *args: Any, **kwargs: Any) -> Any:
        act(value)
        return assign(value, *args, **kwargs)

    vars(variable)["assign"] = assign_and_act
    vars(variable)["assign_add"] = lambda delta, *args, **kwargs: assign_and_act(
        variable + delta, *args, **kwargs
    )
    vars(variable)["assign_sub"] = lambda delta, *args, **kwargs: assign_and_act(
        variable - delta, *args, **kwargs
    )


def write(variable: tf.Variable, value: Any) -> None:
    """Assigns without a mark."""
    type(variable).assign(variable, value)
