"""Linear filters by the coefficients of scipy.signal."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from larq_filters._numbers import Coefficient, Schedule, call, fixed, number, short
from larq_filters._serialization import deserialize, register
from larq_filters._warnings import warn
from larq_filters.filters._base import Filter, Tensors

import numpy as np
from scipy import signal
from typing_extensions import override

_TOLERANCE = 1e-12  # distance to the unit circle below which a pole counts as on it


@register
@dataclasses.dataclass(frozen=True, eq=False, init=False)
class IIR(Filter):
    r"""Any linear filter, by `scipy.signal`'s coefficients.

    a0·y_t = b0·x_t + b1·x_{t−1} + … − a1·y_{t−1} − a2·y_{t−2} − …,  H(z) = B(z)/A(z)

    Runs as second-order sections in the delta form (states q, r per section; δ = z − 1), which
    keeps its digits in float32 when poles are near z = 1, as slow filters have them and direct
    forms do not.

    Args:
        b: Numerator coefficients, b0 first.
        a: Denominator coefficients, a0 first. Beyond the second order, prefer `from_sos`:
            polynomial coefficients of high order lose precision, and only numbers are taken.

    Raises:
        ValueError: Empty or non-finite coefficients, a0 = 0, a pole outside the unit circle or
            twice on it.

    Warns:
        UserWarning: A pole on the unit circle: the filter never forgets its start.

    Example:
        >>> lqf.filters.IIR(b=[0.5], a=[1.0, -0.5]).impulse_response(4)
        array([0.5   , 0.25  , 0.125 , 0.0625])

    Source:
        Middleton, Goodwin, "Improved finite word length characteristics in digital control using
        delta operators", IEEE Transactions on Automatic Control 31(11), 1986.
    """

    sections: tuple[tuple[Coefficient, ...], ...]
    """Rows b0 b1 b2 1 a1 a2, as in `sos`."""

    def __init__(self, b: Sequence[Coefficient], a: Sequence[Coefficient]) -> None:
        b, a = (list(np.atleast_1d(np.asarray(c, dtype=object))) for c in (b, a))
        if not b or not a:
            raise ValueError(f"b and a need at least one coefficient each. Received: b={b}, a={a}")
        if len(b) <= 3 and len(a) <= 3:
            pad = (0.0, 0.0)
            self._set_sections([[*b, *pad][:3] + [*a, *pad][:3]])
        elif any(isinstance(c, Schedule) for c in (*b, *a)):
            raise ValueError(
                "a schedule among the coefficients of a filter beyond the second order: give "
                f"second-order sections with IIR.from_sos. Received: b={b}, a={a}"
            )
        else:
            self._set_sections(_sections(b, a))

    @classmethod
    def from_sos(cls, sos: Any) -> "IIR":
        """The filter of second-order sections, (sections, 6), as `scipy.signal` designs them.

        Example:
            >>> sos = scipy.signal.butter(2, 0.05, output="sos")
            >>> lqf.filters.IIR.from_sos(sos).sos.shape
            (1, 6)
        """
        new = object.__new__(cls)
        new._set_sections(sos)
        return new

    def _set_sections(self, rows: Any) -> None:
        rows = np.asarray(rows, dtype=object)
        if rows.ndim != 2 or rows.shape[1] != 6 or not len(rows):
            raise ValueError(
                "sos must have the shape (sections, 6) with at least one section. Received: "
                f"shape {rows.shape}"
            )
        sections = tuple(_section(row) for row in rows)
        _check_stable(sections)
        object.__setattr__(self, "sections", sections)

    @property
    @override
    def slots(self) -> tuple[str, ...]:
        states = tuple(f"{slot}{i}" for i in range(len(self.sections)) for slot in "qr")
        return (*states, "y") if self._keeps_output else states

    @property
    def _keeps_output(self) -> bool:
        """Whether states do not tell the last output: b2·w_{t−2} of the last section is gone."""
        return self.sections[-1][2] != 0.0

    @property
    @override
    def coefficients(self) -> dict[str, Coefficient]:
        return {
            f"sos{i}_{j}": value
            for i, row in enumerate(self.sections)
            for j, value in enumerate(row)
            if isinstance(value, Schedule)
        }

    @override
    def step(self, state: Tensors, x: Any, coefficients: Tensors) -> tuple[dict[str, Any], Any]:
        state = dict(state)
        for i, row in enumerate(self.sections):
            b0, b1, b2, _, a1, a2 = (
                coefficients.get(f"sos{i}_{j}", value) for j, value in enumerate(row)
            )
            q, r = state[f"q{i}"], state[f"r{i}"]
            delta_r = x - (2.0 + a1) * r - (1.0 + a1 + a2) * q
            x = b0 * delta_r + (2.0 * b0 + b1) * r + (b0 + b1 + b2) * q
            state |= {f"q{i}": q + r, f"r{i}": r + delta_r}
        if self._keeps_output:
            state["y"] = x
        return state, self.output(state, coefficients)

    @override
    def output(self, state: Tensors, coefficients: Tensors) -> Any:
        if self._keeps_output:
            return state["y"]
        last = len(self.sections) - 1
        b0, b1 = (coefficients.get(f"sos{last}_{j}", self.sections[last][j]) for j in range(2))
        return b0 * state[f"r{last}"] + (b0 + b1) * state[f"q{last}"]

    @override
    def steady_state(self, x: Any, coefficients: Tensors) -> tuple[dict[str, Any], Any]:
        state: dict[str, Any] = {}
        for i, row in enumerate(self.sections):
            b0, b1, b2, _, a1, a2 = (
                coefficients.get(f"sos{i}_{j}", value) for j, value in enumerate(row)
            )
            if isinstance(a1, float) and isinstance(a2, float) and abs(1.0 + a1 + a2) < _TOLERANCE:
                return super().steady_state(x, coefficients)  # a pole at z = 1
            q = x / (1.0 + a1 + a2)
            state |= {f"q{i}": q, f"r{i}": 0.0 * q}
            x = (b0 + b1 + b2) * q
        if self._keeps_output:
            state["y"] = x
        return state, x

    @property
    @override
    def sos(self) -> np.ndarray:
        return np.array([[fixed(value) for value in row] for row in self.sections])

    @override
    def __repr__(self) -> str:
        rows = (f"[{', '.join(map(call, row))}]" for row in self.sections)
        return f"IIR.from_sos([{', '.join(rows)}])"

    @override
    def __str__(self) -> str:
        rows = (f"[{', '.join(map(short, row))}]" for row in self.sections)
        return f"IIR.from_sos([{', '.join(rows)}])"

    @override
    def with_coefficients(self, values: Mapping[str, Coefficient]) -> "IIR":
        new = object.__new__(IIR)
        sections = tuple(
            tuple(values.get(f"sos{i}_{j}", value) for j, value in enumerate(row))
            for i, row in enumerate(self.sections)
        )
        object.__setattr__(new, "sections", sections)  # not checked, as those of other filters
        return new

    @override
    def _with(self, fields: Mapping[str, Any]) -> "IIR":
        return IIR.from_sos(fields["sections"]) if fields else self  # checked: it may be unstable

    @classmethod
    @override
    def from_config(cls, config: Mapping[str, Any]) -> "IIR":
        return cls.from_sos(deserialize(config["sections"]))


def _sections(b: Sequence[float], a: Sequence[float]) -> list[list[float]]:
    """Rows of `sos`. SciPy leaves out leading zeros of b, which are delays of a step each."""
    if a[0] == 0.0:
        raise ValueError(f"a0 must be a number other than 0. Received: a0={a[0]}")
    delays = next((i for i, value in enumerate(b) if value != 0.0), 0)
    rows = signal.tf2sos(b[delays:], a).tolist()
    for row in rows:
        while delays and row[2] == 0.0:
            row[:3] = [0.0, *row[:2]]
            delays -= 1
    one, two = [0.0, 1.0, 0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    return [one] * (delays % 2) + [two] * (delays // 2) + rows


def _section(row: Sequence[Any]) -> tuple[Coefficient, ...]:
    """A second-order section b0 b1 b2 1 a1 a2, divided by its a0."""
    b0, b1, b2, a0, a1, a2 = values = tuple(number("a coefficient", value) for value in row)
    numeric = [value for value in values if not isinstance(value, Schedule)]
    if not np.isfinite(numeric).all():
        raise ValueError(f"coefficients must be finite. Received: {list(row)}")
    if isinstance(a0, Schedule) or a0 == 0.0:
        raise ValueError(f"a0 must be a number other than 0. Received: a0={a0}")
    if a0 == 1.0:
        return values
    if len(numeric) < len(values):
        raise ValueError(f"a0 must be 1 beside a coefficient that is a schedule. Received: a0={a0}")
    return b0 / a0, b1 / a0, b2 / a0, 1.0, a1 / a0, a2 / a0


def _check_stable(sections: Sequence[Sequence[Coefficient]]) -> None:
    """Refuses poles outside the unit circle, or twice on it; warns of poles on it.

    Sections with a schedule in their denominator are not checked.
    """
    on_circle: list[complex] = []
    for *_, a1, a2 in sections:
        if isinstance(a1, Schedule) or isinstance(a2, Schedule):
            continue
        poles = np.roots([1.0, a1, a2])
        # Jury's criterion, exact in the coefficients where the computed roots are not.
        margin = min(1.0 - a2, 1.0 + a2 - abs(a1))
        if margin < -_TOLERANCE:
            raise ValueError(
                "the filter is unstable: a pole lies outside the unit circle, so its output grows "
                f"without bound. Received: a pole at |z|={np.abs(poles).max():.6g}, section a=[1, "
                f"{a1:g}, {a2:g}]"
            )
        if margin <= _TOLERANCE:
            on_circle += [pole for pole in poles if abs(abs(pole) - 1.0) < 1e-7]
    for i, pole in enumerate(on_circle):
        if any(abs(pole - other) < 1e-7 for other in on_circle[:i]):
            raise ValueError(
                "the filter is unstable: two poles at the same place on the unit circle make its "
                f"output grow without bound. Received: two poles at z={pole:.6g}"
            )
    if on_circle:
        warn(
            "a pole on the unit circle: the filter never forgets its start, nor any gradient. "
            f"Received: poles at z={[complex(np.round(pole, 6)) for pole in on_circle]}",
        )
