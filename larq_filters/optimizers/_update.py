"""The update of binary variables and their filters' state in place, at the speed of memory.

Large variables go through the cache block by block on CPUs: XLA makes one loop of each output
there, and each of these loops would read all inputs again from memory. Such a walk keeps one core
busy, so the variables are shared out among functions: one for each core, if there is enough to do.
The largest have a function for each shape and filter, which is compiled once and called for each.
"""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

from larq_filters.optimizers import _rounding
from larq_filters.optimizers._bfloat16 import bits_of, of_bits
from larq_filters.optimizers._flip import Binary, Numbers, flip
from larq_filters.optimizers._narrow import Narrow

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla

_LARGEST, _SMALLEST = 16_384, 4_096  # elements: a few hundred kB, in a core's own cache
_LINE = 64  # elements: blocks that begin in the middle of a vector take twice as long
_FROM = 4 * _LARGEST  # smaller variables stay in the cache anyway
_VARIABLE = 5_000  # elements that take as long as handing a variable to a function
_MOST = 8  # more cores than that would wait for memory
_SHARE = 2**18  # elements that are worth a function of their own: compiling one takes 0.2 s
_LONE = 2**19  # elements of a variable beside whose step a call of its own takes no time
_WORTH = 2**17  # elements that are worth compiling at all: with fewer, a step takes as long
# The weight's name among the slots: the first in order, as XLA then runs the loop that reads all
# inputs first, which is best.
_WEIGHT = ""


class Update:
    """The update of a model's binary variables and their filters' state, which are assigned to.

    Compiled functions are kept: those of groups hold on to the variables that they were made for,
    and those of large variables are given them.

    Args:
        seed: Of the rounding of the state, None where it is not rounded.
        jit_compile: Whether XLA compiles the update, or it goes op by op. None: on GPUs, and from
            `_WORTH` elements on.
    """

    def __init__(self, seed: int | None, jit_compile: bool | None) -> None:
        self._seed, self._jit_compile = seed, jit_compile
        self._compiled: dict[tuple, Callable[..., list[tf.Tensor]]] = {}
        self._shared: dict[tuple, Callable[..., tf.Tensor | None]] = {}

    def __call__(
        self,
        device: str,
        binaries: Sequence[Binary],
        gradients: Sequence[tf.Tensor],
        numbers: Numbers,
        step: tf.Tensor,
        count_flips: bool,
    ) -> list[tf.Tensor]:
        """One step of the variables' replicas on a device.

        Args:
            device: Its name.
            binaries: The binary variables with their state.
            gradients: For each of them g_t.
            numbers: Coefficients.
            step: The number of steps done.
            count_flips: Whether to count.

        Returns:
            How many weights of each variable flipped, if asked for, or nothing.
        """
        flips: dict[int, tf.Tensor] = {}
        sizes = [binary.weight.shape.num_elements() for binary in binaries]
        is_gpu = "GPU" in device
        compiles = (
            is_gpu or sum(sizes) >= _WORTH if self._jit_compile is None else self._jit_compile
        )
        shares = compiles and not is_gpu and self._seed is None
        for i in (i for i, size in enumerate(sizes) if shares and size >= _LONE):
            flips[i] = self._flip_large(
                device, binaries[i], gradients[i], numbers, step, count_flips
            )
        rest = [i for i in range(len(sizes)) if i not in flips]
        work = [sizes[i] for i in rest]
        groups = 1 if is_gpu or not compiles else min(cores(), sum(work) // _SHARE + 1)
        for group in share_out(work, groups):  # TensorFlow runs all functions at the same time
            mine = [binaries[rest[i]] for i in group]
            which = (device, *(binary.serial for binary in mine))
            if which not in self._compiled:
                self._compiled[which] = self._make(device, mine, compiles)
            counts = self._compiled[which](
                [gradients[rest[i]] for i in group], numbers, step, count_flips
            )
            flips |= zip((rest[i] for i in group), counts, strict=count_flips)
        return [flips[i] for i in range(len(binaries))] if count_flips else []

    def _flip_large(
        self,
        device: str,
        binary: Binary,
        gradient: tf.Tensor,
        numbers: Numbers,
        step: tf.Tensor,
        count_flips: bool,
    ) -> tf.Tensor | None:
        """One step of a variable, by a function that all of its shape and filter share."""
        which = device, binary.label
        if which not in self._shared:

            def flip_it(variable: Any, slots: Any, *args: Any) -> tf.Tensor | None:
                return _flip_one(None, True, binary.with_values(variable, slots), *args)

            self._shared[which] = tf.function(flip_it, jit_compile=True, autograph=False)
        mine = local(binary, device)
        # Without larq's wrapper, for each of which the function would be traced anew.
        weight = getattr(mine.weight, "latent_variable", mine.weight)
        return self._shared[which](weight, mine.state, gradient, numbers, step, count_flips)

    def _make(
        self, device: str, binaries: Sequence[Binary], compiles: bool
    ) -> Callable[..., list[tf.Tensor]]:
        # On GPUs XLA makes a single loop anyway.
        blocks = compiles and "GPU" not in device
        mine = [local(binary, device) for binary in binaries]
        step = functools.partial(_flip_all, self._seed, blocks, mine)
        return tf.function(step, jit_compile=True, autograph=False) if compiles else step


def _flip_all(
    seed: int | None,
    blocks: bool,
    binaries: Sequence[Binary],
    gradients: Sequence[tf.Tensor],
    numbers: Numbers,
    step: tf.Tensor,
    count_flips: bool,
) -> list[tf.Tensor]:
    """What a function of several does: one variable after another."""
    counts = [
        _flip_one(seed, blocks, binary, gradient, numbers, step, count_flips)
        for binary, gradient in zip(binaries, gradients, strict=True)
    ]
    return counts if count_flips else []


def _flip_one(
    seed: int | None,
    blocks: bool,
    binary: Binary,
    gradient: tf.Tensor,
    numbers: Numbers,
    step: tf.Tensor,
    count_flips: bool,
) -> tf.Tensor | None:
    """One step of a variable, in blocks if asked: how many weights flipped, if that is asked."""
    serial, filter, label, variable, slots = binary
    mine = numbers.of(label)
    rounding = None if seed is None else _rounding.Rounding(seed, step, serial, filter.slots)
    state = {slot: tf.convert_to_tensor(value) for slot, value in slots.items()}
    old = binary.with_values(weight=tf.convert_to_tensor(variable), state=state)
    size = block_size(variable.shape.num_elements()) if blocks else None
    if size is None:
        draws = rounding.at(0) if rounding else None
        new, flipped = flip(old, gradient, mine, draws)
        count = tf.math.count_nonzero(flipped) if count_flips else None
    else:
        new, count = _flip_in_blocks(old, gradient, mine, rounding, size, count_flips)
    variable.assign(new.weight, read_value=False)
    for slot, value in new.state.items():
        slots[slot].assign(value, read_value=False)
    return count if count_flips else None


def cores() -> int:
    """How many cores this process may use, as far as more of them help."""
    usable = getattr(os, "sched_getaffinity", None)  # of Linux
    return min(len(usable(0)) if usable else os.cpu_count() or 1, _MOST)


def share_out(sizes: Sequence[int], groups: int) -> list[list[int]]:
    """Groups of indices with about equal work.

    Each next largest variable goes to the group with the least work.
    """
    shares: list[list[int]] = [[] for _ in range(min(groups, len(sizes)))]
    work = [0] * len(shares)
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        idlest = work.index(min(work))
        shares[idlest].append(i)
        work[idlest] += sizes[i] + _VARIABLE
    return shares


def block_size(elements: int) -> int | None:
    """The size of equal blocks for a variable of so many elements, None where it stays whole."""
    if elements < _FROM:
        return None
    sizes = range(_LARGEST, _SMALLEST - 1, -_LINE)
    return next((size for size in sizes if elements % size == 0), None)


def _flip_in_blocks(
    binary: Binary,
    gradient: tf.Tensor,
    numbers: Numbers,
    rounding: _rounding.Rounding | None,
    size: int,
    count_flips: bool,
) -> tuple[Binary, tf.Tensor]:
    """As `flip` does it, but returns the number of flips instead of their places.

    What a block becomes is written in the next iteration: XLA fuses nothing across iterations, so
    no loop overwrites what another has still to read, and nothing is copied to be safe from that.
    """
    _, filter, _, weight, state = binary
    shape, blocks = weight.shape, weight.shape.num_elements() // size
    gradient = tf.reshape(gradient, [-1])
    scalars = {slot: state[slot] for slot in filter.scalar_slots}
    arrays = {slot: tf.reshape(state[slot], [-1]) for slot in filter.slots}
    narrow = Narrow([slot for slot, array in arrays.items() if array.dtype == tf.bfloat16])
    arrays = narrow.bits(arrays)
    arrays[_WEIGHT] = tf.reshape(weight, [-1])

    def body(i: Any, arrays: Any, done: Any, scalars_done: Any, flips: Any) -> tuple[Any, ...]:
        before, here = [tf.maximum(i - 1, 0) * size], [tf.minimum(i, blocks - 1) * size]
        done = narrow.unpacked(done)
        arrays = {n: xla.dynamic_update_slice(a, done[n], before) for n, a in arrays.items()}
        block = {n: xla.dynamic_slice(a, here, [size]) for n, a in arrays.items()}
        block = narrow.widened(block)
        new, flipped = flip(
            binary.with_values(weight=block.pop(_WEIGHT), state={**block, **scalars}),
            xla.dynamic_slice(gradient, here, [size]),
            numbers,
            rounding.at(here[0]) if rounding else None,
        )
        if count_flips:
            flips += tf.where(i < blocks, tf.math.count_nonzero(flipped), 0)
        scalars_done = {slot: new.state[slot] for slot in scalars}
        done = narrow.packed({slot: new.state[slot] for slot in filter.slots})
        return i + 1, arrays, {**done, _WEIGHT: new.weight}, scalars_done, flips

    first = {name: array[:size] for name, array in arrays.items()}  # is written as it was
    first = narrow.packed(narrow.widened(first))
    _, arrays, _, scalars_done, flips = tf.while_loop(
        lambda i, *_: i <= blocks,
        body,
        (tf.constant(0), arrays, first, scalars, tf.constant(0, tf.int64)),
    )
    arrays = {name: tf.reshape(array, shape) for name, array in narrow.values(arrays).items()}
    weight = arrays.pop(_WEIGHT)
    return binary.with_values(weight=weight, state={**arrays, **scalars_done}), flips


def local(binary: Binary, device: str) -> Binary:
    """Of variables under a strategy, the replicas on a device."""

    def replica(variable: tf.Variable) -> tf.Variable:
        replicas = tf.distribute.get_strategy().experimental_local_results(variable)
        return next((one for one in replicas if one.device == device), variable)

    state = {slot: of_bits(replica(bits_of(v))) for slot, v in binary.state.items()}
    return binary.with_values(weight=replica(binary.weight), state=state)
