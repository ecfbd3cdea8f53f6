"""The filter that is equivalent to SGD on a latent weight, and its state for a given weight."""

import dataclasses
from collections.abc import Callable
from typing import Any

from larq_filters import _numbers
from larq_filters._numbers import Coefficient, Schedule, check_fields, times
from larq_filters.filters import EMA, IIR, Cascade, CascadedEMA, CoupledSGD, Filter, Integrator

import numpy as np

State = dict[str, np.ndarray]
_StateOf = Callable[[Any, Any], dict[str, Any]]  # from latent weight and momentum buffer


@dataclasses.dataclass(frozen=True)
class Form:
    """The numbers of an SGD recipe, checked, and the equivalent filter."""

    learning_rate: Coefficient
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    decoupled: bool = True
    dampening: float = dataclasses.field(default=0.0, kw_only=True)
    clip: float | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_fields(self, learning_rate=_numbers.rate, weight_decay=_numbers.not_negative)
        check_fields(self, momentum=_numbers.below_one, dampening=_numbers.below_one)
        if self.clip is not None:
            check_fields(self, clip=_numbers.positive)
        rate, decay, beta = self.learning_rate, self.weight_decay, self.momentum
        if self.decoupled or beta == 0.0:  # then they are the same
            check_decay(rate, decay)
        if self.nesterov and (beta == 0.0 or self.dampening > 0.0):
            raise ValueError(
                "Nesterov momentum needs a momentum and no dampening, as in Keras and PyTorch. "
                f"Received: momentum={beta:g}, dampening={self.dampening:g}"
            )

    @property
    def filter(self) -> Filter:
        """A filter whose output is −w times a positive number."""
        return self._filter_and_state()[0]

    def state(self, latent: np.ndarray, buffer: np.ndarray | None = None) -> State:
        """The state of `filter` for given latent weights.

        Args:
            latent: w, of any shape.
            buffer: m, of the same shape: Keras' `momentums` if `decoupled`, else PyTorch's
                `momentum_buffer`; None for 0.

        Returns:
            A value for each of the filter's slots, to assign to `optimizer.slots(variable)`.
        """
        _, state = self._filter_and_state()
        latent = np.asarray(latent, "float64")
        m = np.zeros_like(latent) if buffer is None else np.asarray(buffer, "float64")
        values = state(latent, m)
        return {name: np.broadcast_to(value, latent.shape) for name, value in values.items()}

    @property
    def coupled(self) -> bool:
        """Whether weight decay goes through the momentum, which makes a difference."""
        return not self.decoupled and self.weight_decay > 0.0 and self.momentum > 0.0

    def _filter_and_state(self) -> tuple[Filter, _StateOf]:
        rate, decay = self.learning_rate, self.weight_decay
        # With no momentum there is nothing to dampen, and coupled and decoupled are the same.
        if self.momentum == 0.0:
            if decay > 0.0 and self.clip is None:
                return EMA(times(rate, decay)), lambda w, m: {"y": -decay * w}
            return Integrator(rate, self.clip, times(rate, decay)), lambda w, m: {"y": -w}
        if self.coupled:
            return self._coupled(rate)
        if isinstance(rate, Schedule) or self.clip is not None:
            return self._varying(rate)
        return self._fixed(rate)

    def _fixed(self, rate: float) -> tuple[Filter, _StateOf]:
        """Without a clip: averages, whose output has a scale of its own."""
        beta, decay = self.momentum, self.weight_decay
        gain = (1.0 - self.dampening) / (1.0 - beta)  # of the momentum, at frequency 0
        sign = -1.0 / rate if self.decoupled else 1.0  # from the buffer to the sum of β^k·g
        momentum = _nesterov(beta, 1.0 - beta) if self.nesterov else EMA(1.0 - beta)
        if decay > 0.0 and not self.nesterov:
            return CascadedEMA(rate * decay, 1.0 - beta), lambda w, m: {
                "m": sign * m / gain,
                "y": -decay / gain * w,
            }
        last = EMA(rate * decay) if decay > 0.0 else Integrator(rate * gain)
        scale = decay / gain if decay > 0.0 else 1.0
        return Cascade(momentum, last), lambda w, m: {
            **({"0.q0": sign * m, "0.r0": 0.0} if self.nesterov else {"0.y": sign * m / gain}),
            "1.y": -scale * w,
        }

    def _varying(self, rate: Coefficient) -> tuple[Filter, _StateOf]:
        """In the unit of the weights, which a clip needs; Keras' rate is inside the momentum."""
        beta, clip = self.momentum, self.clip
        if self.decoupled:
            last = Integrator(1.0, clip, times(rate, self.weight_decay))
            if self.nesterov:
                gain = Integrator(rate, leak=1.0)  # which remembers nothing
                stages = Cascade(gain, _nesterov(beta, 1.0), last)
                return stages, lambda w, m: {"0.y": 0.0, "1.q0": -m, "1.r0": 0.0, "2.y": -w}
            first = Integrator(times(rate, 1.0 - self.dampening), leak=1.0 - beta)
            return Cascade(first, last), lambda w, m: {"0.y": -m, "1.y": -w}
        last = Integrator(rate, clip)
        if self.nesterov:
            stages = Cascade(_nesterov(beta, 1.0), last)
            return stages, lambda w, m: {"0.q0": m, "0.r0": 0.0, "1.y": -w}
        first = Integrator(1.0 - self.dampening, leak=1.0 - beta)
        return Cascade(first, last), lambda w, m: {"0.y": m, "1.y": -w}

    def _coupled(self, rate: Coefficient) -> tuple[Filter, _StateOf]:
        beta, decay, nesterov = self.momentum, self.weight_decay, self.nesterov
        if isinstance(rate, Schedule) or self.clip is not None:
            filter = CoupledSGD(rate, beta, decay, self.dampening, nesterov, self.clip)
            return filter, lambda w, m: {"m": m, "y": -w}
        input_gain = 1.0 - self.dampening
        if nesterov:
            kept = 1.0 - rate * decay
            b, a = [rate * (1 + beta), -rate * beta], [1.0, -(1 + beta) * kept, beta * kept]
        else:
            b, a = [rate * input_gain], [1.0, -(1 + beta - input_gain * rate * decay), beta]

        def state(w: Any, m: Any) -> dict[str, Any]:
            # The section's own signal u, with y = b0·u_t + b1·u_{t−1}, from two known outputs: −w,
            # and what follows it when no gradient comes.
            next_m = beta * m + input_gain * decay * w
            step = decay * w + beta * next_m if nesterov else next_m
            outputs = np.stack([-w, -(w - rate * step)])
            b1 = b[1] if nesterov else 0.0
            after = [b1 - b[0] * a[1], -b[0] * a[2]]
            u, u_before = np.linalg.solve([[b[0], b1], after], outputs.reshape(2, -1))
            u, u_before = u.reshape(np.shape(w)), u_before.reshape(np.shape(w))
            return {"q0": u_before, "r0": u - u_before}

        return IIR(b, a), state


def check_decay(rate: Coefficient, decay: float) -> None:
    """Refuses weight decay that takes more than all of a weight away."""
    if not isinstance(rate, Schedule) and rate * decay > 1.0:
        raise ValueError(
            "learning_rate · weight_decay is the share of a weight that decays per step and must "
            f"be at most 1. Received: learning_rate={rate:g}, weight_decay={decay:g}"
        )


def _nesterov(beta: float, gain: float) -> IIR:
    return IIR([gain * (1.0 + beta), -gain * beta], [1.0, -beta])
