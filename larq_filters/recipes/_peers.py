"""Other projects' binary optimizers, as filters and thresholds."""

from typing import Any

from larq_filters._numbers import Coefficient, below_one
from larq_filters.filters import EMA, Cascade, Filter, NormalizedEMA, Sign
from larq_filters.optimizers import FilteredFlip


def bop(threshold: Coefficient = 1e-8, gamma: Coefficient = 1e-4, **kwargs: Any) -> FilteredFlip:
    """The `Bop` of larq: a first-order filter with a threshold.

    A weight flips where θ·m > τ, with m = EMA_γ(g). Unlike larq's `Bop`, this never flips a weight
    on a zero gradient, even with τ = 0.

    Args:
        threshold: τ ≥ 0, in the unit of the gradients; larq's `threshold` and its default.
            Too high: few flips, slow training. Too low: noise flips weights.
        gamma: γ in (0, 1], per step; larq's `gamma` and its default. It is the filter's `alpha`.
        **kwargs: All other arguments of `FilteredFlip`, such as `real_optimizer`. `inertia` is 0.

    Returns:
        The optimizer.

    Example:
        >>> lqf.recipes.bop(threshold=1e-6, gamma=1e-3).filter
        EMA(alpha=0.001)

    Source:
        Helwegen et al., "Latent Weights Do Not Exist: Rethinking Binarized Neural Network
        Optimization", NeurIPS 2019 (arXiv 1906.02107).
    """
    return _from_zero(EMA(gamma), threshold=threshold, **kwargs)


def bop2ndorder(
    threshold: Coefficient = 1e-6,
    gamma: Coefficient = 1e-6,
    sigma: Coefficient = 1e-2,
    **kwargs: Any,
) -> FilteredFlip:
    """`Bop2ndOrder`, the biased variant: a normalized filter with a threshold.

    A weight flips where θ·m/(√v + 1e-10) > τ, with m = EMA_γ(g) and v = EMA_σ(g²).

    Args:
        threshold: τ ≥ 0, without unit. The defaults of all three are those of its class.
        gamma: γ in (0, 1], per step.
        sigma: σ in (0, 1], per step.
        **kwargs: All other arguments of `FilteredFlip`, such as `real_optimizer`. `inertia` is 0.

    Returns:
        The optimizer.

    Example:
        >>> lqf.recipes.bop2ndorder(1e-6, 1e-4, 1e-3).filter.sigma
        0.001

    Source:
        Suarez-Ramirez et al., "A Bop and Beyond: A Second Order Optimizer for Binarized Neural
        Networks", 2021 (arXiv 2104.05124).
    """
    return _from_zero(NormalizedEMA(gamma, sigma), threshold=threshold, **kwargs)


def diode(beta_1: float = 0.99, beta_2: float = 0.9999, **kwargs: Any) -> FilteredFlip:
    """Diode: a moving average of the signs of a moving average.

    A weight flips where θ·s > 0, with l = EMA_{1−β₁}(g) and s = EMA_{1−β₂}(sign(l)). Diode's
    learning rate only scales s, so it has no effect on the signs.

    Args:
        beta_1: β₁ in [0, 1). The defaults of both are those of `DiodeMix`.
        beta_2: β₂ in [0, 1).
        **kwargs: All other arguments of `FilteredFlip`, such as `real_optimizer`. `inertia` is 0.

    Returns:
        The optimizer. Its state starts at 0; Diode's own s starts at random.

    Raises:
        ValueError: `beta_1` or `beta_2` is outside [0, 1).

    Example:
        >>> lqf.recipes.diode(0.5, 0.75).filter
        Cascade(EMA(alpha=0.5), Sign(), EMA(alpha=0.25))

    Source:
        bitorch-engine's `DiodeMix`.
    """
    first, second = below_one("beta_1", beta_1), below_one("beta_2", beta_2)
    return _from_zero(Cascade(EMA(1.0 - first), Sign(), EMA(1.0 - second)), **kwargs)


def _from_zero(filter: Filter, **kwargs: Any) -> FilteredFlip:
    """A `FilteredFlip` whose state starts at 0, as in the original optimizers."""
    return FilteredFlip(filter=filter, **{"inertia": 0.0, **kwargs})
