"""The flip rule, as a pure function of tensors."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from larq_filters.filters import Filter
from larq_filters.optimizers._partition import part

import tensorflow as tf


class Binary(NamedTuple):
    """A binary variable and its filter's state; or the tensors that these hold."""

    serial: int
    """Its own, always the same: what is drawn for its rounding depends on it."""
    filter: Filter
    """F."""
    label: str
    """Of its filter, among those of other layers."""
    weight: Any
    """θ."""
    state: Mapping[str, Any]
    """By slot."""

    def with_values(self, weight: Any, state: Mapping[str, Any]) -> "Binary":
        """The same variable with another weight and state."""
        return Binary(self.serial, self.filter, self.label, weight, state)


class Numbers(NamedTuple):
    """The filter's coefficients, and τ as `threshold`, by name."""

    now: Mapping[str, Any]
    before: Mapping[str, Any]
    """In the step that led to the filter's state; τ is infinite if there was none."""

    def of(self, label: str) -> "Numbers":
        """Those of one filter, by its own names."""
        return Numbers(
            *({**part(p, label), "threshold": p["threshold"]} for p in (self.now, self.before))
        )


def flip(
    binary: Binary,
    gradient: tf.Tensor,
    numbers: Numbers,
    rounding: Callable[[str, tf.Tensor], tf.Tensor] | None = None,
) -> tuple[Binary, tf.Tensor]:
    r"""One variable, one step: θ_t = −θ_{t−1} where θ_{t−1}·F(g)_t > τ, else θ_{t−1}.

    A weight with θ_{t−1}·y_{t−1} > τ_{t−1} was changed since step t − 1, which would have flipped
    it: its filter's state is mirrored first, as if all gradients so far had been their negatives.

    Where the gradient or the filter's next state is not finite, state and weight stay. A scalar
    slot, such as a count of steps, is that of all weights, and goes on.

    Args:
        binary: θ_{t−1}, of which anything but ±1 counts by its sign, and 0 as +1; F and its state,
            as it is kept.
        gradient: g_t, of the shape of the weight.
        numbers: Of its filter.
        rounding: From slot and exact value to what is kept of it, if that is of a narrower type.

    Returns:
        θ_t with the next state, and where the weight flipped.
    """
    _, filter, _, weight, state = binary
    dtype = wide_dtype(weight)
    gradient = tf.cast(gradient, dtype)
    now, before = (
        {name: tf.cast(value, dtype) for name, value in part.items()} for part in numbers
    )
    old_state = {slot: tf.cast(value, dtype) for slot, value in state.items()}
    sign = tf.where(weight < 0, tf.constant(-1, dtype), tf.constant(1, dtype))
    last = filter.output(old_state, before)
    if last is not None:
        changed = sign * last > before["threshold"]
        for slot in filter.odd_slots:
            old_state[slot] = _negated(old_state[slot], changed)
    new_state, output = filter.step(old_state, gradient, now)
    finite = tf.math.is_finite(gradient)
    for slot in filter.slots:
        finite &= tf.math.is_finite(new_state[slot])
    kept = {}
    for slot in filter.slots:
        new = new_state[slot]
        new = new if rounding is None else tf.cast(rounding(slot, new), dtype)
        kept[slot] = tf.cast(tf.where(finite, new, old_state[slot]), state[slot].dtype)
    # Of the state as it is kept: so the next step sees the same output in it.
    rounded = {slot: tf.cast(value, dtype) for slot, value in kept.items()}
    kept_output = filter.output({**new_state, **rounded}, now)
    output = output if kept_output is None else kept_output
    flipped = finite & (sign * output > now["threshold"])
    weight = tf.cast(tf.where(flipped, -sign, sign), weight.dtype)
    return binary.with_values(weight, {**new_state, **kept}), flipped


def _negated(values: tf.Tensor, where: tf.Tensor) -> tf.Tensor:
    """The values, negated in some places: by the sign bit, quicker than a choice between two."""
    dtype = tf.uint64 if values.dtype == tf.float64 else tf.uint32
    sign = tf.where(where, tf.constant(dtype.max // 2 + 1, dtype), tf.constant(0, dtype))
    return tf.bitcast(tf.bitwise.bitwise_xor(tf.bitcast(values, dtype), sign), values.dtype)


def wide_dtype(weight: Any) -> tf.DType:
    """What a filter computes in: float32 at least, as narrower types lose small steps."""
    return tf.float64 if weight.dtype == tf.float64 else tf.float32
