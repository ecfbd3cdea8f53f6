"""One learning rate of several filters, for Keras' callbacks."""

from collections.abc import Mapping, Sequence
from typing import Any

from larq_filters.optimizers import _settable

import tensorflow as tf


class SharedRate:
    """A variable that shows the learning rate of the first filter; what sets it scales them all.

    At 0 there is nothing to scale. Rates that were set to 0 come back in the proportions that they
    had before, and one that is not 0 stays.

    Args:
        values: The learning rate of each filter, by the coefficient's name.
        dtype: Of the variable.
    """

    def __init__(self, values: Mapping[str, Any], dtype: str) -> None:
        first = next(iter(values.values()))
        self.variable, self._written = (
            _settable.make("learning_rate", first, dtype) for _ in range(2)
        )
        self._last = {  # when they were not set to 0
            key: _settable.make(f"{key}_last", value, dtype) for key, value in values.items()
        }

    def is_set(self) -> tf.Tensor:
        """Whether it is another than was last written to it."""
        rate, written = map(tf.convert_to_tensor, (self.variable, self._written))
        return tf.abs(rate - written) > 1e-6 * tf.abs(written)

    def tell(self, rate: tf.Variable) -> None:
        """Shows a rate."""
        for variable in (self.variable, self._written):
            variable.assign(rate)

    def share(self, coefficients: Mapping[str, tf.Variable], keys: Sequence[str]) -> None:
        """Scales the rates of these names, of which the first is the one that is shown."""
        rate, is_set = tf.convert_to_tensor(self.variable), self.is_set()
        values = {key: tf.convert_to_tensor(coefficients[key]) for key in keys}
        now = values[keys[0]]  # also if restored
        ends = is_set & (rate == 0.0) & (now != 0.0)
        for key, value in values.items():
            self._last[key].assign(tf.where(ends, value, self._last[key]))
        for key, value in values.items():
            factor = tf.math.divide_no_nan(rate, now)
            part = tf.math.divide_no_nan(self._last[key], self._last[keys[0]])
            part = tf.ones_like(part) if key == keys[0] else part
            begun = tf.where(value == 0.0, part * rate, value)
            scaled = tf.where(now == 0.0, begun, factor * value)
            _settable.write(coefficients[key], tf.where(is_set, scaled, value))
        self._written.assign(rate)
