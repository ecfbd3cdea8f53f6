"""The flip rule, as a pure function of tensors."""

from collections.abc import Callable, Mapping
from typing import Any

from larq_filters.filters import Filter

import tensorflow as tf


def flip(
    filter: Filter,
    weight: tf.Tensor,
    gradient: tf.Tensor,
    state: Mapping[str, tf.Tensor],
    coefficients: Mapping[str, tf.Tensor],
    round: Callable[[str, tf.Tensor], tf.Tensor] | None = None,
) -> tuple[tf.Tensor, dict[str, tf.Tensor], tf.Tensor]:
    r"""One variable, one step: θ_t = −θ_{t−1} where θ_{t−1}·F(g)_t > τ, else θ_{t−1}.

    Where the gradient or the filter's next state is not finite, state and weight stay.

    Args:
        filter: F.
        weight: θ_{t−1}; anything but ±1 counts by its sign, and 0 as +1.
        gradient: g_t, of the shape of `weight`.
        state: The filter's state, by slot, as it is kept.
        coefficients: The filter's coefficients, and τ as `threshold`, by name.
        round: From slot and exact value to what is kept of it, if that is of a narrower type.

    Returns:
        θ_t, the next state, and where the weight flipped.
    """
    dtype = state_dtype(weight)
    gradient = tf.cast(gradient, dtype)
    coefficients = {name: tf.cast(value, dtype) for name, value in coefficients.items()}
    old_state = {slot: tf.cast(value, dtype) for slot, value in state.items()}
    new_state, output = filter.step(old_state, gradient, coefficients)
    finite = tf.math.is_finite(gradient)
    for slot in filter.slots:
        finite &= tf.math.is_finite(new_state[slot])
    kept = {}
    for slot in filter.slots:
        new = new_state[slot] if round is None else tf.cast(round(slot, new_state[slot]), dtype)
        kept[slot] = tf.cast(tf.where(finite, new, old_state[slot]), state[slot].dtype)
    sign = tf.where(weight < 0, tf.constant(-1, dtype), tf.constant(1, dtype))
    flipped = finite & (sign * output > coefficients["threshold"])
    return tf.cast(tf.where(flipped, -sign, sign), weight.dtype), {**new_state, **kept}, flipped


def state_dtype(weight: Any) -> tf.DType:
    """The type of a filter's state: float32 at least, as narrower types lose small steps."""
    return tf.float64 if weight.dtype == tf.float64 else tf.float32
