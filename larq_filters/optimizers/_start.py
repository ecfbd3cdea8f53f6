"""The state in which a filter starts: as if past gradients had supported the weights."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from larq_filters.filters import Filter
from larq_filters.optimizers._flip import Binary, Numbers, wide_dtype

import tensorflow as tf

_KEPT = 0.1  # inertia of given weights: keeps 99.8 ± 0.4 % of a trained network's for 114 steps
_NEW, _LATE = 1, 2  # how a variable waits: before its first step, or since one with a rate of 0
_HASH = 0x9E3779B97F4A7C1  # odd, and its bits look random


class Start:
    """Gives filters whose state is still zero the steady state of a constant input.

    That input is −θ·inertia·rms(g), with the first gradient g of a variable that is finite and not
    zero everywhere, in a step in which no coefficient is a 0 that keeps the output at 0 or is
    divided by: a schedule may warm up.

    Args:
        inertia: A number for all variables. None: `_KEPT` for weights that were given, which were
            ±1 in `add` or were changed since, and 0 for those that are still the random ones.
    """

    def __init__(self, inertia: float | None) -> None:
        self._inertia = inertia
        self._waiting: dict[int, tf.Variable] = {}  # by serial: until its first gradient
        self._random: dict[int, int] = {}  # by serial: the fingerprint of random weights
        self._functions: dict[Any, Callable[..., Any]] = {}  # one for all variables of a filter

    def add(self, serial: int, filter: Filter, variable: tf.Variable, was_binary: bool) -> None:
        """Takes up a variable, whose weights are ±1 by now."""
        if self._inertia == 0.0 or not filter.slots:
            return
        self._waiting[serial] = tf.Variable(_NEW, name="waiting", trainable=False)
        if self._inertia is None and not was_binary:
            replica = tf.distribute.get_strategy().experimental_local_results(variable)[0]
            self._random[serial] = int(_fingerprint(_flat(replica)))

    def __call__(
        self, binaries: Sequence[Binary], gradients: Sequence[tf.Tensor], numbers: Numbers
    ) -> None:
        """Assigns the state of replicas whose variable still waits for its first gradient."""
        some = [
            pair
            for pair in zip(binaries, gradients, strict=True)
            if pair[0].serial in self._waiting
        ]

        def begin() -> bool:
            for binary, gradient in some:
                self._begin(binary, gradient, numbers)
            return True

        if some:
            waiting = [tf.convert_to_tensor(self._waiting[b.serial]) for b, _ in some]
            tf.cond(tf.reduce_any(tf.stack(waiting) > 0), begin, lambda: False)

    def _begin(self, binary: Binary, gradient: tf.Tensor, numbers: Numbers) -> None:
        dtype = wide_dtype(binary.weight)
        if (binary.label, dtype) not in self._functions:
            inertia = _KEPT if self._inertia is None else self._inertia
            self._functions[binary.label, dtype] = _beginning(binary.filter, inertia, dtype)
        random = self._random.get(binary.serial)
        state, waits = self._functions[binary.label, dtype](
            _flat(binary.weight),
            _flat(gradient),
            {slot: _flat(value) for slot, value in binary.state.items()},
            numbers.of(binary.label).now,
            tf.convert_to_tensor(self._waiting[binary.serial]),
            tf.constant(random is not None),
            tf.constant(random or 0, tf.int64),
        )
        for slot, variable in binary.state.items():
            variable.assign(tf.reshape(state[slot], variable.shape), read_value=False)
        self._waiting[binary.serial].assign(waits, read_value=False)


def _beginning(filter: Filter, inertia: float, dtype: tf.DType) -> Callable[..., Any]:
    """The state after the start, of a flat variable, and how the variable waits for one."""

    @tf.function(autograph=False, reduce_retracing=True)
    def begin(
        weights: tf.Tensor,
        gradient: tf.Tensor,
        state: Mapping[str, tf.Tensor],
        coefficients: Mapping[str, tf.Tensor],
        waiting: tf.Tensor,
        is_random: tf.Tensor,
        fingerprint: tf.Tensor,
    ) -> tuple[Mapping[str, tf.Tensor], tf.Tensor]:
        gradient = tf.cast(gradient, dtype)
        finite = tf.math.is_finite(gradient)
        gradient = tf.where(finite, gradient, tf.zeros_like(gradient))
        largest = tf.reduce_max(tf.abs(gradient))  # whose square may not be finite
        squares = tf.reduce_sum(tf.math.divide_no_nan(gradient, largest) ** 2)
        count = tf.reduce_sum(tf.cast(finite, dtype))
        rms = largest * tf.sqrt(tf.math.divide_no_nan(squares, count))
        is_kept = ~is_random | (_fingerprint(weights) != fingerprint)
        size = tf.constant(inertia, dtype) * rms
        now = {name: tf.cast(value, dtype) for name, value in coefficients.items()}
        steady, output = filter.steady_state(tf.where(weights < 0, size, -size), now)
        are_finite = [tf.reduce_all(tf.math.is_finite(value)) for value in steady.values()]
        is_silent = ~tf.reduce_all(are_finite) | tf.reduce_all(output == 0)
        is_stalled = is_silent & tf.reduce_any([False, *(now[c] == 0 for c in filter.coefficients)])
        is_new = tf.reduce_all([tf.reduce_all(state[slot] == 0) for slot in filter.slots])
        may_start = is_new | (waiting == _LATE)
        is_due = may_start & is_kept & (largest > 0)
        starts = is_due & tf.reduce_all(are_finite)
        begun = {
            slot: tf.where(starts, tf.reshape(tf.cast(steady[slot], value.dtype), [-1]), value)
            for slot, value in state.items()
        }
        waits = tf.where(is_due & is_stalled, _LATE, 0)
        return begun, tf.where(may_start & (largest == 0), waiting, waits)

    return begin


def _flat(value: Any) -> tf.Tensor:
    return tf.reshape(tf.convert_to_tensor(value), [-1])


def _fingerprint(weights: tf.Tensor) -> tf.Tensor:
    """A number that other signs are very unlikely to have."""
    i = tf.range(1, tf.size(weights, tf.int64) + 1, dtype=tf.int64)
    return tf.reduce_sum(tf.where(weights < 0, i * i * _HASH, tf.zeros_like(i)))
