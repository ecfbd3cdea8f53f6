"""What FilteredFlip warns of when training ends: coefficients that were not what one thinks."""

from larq_filters._numbers import Schedule, call
from larq_filters._warnings import warn
from larq_filters.optimizers._coefficients import Coefficients
from larq_filters.optimizers._feedback import RATIO
from larq_filters.optimizers._partition import short_name

import tensorflow as tf


class Endings(Coefficients):
    """Looks at coefficients after training."""

    _said_ended = False

    def _warn_of_range(self) -> None:
        """Says so where a coefficient was set outside its range since the last call.

        And where α was at the end of its range for most of the flips that were wanted.
        """
        read = tf.keras.backend.get_value
        full = [key for key in self._of_used(list(self._full)) if read(self._full[key]) > 0.0]
        for variable in self._full.values():
            variable.assign(0.0)
        if full:
            ratio = self._given[RATIO]
            if not isinstance(ratio, Schedule):  # as it was set
                ratio = float(read(self._coefficients[RATIO]))
            warn(
                "fewer weights flipped than flip_ratio says, although alpha was at its largest "
                "value, 1, for most of these flips: give a smaller flip_ratio. Received: "
                f"flip_ratio={call(ratio)}, {', '.join(full)}=1",
            )
        outside = {key: float(read(variable)) for key, variable in self._outside.items()}
        outside = {key: value for key, value in outside.items() if value != 0.0}
        if outside:
            for key in outside:
                self._outside[key].assign(0.0)
            warn(
                "a schedule or a callback set a coefficient outside its range, and the nearest "
                "value was used, or for NaN the last one: alpha, gamma, sigma and leak are in "
                "[0, 1], a flip ratio in [0, 0.5], rates and the threshold are 0 or more. "
                f"Received: {', '.join(f'{key}={value:g}' for key, value in outside.items())}",
            )

    def warn_if_ended(self) -> None:
        """Warns, once, if α had reached 0 before.

        `fit` calls it at its end, and `callbacks.FlipRatio` after every epoch. Call it in a loop of
        your own.
        """
        read = tf.keras.backend.get_value
        steps = int(read(self.iterations))
        rates = set(self._rates().values())
        stop = (
            [RATIO]
            if RATIO in self._given
            else [
                key
                for key in self._of_used(list(self._given))
                if (name := short_name(key)) in ("alpha", "rate")
                or (name == "gamma" and key in rates)
            ]
        )
        ended = [k for k in stop if k in self._written and not float(read(self._coefficients[k]))]
        if steps > 1 and ended and not self._said_ended:
            self._said_ended = True
            given = ", ".join(f"{key}={call(self._given[key])}" for key in ended)
            layers = "" if len(ended) == len(stop) else " of these layers"
            names = " and ".join(sorted({short_name(key) for key in ended}))
            warn(
                f"{names} had decayed to 0 before training ended, and no weight"
                f"{layers} flips after that: decay_steps is the number of steps of the whole "
                "training, epochs times steps per epoch. To train on, compile with a new "
                f"optimizer. Received: {steps} steps of training, {given}",
            )
