"""Elementary filters: moving averages, integrators, signs."""

import dataclasses
import math
from typing import Any

from larq_filters import _numbers
from larq_filters._numbers import Coefficient, check_fields, fixed, share
from larq_filters._serialization import register
from larq_filters.filters._base import Filter, Tensors

import numpy as np
import tensorflow as tf
from typing_extensions import override

_EVER = 1e7  # steps, after which no bias is left
__all__ = ["EMA", "CascadedEMA", "Integrator", "NormalizedEMA", "Sign"]


@register
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class EMA(Filter):
    r"""Exponential moving average, the first-order low-pass.

    y_t = y_{t−1} + α(x_t − y_{t−1}),  H(z) = α / (1 − (1−α) z⁻¹)

    Args:
        alpha: α in (0, 1], the share of the new input per step.

    Raises:
        ValueError: `alpha` is outside (0, 1].

    Example:
        >>> lqf.filters.EMA(0.5).impulse_response(4)
        array([0.5   , 0.25  , 0.125 , 0.0625])
    """

    alpha: Coefficient
    slots = ("y",)
    tunable = ("alpha",)

    def __post_init__(self) -> None:
        check_fields(self, alpha=share)

    @override
    def step(self, state: Tensors, x: Any, coefficients: Tensors) -> tuple[dict[str, Any], Any]:
        y = _ema(state["y"], x, coefficients["alpha"])
        return {"y": y}, y

    @override
    def output(self, state: Tensors, coefficients: Tensors) -> Any:
        return state["y"]

    @override
    def steady_state(self, x: Any, coefficients: Tensors) -> tuple[dict[str, Any], Any]:
        return {"y": x}, x

    @property
    @override
    def sos(self) -> np.ndarray:
        return np.array([_section(fixed(self.alpha))])

    @property
    @override
    def time_constant(self) -> float:
        return _time_constant(fixed(self.alpha))


@register
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CascadedEMA(Filter):
    r"""Two exponential moving averages in a row: the paper's second-order filter.

    m_t = m_{t−1} + γ(x_t − m_{t−1}),  y_t = y_{t−1} + α(m_t − y_{t−1}),
    H(z) = γα / ((1 − (1−γ) z⁻¹)(1 − (1−α) z⁻¹))

    SGD with momentum and decoupled weight decay is this filter over gradients: α is learning rate
    times weight decay, γ is 1 − momentum.

    Args:
        alpha: α in (0, 1], per step.
        gamma: γ in (0, 1], per step.

    Raises:
        ValueError: `alpha` or `gamma` is outside (0, 1].

    Example:
        >>> round(lqf.filters.CascadedEMA(alpha=1e-3, gamma=0.1).time_constant, 1)
        999.5
    """

    alpha: Coefficient
    gamma: Coefficient
    slots = ("m", "y")
    tunable = ("alpha", "gamma")

    def __post_init__(self) -> None:
        check_fields(self, alpha=share, gamma=share)

    @override
    def step(self, state: Tensors, x: Any, coefficients: Tensors) -> tuple[dict[str, Any], Any]:
        m = _ema(state["m"], x, coefficients["gamma"])
        y = _ema(state["y"], m, coefficients["alpha"])
        return {"m": m, "y": y}, y

    @override
    def output(self, state: Tensors, coefficients: Tensors) -> Any:
        return state["y"]

    @override
    def steady_state(self, x: Any, coefficients: Tensors) -> tuple[dict[str, Any], Any]:
        return {"m": x, "y": x}, x

    @property
    @override
    def sos(self) -> np.ndarray:
        return np.array([_section(fixed(self.gamma)), _section(fixed(self.alpha))])

    @property
    @override
    def time_constant(self) -> float:
        return max(_time_constant(fixed(self.gamma)), _time_constant(fixed(self.alpha)))


@register
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Integrator(Filter):
    r"""Sum of the input, with an optional leak: a latent weight.

    y_t = y_{t−1} + ρ·x_t − κ·y_{t−1},  H(z) = ρ / (1 − (1−κ) z⁻¹); with a limit L, y_t is then
    clipped to ±L

    Without a leak, it is a latent weight without weight decay, and never forgets its start. The
    leak is learning rate times weight decay. With `limit=1`, it saturates as a latent weight does
    under larq's `weight_clip`, and is not linear.

    Args:
        rate: ρ > 0, per step: a latent weight's learning rate.
        limit: L > 0, in the unit of the output, or None.
        leak: κ in [0, 1], per step.

    Raises:
        ValueError: `rate` or `limit` is not positive and finite, or `leak` is outside [0, 1].

    Example:
        >>> lqf.filters.Integrator(rate=0.5).impulse_response(3)
        array([0.5, 0.5, 0.5])
    """

    rate: Coefficient
    limit: float | None = None
    leak: Coefficient = 0.0
    slots = ("y",)

    def __post_init__(self) -> None:
        check_fields(self, rate=_numbers.rate, leak=_numbers.leak)
        if self.limit is not None:
            check_fields(self, limit=_numbers.positive)

    @property
    @override
    def coefficients(self) -> dict[str, Coefficient]:
        return {"rate": self.rate} | ({} if self.leak == 0.0 else {"leak": self.leak})

    @override
    def step(self, state: Tensors, x: Any, coefficients: Tensors) -> tuple[dict[str, Any], Any]:
        change = coefficients["rate"] * x
        if "leak" in coefficients:
            change = change - coefficients["leak"] * state["y"]
        y = state["y"] + change
        if self.limit is not None:
            y = tf.clip_by_value(y, -self.limit, self.limit)
        return {"y": y}, y

    @override
    def output(self, state: Tensors, coefficients: Tensors) -> Any:
        return state["y"]

    @override
    def steady_state(self, x: Any, coefficients: Tensors) -> tuple[dict[str, Any], Any]:
        if "leak" not in coefficients:  # it has none, and takes what 100 steps lead to
            return super().steady_state(x, coefficients)
        y = coefficients["rate"] / coefficients["leak"] * x
        if self.limit is not None:
            y = tf.clip_by_value(y, -self.limit, self.limit)
        return {"y": y}, y

    @property
    @override
    def sos(self) -> np.ndarray:
        if self.limit is not None:
            return super().sos
        return np.array([[fixed(self.rate), 0.0, 0.0, 1.0, fixed(self.leak) - 1.0, 0.0]])

    @property
    @override
    def time_constant(self) -> float:
        if self.limit is not None:
            return super().time_constant
        return _time_constant(fixed(self.leak))


@register
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class NormalizedEMA(Filter):
    r"""Moving average of the input over the root of the moving average of its square; not linear.

    m_t = m_{t−1} + γ(x_t − m_{t−1}),  v_t = v_{t−1} + σ(x_t² − v_{t−1}),  y_t = m_t / (√v_t + ε)

    With `bias_correction`, m and v are first divided by what the same average makes of a constant
    1, 1 − (1−γ)^t and 1 − (1−σ)^t at the t-th step, as in Adam. With `epsilon_hat`, ε is not: it
    joins √v before the correction, y_t = c·m_t/(√v_t + ε), as in Keras' Adam. An input beyond 1e19
    overflows x² in float32: that step of that weight is skipped.

    Args:
        gamma: γ in (0, 1], per step: Adam's 1 − β₁.
        sigma: σ in (0, 1], per step: Adam's 1 − β₂.
        epsilon: ε > 0, in the unit of the input.
        bias_correction: Whether to divide m and v by their bias.
        epsilon_hat: Whether ε joins √v before the bias correction; of use with `bias_correction`.

    Raises:
        ValueError: `gamma` or `sigma` is outside (0, 1], or `epsilon` is not positive.

    Example:
        >>> lqf.filters.NormalizedEMA(gamma=0.1, sigma=0.01).slots
        ('m', 'v')

    Source:
        Suarez-Ramirez, Gonzalez-Mendoza, Chang, Ochoa-Ruiz, Duran-Vega, "A Bop and Beyond: A Second
        Order Optimizer for Binarized Neural Networks", 2021 (arXiv 2104.05124); Kingma, Ba, "Adam:
        A Method for Stochastic Optimization", 2015.
    """

    gamma: Coefficient
    sigma: Coefficient
    epsilon: float = 1e-10
    bias_correction: bool = False
    epsilon_hat: bool = False
    slots = ("m", "v")
    tunable = ("gamma", "sigma")

    def __post_init__(self) -> None:
        check_fields(self, gamma=share, sigma=share, epsilon=_numbers.positive)

    @property
    @override
    def scalar_slots(self) -> tuple[str, ...]:
        return ("t",) if self.bias_correction else ()

    @property
    @override
    def odd_slots(self) -> tuple[str, ...]:
        return ("m",)

    @override
    def step(self, state: Tensors, x: Any, coefficients: Tensors) -> tuple[dict[str, Any], Any]:
        gamma, sigma = coefficients["gamma"], coefficients["sigma"]
        new = {"m": _ema(state["m"], x, gamma), "v": _ema(state["v"], x * x, sigma)}
        if self.bias_correction:
            new["t"] = state["t"] + 1.0
        return new, self.output(new, coefficients)

    @override
    def output(self, state: Tensors, coefficients: Tensors) -> Any:
        m, root = state["m"], tf.sqrt(state["v"])
        if not self.bias_correction:
            return m / (root + self.epsilon)
        t, gamma, sigma = state["t"], coefficients["gamma"], coefficients["sigma"]
        m_bias, root_bias = 1.0 - (1.0 - gamma) ** t, tf.sqrt(1.0 - (1.0 - sigma) ** t)
        if self.epsilon_hat:
            return m * (root_bias / m_bias) / (root + self.epsilon)
        return m / m_bias / (root / root_bias + self.epsilon)

    @override
    def steady_state(self, x: Any, coefficients: Tensors) -> tuple[dict[str, Any], Any]:
        state = {"m": x, "v": x * x}
        if self.bias_correction:
            state["t"] = tf.cast(_EVER, x.dtype)
        return state, x / (tf.abs(x) + self.epsilon)


@register
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Sign(Filter):
    r"""The sign of the input: y_t = sign(x_t), 0 for 0; not linear and without state.

    Example:
        >>> lqf.filters.Cascade(lqf.filters.EMA(0.1), lqf.filters.Sign()).slots
        ('0.y',)
    """

    @override
    def step(self, state: Tensors, x: Any, coefficients: Tensors) -> tuple[dict[str, Any], Any]:
        return {}, tf.sign(x)


def _section(share: float) -> list[float]:
    """An average as a second-order section b0 b1 b2 1 a1 a2."""
    return [share, 0.0, 0.0, 1.0, share - 1.0, 0.0]


def _time_constant(share: float) -> float:
    if share == 0.0:
        return math.inf
    # Not through the pole: 1 − share loses the digits of a small share.
    return 0.0 if share == 1.0 else -1.0 / math.log1p(-share)


def _ema(y: Any, x: Any, share: Any) -> Any:
    # Not (1 − share)·y + share·x: in float32, 1 − share has lost the digits of a small share.
    return y + share * (x - y)
