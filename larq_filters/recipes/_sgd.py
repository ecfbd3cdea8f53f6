"""SGD on a latent weight as a filter."""

from collections.abc import Callable
from typing import Any

from larq_filters import _numbers
from larq_filters._numbers import Coefficient, Schedule, times
from larq_filters.filters import EMA, IIR, Cascade, CascadedEMA, CoupledSGD, Filter, Integrator

import numpy as np


def sgd(
    rate: Coefficient,
    beta: float,
    decay: float,
    nesterov: bool,
    decoupled: bool,
    dampening: float,
    clip: float | None,
) -> tuple[Filter, Callable[[Any, Any], dict[str, Any]]]:
    """The filter that SGD is, and from latent weight and momentum buffer to its state."""
    rate = _numbers.rate("learning_rate", rate)
    beta, dampening = (
        _numbers.below_one("momentum", beta),
        _numbers.below_one("dampening", dampening),
    )
    decay = _numbers.not_negative("weight_decay", decay)
    if not isinstance(rate, Schedule) and decoupled and rate * decay > 1.0:
        raise ValueError(
            "learning rate times weight decay is the share of a weight that decays per step and "
            f"is at most 1. Received: learning_rate={rate:g}, weight_decay={decay:g}"
        )
    if nesterov and (beta == 0.0 or dampening > 0.0):
        raise ValueError(
            "Nesterov momentum needs a momentum and no dampening, as in Keras and PyTorch. "
            f"Received: momentum={beta:g}, dampening={dampening:g}"
        )
    if beta == 0.0:  # no momentum to dampen, and coupled and decoupled are the same
        return _without_momentum(rate, decay, clip)
    if decay > 0.0 and not decoupled:
        return _coupled(rate, beta, decay, nesterov, dampening, clip)
    gain = (1.0 - dampening) / (1.0 - beta)  # of the momentum, at frequency 0
    if isinstance(rate, Schedule) or clip is not None:
        return _varying(rate, beta, decay, nesterov, decoupled, dampening, clip)
    sign = -1.0 / rate if decoupled else 1.0  # from the buffer to the sum of β^k·g
    momentum = _nesterov(beta, 1.0 - beta) if nesterov else EMA(1.0 - beta)
    if decay > 0.0 and not nesterov:
        return CascadedEMA(rate * decay, 1.0 - beta), lambda w, m: {
            "m": sign * m / gain,
            "y": -decay / gain * w,
        }
    last = EMA(rate * decay) if decay > 0.0 else Integrator(rate * gain)
    scale = decay / gain if decay > 0.0 else 1.0
    return Cascade(momentum, last), lambda w, m: {
        **({"0.q0": sign * m, "0.r0": 0.0} if nesterov else {"0.y": sign * m / gain}),
        "1.y": -scale * w,
    }


def _without_momentum(
    rate: Coefficient, decay: float, clip: float | None
) -> tuple[Filter, Callable[[Any, Any], dict[str, Any]]]:
    if decay > 0.0 and clip is None:
        return EMA(times(rate, decay)), lambda w, m: {"y": -decay * w}
    return Integrator(rate, clip, times(rate, decay)), lambda w, m: {"y": -w}


def _varying(
    rate: Coefficient,
    beta: float,
    decay: float,
    nesterov: bool,
    decoupled: bool,
    dampening: float,
    clip: float | None,
) -> tuple[Filter, Callable[[Any, Any], dict[str, Any]]]:
    """In the unit of the weights, which a clip needs; Keras' rate is inside the momentum."""
    if decoupled:
        last = Integrator(1.0, clip, times(rate, decay))
        if nesterov:
            gain = Integrator(rate, leak=1.0)  # which remembers nothing
            stages = Cascade(gain, _nesterov(beta, 1.0), last)
            return stages, lambda w, m: {"0.y": 0.0, "1.q0": -m, "1.r0": 0.0, "2.y": -w}
        first = Integrator(times(rate, 1.0 - dampening), leak=1.0 - beta)
        return Cascade(first, last), lambda w, m: {"0.y": -m, "1.y": -w}
    last = Integrator(rate, clip)
    if nesterov:
        stages = Cascade(_nesterov(beta, 1.0), last)
        return stages, lambda w, m: {"0.q0": m, "0.r0": 0.0, "1.y": -w}
    first = Integrator(1.0 - dampening, leak=1.0 - beta)
    return Cascade(first, last), lambda w, m: {"0.y": m, "1.y": -w}


def _coupled(
    rate: Coefficient,
    beta: float,
    decay: float,
    nesterov: bool,
    dampening: float,
    clip: float | None,
) -> tuple[Filter, Callable[[Any, Any], dict[str, Any]]]:
    if isinstance(rate, Schedule) or clip is not None:
        filter = CoupledSGD(rate, beta, decay, dampening, nesterov, clip)
        return filter, lambda w, m: {"m": m, "y": -w}
    input_gain = 1.0 - dampening
    if nesterov:
        kept = 1.0 - rate * decay
        b, a = [rate * (1 + beta), -rate * beta], [1.0, -(1 + beta) * kept, beta * kept]
    else:
        b, a = [rate * input_gain], [1.0, -(1 + beta - input_gain * rate * decay), beta]

    def state(w: Any, m: Any) -> dict[str, Any]:
        # The section's own signal u, with y = b0·u_t + b1·u_{t−1}, from two known outputs: −w, and
        # what follows it when no gradient comes.
        next_m = beta * m + input_gain * decay * w
        step = decay * w + beta * next_m if nesterov else next_m
        outputs = np.stack([-w, -(w - rate * step)])
        b1 = b[1] if nesterov else 0.0
        after = [b1 - b[0] * a[1], -b[0] * a[2]]
        u, u_before = np.linalg.solve([[b[0], b1], after], outputs.reshape(2, -1))
        u, u_before = u.reshape(np.shape(w)), u_before.reshape(np.shape(w))
        return {"q0": u_before, "r0": u - u_before}

    return IIR(b, a), state


def _nesterov(beta: float, gain: float) -> IIR:
    return IIR([gain * (1.0 + beta), -gain * beta], [1.0, -beta])
