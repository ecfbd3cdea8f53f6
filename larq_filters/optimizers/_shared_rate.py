"""One learning rate of several filters, for Keras' callbacks."""

from collections.abc import Callable, Mapping
from typing import Any

from larq_filters.optimizers import _settable

import tensorflow as tf


class SharedRate:
    """A variable that shows the learning rate of the first filter; what sets it scales them all.

    At 0 there is nothing to scale. Rates that were set to 0 come back in the proportions that they
    had before, and one that is not 0 stays.

    Args:
        rates: Returns the variables of the filters' learning rates, by the coefficient's name: of
            all filters at first, and then of those that train something.
        dtype: Of the variable.
    """

    def __init__(self, rates: Callable[[], Mapping[str, tf.Variable]], dtype: str) -> None:
        self._rates = rates
        first, *_ = rates().values()
        self.variable = _settable.make("learning_rate", first, dtype)
        self._last = {  # when they were not set to 0
            key: _settable.make(f"{key}_last", rate, dtype) for key, rate in rates().items()
        }
        _settable.on_assign(self.variable, self._share)

    def tell(self) -> None:
        """Shows the first filter's rate."""
        first, *_ = self._rates().values()
        _settable.write(self.variable, first)

    def _share(self, rate: Any) -> None:
        rate = tf.cast(rate, self.variable.dtype)
        rates = self._rates()
        first, *_ = rates
        values = {key: tf.convert_to_tensor(variable) for key, variable in rates.items()}
        now = values[first]
        ends = (rate == 0.0) & (now != 0.0)
        for key, value in values.items():
            self._last[key].assign(tf.where(ends, value, self._last[key]))
        for key, value in values.items():
            factor = tf.math.divide_no_nan(rate, now)
            part = tf.math.divide_no_nan(self._last[key], self._last[first])
            part = tf.ones_like(part) if key == first else part
            begun = tf.where(value == 0.0, part * rate, value)
            rates[key].assign(tf.where(now == 0.0, begun, factor * value))
