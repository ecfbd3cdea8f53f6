"""State in bfloat16, as a loop of XLA over blocks is quick with it on CPUs."""

from collections.abc import Mapping, Sequence

import tensorflow as tf

_HALF = 16  # bits
Tensors = Mapping[str, tf.Tensor]


class Narrow:
    """Slots in bfloat16: arrays as uint16, blocks of them as float32, results two to a uint32.

    XLA on CPUs would convert a whole array of bfloat16 to write a block of it. That a variable has
    the same bits as uint16, it sees, and copies nothing. It makes one loop of each result, which
    repeats all that leads to it: two slots in one result are computed once.

    All methods leave other tensors than those of the slots as they are.

    Args:
        slots: Their names.
    """

    def __init__(self, slots: Sequence[str]) -> None:
        self._slots = slots
        self._pairs = [slots[i : i + 2] for i in range(0, len(slots), 2)]

    def bits(self, arrays: Tensors) -> dict[str, tf.Tensor]:
        """Arrays in bfloat16 as uint16."""
        return {**arrays, **{slot: tf.bitcast(arrays[slot], tf.uint16) for slot in self._slots}}

    def values(self, arrays: Tensors) -> dict[str, tf.Tensor]:
        """The inverse of `bits`."""
        return {**arrays, **{slot: tf.bitcast(arrays[slot], tf.bfloat16) for slot in self._slots}}

    def widened(self, blocks: Tensors) -> dict[str, tf.Tensor]:
        """Uint16 as the float32 that they are the upper half of."""
        wide = {slot: _upper(tf.cast(blocks[slot], tf.uint32)) for slot in self._slots}
        return {**blocks, **{slot: tf.bitcast(bits, tf.float32) for slot, bits in wide.items()}}

    def packed(self, blocks: Tensors) -> dict[str, tf.Tensor]:
        """Float32 whose lower half is 0, two in a uint32, under the name of the first."""
        done = {name: block for name, block in blocks.items() if name not in self._slots}
        for first, *second in self._pairs:
            done[first] = tf.bitcast(blocks[first], tf.uint32)
            for slot in second:
                done[first] |= _lower(tf.bitcast(blocks[slot], tf.uint32))
        return done

    def unpacked(self, packed: Tensors) -> dict[str, tf.Tensor]:
        """What `packed` returned as uint16."""
        done = dict(packed)
        for first, *second in self._pairs:
            done[first] = tf.cast(_lower(packed[first]), tf.uint16)
            for slot in second:
                done[slot] = tf.cast(packed[first] & _constant(0xFFFF), tf.uint16)
        return done


def _upper(bits: tf.Tensor) -> tf.Tensor:
    return tf.bitwise.left_shift(bits, _constant(_HALF))


def _lower(bits: tf.Tensor) -> tf.Tensor:
    return tf.bitwise.right_shift(bits, _constant(_HALF))


def _constant(number: int) -> tf.Tensor:
    return tf.constant(number, tf.uint32)
