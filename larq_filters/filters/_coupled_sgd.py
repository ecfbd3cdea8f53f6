"""SGD with coupled weight decay, where no filter of general use is the same."""

import dataclasses
from typing import Any, ClassVar

from larq_filters import _numbers
from larq_filters._numbers import Coefficient
from larq_filters._saving import register
from larq_filters.filters._base import Filter, Tensors

import tensorflow as tf
from typing_extensions import override


@register
@dataclasses.dataclass(frozen=True, eq=False)
class CoupledSGD(Filter):
    r"""SGD with momentum and coupled weight decay whose rate varies, or whose weights are clipped.

    With x' = x − λy: m_t = βm_{t−1} + (1−d)x'_t; y_t = y_{t−1} + ρ_t·m_t, or with `nesterov`
    y_t = y_{t−1} + ρ_t(x'_t + βm_t); y is then held within ± `limit`. The output is −w.

    With a fixed rate and no limit it is an `IIR`; with a varying one it is linear, but has no
    transfer function.
    """

    rate: Coefficient
    momentum: float
    weight_decay: float
    dampening: float = 0.0
    nesterov: bool = False
    limit: float | None = None
    slots: ClassVar[tuple[str, ...]] = ("m", "y")
    _tunable: ClassVar[tuple[str, ...]] = ("rate",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", _numbers.rate("rate", self.rate))

    @override
    def step(self, state: Tensors, x: Any, coefficients: Tensors) -> tuple[dict[str, Any], Any]:
        x = x - self.weight_decay * state["y"]
        m = self.momentum * state["m"] + (1.0 - self.dampening) * x
        change = x + self.momentum * m if self.nesterov else m
        y = state["y"] + coefficients["rate"] * change
        if self.limit is not None:
            y = tf.clip_by_value(y, -self.limit, self.limit)
        return {"m": m, "y": y}, y
