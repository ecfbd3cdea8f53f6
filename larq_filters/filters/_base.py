"""What every filter has: slots, a pure step, value equality, and scipy.signal's responses."""

import abc
import copy
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from larq_filters._numbers import Coefficient, Schedule, call, short
from larq_filters._serialization import deserialize, serialize

import numpy as np
import tensorflow as tf
from scipy import signal

Tensors = Mapping[str, Any]
_LONG = 100  # steps


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Filter(abc.ABC):
    r"""A filter over a sequence of gradients, and the base class for one of your own.

    A filter is a frozen description without TensorFlow state. The optimizer keeps the state: one
    tensor for each name in `slots` and `scalar_slots`, zero at the start. It calls `step` once per
    training step. Filters are equal, and hash alike, when type and coefficients are.

    A filter of your own is a frozen dataclass:

    - Its fields are its hyperparameters. A field that `tunable` names may be a schedule, and can be
      set while training: `optimizer.alpha = 0.1` for a field `alpha`. `step` takes its value from
      `coefficients`.
    - `slots` names the state, and `step` computes the difference equation. NumPy arrays and tensors
      come alike, so use operators or functions of TensorFlow.
    - `output`, if the state tells the last output, lets weights that are changed in mid-training
      keep their new values.
    - `sos`, if the filter is linear, gives it all responses, time constants and plots.
    - Keras' registration lets models with it be saved and loaded.

    Example:
        >>> @tf.keras.utils.register_keras_serializable("mine")
        ... @dataclasses.dataclass(frozen=True, eq=False)
        ... class DoubleEMA(lqf.filters.Filter):
        ...     alpha: float
        ...     slots, tunable = ("m", "y"), ("alpha",)
        ...
        ...     def step(self, state, x, coefficients):
        ...         m = state["m"] + coefficients["alpha"] * (x - state["m"])
        ...         y = state["y"] + coefficients["alpha"] * (m - state["y"])
        ...         return {"m": m, "y": y}, y
        ...
        ...     def output(self, state, coefficients):
        ...         return state["y"]
        >>> lqf.optimizers.FilteredFlip(filter=DoubleEMA(0.01)).filter
        DoubleEMA(alpha=0.01)

        For plots, it also says that it is linear, in the terms of `scipy.signal`:

        >>> class LinearDoubleEMA(DoubleEMA):
        ...     @property
        ...     def sos(self):
        ...         return np.array([[self.alpha, 0, 0, 1, self.alpha - 1, 0]] * 2)
        >>> LinearDoubleEMA(0.5).impulse_response(4)
        array([0.25  , 0.25  , 0.1875, 0.125 ])
    """

    tunable: ClassVar[tuple[str, ...]] = ()
    """Names of the fields that may be schedules, and may be set while training."""

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the state tensors that have the shape of the weights."""
        return ()

    @property
    def scalar_slots(self) -> tuple[str, ...]:
        """Names of the state tensors that are one number for a whole variable."""
        return ()

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

    def steady_state(self, x: Any, coefficients: Tensors) -> tuple[dict[str, Any], Any]:
        """The state and the output after a long constant input: the warm start of `inertia`.

        A filter of your own need not define it. The default runs 100 steps from zero, also for
        filters that never settle, such as an `Integrator` without leak.

        Args:
            x: The constant input, a tensor of any shape.
            coefficients: As for `step`.

        Returns:
            As `step`.
        """
        x = tf.convert_to_tensor(x)
        state: dict[str, Any] = {slot: tf.zeros_like(x) for slot in self.slots}
        state |= {slot: tf.zeros((), x.dtype) for slot in self.scalar_slots}
        _, state, y = tf.while_loop(
            lambda i, *_: i < _LONG,
            lambda i, state, y: (i + 1, *self.step(state, x, coefficients)),
            (tf.constant(0), state, tf.zeros_like(x)),
        )
        return state, y

    @property
    def odd_slots(self) -> tuple[str, ...]:
        """Names of the slots that change sign when all inputs do.

        An average does, an average of squares does not. By default all of `slots`, as in every
        linear filter.
        """
        return self.slots

    def output(self, state: Tensors, coefficients: Tensors) -> Any | None:
        """The last output, computed from the state, or None if the state does not determine it.

        The optimizer compares it with the weight before the next step. If a weight was changed from
        outside, the output points against it. `odd_slots` of the state then change sign, and the
        weight keeps its value. With None, the next step may undo such changes.

        Args:
            state: The state that `step` returned, possibly rounded.
            coefficients: The coefficients of that step.
        """
        return None

    @property
    def coefficients(self) -> dict[str, Coefficient]:
        """The coefficients that may vary while training, by name."""
        return {name: getattr(self, name) for name in self.tunable}

    def at(self, step: int) -> "Filter":
        """The filter with every schedule replaced by its value at a training step."""
        return self._with({name: _at(value, step) for name, value in self._fields().items()})

    def with_coefficients(self, values: Mapping[str, Coefficient]) -> "Filter":
        """The filter with other values for some of its `coefficients`, by name."""
        return self._with(values)

    @property
    def sos(self) -> np.ndarray:
        """Second-order sections as in scipy.signal.

        Their shape is (sections, 6) and their type float64; rows are b0 b1 b2 1 a1 a2.

        Raises:
            TypeError: The filter is not linear.
            ValueError: A coefficient is a schedule. Take the filter at one step with `at(step)`.
        """
        raise TypeError(
            f"{type(self).__name__} is not linear. It has no second-order sections, frequency "
            f"response, impulse response or time constant. Received: {self}"
        )

    @property
    def time_constant(self) -> float:
        """Steps in which the slowest mode decays to 1/e.

        It is −1/ln|p|, where p is the largest pole; 0 if every pole is 0, infinite if one is on the
        unit circle. Raises as `sos` does.
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
        return cls(**{name: deserialize(value) for name, value in config.items()})

    def __repr__(self) -> str:
        given = (f"{name}={call(value)}" for name, value in self._fields().items())
        return f"{type(self).__name__}({', '.join(given)})"

    def __str__(self) -> str:
        given = (
            f"{field.name}={short(getattr(self, field.name))}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        )
        return f"{type(self).__name__}({', '.join(given)})"

    def _fields(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def _with(self, fields: Mapping[str, Any]) -> "Filter":
        """A copy with other fields, which are not checked: a decay may end at 0."""
        new = copy.copy(self)
        for name, value in fields.items():
            object.__setattr__(new, name, value)
        return new

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
