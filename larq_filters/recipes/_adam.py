"""Adam on latent weights: the class, and functions that call it."""

import dataclasses

from larq_filters._numbers import (
    Coefficient,
    below_one,
    not_negative,
    positive,
    rate,
    times,
)
from larq_filters.filters import Cascade, Filter, Integrator, NormalizedEMA
from larq_filters.recipes._explain_adam import explanation_of_adam
from larq_filters.recipes._explain_text import Explained, Explanation
from larq_filters.recipes._form import State, check_decay

import numpy as np
from typing_extensions import override


@dataclasses.dataclass(frozen=True)
class Adam(Explained):
    r"""Adam on latent weights: its equivalent filter, its state, and what its numbers do.

    m and v are averages of g and g² divided by their bias; w_t = (1 − ηλ)w_{t−1} − η·m/(√v + ε),
    held within ± `clip`. This is a `NormalizedEMA` followed by an `Integrator`. It is not linear,
    because Adam divides by √v. AMSGrad divides by the largest v so far, so it has no such filter.

    Args:
        learning_rate: η > 0, a number or a schedule. The defaults are those of Keras.
        beta_1: β₁ in [0, 1).
        beta_2: β₂ in [0, 1).
        epsilon: ε > 0.
        clip: The bound of the weight. The default 1 is that of larq's `weight_clip`, which most
            recipes use. None for no bound.
        weight_decay: λ ≥ 0, decoupled.
        epsilon_hat: True: ε is added to √v before the bias correction, as in Keras. False: after
            it, as in the paper and PyTorch.

    Raises:
        ValueError: An argument outside its range.

    Example:
        >>> recipe = lqf.recipes.Adam(1e-2, beta_1=0.5, beta_2=0.75)
        >>> recipe.filter.slots
        ('0.m', '0.v', '1.y')
        >>> recipe.state(np.array([0.5]))["1.y"].tolist()
        [-0.5]
        >>> recipe.explain(print_fn=None).hyperparameters[-1].effect
        'Scaling all gradients by k equals dividing ε by k.'

    Source:
        Kingma, Ba, "Adam: A Method for Stochastic Optimization", 2015.
    """

    learning_rate: Coefficient = 1e-3
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    clip: float | None = 1.0
    weight_decay: float = dataclasses.field(default=0.0, kw_only=True)
    epsilon_hat: bool = dataclasses.field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        check_decay(
            rate("learning_rate", self.learning_rate),
            not_negative("weight_decay", self.weight_decay),
        )
        if self.clip is not None:
            positive("clip", self.clip)
        self.filter  # noqa: B018  (its parts check the rest)

    @property
    def filter(self) -> Filter:
        """A filter whose output is −w."""
        return Cascade(
            NormalizedEMA(
                1.0 - below_one("beta_1", self.beta_1),
                1.0 - below_one("beta_2", self.beta_2),
                self.epsilon,
                bias_correction=True,
                epsilon_hat=self.epsilon_hat,
            ),
            Integrator(
                self.learning_rate,
                self.clip,
                leak=times(self.learning_rate, self.weight_decay),
            ),
        )

    def state(
        self,
        latent: np.ndarray,
        m: np.ndarray | None = None,
        v: np.ndarray | None = None,
        *,
        steps: int = 0,
    ) -> State:
        """The state of `filter` for given latent weights; see `adam_state`."""
        return adam_state(latent, m, v, steps=steps)

    @override
    def _explanation(self, steps: int | None, steps_per_epoch: float | None) -> Explanation:
        return explanation_of_adam(self, steps, steps_per_epoch)


def from_adam(
    learning_rate: Coefficient = 1e-3,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
    clip: float | None = 1.0,
    *,
    weight_decay: float = 0.0,
    epsilon_hat: bool = False,
) -> Filter:
    r"""The filter that is equivalent to training latent weights with Adam: `Adam(...).filter`.

    Args:
        learning_rate: η > 0. It and all others are those of `Adam`.
        beta_1: β₁ in [0, 1).
        beta_2: β₂ in [0, 1).
        epsilon: ε > 0.
        clip: The weight's bound; larq's `weight_clip` has 1. None for no bound.
        weight_decay: λ ≥ 0, decoupled.
        epsilon_hat: Whether ε is added to √v before the bias correction, as in Keras.

    Returns:
        A filter whose output is −w.

    Raises:
        ValueError: An argument outside its range.

    Example:
        >>> lqf.recipes.from_adam(1e-2, beta_1=0.5, beta_2=0.75).slots
        ('0.m', '0.v', '1.y')
    """
    recipe = Adam(
        learning_rate,
        beta_1,
        beta_2,
        epsilon,
        clip,
        weight_decay=weight_decay,
        epsilon_hat=epsilon_hat,
    )
    return recipe.filter


def adam_state(
    latent: np.ndarray,
    m: np.ndarray | None = None,
    v: np.ndarray | None = None,
    *,
    steps: int = 0,
) -> State:
    """The state of `from_adam` for given latent weights.

    Args:
        latent: w, of any shape.
        m: Adam's first moment, not corrected, of the same shape; None for 0.
        v: Adam's second moment, likewise.
        steps: Number of steps that Adam has done, for its bias correction.

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
