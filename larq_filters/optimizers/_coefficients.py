"""The coefficients of an optimizer's filter while it trains: read, set and scheduled by name."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from larq_filters._numbers import Coefficient, Schedule
from larq_filters._warnings import warn
from larq_filters.optimizers import _arguments

import tensorflow as tf


class Coefficients:
    """The coefficients of FilteredFlip: a variable for each, by its name in the filter.

    A coefficient that follows a schedule is computed anew at every step. Setting it scales the rest
    of its schedule, which continues from the new value.
    """

    iterations: tf.Variable
    _given: Mapping[str, Coefficient]  # as the optimizer was made
    _coefficients: Mapping[str, tf.Variable]  # as they are now
    _before: Mapping[str, tf.Variable]  # as they were in the last step
    _scales: Mapping[str, tf.Variable]  # of those that follow a schedule: what it is multiplied by
    _no_dependency: Callable[[Any], Any]  # of TensorFlow: hides a value from checkpoints

    def _create_coefficients(self, given: Mapping[str, Coefficient]) -> None:
        dtype = tf.keras.backend.floatx()
        values = {
            key: value(self.iterations) if isinstance(value, Schedule) else value
            for key, value in given.items()
        }
        with tf.init_scope():
            self._coefficients = {
                key: _variable(key, value, dtype) for key, value in values.items()
            }
            self._before = {key: _variable(f"{key}_before", math.inf, dtype) for key in values}
            scheduled = [key for key, value in given.items() if isinstance(value, Schedule)]
            self._scales = {key: _variable(f"{key}_scale", 1.0, dtype) for key in scheduled}
            # At the last step, or when it was made; not in checkpoints.
            written = {key: _variable(f"{key}_written", values[key], dtype) for key in scheduled}
            self._written = self._no_dependency(written)
            was_limited = tf.Variable(False, name="was_limited", trainable=False)
            self._was_limited = self._no_dependency(was_limited)

    def _follow_schedules(self) -> None:
        outside = []
        for key, given in self._given.items():
            variable, limit = self._coefficients[key], _limit(key)
            if isinstance(given, Schedule):
                value, given = self._scheduled(key, given, variable), 0.0
            elif limit is not None:  # callbacks set it unchecked
                value = tf.convert_to_tensor(variable)
            else:
                continue
            if limit is not None:  # or at most as far beyond it as what was given
                limited = tf.clip_by_value(value, min(0.0, given), max(limit, given))
                outside.append(limited != value)
                value = limited
            variable.assign(value)
            if key in self._written:
                self._written[key].assign(value)
        self._was_limited.assign(tf.reduce_any([self._was_limited, *outside]))

    def _scheduled(self, key: str, schedule: Schedule, variable: tf.Variable) -> tf.Tensor:
        """The schedule's value, scaled by what the coefficient was set to since the last step."""
        now, before = (
            tf.cast(schedule(steps), variable.dtype)
            for steps in (self.iterations, tf.maximum(self.iterations - 1, 0))
        )
        scale, value = tf.convert_to_tensor(self._scales[key]), tf.convert_to_tensor(variable)
        # Whichever of several replicas came first, and after loading, these are its own values.
        own = [self._written[key], scale * before, scale * now]
        limit = _limit(key)
        if limit is not None:
            own = [tf.clip_by_value(one, 0.0, limit) for one in own]
        is_set = tf.reduce_all([tf.abs(value - one) > 1e-6 * tf.abs(one) for one in own])
        scale = tf.where(is_set & (now != 0.0), tf.math.divide_no_nan(value, now), scale)
        self._scales[key].assign(scale)
        return scale * now

    @property
    def coefficients(self) -> dict[str, tf.Variable]:
        """The variables that hold the filter's coefficients and the threshold, by name."""
        return dict(self._coefficients)

    @property
    def alpha(self) -> tf.Variable:
        """α of the filter as it is now; setting it scales the rest of a schedule."""
        return self._coefficients[self._key("alpha")]

    @alpha.setter
    def alpha(self, value: float) -> None:
        self._set("alpha", value)

    @property
    def learning_rate(self) -> tf.Variable | tf.Tensor:
        """The learning rate for Keras' callbacks and trackers, for every filter.

        It is α (of the last stage, if there are several), or the rate of an `Integrator`, or else
        another coefficient. Without coefficients, it is the constant 1.
        """
        key = self._rate_key()
        return tf.constant(1.0) if key is None else self._coefficients[key]

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        key = self._rate_key()
        if key is None:
            raise AttributeError(
                "this filter has no coefficient that can be set while training. "
                f"Received: learning_rate={value!r}"
            )
        self._set(key, value)

    lr = learning_rate

    @property
    def _learning_rate(self) -> Coefficient:
        key = self._rate_key()
        return 1.0 if key is None else self._given[key]  # TensorBoard looks for a schedule here

    def _rate_key(self) -> str | None:
        keys = [key for key in self._coefficients if key != "threshold"]
        keys = [key for key in keys if "/" not in key] or keys  # of the filter of all other layers
        rates = [key for key in keys if _arguments.short_name(key) in ("alpha", "rate")]
        return (rates or keys)[-1] if keys else None

    @property
    def gamma(self) -> tf.Variable:
        """γ of the filter as it is now; setting it scales the rest of a schedule."""
        return self._coefficients[self._key("gamma")]

    @gamma.setter
    def gamma(self, value: float) -> None:
        self._set("gamma", value)

    @property
    def threshold(self) -> tf.Variable:
        """τ as it is now; setting it scales the rest of a schedule."""
        return self._coefficients["threshold"]

    @threshold.setter
    def threshold(self, value: float) -> None:
        self._set("threshold", value)

    def _key(self, name: str) -> str:
        keys = [key for key in self._coefficients if _arguments.short_name(key) == name]
        keys = [key for key in keys if "/" not in key] or keys
        if len(keys) != 1:
            raise AttributeError(
                f"the filter has {'more than one' if keys else 'no'} coefficient '{name}'; "
                "`optimizer.coefficients` holds all of them by name. "
                f"Received: '{name}' of {list(self._coefficients)}"
            )
        return keys[0]

    def _set(self, name: str, value: float) -> None:
        key = name if name in self._coefficients else self._key(name)
        given = self._given[key]
        if isinstance(value, Schedule):
            raise TypeError(
                f"`{name}` can only be set to a number while training. Give a schedule when you "
                f"make the optimizer. Received: {name}={value!r} in place of {given!r}"
            )
        value = _arguments.current(key, float(value))
        if isinstance(given, Schedule) and float(given(self.iterations)) == 0.0:
            raise ValueError(
                f"`{name}` follows a schedule that has ended at 0, so there is nothing left to "
                "scale. Make a new optimizer for another training. Received: "
                f"{name}={value:g} after {int(self.iterations)} steps"
            )
        self._coefficients[key].assign(value)

    def _changed_coefficients(self) -> dict[str, float]:
        """Those without a schedule that were set since the optimizer was made, by name."""
        changed = {}
        for key, value in self._given.items():
            current = tf.keras.backend.get_value(self._coefficients[key])
            if not isinstance(value, Schedule) and current != current.dtype.type(value):
                changed[key] = float(current)
        return changed

    def _last_coefficients(self) -> dict[str, float]:
        """All of them as they were in the last step, by name; none if there was no step."""
        values = {k: float(tf.keras.backend.get_value(v)) for k, v in self._before.items()}
        return values if all(map(math.isfinite, values.values())) else {}

    def _changed_scales(self) -> dict[str, float]:
        """What schedules are multiplied by, of those that were set since."""
        scales = {k: float(tf.keras.backend.get_value(v)) for k, v in self._scales.items()}
        return {key: scale for key, scale in scales.items() if scale != 1.0}

    def _warn_of_coefficients(self) -> None:
        """Says so where a training went on after its α had reached 0, or one was out of range."""
        if tf.keras.backend.get_value(self._was_limited):
            self._was_limited.assign(False)
            warn(
                "a schedule or a callback set a coefficient outside its range, and the nearest "
                "value was used: alpha and gamma are in [0, 1], the threshold is 0 or more. "
                f"Received: {dict(self._given)}",
            )
        steps = int(tf.keras.backend.get_value(self.iterations))
        for key, value in self._given.items():
            if _arguments.short_name(key) != "alpha" or not isinstance(value, Schedule):
                continue
            if steps > 1 and float(value(steps - 1)) == 0.0:
                warn(
                    "alpha decayed to 0 before training ended, and no weight flips after that. "
                    "decay_steps is the number of steps of the whole training: epochs times steps "
                    f"per epoch. Received: {steps} steps of training, {value!r}",
                )


def _variable(key: str, value: Any, dtype: str) -> tf.Variable:
    # tf.cast alone would take a Python float through float32.
    value = tf.cast(value, dtype) if tf.is_tensor(value) else tf.constant(value, dtype)
    return tf.Variable(value, name=re.sub(r"\W", "_", key), trainable=False)


def _limit(key: str) -> float | None:
    """The largest value that a coefficient can have, by its name."""
    name = _arguments.short_name(key)
    return 1.0 if name in ("alpha", "gamma") else math.inf if name == "threshold" else None
