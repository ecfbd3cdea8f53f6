"""The coefficients of an optimizer's filter while it trains: read, set and scheduled by name."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from larq_filters._numbers import Coefficient, Schedule, call, times
from larq_filters.optimizers import _arguments, _settable
from larq_filters.optimizers._feedback import RATIO, Feedback
from larq_filters.optimizers._partition import ALL, Partition, label_of, short_name
from larq_filters.optimizers._shared_rate import SharedRate

import tensorflow as tf

_NO_RATE = "this filter has no coefficient that can be set while training"
_FOLLOWS = "alpha follows flip_ratio: set that, which is also the learning rate"


class Coefficients:
    """The coefficients of FilteredFlip: a variable for each, by its name in the filter.

    A coefficient that follows a schedule is computed anew at every step. Setting it scales the rest
    of its schedule, which continues from the new value. Where the schedule is 0 there is nothing to
    scale, and the new value is used as it is.

    The learning rate of a filter is α (of the last stage, if there are several), or the rate of an
    `Integrator`, or else γ, or else another coefficient. With filters by layer, it is that of the
    first filter that trains something. Setting it scales the learning rates of all filters. With a
    flip ratio, that is the learning rate, and every α follows it.
    """

    iterations: tf.Variable
    _given: Mapping[str, Coefficient]  # as the optimizer was made
    _coefficients: Mapping[str, tf.Variable]  # as they are now
    _before: Mapping[str, tf.Variable]  # as they were in the last step
    _scales: Mapping[str, tf.Variable]  # of those that follow a schedule: what it is multiplied by
    _feedback: Feedback | None = None  # on the flip ratio, if one is wanted
    _shared: SharedRate | None = None  # if several filters have a learning rate
    _full: Mapping[str, tf.Variable] = {}  # of it, where α cannot grow
    _filters: Partition
    _no_dependency: Callable[[Any], Any]  # of TensorFlow: hides a value from checkpoints
    _distribution_strategy: Any

    def _create_coefficients(self, given: Mapping[str, Coefficient]) -> None:
        dtype = tf.keras.backend.floatx()
        values = {
            key: value(self.iterations) if isinstance(value, Schedule) else value
            for key, value in given.items()
        }
        self._first = self._no_dependency({k: float(v) for k, v in values.items()})
        with tf.init_scope():
            self._coefficients = {
                key: _settable.make(key, value, dtype) for key, value in values.items()
            }
            self._before = {key: _settable.make(f"{key}_before", math.inf, dtype) for key in values}
            scheduled = [key for key, value in given.items() if isinstance(value, Schedule)]
            self._scales = {key: _settable.make(f"{key}_scale", 1.0, dtype) for key in scheduled}
            # At the last step, or when it was made; not in checkpoints.
            written = {
                key: _settable.make(f"{key}_written", values[key], dtype) for key in scheduled
            }
            self._written = self._no_dependency(written)
            self._marks = self._no_dependency(
                {key: _settable.mark(self._coefficients[key]) for key in scheduled}
            )
            limited = {key: _settable.make(f"{key}_outside", 0.0, dtype) for key in given}
            self._outside = self._no_dependency(limited)  # the last value that had to be limited
            if len(self._rates()) > 1:
                self._shared = self._no_dependency(SharedRate(self._rate_variables, dtype))
            if RATIO in given:
                self._feedback = self._no_dependency(Feedback(self._filters, given))
                self._gains = self._feedback.gains
                self._full = self._no_dependency(self._feedback.full)
                for key in self._gains:
                    _settable.refuse(self._coefficients[key], key, _FOLLOWS)
            self._unsettable = self._no_dependency(_settable.constant(1.0, _NO_RATE))

    def _follow_schedules(self) -> None:
        for key, given in self._given.items():
            variable, limit = self._coefficients[key], _settable.limit(key)
            if isinstance(given, Schedule):
                value, given = self._scheduled(key, given, variable), 0.0
            elif limit is not None:  # callbacks set it unchecked
                value = tf.convert_to_tensor(variable)
            else:
                continue
            if limit is not None:  # or at most as far beyond it as what was given
                limited = tf.clip_by_value(value, min(0.0, given), max(limit, given))
                last = self._before[key]
                last = tf.where(tf.math.is_finite(last), last, self._first[key])
                limited = tf.where(tf.math.is_nan(value), last, limited)
                self._outside[key].assign(tf.where(limited != value, value, self._outside[key]))
                value = limited
            _settable.write(variable, value)
        if self._feedback is not None:
            for key, alpha in self._feedback.alphas(self._coefficients[RATIO]):
                _settable.write(self._coefficients[key], alpha)
        self._tell_rate()

    def _tell_rate(self) -> None:
        if self._shared is not None:
            self._shared.tell()

    def _scheduled(self, key: str, schedule: Schedule, variable: tf.Variable) -> tf.Tensor:
        """The schedule's value, scaled by what the coefficient was set to since the last step."""
        scale, is_set, now = self._scale(key, schedule, variable)
        is_free = is_set & (now == 0.0)  # nothing to scale: set for this step, and until there is
        self._marks[key].assign(tf.cast(is_free, self._marks[key].dtype))
        with tf.control_dependencies([tf.convert_to_tensor(self._marks[key])]):
            self._scales[key].assign(scale)
            scale = tf.identity(scale)
        value = tf.where(is_free, variable, scale * now)
        limit = _settable.limit(key)
        if limit is not None:  # what was set out of range is said; its scale is in range
            read = tf.convert_to_tensor(variable)
            value = tf.where(is_set & (read != tf.clip_by_value(read, 0.0, limit)), read, value)
        written = value if limit is None else tf.clip_by_value(value, 0.0, limit)
        self._written[key].assign(tf.where(is_free, self._written[key], written))
        return value

    def _scale(
        self, key: str, schedule: Schedule, variable: tf.Variable
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The scale of a schedule, whether its coefficient was set, and the schedule's value."""
        now, before = (
            tf.cast(schedule(steps), variable.dtype)
            for steps in (self.iterations, tf.maximum(self.iterations - 1, 0))
        )
        scale, value = tf.convert_to_tensor(self._scales[key]), tf.convert_to_tensor(variable)
        with tf.control_dependencies([value]):
            mark = tf.convert_to_tensor(self._marks[key])
        # Whichever of several replicas came first, and after loading, these are its own values.
        own = [self._written[key], scale * before, scale * now]
        limit = _settable.limit(key)
        if limit is not None:
            own += [tf.clip_by_value(one, 0.0, limit) for one in own]
        is_number = ~tf.math.is_nan(value)
        is_other = tf.reduce_all([tf.abs(value - one) > 1e-6 * tf.abs(one) for one in own])
        # Restored values are not marked. Workers that do not wait for each other read each other's
        # values, so after the first step only marks tell: a worker takes the mark away before it
        # writes a value, and reads the mark after the value.
        strategy = tf.distribute.ParameterServerStrategy
        if isinstance(self._distribution_strategy, strategy):
            is_other &= mark < 0.0
        is_set = is_other | (mark > 0.0)
        if limit is not None:
            value = tf.clip_by_value(value, 0.0, limit)
        set_to = tf.math.divide_no_nan(value, now)
        scale = tf.where(is_set & is_number & (now != 0.0), set_to, scale)
        return scale, is_set, now

    @property
    def coefficients(self) -> dict[str, tf.Variable]:
        """The variables of the filter's coefficients, the threshold and the flip ratio, by name."""
        return dict(self._coefficients)

    @property
    def filter(self) -> Any:
        """The filter with the present values of its coefficients.

        With filters by layer, this is a mapping of filters.
        """
        own = ("threshold", RATIO)
        changed = {key: value for key, value in self._changed().items() if key not in own}
        return self._filters.with_coefficients(changed)

    alpha = _settable.named("alpha", "α of the filter")
    gamma = _settable.named("gamma", "γ of the filter")
    sigma = _settable.named("sigma", "σ of the filter, where it is normalized")
    threshold = _settable.named("threshold", "τ")
    flip_ratio = _settable.named("flip_ratio", "R, the wanted flip ratio")

    @property
    def learning_rate(self) -> tf.Variable:
        """The learning rate for Keras' callbacks and trackers, for every filter.

        It is α (of the last stage, if there are several), or the rate of an `Integrator`, or else
        γ, or else another coefficient. Without coefficients, it is 1 and cannot be set. With
        filters by layer, it is that of the first filter, and setting it scales the rates of all.
        With `flip_ratio`, it is that.
        """
        key = self._rate_key()
        if key is None:
            return self._unsettable
        if self._shared is None:
            return self._coefficients[key]
        if tf.executing_eagerly():
            self._tell_rate()  # a checkpoint may have been restored
        return self._shared.variable

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        key = self._rate_key()
        if key is None:
            raise AttributeError(f"{_NO_RATE}. Received: learning_rate={value!r}")
        if self._shared is not None:
            self._shared.variable.assign(_arguments.current(key, float(value)))
        else:
            self._set(key, value)

    lr = learning_rate

    @property
    def _learning_rate(self) -> Coefficient:
        key = self._rate_key()
        if key is None:
            return 1.0
        scale = self._changed_scales().get(key, 1.0) if tf.executing_eagerly() else 1.0
        given = self._given[key]
        return given if scale == 1.0 else times(given, scale)  # TensorBoard calls a schedule

    def _rate_key(self) -> str | None:
        return next(iter(self._rates().values()), None)

    def _rate_variables(self) -> dict[str, tf.Variable]:
        return {key: self._coefficients[key] for key in self._rates().values()}

    def _rates(self) -> dict[str, str]:
        """The coefficient of each filter that is its learning rate, by the filter's label."""
        if RATIO in self._given:
            return {ALL: RATIO}
        rates: dict[str, str] = {}
        keys = self._of_used([key for key in self._given if key != "threshold"])
        for names in (None, ("gamma",), ("alpha", "rate")):  # the later ones and stages count
            found = [key for key in keys if names is None or short_name(key) in names]
            rates |= {label_of(key): key for key in found}
        return rates

    def _of_used(self, keys: list[str]) -> list[str]:
        """Of keys, those of filters that train something; all, if that is not known yet."""
        used = self._filters.used
        return [key for key in keys if label_of(key) in used] if used else keys

    def _key(self, name: str) -> str:
        is_own = name == "threshold" or (name == RATIO and RATIO in self._given)
        if is_own or (name in self._coefficients and {"/", "."} & set(name)):
            return name
        keys = [key for key in self._coefficients if short_name(key) == name]
        keys = self._of_used(keys)
        keys = [key for key in keys if "/" not in key] or keys
        if len(keys) != 1:
            raise AttributeError(
                f"the filter has {'more than one' if keys else 'no'} coefficient '{name}'; "
                "`optimizer.coefficients` holds all of them by name. "
                f"Received: '{name}' of {list(self._coefficients)}"
            )
        return keys[0]

    def _set(self, name: str, value: float) -> None:
        key = self._key(name)
        given = self._given[key]
        if isinstance(value, Schedule):
            raise TypeError(
                f"`{name}` can only be set to a number while training. Give a schedule when you "
                f"make the optimizer. Received: {name}={call(value)} in place of {call(given)}"
            )
        self._coefficients[key].assign(_arguments.current(key, float(value)))

    def _changed(self) -> dict[str, Coefficient]:
        """Those that were set since the optimizer was made, by name: numbers, scaled schedules."""
        changed: dict[str, Coefficient] = dict(self._changed_coefficients())
        for key, scale in self._changed_scales().items():
            changed[key] = times(self._given[key], scale)
        return changed

    def _changed_coefficients(self) -> dict[str, float]:
        """Those without a schedule that were set since the optimizer was made, by name."""
        changed = {}
        for key, value in self._given.items():
            current = tf.keras.backend.get_value(self._coefficients[key])
            if not isinstance(value, Schedule) and current != current.dtype.type(value):
                changed[key] = float(current)
        return changed

    def _scheduled_coefficients(self) -> dict[str, float]:
        """Those with a schedule as they are now, by name; none if there was no step."""
        if not int(tf.keras.backend.get_value(self.iterations)):
            return {}
        return {k: float(tf.keras.backend.get_value(self._coefficients[k])) for k in self._written}

    def _last_coefficients(self) -> dict[str, float]:
        """All of them as they were in the last step, by name; none if there was no step."""
        values = {k: float(tf.keras.backend.get_value(v)) for k, v in self._before.items()}
        return values if all(map(math.isfinite, values.values())) else {}

    def _learned_gains(self) -> dict[str, float]:
        """What the feedback on the flip ratio has come to, by the name of α."""
        gains = self._feedback.gains if self._feedback else {}
        return {key: float(tf.keras.backend.get_value(gain)) for key, gain in gains.items()}

    def _changed_scales(self) -> dict[str, float]:
        """What schedules are multiplied by, of those that were set since."""
        scales = {
            key: float(self._scale(key, self._given[key], self._coefficients[key])[0])
            for key in self._scales
        }
        return {key: scale for key, scale in scales.items() if scale != 1.0}

    def _continue_from(
        self,
        coefficients: Mapping[str, float],
        scheduled: Mapping[str, float],
        scales: Mapping[str, float],
        before: Mapping[str, float],
        gains: Mapping[str, float],
    ) -> None:
        """Sets what a config says of the optimizer that it is of."""
        for values, variables in (
            (coefficients, self._coefficients),
            (scheduled, self._coefficients),
            (scheduled, self._written),
            (scales, self._scales),
            (before, self._before),
            (gains, self._feedback.gains if self._feedback else {}),
        ):
            for key, value in values.items():
                _settable.write(variables[key], value)
        self._tell_rate()
