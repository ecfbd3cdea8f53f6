"""Filters in a row."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from larq_filters._numbers import Coefficient
from larq_filters._serialization import deserialize, register
from larq_filters.filters._base import Filter, Tensors

import numpy as np
from typing_extensions import override


@register
@dataclasses.dataclass(frozen=True, eq=False, init=False)
class Cascade(Filter):
    r"""Filters in a row: each filters the output of the one before; H(z) = ∏ H_i(z).

    Slots and coefficients are named by stage: `0.y` is the slot `y` of the first one. A cascade may
    be a stage of another.

    Args:
        *filters: The stages, the one that sees the gradient first.

    Raises:
        ValueError: No stage.
        TypeError: A stage is not a filter.

    Example:
        >>> lqf.filters.Cascade(lqf.filters.EMA(0.1), lqf.filters.EMA(1e-3)).sos.shape
        (2, 6)
    """

    filters: tuple[Filter, ...]

    def __init__(self, *filters: Filter) -> None:
        if not filters:
            raise ValueError("a Cascade needs at least one filter. Received: none")
        for stage in filters:
            if not isinstance(stage, Filter):
                raise TypeError(f"the stages of a Cascade are filters. Received: {stage!r}")
        object.__setattr__(self, "filters", filters)

    def _names(self, attribute: str) -> tuple[str, ...]:
        return tuple(f"{i}.{n}" for i, f in enumerate(self.filters) for n in getattr(f, attribute))

    @property
    @override
    def slots(self) -> tuple[str, ...]:
        return self._names("slots")

    @property
    @override
    def scalar_slots(self) -> tuple[str, ...]:
        return self._names("scalar_slots")

    @property
    @override
    def odd_slots(self) -> tuple[str, ...]:
        return self._names("odd_slots")

    @property
    @override
    def coefficients(self) -> dict[str, Coefficient]:
        stages = enumerate(self.filters)
        return {f"{i}.{n}": value for i, f in stages for n, value in f.coefficients.items()}

    @override
    def step(self, state: Tensors, x: Any, coefficients: Tensors) -> tuple[dict[str, Any], Any]:
        new: dict[str, Any] = {}
        for i, stage in enumerate(self.filters):
            part, x = stage.step(_part(state, i), x, _part(coefficients, i))
            new |= {f"{i}.{name}": value for name, value in part.items()}
        return new, x

    @override
    def output(self, state: Tensors, coefficients: Tensors) -> Any | None:
        y = None
        for i, stage in enumerate(self.filters):
            now = _part(coefficients, i)
            if stage.slots or stage.scalar_slots:
                y = stage.output(_part(state, i), now)
            elif y is not None:
                _, y = stage.step({}, y, now)
        return y

    @override
    def steady_state(self, x: Any, coefficients: Tensors) -> tuple[dict[str, Any], Any]:
        new: dict[str, Any] = {}
        for i, stage in enumerate(self.filters):
            part, x = stage.steady_state(x, _part(coefficients, i))
            new |= {f"{i}.{name}": value for name, value in part.items()}
        return new, x

    @property
    @override
    def sos(self) -> np.ndarray:
        return np.concatenate([stage.sos for stage in self.filters])

    @property
    @override
    def time_constant(self) -> float:
        return max(stage.time_constant for stage in self.filters)

    @override
    def __repr__(self) -> str:
        return f"Cascade({', '.join(map(repr, self.filters))})"

    @override
    def __str__(self) -> str:
        return f"Cascade({', '.join(map(str, self.filters))})"

    @override
    def with_coefficients(self, values: Mapping[str, Coefficient]) -> "Cascade":
        stages = enumerate(self.filters)
        return Cascade(*(f.with_coefficients(_part(values, i)) for i, f in stages))

    @classmethod
    @override
    def from_config(cls, config: Mapping[str, Any]) -> "Cascade":
        return cls(*deserialize(config["filters"]))


def _part(tensors: Tensors, i: int) -> dict[str, Any]:
    prefix = f"{i}."
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
