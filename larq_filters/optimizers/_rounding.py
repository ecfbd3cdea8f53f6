"""Stochastic rounding to bfloat16: up or down at random, unbiased."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

_DROPPED = 16  # bits of float32 that bfloat16 does not have
_MAX = float(tf.bfloat16.max)


class Rounding:
    """The stochastic rounding of a variable's state at a step.

    Each draw depends only on the arguments and the index of the element. So all replicas, all sizes
    of blocks and a resumed training draw the same numbers. Two slots share the 32 bits of a draw.

    Args:
        seed: A whole number.
        step: The number of steps done.
        variable: A number of the variable's own.
        slots: Names of all slots.
    """

    def __init__(self, seed: int, step: tf.Tensor, variable: int, slots: Sequence[str]) -> None:
        self._places = {slot: divmod(i, 2) for i, slot in enumerate(slots)}
        self._keys = []
        for i in range(0, len(slots), 2):
            one = two = _mix(_u32(seed))
            for part in (_u32(variable), _u32(i), tf.cast(step, tf.uint32)):
                one, two = _mix(one + part), _mix(two + _mix(part + _u32(0x9E37_79B9)))
            self._keys.append((one, two))

    def at(self, first: Any) -> Callable[[str, tf.Tensor], tf.Tensor]:
        """From slot and values to rounded values; `first` is the index of the first of them."""

        def round(slot: str, value: tf.Tensor) -> tf.Tensor:
            index = tf.reshape(tf.range(value.shape.num_elements()), value.shape) + first
            pair, is_second = self._places[slot]
            drawn = _hash(tf.bitcast(index, tf.uint32), self._keys[pair])
            drawn = tf.bitwise.left_shift(drawn, _u32(_DROPPED)) if is_second else drawn
            return stochastic(value, drawn)

        return round


def stochastic(value: tf.Tensor, drawn: tf.Tensor) -> tf.Tensor:
    """One of the two neighbours in bfloat16, the nearer one more likely. The mean is the value.

    Args:
        value: Numbers of any float type, rounded from float32.
        drawn: Uint32 of the same shape, of which the upper 16 bits are uniformly distributed.

    Returns:
        Float32, at most the largest number of bfloat16.
    """
    bits = tf.bitcast(tf.clip_by_value(tf.cast(value, tf.float32), -_MAX, _MAX), tf.uint32)
    bits += tf.bitwise.right_shift(drawn, _u32(32 - _DROPPED))
    return tf.bitcast(tf.bitwise.bitwise_and(bits, _u32(0xFFFF_FFFF << _DROPPED)), tf.float32)


def _hash(index: tf.Tensor, key: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
    # The second key between the rounds: with the first alone, draws of one step would be those of
    # another, some elements further.
    xor, shift = tf.bitwise.bitwise_xor, tf.bitwise.right_shift
    h = index + key[0]
    h = xor(h, shift(h, _u32(16))) * _u32(0x7FEB_352D)
    h = xor(h, key[1])
    h = xor(h, shift(h, _u32(15))) * _u32(0x846C_A68B)
    return xor(h, shift(h, _u32(16)))


def _mix(number: tf.Tensor) -> tf.Tensor:
    return _hash(number, (_u32(0x6A09_E667), _u32(0xBB67_AE85)))


def _u32(number: int) -> tf.Tensor:
    return tf.constant(number & 0xFFFF_FFFF, tf.uint32)
