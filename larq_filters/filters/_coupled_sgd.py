"""SGD with coupled weight decay, if its rate varies or its weights are clipped."""

import dataclasses
from typing import Any

from larq_filters import _numbers
from larq_filters._numbers import Coefficient, check_fields
from larq_filters._serialization import register
from larq_filters.filters._base import Filter, Tensors

import tensorflow as tf
from typing_extensions import override


@register
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CoupledSGD(Filter):
    r"""SGD with momentum and coupled weight decay whose rate varies, or whose weights are clipped.

    With x' = x − λy: m_t = βm_{t−1} + (1−d)x'_t; y_t = y_{t−1} + ρ_t·m_t, or with `nesterov`
    y_t = y_{t−1} + ρ_t(x'_t + βm_t); y is then clipped to ± `limit`. The output is −w.

    `recipes.from_sgd` returns it for a schedule or a clip. With a fixed rate and no limit, an `IIR`
    is the same filter, and has a transfer function.

    Args:
        rate: ρ > 0, per step: the learning rate, a number or a schedule.
        momentum: β in [0, 1), per step.
        weight_decay: λ ≥ 0.
        dampening: d in [0, 1).
        nesterov: Whether to use Nesterov momentum.
        limit: L > 0, in the unit of the latent weights, or None.

    Raises:
        ValueError: An argument is outside its range.

    Example:
        >>> filter = lqf.filters.CoupledSGD(0.1, momentum=0.9, weight_decay=1e-4, limit=1.0)
        >>> filter == lqf.recipes.from_sgd(0.1, 0.9, 1e-4, decoupled=False, clip=1.0)
        True
    """

    rate: Coefficient
    momentum: float
    weight_decay: float
    dampening: float = 0.0
    nesterov: bool = False
    limit: float | None = None
    slots = ("m", "y")
    tunable = ("rate",)

    def __post_init__(self) -> None:
        check_fields(self, rate=_numbers.rate, weight_decay=_numbers.not_negative)
        check_fields(self, momentum=_numbers.below_one, dampening=_numbers.below_one)
        if self.limit is not None:
            check_fields(self, limit=_numbers.positive)

    @override
    def step(self, state: Tensors, x: Any, coefficients: Tensors) -> tuple[dict[str, Any], Any]:
        x = x - self.weight_decay * state["y"]
        m = self.momentum * state["m"] + (1.0 - self.dampening) * x
        change = x + self.momentum * m if self.nesterov else m
        y = state["y"] + coefficients["rate"] * change
        if self.limit is not None:
            y = tf.clip_by_value(y, -self.limit, self.limit)
        return {"m": m, "y": y}, y

    @override
    def output(self, state: Tensors, coefficients: Tensors) -> Any:
        return state["y"]
