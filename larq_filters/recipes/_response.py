"""How the filter of an SGD recipe forgets: its two stages, and what is left of the start."""

import dataclasses
import itertools
import math
from collections.abc import Iterator

from larq_filters.recipes._form import Form

import numpy as np

_FORGOTTEN = 0.01  # the share of the initial weights below which they count as forgotten


@dataclasses.dataclass(frozen=True)
class Response:
    """How a recipe forgets, with given learning rates."""

    recipe: Form
    rates: np.ndarray
    """η at every step, or at all of them."""

    @property
    def rate(self) -> float:
        """The largest η."""
        return float(self.rates.max())

    @property
    def varies(self) -> bool:
        return self.rates.size > 1

    @property
    def shares(self) -> tuple[complex, complex]:
        """α and γ: how much of its input each stage takes in per step; a pair if they ring."""
        recipe, beta = self.recipe, self.recipe.momentum
        product = self.rate * recipe.weight_decay
        if not recipe.coupled:
            return complex(product), complex(1.0 - beta)
        product *= 1.0 - recipe.dampening
        total = 1.0 - beta + product * (1.0 + beta if recipe.nesterov else 1.0)
        fast = (total + np.sqrt(complex(total * total - 4.0 * product))) / 2.0
        return complex(product / fast), complex(fast)  # total − fast would lose a small α's digits

    def initial_response(self) -> Iterator[float]:
        """What is left of w₀ = 1 after each step, when no gradient comes."""
        recipe, beta = self.recipe, self.recipe.momentum
        w, m = 1.0, 0.0
        for rate in self.rates.tolist() if self.varies else itertools.repeat(self.rate):
            decay = recipe.weight_decay * w
            if recipe.coupled:
                m = beta * m + (1.0 - recipe.dampening) * decay
                decay = decay + beta * m if recipe.nesterov else m
            w -= rate * decay
            yield w

    def _first(self, steps: int) -> np.ndarray:
        return np.fromiter(itertools.islice(self.initial_response(), steps), "float64", steps)

    def _decoupled(self) -> np.ndarray:
        """`initial_response` where every step takes its share, in a fraction of the time."""
        return np.cumprod(1.0 - self.rates * self.recipe.weight_decay)

    def remaining(self, steps: int) -> float:
        """What is left of w₀ = 1 after so many steps."""
        if not self.recipe.coupled:
            if self.varies:
                return float(self._decoupled()[int(steps) - 1])
            return (1.0 - self.rate * self.recipe.weight_decay) ** steps
        return next(itertools.islice(self.initial_response(), int(steps) - 1, None))

    def forgotten_after(self) -> float:
        """The step from which on less than 1 % of w₀ is left."""
        if self.recipe.weight_decay == 0.0:
            return math.inf
        if self.varies and not self.recipe.coupled:
            return _below_from(self._decoupled())
        if self.varies:
            return _below_from(self._first(self.rates.size))
        slow, fast = self.shares
        part = 1.0  # of w₀ that is in the slow stage
        if self.recipe.coupled:
            # Well past its last time below 1 %, even where both poles are the same.
            horizon = math.ceil(15.0 * max(time_constant(slow), time_constant(fast), 1.0))
            if horizon < 1e6 or fast.real < 2.0 * slow.real:
                return _below_from(self._first(horizon))
            part = (fast.real - 1.0 + next(self.initial_response())) / (fast - slow).real
        if slow == 1.0:
            return 1
        return math.floor(math.log(_FORGOTTEN / part) / math.log1p(-slow.real)) + 1


def _below_from(responses: np.ndarray) -> float:
    """The first step from which on all responses are below 1 %."""
    above = np.flatnonzero(np.abs(responses) >= _FORGOTTEN)
    last = int(above[-1]) + 1 if above.size else 0
    return math.inf if last == responses.size else last + 1


def time_constant(share: complex) -> float:
    """Steps to 1/e of a stage that takes in so much per step; of a pair that rings, likewise."""
    if share == 0.0:
        return math.inf
    if share.imag == 0.0 and share.real < 1.0:
        return -1.0 / math.log1p(-share.real)
    radius = abs(1.0 - share)
    return 0.0 if radius == 0.0 else -1.0 / math.log(radius)
