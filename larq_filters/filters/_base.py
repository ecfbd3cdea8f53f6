"""What every filter has: slots, a pure step, value equality, and scipy.signal's responses."""

import abc
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from larq_filters._numbers import Coefficient, Schedule, short
from larq_filters._saving import deserialize, serialize

import numpy as np
from scipy import signal

Tensors = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Filter(abc.ABC):
    """A filter over a sequence of gradients, as a frozen description without TensorFlow state.

    An optimizer keeps the state, one tensor for each name in `slots` and `scalar_slots`, starts it
    at zero, and calls `step`. Filters are equal, and hash alike, when type and coefficients are.
    """

    slots: ClassVar[tuple[str, ...]] = ()
    """Names of the state tensors that have the shape of the weights."""
    scalar_slots: ClassVar[tuple[str, ...]] = ()
    """Names of the state tensors that are one number for a whole variable."""
    _tunable: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def step(self, state: Tensors, x: Any, coefficients: Tensors) -> tuple[dict[str, Any], Any]:
        """One step: from state and input to the next state and the output. Pure.

        Args:
            state: A tensor for each name in `slots` (shape of `x`) and `scalar_slots` (no axes).
            x: The input, usually a gradient.
            coefficients: A number or a tensor without axes for each name in `coefficients`.

        Returns:
            The next state, with the same names, and the output, of the shape of `x`.
        """

    @property
    def coefficients(self) -> dict[str, Coefficient]:
        """The coefficients that may vary while training, by name: numbers or schedules."""
        return {name: getattr(self, name) for name in self._tunable}

    def at(self, step: int) -> "Filter":
        """The filter with every schedule replaced by its value at a training step."""
        return self._from_fields(**{k: _at(v, step) for k, v in self._fields().items()})

    @property
    def sos(self) -> np.ndarray:
        """Second-order sections as in scipy.signal: (sections, 6), float64, rows b0 b1 b2 1 a1 a2.

        Raises:
            TypeError: The filter is not linear.
            ValueError: A coefficient is a schedule: take the filter at one step with `at(step)`.
        """
        raise TypeError(
            f"{type(self).__name__} is not linear: it has no second-order sections, frequency "
            f"response, impulse response or time constant. Received: {self}"
        )

    @property
    def time_constant(self) -> float:
        """Steps in which the slowest mode decays to 1/e: −1/ln|p|, where p is the largest pole.

        0 if every pole is 0, infinite if one is on the unit circle. Raises as `sos` does.
        """
        poles = np.abs([pole for row in self.sos for pole in np.roots(row[3:])])
        largest = poles.max(initial=0.0)
        if largest == 0.0:
            return 0.0
        return math.inf if largest >= 1.0 else -1.0 / math.log(largest)

    def frequency_response(
        self, worN: int | Sequence[float] | np.ndarray = 512
    ) -> tuple[np.ndarray, np.ndarray]:
        """The transfer function on the unit circle; raises as `sos` does.

        Args:
            worN: Number of frequencies, evenly spaced in [0, π), or the frequencies, in rad/sample
                (a sample is a training step).

        Returns:
            The frequencies in rad/sample, and the complex response at each: infinite at a pole.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            w, h = signal.sosfreqz(self.sos, worN)
        return w, np.where(np.isfinite(h), h, np.inf)

    def impulse_response(self, n: int) -> np.ndarray:
        """The first `n` outputs for the input 1, 0, 0, ...: the weight of each past input.

        Float64, shape (n,); raises as `sos` does.
        """
        return signal.sosfilt(self.sos, signal.unit_impulse(n))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, ready for JSON."""
        return {name: serialize(value) for name, value in self._fields().items()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Filter":
        """The inverse of `get_config`."""
        return cls._from_fields(**{name: deserialize(value) for name, value in config.items()})

    def __str__(self) -> str:
        given = (
            f"{field.name}={short(getattr(self, field.name))}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        )
        return f"{type(self).__name__}({', '.join(given)})"

    def _fields(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @classmethod
    def _from_fields(cls, **fields: Any) -> "Filter":
        return cls(**fields)

    def _key(self) -> tuple[type, str]:
        return type(self), json.dumps(self.get_config(), sort_keys=True, default=repr)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Filter) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


def _at(value: Any, step: int) -> Any:
    if isinstance(value, tuple):
        return tuple(_at(item, step) for item in value)
    if isinstance(value, Filter):
        return value.at(step)
    return float(value(step)) if isinstance(value, Schedule) else value
