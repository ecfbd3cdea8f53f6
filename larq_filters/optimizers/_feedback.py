"""The flip ratio as a hyperparameter: feedback on α until the wanted share of weights flips."""

import math
from collections.abc import Iterator, Mapping

from larq_filters._numbers import Coefficient, Schedule, call
from larq_filters.optimizers import _settable
from larq_filters.optimizers._partition import Partition, label_of, short_name

import tensorflow as tf

Counts = Mapping[str, tuple[tf.Tensor, int]]
RATIO = "flip_ratio"  # the name of its coefficient
LARGEST = 0.5
_RATE = 0.01  # η: 1 % a step, so that a ratio e times too large takes some 100 steps, about 1/α


class Feedback:
    """For each filter the u that makes its α one of the wanted flip ratio R.

    α_t = min(u_t·R_t², 1);  ln u_{t+1} = ln u_t + 2η·clip((R_t − k_t)/(R_t + 1/n), −1, 1)

    k_t is the share of the filter's n weights that flipped in step t, of those with a gradient: so
    a filter whose weights have none stays as it is. Weights whose gradients are
    noise flip in a share that grows as √α: so R moves α at once, and η is the share by which an
    error of ln k shrinks in a step. For k near R, (R − k)/R is ln(R/k), and it is right on average
    where fewer than one weight should flip in a step; 1/n then bounds what a single flip does.

    Args:
        filters: By label.
        given: All coefficients of these filters, and R as `flip_ratio`, as the optimizer has them.

    Raises:
        ValueError: A filter has no α, or one with a schedule; or R does not start in (0, 0.5].
    """

    def __init__(self, filters: Partition, given: Mapping[str, Coefficient]) -> None:
        self.gains: dict[str, tf.Variable] = {}  # u, by the name of α
        self.full: dict[str, tf.Variable] = {}  # ΣR of steps at α = 1, less that of all others
        ratio = first(given[RATIO])
        for label, names in filters.names.items():
            alphas = [name for name in names if short_name(name) == "alpha"]
            alpha = given[alphas[-1]] if alphas else None  # of several stages, the last one's
            if alpha is None or isinstance(alpha, Schedule):
                raise ValueError(
                    "flip_ratio moves the alpha of every filter: give filters whose alpha is a "
                    f"number, from which it starts. Received: flip_ratio={call(given[RATIO])} with "
                    f"the filter {filters[label]} for {label!r}"
                )
            dtype = tf.keras.backend.floatx()
            name = alphas[-1]
            self.gains[name] = _settable.make(f"{name}_gain", alpha / ratio**2, dtype)
            self.full[name] = _settable.make(f"{name}_full", 0.0, dtype)

    def alphas(self, ratio: tf.Tensor) -> Iterator[tuple[str, tf.Tensor]]:
        """The name of each α, and its value for a flip ratio."""
        for name, gain in self.gains.items():
            yield name, tf.minimum(gain * ratio**2, 1.0)

    def learn(self, ratio: tf.Tensor, counts: Counts) -> None:
        """Moves u by the flips of a step.

        Args:
            ratio: R of the step.
            counts: By label, the flips of the step and the number of weights.
        """
        for name, gain in self.gains.items():
            label = label_of(name)
            if label not in counts:  # none of its weights has a gradient
                continue
            flips, size = counts[label]
            share = tf.cast(flips, gain.dtype) / size
            wrong = (ratio - share) / (ratio + 1.0 / size)
            new = gain * tf.exp(2.0 * _RATE * tf.clip_by_value(wrong, -1.0, 1.0))
            most = tf.where(ratio > 0.0, ratio**-2, gain.dtype.max)  # there α is 1
            gain.assign(tf.minimum(new, most))
            self.full[name].assign_add(tf.where(new < most, -ratio, ratio))


def first(ratio: Coefficient) -> float:
    """R of the first step.

    Raises:
        ValueError: It is 0, or more than half.
    """
    value = float(ratio(0)) if isinstance(ratio, Schedule) else ratio
    if not 0.0 < value <= LARGEST:
        starts = f", which starts at {value:g}" if isinstance(ratio, Schedule) else ""
        raise ValueError(
            "flip_ratio is a share of the weights per step, such as 0.01 for 1 %, and starts in "
            f"(0, 0.5]: noise flips no more. Received: flip_ratio={call(ratio)}{starts}"
        )
    return value


def alpha_of_noise(ratio: float, gamma: float | None) -> float:
    """The α whose `CascadedEMA`, or without γ whose `EMA`, flips in the share R if fed with noise.

    Neighbouring outputs of normal noise have opposite signs with the probability arccos(ρ)/π, where
    ρ = (2 − α − γ)/(2 − α − γ + αγ) is their correlation. For small α and R it is √(αγ)/π.
    """
    gamma = 1.0 if gamma is None else gamma
    rho = math.cos(math.pi * ratio)
    return min((2.0 - gamma) * (1.0 - rho) / (1.0 - rho * (1.0 - gamma)), 1.0)
