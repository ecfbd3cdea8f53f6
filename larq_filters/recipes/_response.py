"""A latent SGD recipe in numbers: its two stages, and what is left of the initial weights."""

import dataclasses
import itertools
import math
from collections.abc import Iterator

import numpy as np

_FORGOTTEN = 0.01  # the share of the initial weights below which they count as forgotten


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The numbers of a recipe, and how its filter forgets."""

    rates: np.ndarray
    """ε at every step, or at all of them."""
    momentum: float
    weight_decay: float
    nesterov: bool
    coupled: bool
    dampening: float
    clip: float | None

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
            horizon = math.ceil(15.0 * max(time_constant(slow), time_constant(fast), 1.0))
            if horizon < 1e6 or fast.real < 2.0 * slow.real:
                return _below_from(self.initial_response(), horizon)
            part = (fast.real - 1.0 + next(self.initial_response())) / (fast - slow).real
        if slow == 1.0:
            return 1
        return math.floor(math.log(_FORGOTTEN / part) / math.log1p(-slow.real)) + 1


def _below_from(responses: Iterator[float], steps: int) -> float:
    """The first step from which on all responses are below 1 %, of so many."""
    shown = enumerate(itertools.islice(responses, steps), 1)
    last = max((step for step, response in shown if abs(response) >= _FORGOTTEN), default=0)
    return math.inf if last == steps else last + 1


def time_constant(share: complex) -> float:
    """Steps to 1/e of a stage that takes in so much per step; of a pair that rings, likewise."""
    if share == 0.0:
        return math.inf
    if share.imag == 0.0 and share.real < 1.0:
        return -1.0 / math.log1p(-share.real)
    radius = abs(1.0 - share)
    return 0.0 if radius == 0.0 else -1.0 / math.log(radius)
