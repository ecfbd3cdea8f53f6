"""Averages of an optimizer's variables over their past."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from larq_filters.optimizers._flip import wide_dtype

import tensorflow as tf


class Averages:
    """For each variable θ its average a, in which a later value counts for more.

    a ← a + w·(θ − a) after every step, w = c/(t + c) after t steps before it

    So the value after s of t steps has a weight of about c·s^(c−1)/t^c, and the mean age of what is
    averaged is t/(c + 1): always the same share of the training so far. Averages are in float32 at
    least, as narrower types lose small steps.

    Args:
        c: From 1 on; 1 is the plain average. None: no averages.
        key: From a variable, or one of its replicas, to what is the same for both.
    """

    def __init__(self, c: float | None, key: Callable[[tf.Variable], Any]) -> None:
        self._c, self._key = c, key
        self._averages: dict[Any, tf.Variable] = {}

    @property
    def are_kept(self) -> bool:
        """Whether there are any."""
        return self._c is not None

    def add(self, variables: Iterable[tf.Variable]) -> list[tf.Variable]:
        """Creates the averages of variables, which are returned: they start as these."""
        if self._c is None:
            return []
        for variable in variables:
            name = f"average/{variable._shared_name}"
            with tf.distribute.get_strategy().extended.colocate_vars_with(variable):
                value = tf.cast(tf.convert_to_tensor(variable), wide_dtype(variable))
                average = tf.Variable(value, name=name, trainable=False)
            self._averages[self._key(variable)] = average
        return list(self._averages.values())

    def of(self, variable: tf.Variable) -> tf.Variable | None:
        """The average of a variable; None for one that was never added."""
        return self._averages.get(self._key(variable))

    def step(self, distribution: Any, variables: Sequence[tf.Variable], steps: tf.Tensor) -> None:
        """Moves the averages of variables that have just been updated, in all replicas.

        Args:
            distribution: The strategy, in whose cross-replica context this is called.
            variables: The variables.
            steps: t, the number of steps done before this one.
        """
        if self._c is None:
            return
        share = self._c / (tf.cast(steps, tf.float32) + self._c)
        for variable in variables:
            average = self.of(variable)
            if average is not None:
                distribution.extended.update(variable, _move, args=(average, share), group=False)

    def write(self, variables: Iterable[tf.Variable], is_binary: Callable[..., bool]) -> None:
        """Gives variables their averages; a binary one its sign, or at 0 what it is."""
        local = tf.distribute.get_strategy().experimental_local_results
        for variable in variables:
            average = self.of(variable)
            if average is None:
                continue
            for replica, mean in zip(local(variable), local(average), strict=True):
                value = tf.cast(tf.convert_to_tensor(mean), replica.dtype)
                if is_binary(variable):
                    value = tf.where(value == 0, tf.convert_to_tensor(replica), tf.sign(value))
                replica.assign(value)


def _move(variable: tf.Variable, average: tf.Variable, share: tf.Tensor) -> None:
    change = tf.cast(tf.convert_to_tensor(variable), average.dtype) - average
    average.assign_add(tf.cast(share, average.dtype) * change, read_value=False)
