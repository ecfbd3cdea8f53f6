"""SGD on latent weights: the class, and functions that call it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from larq_filters._numbers import Coefficient
from larq_filters.filters import Filter
from larq_filters.optimizers import LatentSGD
from larq_filters.recipes._explain import explanation_of
from larq_filters.recipes._explain_text import Explained, Explanation
from larq_filters.recipes._form import Form, State

import numpy as np
import tensorflow as tf
from typing_extensions import override


@dataclasses.dataclass(frozen=True)
class SGD(Form, Explained):
    r"""SGD on latent weights: its equivalent filter, its state, and what its numbers do.

    With learning rate η, momentum β, dampening d and weight decay λ, and gradients g:

    - decoupled, as Keras does it: m_t = βm_{t−1} − (1−d)η_t·g_t; w_t = (1 − η_tλ)w_{t−1} + m_t.
      With a fixed rate this is `CascadedEMA(alpha=ηλ, gamma=1−β)`; without momentum `EMA(ηλ)`.
    - coupled, as PyTorch does it: m_t = βm_{t−1} + (1−d)(g_t + λw_{t−1}); w_t = w_{t−1} − η_t·m_t.
      With a fixed rate this is an `IIR` with poles at the roots of z² − (1+β−(1−d)ηλ)z + β.

    Without weight decay the last stage is an `Integrator`: it never forgets the initial weights.
    The moving-average form of momentum is `dampening=momentum`. PyTorch leaves dampening out of its
    very first step: continue with `state` from its buffer after that step.

    Args:
        learning_rate: η > 0, a number or a schedule.
        momentum: β in [0, 1). The default has none, as in Keras.
        weight_decay: λ ≥ 0. The default has none, as in Keras.
        nesterov: Whether the weight moves by −η(g' + βm) instead, as in both libraries.
        decoupled: True: weight decay shrinks the weight itself (Keras). False: it is added to the
            gradient and goes through the momentum (PyTorch).
        dampening: d in [0, 1), which only PyTorch has.
        clip: The weight is held within ± `clip` after each step (larq's `weight_clip` has 1), or
            None.

    Raises:
        ValueError: An argument outside its range, or Nesterov momentum without momentum or with
            dampening.

    Example:
        >>> recipe = lqf.recipes.SGD(0.1, momentum=0.5, weight_decay=0.25)
        >>> recipe.filter
        CascadedEMA(alpha=0.025, gamma=0.5)
        >>> recipe.state(np.array([2.0]))["y"].tolist()
        [-0.25]
        >>> recipe.explain(print_fn=None).forgotten_after
        182

    Source:
        Quist, Li, van Gemert, ICLR 2023 (arXiv 2303.02452), for the decoupled form.
    """

    @override
    def _explanation(self, steps: int | None, steps_per_epoch: float | None) -> Explanation:
        return explanation_of(self, steps, steps_per_epoch)

    def optimizer(
        self, real_optimizer: tf.keras.optimizers.Optimizer | str | Mapping[str, Any] = "adam"
    ) -> LatentSGD:
        """The optimizer that trains latent weights so; `clip` is a constraint of the layers.

        Raises:
            ValueError: Coupled weight decay or dampening, which Keras' SGD does not have.
        """
        if self.coupled or self.dampening:
            raise ValueError(
                "Keras' SGD has decoupled weight decay and no dampening: train this recipe as "
                f"FilteredFlip(filter=recipe.filter). Received: {self}"
            )
        return LatentSGD(
            self.learning_rate,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay or None,
            real_optimizer=real_optimizer,
        )


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
    r"""The filter that is equivalent to training latent weights with SGD: `SGD(...).filter`.

    Args:
        learning_rate: η > 0, as of `SGD`, and so are all others.
        momentum: β in [0, 1).
        weight_decay: λ ≥ 0.
        nesterov: Whether momentum is Nesterov's.
        decoupled: Whether weight decay is Keras' (True) or PyTorch's (False).
        dampening: d in [0, 1).
        clip: The bound of the latent weights; larq's `weight_clip` has 1.

    Returns:
        A filter whose output is −w times a positive number.

    Raises:
        ValueError: As for `SGD`.

    Example:
        >>> lqf.recipes.from_sgd(0.1, momentum=0.5, weight_decay=0.25)
        CascadedEMA(alpha=0.025, gamma=0.5)
    """
    recipe = SGD(
        learning_rate,
        momentum,
        weight_decay,
        nesterov,
        decoupled,
        dampening=dampening,
        clip=clip,
    )
    return recipe.filter


def sgd_state(
    latent: np.ndarray,
    buffer: np.ndarray | None = None,
    *,
    learning_rate: Coefficient,
    **arguments: Any,
) -> State:
    """The state of `from_sgd` for given latent weights: `SGD(...).state(latent, buffer)`.

    Args:
        latent: w, of any shape.
        buffer: m, of the same shape: Keras' `momentums` if `decoupled`, else PyTorch's
            `momentum_buffer`; None for 0.
        learning_rate: η > 0, as for `SGD`.
        **arguments: All other arguments of `SGD`, by name.

    Returns:
        A value for each of the filter's slots, to assign to `optimizer.slots(variable)`.

    Example:
        >>> state = lqf.recipes.sgd_state(np.array([2.0]), learning_rate=0.1, weight_decay=0.25)
        >>> state["y"].tolist()
        [-0.5]
    """
    return SGD(learning_rate, **arguments).state(latent, buffer)


def explain(
    learning_rate: Coefficient,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    decoupled: bool = True,
    *,
    dampening: float = 0.0,
    clip: float | None = None,
    steps: int | None = None,
    steps_per_epoch: float | None = None,
    print_fn: Callable[[str], Any] | None = print,
) -> Explanation:
    r"""What each hyperparameter of SGD on latent weights does, in numbers and plain sentences.

    `Adam(...).explain()` does it for Adam, `recipe_of(optimizer).explain()` for a Keras optimizer.

    Decoupled weight decay: α = ηλ and γ = 1 − β, whose poles are 1 − α and 1 − γ. Coupled: with
    κ = (1−d)ηλ, α and γ are the roots of δ² − (1−β+κ)δ + κ, or with Nesterov momentum of
    δ² − (1−β+κ(1+β))δ + κ; if they are complex, the filter rings with a period of 2π/abs(arg(p)). A
    stage with the share s per step has the time constant −1/ln(1−s).

    Args:
        learning_rate: η > 0, a number or a schedule. It and the next six are those of `SGD`.
        momentum: β in [0, 1).
        weight_decay: λ ≥ 0.
        nesterov: Whether momentum is Nesterov's.
        decoupled: Whether weight decay is Keras' (True) or PyTorch's (False).
        dampening: d in [0, 1).
        clip: The bound of the latent weights, such as 1 for larq's `weight_clip`, or None.
        steps: Length of the training; needed with a schedule.
        steps_per_epoch: If given, times are also printed in epochs.
        print_fn: What to print the table with, or None to print nothing.

    Returns:
        The numbers and sentences of the table.

    Raises:
        ValueError: As for `SGD`; or a schedule without `steps`; or a schedule that has a negative
            value or only zeros.

    Example:
        >>> recipe = lqf.recipes.explain(0.1, 0.9, 1e-4, steps_per_epoch=390, print_fn=None)
        >>> recipe.forgotten_after
        460515
        >>> recipe.hyperparameters[0].effect
        'Counts for 460,515 steps (1,181 epochs), until it is below 1 % of its size.'

    Source:
        Quist, Li, van Gemert, ICLR 2023 (arXiv 2303.02452).
    """
    recipe = SGD(
        learning_rate,
        momentum,
        weight_decay,
        nesterov,
        decoupled,
        dampening=dampening,
        clip=clip,
    )
    return recipe.explain(steps=steps, steps_per_epoch=steps_per_epoch, print_fn=print_fn)
