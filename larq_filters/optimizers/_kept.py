"""What FilteredFlip keeps for each variable: to be looked at, and at the end put in its place."""

import re
from collections.abc import Sequence

from larq_filters._warnings import warn
from larq_filters.optimizers._averages import Averages
from larq_filters.optimizers._binaries import Binaries
from larq_filters.optimizers._endings import Endings
from larq_filters.optimizers._flip import Numbers

import tensorflow as tf
from typing_extensions import override


class Kept(Endings, tf.keras.optimizers.Optimizer):
    """What FilteredFlip says of each of its variables."""

    _averages: Averages
    _binaries: Binaries
    _average: float | None
    _real_optimizer: tf.keras.optimizers.Optimizer
    recalibrates_at: int | None = None
    """The step after which a callback recalibrates batch norm, should training end there."""
    averages_in_at: int | None = None
    """The step after which a callback put averages in place, which stay if training ends there."""

    def slots(self, variable: tf.Variable) -> dict[str, tf.Variable]:
        """The filter's state for a binary variable, by slot name; empty for a real one.

        Of bfloat16 they are no `tf.Variable` on CPUs, but can be read, assigned to, and given to
        functions of TensorFlow and NumPy.
        """
        return self._binaries.slots(variable)

    def flips(self, variable: tf.Variable) -> tf.Variable | None:
        """Flips of a binary variable, counted while `count_flips` is set; None for a real one."""
        return self._binaries.flips(variable)

    def output(self, variable: tf.Variable) -> tf.Tensor | None:
        """The output y of a binary variable's filter in the last step, of the variable's shape.

        None for a real variable, and for a filter without state.
        """
        return self._binaries.output(variable, Numbers(self._coefficients, self._before))

    @property
    def has_averages(self) -> bool:
        """Whether it keeps an average of every variable."""
        return self._averages.are_kept

    def average(self, variable: tf.Variable) -> tf.Variable | None:
        """The average of a variable, of its shape; None if averages are not kept."""
        return self._averages.of(variable)

    def put_averages(self, var_list: Sequence[tf.Variable]) -> None:
        """Gives variables their averages, and binary ones the sign of these."""
        self._averages.write(var_list, self._binaries.__contains__)

    @override
    def finalize_variable_values(self, var_list: Sequence[tf.Variable]) -> None:
        """At the end of training: averages take the place of variables.

        Warns:
            UserWarning: α had decayed to 0 before, a coefficient was set outside its range, or
                batch norm does not follow the averages.
        """
        self._warn_of_range()
        self.warn_if_ended()
        self._real_optimizer.finalize_variable_values(
            [v for v in var_list if v not in self._binaries]
        )
        steps = tf.keras.backend.get_value(self.iterations)
        if steps and self.averages_in_at != steps:
            self.put_averages(var_list)
            if self.has_averages and self.recalibrates_at != steps and _may_be_normalized(var_list):
                warn(
                    "the averages are in place. If the network has batch norm, its moving averages "
                    "are still those of the last weights, which costs accuracy: train with "
                    "callbacks.SwapAverages(data), or call callbacks.RecalibrateBatchNorm(data)"
                    f"(model) now. Received: average={self._average:g} without SwapAverages",
                )


def _may_be_normalized(variables: Sequence[tf.Variable]) -> bool:
    """Whether some are those of a normalization, by the names that Keras gives them.

    Batch norm without γ and β has no such variables, and a layer norm has.
    """
    return any(re.search(r"(^|/)(gamma|beta)(:|$)", variable.name) for variable in variables)
