"""What each hyperparameter of a latent SGD recipe does to the filter that the recipe is."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

from larq_filters import _checks, _latent
from larq_filters._explain_text import Hyperparameter, sentences, table
from larq_filters._filter import Coefficient, Filter, Schedule

import numpy as np
import tensorflow as tf

_FORGOTTEN = 0.01  # the share of the initial weights below which they count as forgotten


@dataclasses.dataclass(frozen=True)
class Explanation:
    """A latent SGD recipe as a filter; `print` shows it as a table of 80 columns.

    With a schedule, α and what follows from it are those of the largest learning rate.
    """

    filter: Filter
    """What `recipes.from_sgd` gives."""
    linear: Filter
    """The same at the largest learning rate and without the clip: what has a transfer function."""
    alpha: float | None
    """Share per step of the slow stage; 0 if nothing is forgotten, None with complex poles."""
    gamma: float | None
    """Share per step of the fast stage; 1 if there is none, None with complex poles."""
    poles: tuple[complex, complex]
    """1 − α and 1 − γ, the slower one first, or a complex pair."""
    alpha_time_constant: float
    """Steps in which the slow stage decays to 1/e; with complex poles, the ringing."""
    gamma_time_constant: float
    """Steps in which the fast stage decays to 1/e, likewise."""
    ringing_period: float | None
    """Steps after which a gradient's influence repeats its signs, or None: it keeps its sign."""
    forgotten_after: float
    """Steps until the initial weights stay below 1 % of their size; infinite if they never do, or,
    with a schedule, not within `steps`."""
    remaining: float | None
    """Share of the initial weights left after `steps`, or None where those are not given."""
    steps_per_epoch: float | None
    """To give times in epochs, or None."""
    changes_nothing: dict[str, float]
    """Factors that, all together, leave every binary weight at every step as it is."""
    hyperparameters: tuple[Hyperparameter, ...] = dataclasses.field(repr=False)
    """The seven, in the order of the table."""

    def to_dict(self) -> dict[str, Any]:
        """All of it in values that JSON has; poles as real and imaginary part."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {
            "filter": str(self.filter),
            "linear": str(self.linear),
            "poles": [[pole.real, pole.imag] for pole in self.poles],
            "alpha_time_constant": _or_none(self.alpha_time_constant),
            "gamma_time_constant": _or_none(self.gamma_time_constant),
            "forgotten_after": _or_none(self.forgotten_after),
            "hyperparameters": [dataclasses.asdict(row) for row in self.hyperparameters],
        }

    def __str__(self) -> str:
        return table(self)


def explain(
    learning_rate: Coefficient,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    decoupled: bool = True,
    *,
    dampening: float = 0.0,
    clip: float | None = None,
    steps: int | None = None,
    steps_per_epoch: float | None = None,
    print_fn: Callable[[str], Any] | None = print,
) -> Explanation:
    r"""What each hyperparameter of SGD on latent weights does, in numbers and plain sentences.

    Decoupled weight decay: α = ελ and γ = 1 − β, whose poles are 1 − α and 1 − γ. Coupled: with
    κ = (1−d)ελ, α and γ are the roots of δ² − (1−β+κ)δ + κ, or with Nesterov momentum of
    δ² − (1−β+κ(1+β))δ + κ; if they are complex, the filter rings with a period of 2π/|arg p|. A
    stage that takes in a share s per step has the time constant −1/ln(1−s).

    Args:
        learning_rate: ε > 0, a number or a schedule.
        momentum: β in [0, 1).
        weight_decay: λ ≥ 0.
        nesterov: Whether momentum is Nesterov's.
        decoupled: Whether weight decay is Keras' (True) or PyTorch's (False).
        dampening: d in [0, 1).
        clip: The bound of the latent weights, such as 1 for larq's `weight_clip`, or None.
        steps: Length of the training; needed with a schedule.
        steps_per_epoch: If given, times are given in epochs, too.
        print_fn: What to print the table with, or None to print nothing.

    Returns:
        The numbers and sentences of the table.

    Raises:
        ValueError: As `from_sgd`; or a schedule without `steps`, or one that is negative or 0
            throughout.

    Example:
        >>> recipe = lqf.recipes.explain(0.1, 0.9, 1e-4, steps_per_epoch=390, print_fn=None)
        >>> recipe.forgotten_after
        460515
        >>> recipe.hyperparameters[0].effect
        'Counts until below 1 % of its size: for 460,515 steps (1,181 epochs).'

    Source:
        Quist, Li, van Gemert, ICLR 2023 (arXiv 2303.02452).
    """
    for name, value in {"steps": steps, "steps_per_epoch": steps_per_epoch}.items():
        if value is not None:
            _checks.positive(name, value)
    rest = momentum, weight_decay, nesterov, decoupled, dampening
    filter, _ = _latent.sgd(learning_rate, *rest, clip)
    rates = _rates(learning_rate, steps)
    linear, _ = _latent.sgd(float(rates.max()), *rest, clip=None)
    coupled = not decoupled and weight_decay > 0.0 and momentum > 0.0
    recipe = Recipe(rates, momentum, weight_decay, nesterov, coupled, dampening, clip)
    explanation = recipe.explain(filter, linear, steps, steps_per_epoch)
    if print_fn is not None:
        print_fn(str(explanation))
    return explanation


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The numbers of a recipe."""

    rates: np.ndarray
    """ε at every step, or at all of them."""
    momentum: float
    weight_decay: float
    nesterov: bool
    coupled: bool
    dampening: float
    clip: float | None

    def explain(
        self, filter: Filter, linear: Filter, steps: int | None, steps_per_epoch: float | None
    ) -> Explanation:
        slow, fast = self.shares(self.rate)
        ringing = slow.imag != 0.0
        turn = max(abs(np.angle(1.0 - share)) for share in (slow, fast))
        factors = {"learning_rate": 2.0, "initial_weights": 2.0}
        explanation = Explanation(
            filter=filter,
            linear=linear,
            alpha=None if ringing else slow.real,
            gamma=None if ringing else fast.real,
            poles=(1.0 - slow, 1.0 - fast),
            alpha_time_constant=_time_constant(slow),
            gamma_time_constant=_time_constant(fast),
            ringing_period=float(2.0 * math.pi / turn) if turn > 0.0 else None,
            forgotten_after=self.forgotten_after(),
            remaining=None if steps is None else self.remaining(steps),
            steps_per_epoch=steps_per_epoch,
            changes_nothing=factors
            | ({"weight_decay": 0.5} if self.weight_decay else {})
            | ({"clip": 2.0} if self.clip is not None else {}),
            hyperparameters=(),
        )
        rows = tuple(sentences(self, explanation, steps))
        return dataclasses.replace(explanation, hyperparameters=rows)

    @property
    def rate(self) -> float:
        """The largest ε."""
        return float(self.rates.max())

    @property
    def varies(self) -> bool:
        return self.rates.size > 1

    def shares(self, rate: float) -> tuple[complex, complex]:
        """α and γ: how much of its input each stage takes in per step; a pair if they ring."""
        product = rate * self.weight_decay
        if not self.coupled:
            return complex(product), complex(1.0 - self.momentum)
        product *= 1.0 - self.dampening
        total = 1.0 - self.momentum + product * (1.0 + self.momentum if self.nesterov else 1.0)
        fast = (total + np.sqrt(complex(total * total - 4.0 * product))) / 2.0
        return complex(product / fast), complex(fast)  # total − fast would lose a small α's digits

    def initial_response(self) -> Iterator[float]:
        """What is left of w₀ = 1 after each step, when no gradient comes."""
        w, m = 1.0, 0.0
        for rate in self.rates.tolist() if self.varies else itertools.repeat(self.rate):
            decay = self.weight_decay * w
            if self.coupled:
                m = self.momentum * m + (1.0 - self.dampening) * decay
                decay = decay + self.momentum * m if self.nesterov else m
            w -= rate * decay
            yield w

    def remaining(self, steps: int) -> float:
        if not self.coupled and not self.varies:
            return (1.0 - self.rate * self.weight_decay) ** steps
        return next(itertools.islice(self.initial_response(), int(steps) - 1, None))

    def forgotten_after(self) -> float:
        if self.weight_decay == 0.0:
            return math.inf
        if self.varies:
            return _below_from(self.initial_response(), self.rates.size)
        slow, fast = self.shares(self.rate)
        part = 1.0  # of w₀ that is in the slow stage
        if self.coupled:
            # Well past its last time below 1 %, even where both poles are the same.
            horizon = math.ceil(15.0 * max(_time_constant(slow), _time_constant(fast), 1.0))
            if horizon < 1e6 or fast.real < 2.0 * slow.real:
                return _below_from(self.initial_response(), horizon)
            part = (fast.real - 1.0 + next(self.initial_response())) / (fast - slow).real
        if slow == 1.0:
            return 1
        return math.floor(math.log(_FORGOTTEN / part) / math.log1p(-slow.real)) + 1


def _rates(learning_rate: Coefficient, steps: int | None) -> np.ndarray:
    if not isinstance(learning_rate, Schedule):
        return np.array([learning_rate], "float64")
    if steps is None:
        raise ValueError(
            "with a schedule, explain needs the length of the training: give `steps`. Received: "
            f"learning_rate={learning_rate!r}, steps=None"
        )

    @tf.function
    def rates() -> tf.Tensor:
        def rate(step: tf.Tensor) -> tf.Tensor:
            return tf.cast(learning_rate(step), tf.float64)

        return tf.map_fn(rate, tf.range(int(steps), dtype=tf.int64), fn_output_signature=tf.float64)

    values = rates.get_concrete_function()().numpy()
    if not (np.isfinite(values).all() and values.min() >= 0.0 and values.max() > 0.0):
        raise ValueError(
            "learning rates are finite, and positive but for a few zeros. Received: a schedule "
            f"with values from {values.min():g} to {values.max():g}"
        )
    return values


def _below_from(responses: Iterator[float], steps: int) -> float:
    """The first step from which on all responses are below 1 %, of so many."""
    shown = enumerate(itertools.islice(responses, steps), 1)
    last = max((step for step, response in shown if abs(response) >= _FORGOTTEN), default=0)
    return math.inf if last == steps else last + 1


def _time_constant(share: complex) -> float:
    if share == 0.0:
        return math.inf
    if share.imag == 0.0 and share.real < 1.0:
        return -1.0 / math.log1p(-share.real)
    radius = abs(1.0 - share)
    return 0.0 if radius == 0.0 else -1.0 / math.log(radius)


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
