"""The binary variables of an optimizer: their filter's state, and a step of all of them."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from larq_filters.filters import Filter
from larq_filters.optimizers._bfloat16 import Bfloat16Variable
from larq_filters.optimizers._feedback import RATIO, Counts, Feedback
from larq_filters.optimizers._flip import Binary, Numbers, wide_dtype
from larq_filters.optimizers._start import Start
from larq_filters.optimizers._update import Update, local

import tensorflow as tf


class Binaries:
    """The binary variables that an optimizer trains, each with its filter's state.

    Args:
        inertia: How strongly filters hold on to the weights that training starts from, as `Start`
            has it.
        state_dtype: What its state is kept in, None for what it is computed in.
        seed: Seed of the stochastic rounding.
        jit_compile: Whether XLA compiles the update, as `Update` has it.
        key: From a variable, or one of its replicas, to what is the same for both.
    """

    def __init__(
        self,
        inertia: float | None,
        state_dtype: str | None,
        seed: int,
        jit_compile: bool | None,
        key: Callable[[tf.Variable], Any],
    ) -> None:
        self._state_dtype, self._key = state_dtype, key
        self._start = Start(inertia)
        self.update = Update(None if state_dtype is None else seed, jit_compile)
        self._known: dict[Any, Binary | None] = {}  # None: not trained
        self._flips: list[tf.Variable] = []  # by the binaries' serials

    def add(self, variable: tf.Variable, filter: Filter | None, label: str) -> list[tf.Variable]:
        """Makes a variable exactly ±1, and creates its filter's state, which is returned.

        Without a filter, the variable stays as it is, and is not trained.
        """
        if filter is None:
            self._known[self._key(variable)] = None
            return []
        was_binary = _is_binarized(variable)
        _binarize(variable)
        wide = wide_dtype(variable)
        narrow = tf.as_dtype(self._state_dtype or wide)
        zeros = {slot: tf.zeros(variable.shape, narrow) for slot in filter.slots}
        zeros |= {slot: tf.zeros((), wide) for slot in filter.scalar_slots}
        state = {slot: _slot(variable, slot, value) for slot, value in zeros.items()}
        serial = len(self._flips)
        self._start.add(serial, filter, variable, was_binary)
        self._known[self._key(variable)] = Binary(serial, filter, label, variable, state)
        self._flips.append(tf.Variable(tf.zeros((), tf.int64), name="flips", trainable=False))
        return list(state.values())

    def __contains__(self, variable: tf.Variable) -> bool:
        return self._key(variable) in self._known

    def slots(self, variable: tf.Variable) -> dict[str, tf.Variable]:
        """The filter's state for a variable, by slot; empty for one that is not binary."""
        binary = self._known.get(self._key(variable))
        return {} if binary is None else dict(binary.state)

    def flips(self, variable: tf.Variable) -> tf.Variable | None:
        """The counter of a variable's flips; None for one that no filter trains."""
        binary = self._known.get(self._key(variable))
        return None if binary is None else self._flips[binary.serial]

    def _by_label(self, flipped: Mapping[int, tf.Tensor]) -> Counts:
        """From the flips of a step by serial: flips and weights by the label of their filter."""
        counts: dict[str, tuple[tf.Tensor, int]] = {}
        for binary in filter(None, self._known.values()):
            if binary.serial in flipped:  # had a gradient
                flips, size = counts.get(binary.label, (tf.zeros((), tf.int64), 0))
                size += math.prod(binary.weight.shape)
                counts[binary.label] = flips + flipped[binary.serial], size
        return counts

    def output(self, variable: tf.Variable, coefficients: Numbers) -> tf.Tensor | None:
        """The output y of a variable's filter in the last step; None without filter or state."""
        binary = self._known.get(self._key(variable))
        if binary is None or not binary.filter.slots:
            return None
        dtype = wide_dtype(binary.weight)
        state = {slot: tf.cast(value, dtype) for slot, value in binary.state.items()}
        now, before = coefficients.of(binary.label)
        known = math.isfinite(float(before["threshold"]))  # not in files of earlier versions
        y = binary.filter.output(state, before if known else now)
        # A filter that does not tell: what it answers to no gradient.
        zero = tf.zeros(binary.weight.shape, dtype)
        return binary.filter.step(state, zero, now)[1] if y is None else tf.convert_to_tensor(y)

    def step(
        self,
        distribution: Any,
        gradients_and_variables: Sequence[tuple[tf.Tensor, tf.Variable]],
        coefficients: Numbers,
        iterations: tf.Variable,
        count_flips: bool,
        feedback: Feedback | None,
    ) -> tf.Variable:
        """One step of all variables, in all replicas; returns the number of steps done."""
        count_flips |= feedback is not None

        def in_replica(binaries: Sequence[Binary], first: Any, *gradients: Any) -> list[tf.Tensor]:
            values = [tf.convert_to_tensor(gradient) for gradient in gradients]
            numbers = Numbers(
                *(
                    {name: tf.convert_to_tensor(c) for name, c in part.items()}
                    for part in coefficients
                )
            )
            step = tf.convert_to_tensor(iterations)
            self._start([local(binary, first.device) for binary in binaries], values, numbers)
            flips = self.update(first.device, binaries, values, numbers, step, count_flips)
            for binary, count in zip(binaries, flips, strict=count_flips):
                self._flips[binary.serial].assign_add(count, read_value=False)
            return flips

        flipped: dict[int, tf.Tensor] = {}  # in this step
        devices: dict[str, list[Any]] = {}  # more than one with parameter servers
        for gradient, variable in gradients_and_variables:
            binary = self._known[self._key(variable)]
            if binary is not None:
                devices.setdefault(variable.device, []).append((gradient, binary))
        for pairs in devices.values():
            gradients, binaries = zip(*pairs, strict=True)
            flips = distribution.extended.update(
                binaries[0].weight,
                functools.partial(in_replica, binaries),
                args=gradients,
                group=False,
            )
            for binary, replicas in zip(binaries, flips, strict=count_flips):
                flipped[binary.serial] = replicas[0]  # the same in all
        if feedback is not None:
            ratio = tf.convert_to_tensor(coefficients.now[RATIO])
            feedback.learn(ratio, self._by_label(flipped))
        for name, variable in coefficients.before.items():
            variable.assign(coefficients.now[name])
        return iterations.assign_add(1)


def _slot(variable: tf.Variable, slot: str, value: tf.Tensor) -> Any:
    name = f"{slot.replace('.', '_')}/{variable._shared_name}"
    as_bits = value.dtype == tf.bfloat16 and "GPU" not in variable.device  # which knows no uint16
    value = tf.bitcast(value, tf.uint16) if as_bits else value
    with tf.distribute.get_strategy().extended.colocate_vars_with(variable):
        state = tf.Variable(value, name=name, trainable=False)
    return Bfloat16Variable(state) if as_bits else state


def _is_binarized(variable: tf.Variable) -> bool:
    replica = tf.distribute.get_strategy().experimental_local_results(variable)[0]
    return bool(tf.reduce_all(tf.abs(tf.convert_to_tensor(replica)) == 1).numpy())


def _binarize(variable: tf.Variable) -> None:
    # One replica at a time: `build` runs in the context of whichever replica comes first.
    for replica in tf.distribute.get_strategy().experimental_local_results(variable):
        ones = tf.ones_like(replica)
        replica.assign(tf.where(tf.convert_to_tensor(replica) < 0, -ones, ones))
