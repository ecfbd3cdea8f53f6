"""Batch norm and what else is between a sum of ±1 and its sign, as one integer threshold.

The sum is an integer, so a function of it is a table. TensorFlow itself fills it in, with the
model's own operators in float32. Where its sign turns once, a comparison takes its place.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from larq_filters.export._bits import _code

import numpy as np
import tensorflow as tf

_ELEMENTS = 1 << 22  # of a table, at once


@dataclasses.dataclass(frozen=True)
class Folded:
    """Where sums s have the sign +1: s ≥ threshold, or where flipped s < threshold.

    Args:
        thresholds: One for each channel; −(largest sum) where every sum passes.
        flips: Whether it is the other way round, for each channel.
        edges: (channel, smallest, largest) sums whose sign the rounding of floats decides.
    """

    thresholds: np.ndarray
    flips: np.ndarray
    edges: tuple[tuple[int, int, int], ...]


def fold(
    run: Callable[[Any], Any],
    shape: Sequence[int],
    scale: np.ndarray | None,
    largest: int,
    step: int,
    code: Sequence[tuple[str, ...]],
    constants: Mapping[str, np.ndarray],
) -> Folded | None:
    """Thresholds of the sign of a function of integers, or None where it turns more than once.

    Args:
        run: What the model computes of float sums.
        shape: Of the sums.
        scale: What the model multiplies them with, for each channel, or None.
        largest: Sums are in [−largest, largest].
        step: Distance of a sum from the next.
        code: The same function in our steps, for the error of its rounding.
        constants: Of the code.
    """
    channels = shape[-1]
    size = max(1, _ELEMENTS // channels)
    first = last = np.zeros(channels, bool)
    turns, thresholds = np.zeros(channels, int), np.full(channels, -largest, np.int32)
    low, high = np.full(channels, largest + 1), np.full(channels, -largest - 1)
    for start in range(-largest, largest + 1, size * step):
        sums = np.arange(start, min(start + size * step, largest + 1), step)
        values = np.repeat(sums[:, None].astype(np.float32), channels, 1)
        scaled = values if scale is None else values * scale
        fed = scaled.reshape(len(sums), *[1] * (len(shape) - 2), channels)
        signs = np.asarray(run(tf.constant(fed))).reshape(values.shape) >= 0.0
        near = _is_near(code, constants, values, scale, largest)
        low = np.minimum(low, np.where(near, sums[:, None], largest + 1).min(0))
        high = np.maximum(high, np.where(near, sums[:, None], -largest - 1).max(0))
        if start == -largest:
            first = last = signs[0]
        before = np.concatenate([last[None], signs[:-1]])
        changed = before != signs
        turns += changed.sum(0)
        thresholds = np.where(changed.any(0), sums[changed.argmax(0)], thresholds)
        last = signs[-1]
    if (turns > 1).any():
        return None
    # Constant signs: every sum passes the threshold, flipped or not.
    flips = np.where(turns == 1, first, ~first)
    edges = tuple((int(c), int(low[c]), int(high[c])) for c in np.flatnonzero(low <= high))
    return Folded(thresholds.astype(np.int32), flips, edges)


def _is_near(
    code: Sequence[tuple[str, ...]],
    constants: Mapping[str, np.ndarray],
    sums: np.ndarray,
    scale: np.ndarray | None,
    largest: int,
) -> np.ndarray:
    """Where rounding to float32 could turn the sign."""
    exact = scale is None or _code.is_exact(scale)
    value = sums.astype(np.float64)
    # The convolution adds so many of ± scale, in an order that is not known.
    error: Any = np.full(sums.shape, 0.0 if exact else largest**2 * _code.UNIT)

    def operand(name: str) -> _code.Pair:
        return (value, error) if name == "sum" else _code.constant(constants[name].astype(float))

    if code:
        value, error = _code.evaluate(code, operand)
    return (np.abs(value) <= error) & (error > 0.0)
