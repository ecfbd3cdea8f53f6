"""The coefficients of an optimizer's filter while it trains: read, set and scheduled by name."""

from collections.abc import Mapping

from larq_filters._numbers import Coefficient, Schedule
from larq_filters.optimizers import _arguments

import tensorflow as tf


class Coefficients:
    """What FilteredFlip knows of coefficients: a variable for each, by its name in the filter.

    A coefficient that follows a schedule is computed anew at every step; any other can be set.
    """

    iterations: tf.Variable
    _given: Mapping[str, Coefficient]  # as the optimizer was made
    _coefficients: Mapping[str, tf.Variable]  # as they are now

    def _create_coefficients(self, given: Mapping[str, Coefficient]) -> None:
        dtype = tf.keras.backend.floatx()
        values = {
            key: value(self.iterations) if isinstance(value, Schedule) else value
            for key, value in given.items()
        }
        with tf.init_scope():
            self._coefficients = {
                key: tf.Variable(
                    # tf.cast alone would take a Python float through float32.
                    tf.cast(value, dtype) if tf.is_tensor(value) else tf.constant(value, dtype),
                    name=key.replace(".", "_"),
                    trainable=False,
                )
                for key, value in values.items()
            }

    def _follow_schedules(self) -> None:
        for key, value in self._given.items():
            if isinstance(value, Schedule):
                variable = self._coefficients[key]
                variable.assign(tf.cast(value(self.iterations), variable.dtype))

    @property
    def coefficients(self) -> dict[str, tf.Variable]:
        """The variables that hold the filter's coefficients and the threshold, by name."""
        return dict(self._coefficients)

    @property
    def alpha(self) -> tf.Variable:
        """α of the filter as it is now; can be set to a number unless it follows a schedule."""
        return self._coefficients[self._key("alpha")]

    @alpha.setter
    def alpha(self, value: float) -> None:
        self._set("alpha", value)

    # Keras' callbacks read and set `learning_rate` or `lr`.
    learning_rate = lr = alpha

    @property
    def _learning_rate(self) -> Coefficient:
        return self._given[self._key("alpha")]  # where Keras' TensorBoard looks for a schedule

    @property
    def gamma(self) -> tf.Variable:
        """γ of the filter as it is now; can be set to a number unless it follows a schedule."""
        return self._coefficients[self._key("gamma")]

    @gamma.setter
    def gamma(self, value: float) -> None:
        self._set("gamma", value)

    @property
    def threshold(self) -> tf.Variable:
        """τ as it is now; can be set to a number unless it follows a schedule."""
        return self._coefficients["threshold"]

    @threshold.setter
    def threshold(self, value: float) -> None:
        self._set("threshold", value)

    def _key(self, name: str) -> str:
        keys = [key for key in self._coefficients if key.rsplit(".", 1)[-1] == name]
        if len(keys) != 1:
            raise AttributeError(
                f"the filter has {'more than one' if keys else 'no'} coefficient '{name}'; "
                "`optimizer.coefficients` holds all of them by name. "
                f"Received: '{name}' of {list(self._coefficients)}"
            )
        return keys[0]

    def _set(self, name: str, value: float) -> None:
        key = self._key(name)
        if isinstance(self._given[key], Schedule) or isinstance(value, Schedule):
            raise TypeError(
                f"`{name}` can be set while training only from number to number; a schedule is "
                "given when the optimizer is made. "
                f"Received: {name}={value!r} in place of {self._given[key]!r}"
            )
        self._coefficients[key].assign(_arguments.current(name, float(value)))

    def _changed_coefficients(self) -> dict[str, float]:
        """Those that were set since the optimizer was made, by name."""
        changed = {}
        for key, value in self._given.items():
            current = tf.keras.backend.get_value(self._coefficients[key])
            if not isinstance(value, Schedule) and current != current.dtype.type(value):
                changed[key] = float(current)
        return changed
