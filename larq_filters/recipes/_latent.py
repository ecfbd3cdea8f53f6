"""Latent SGD and Adam, and other binary optimizers, as filters."""

from typing import Any

from larq_filters import _numbers
from larq_filters._numbers import Coefficient, Schedule, times
from larq_filters.filters import EMA, Cascade, Filter, Integrator, NormalizedEMA, Sign
from larq_filters.optimizers import FilteredFlip
from larq_filters.recipes import _sgd

import numpy as np
import tensorflow as tf

State = dict[str, np.ndarray]


def from_sgd(
    learning_rate: Coefficient,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    decoupled: bool = True,
    *,
    dampening: float = 0.0,
    clip: float | None = None,
) -> Filter:
    r"""The filter that SGD on a latent weight is.

    With learning rate ε, momentum β, dampening d and weight decay λ, and gradients g:

    - decoupled, as Keras does it: m_t = βm_{t−1} − (1−d)ε_t·g_t; w_t = (1 − ε_tλ)w_{t−1} + m_t.
      With a fixed rate this is `CascadedEMA(alpha=ελ, gamma=1−β)`; without momentum `EMA(ελ)`.
    - coupled, as PyTorch does it: m_t = βm_{t−1} + (1−d)(g_t + λw_{t−1}); w_t = w_{t−1} − ε_t·m_t.
      With a fixed rate this is an `IIR` with poles at the roots of z² − (1+β−(1−d)ελ)z + β.

    Without weight decay the last stage is an `Integrator`: it never forgets the initial weights.
    The moving-average form of momentum is `dampening=momentum`. PyTorch leaves dampening out of its
    very first step: go on from its state after that with `sgd_state`.

    Args:
        learning_rate: ε > 0, a number or a schedule.
        momentum: β in [0, 1).
        weight_decay: λ ≥ 0.
        nesterov: Whether the weight moves by −ε(g' + βm) instead, as in both libraries.
        decoupled: Whether weight decay shrinks the weight itself (Keras), or adds to the gradient
            and so goes through the momentum (PyTorch).
        dampening: d in [0, 1).
        clip: The weight is held within ± `clip` after each step (larq's `weight_clip` has 1), or
            None.

    Returns:
        A filter whose output is −w times a positive number.

    Raises:
        ValueError: An argument outside its range, or Nesterov momentum without momentum or with
            dampening.

    Example:
        >>> lqf.recipes.from_sgd(0.1, momentum=0.5, weight_decay=0.25)
        CascadedEMA(alpha=0.025, gamma=0.5)

    Source:
        Quist, Li, van Gemert, ICLR 2023 (arXiv 2303.02452), for the decoupled form.
    """
    recipe, _ = _sgd.sgd(
        learning_rate, momentum, weight_decay, nesterov, decoupled, dampening, clip
    )
    return recipe


def sgd_state(
    latent: np.ndarray,
    buffer: np.ndarray | None = None,
    *,
    learning_rate: Coefficient,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    decoupled: bool = True,
    dampening: float = 0.0,
    clip: float | None = None,
) -> State:
    """The state in which `from_sgd`, with the same arguments, goes on from latent weights.

    Args:
        latent: w, of any shape.
        buffer: m, of the same shape: Keras' `momentums` if `decoupled`, else PyTorch's
            `momentum_buffer`; None for 0.
        learning_rate: As for `from_sgd`, and so are all others.
        momentum: β.
        weight_decay: λ.
        nesterov: Whether momentum is Nesterov's.
        decoupled: Whether weight decay is decoupled.
        dampening: d.
        clip: The weights' bound.

    Returns:
        A value for each of the filter's slots, to assign to `optimizer.slots(variable)`.

    Example:
        >>> state = lqf.recipes.sgd_state(np.array([2.0]), learning_rate=0.1, weight_decay=0.25)
        >>> state["y"].tolist()
        [-0.5]
    """
    _, state = _sgd.sgd(learning_rate, momentum, weight_decay, nesterov, decoupled, dampening, clip)
    latent = np.asarray(latent, "float64")
    m = np.zeros_like(latent) if buffer is None else np.asarray(buffer, "float64")
    return {name: np.broadcast_to(value, latent.shape) for name, value in state(latent, m).items()}


def from_adam(
    learning_rate: Coefficient = 1e-3,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
    clip: float | None = 1.0,
    *,
    weight_decay: float = 0.0,
    epsilon_hat: bool = False,
    amsgrad: bool = False,
) -> Filter:
    r"""The filter that Adam on a latent weight is: not linear, because Adam normalizes.

    m and v are averages of g and g² divided by their bias; w_t = (1 − ελ)w_{t−1} − ε·m/(√v + ε̂),
    held within ± `clip`. That is `NormalizedEMA` into an `Integrator`.

    Args:
        learning_rate: ε > 0, a number or a schedule.
        beta_1: β₁ in [0, 1).
        beta_2: β₂ in [0, 1).
        epsilon: ε̂ > 0.
        clip: The weight's bound; larq's `weight_clip` has 1. None for no bound.
        weight_decay: λ ≥ 0, decoupled.
        epsilon_hat: Whether ε̂ joins √v before the bias correction, as in Keras; after it in the
            paper and PyTorch.
        amsgrad: Refused.

    Returns:
        A filter whose output is −w.

    Raises:
        ValueError: AMSGrad, or an argument outside its range.

    Example:
        >>> lqf.recipes.from_adam(1e-2, beta_1=0.5, beta_2=0.75).slots
        ('0.m', '0.v', '1.y')
    """
    if amsgrad:
        raise ValueError(
            "AMSGrad divides by the largest v so far, which no average of gradients is: use Adam "
            "without it. Received: amsgrad=True"
        )
    _numbers.not_negative("weight_decay", weight_decay)
    return Cascade(
        NormalizedEMA(
            1.0 - _numbers.below_one("beta_1", beta_1),
            1.0 - _numbers.below_one("beta_2", beta_2),
            epsilon,
            bias_correction=True,
            epsilon_hat=epsilon_hat,
        ),
        Integrator(learning_rate, clip, leak=times(learning_rate, weight_decay)),
    )


def adam_state(
    latent: np.ndarray,
    m: np.ndarray | None = None,
    v: np.ndarray | None = None,
    *,
    steps: int = 0,
) -> State:
    """The state in which `from_adam` goes on from latent weights.

    Args:
        latent: w, of any shape.
        m: Adam's first moment, not corrected, of the same shape; None for 0.
        v: Adam's second moment, likewise.
        steps: How many steps it has done.

    Returns:
        A value for each of the filter's slots.

    Example:
        >>> lqf.recipes.adam_state(np.array([0.5]))["1.y"].tolist()
        [-0.5]
    """
    latent = np.asarray(latent, "float64")
    zeros = np.zeros_like(latent)
    return {
        "0.m": zeros if m is None else np.asarray(m, "float64"),
        "0.v": zeros if v is None else np.asarray(v, "float64"),
        "0.t": np.asarray(float(steps)),
        "1.y": -latent,
    }


def from_optimizer(
    optimizer: tf.keras.optimizers.Optimizer, *, clip: float | None = None
) -> Filter:
    """The filter that a Keras `SGD`, `Adam` or `AdamW` on a latent weight is.

    Args:
        optimizer: The optimizer, with a learning rate or a schedule of it.
        clip: The bound of the latent weights; larq's `weight_clip` has 1.

    Returns:
        What `from_sgd` or `from_adam` gives for its arguments.

    Raises:
        TypeError: Another optimizer: it may have no such form.
        ValueError: AMSGrad, or averaged weights.

    Example:
        >>> lqf.recipes.from_optimizer(tf.keras.optimizers.SGD(0.5, weight_decay=0.25))
        EMA(alpha=0.125)
    """
    name, arguments = arguments_of(optimizer)
    return (from_sgd if name == "sgd" else from_adam)(**arguments, clip=clip)


def arguments_of(optimizer: tf.keras.optimizers.Optimizer) -> tuple[str, dict[str, Any]]:
    """'sgd' or 'adam', and the arguments of `from_sgd` or `from_adam` for a Keras optimizer."""
    optimizers = tf.keras.optimizers
    if type(optimizer) not in (optimizers.SGD, optimizers.Adam, optimizers.AdamW):
        legacy = "legacy." if isinstance(optimizer, optimizers.legacy.Optimizer) else ""
        raise TypeError(
            "only tf.keras.optimizers.SGD, Adam and AdamW are known as filters: train with one of "
            f"them, or start over with FilteredFlip. Received: {legacy}{type(optimizer).__name__}"
        )
    if optimizer.use_ema:
        raise ValueError(
            "averages of latent weights are not a filter over gradients: train without use_ema. "
            "Received: use_ema=True"
        )
    rate = optimizer._learning_rate
    arguments = {
        "learning_rate": rate if isinstance(rate, Schedule) else float(rate.numpy()),
        "weight_decay": optimizer.weight_decay or 0.0,
    }
    if type(optimizer) is optimizers.SGD:
        momentum = {"momentum": float(optimizer.momentum), "nesterov": bool(optimizer.nesterov)}
        if not momentum["momentum"]:
            momentum["nesterov"] = False  # Nesterov's without momentum is plain SGD
        return "sgd", arguments | momentum
    return "adam", arguments | {
        "beta_1": optimizer.beta_1,
        "beta_2": optimizer.beta_2,
        "epsilon": optimizer.epsilon,
        "epsilon_hat": not getattr(optimizer, "adaptive_epsilon", False),
        "amsgrad": optimizer.amsgrad,
    }


def bop(threshold: Coefficient = 1e-8, gamma: Coefficient = 1e-4, **kwargs: Any) -> FilteredFlip:
    """The `Bop` of larq: a first-order filter with a threshold.

    A weight flips where θ·m > τ, with m = EMA_γ(g). Other than larq's, a zero gradient never flips
    a weight when τ is 0.

    Args:
        threshold: τ ≥ 0, in the unit of the gradients; larq's `threshold`.
        gamma: γ in (0, 1], per step; larq's `gamma`. Here it is the filter's `alpha`.
        **kwargs: All else that `FilteredFlip` takes, such as `real_optimizer`.

    Returns:
        The optimizer.

    Example:
        >>> lqf.recipes.bop(threshold=1e-6, gamma=1e-3).filter
        EMA(alpha=0.001)

    Source:
        Helwegen et al., "Latent Weights Do Not Exist: Rethinking Binarized Neural Network
        Optimization", NeurIPS 2019 (arXiv 1906.02107).
    """
    return FilteredFlip(filter=EMA(gamma), threshold=threshold, **kwargs)


def bop2ndorder(
    threshold: Coefficient = 1e-6,
    gamma: Coefficient = 1e-4,
    sigma: Coefficient = 1e-3,
    **kwargs: Any,
) -> FilteredFlip:
    """`Bop2ndOrder`, the biased variant: a normalized filter with a threshold.

    A weight flips where θ·m/(√v + 1e-10) > τ, with m = EMA_γ(g) and v = EMA_σ(g²).

    Args:
        threshold: τ ≥ 0, without unit.
        gamma: γ in (0, 1], per step.
        sigma: σ in (0, 1], per step.
        **kwargs: All else that `FilteredFlip` takes, such as `real_optimizer`.

    Returns:
        The optimizer.

    Example:
        >>> lqf.recipes.bop2ndorder(1e-6, 1e-4, 1e-3).filter.sigma
        0.001

    Source:
        Suarez-Ramirez et al., "A Bop and Beyond: A Second Order Optimizer for Binarized Neural
        Networks", 2021 (arXiv 2104.05124).
    """
    return FilteredFlip(filter=NormalizedEMA(gamma, sigma), threshold=threshold, **kwargs)


def diode(beta_1: float = 0.9, beta_2: float = 0.99, **kwargs: Any) -> FilteredFlip:
    """Diode: the average of the signs of an average.

    A weight flips where θ·s > 0, with l = EMA_{1−β₁}(g) and s = EMA_{1−β₂}(sign(l)). Diode's
    learning rate scales s, which changes no sign.

    Args:
        beta_1: β₁ in [0, 1).
        beta_2: β₂ in [0, 1).
        **kwargs: All else that `FilteredFlip` takes, such as `real_optimizer`.

    Returns:
        The optimizer. Its state starts at 0; Diode's own s starts at random.

    Raises:
        ValueError: `beta_1` or `beta_2` is outside [0, 1).

    Example:
        >>> lqf.recipes.diode(0.5, 0.75).filter
        Cascade(filters=(EMA(alpha=0.5), Sign(), EMA(alpha=0.25)))

    Source:
        bitorch-engine's `DiodeMix`.
    """
    first, second = _numbers.below_one("beta_1", beta_1), _numbers.below_one("beta_2", beta_2)
    return FilteredFlip(filter=Cascade(EMA(1.0 - first), Sign(), EMA(1.0 - second)), **kwargs)
