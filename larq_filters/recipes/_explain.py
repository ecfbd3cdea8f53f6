"""What each hyperparameter of a latent SGD recipe does to the filter that the recipe is."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from larq_filters import _numbers
from larq_filters._numbers import Coefficient, Schedule
from larq_filters.filters import Filter
from larq_filters.recipes import _sgd
from larq_filters.recipes._explain_text import Explanation, sentences
from larq_filters.recipes._response import Recipe, time_constant

import numpy as np
import tensorflow as tf


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

    Decoupled weight decay: α = ελ and γ = 1 − β, whose poles are 1 − α and 1 − γ. Coupled: with
    κ = (1−d)ελ, α and γ are the roots of δ² − (1−β+κ)δ + κ, or with Nesterov momentum of
    δ² − (1−β+κ(1+β))δ + κ; if they are complex, the filter rings with a period of 2π/|arg p|. A
    stage that takes in a share s per step has the time constant −1/ln(1−s).

    Args:
        learning_rate: ε > 0, a number or a schedule.
        momentum: β in [0, 1).
        weight_decay: λ ≥ 0.
        nesterov: Whether momentum is Nesterov's.
        decoupled: Whether weight decay is Keras' (True) or PyTorch's (False).
        dampening: d in [0, 1).
        clip: The bound of the latent weights, such as 1 for larq's `weight_clip`, or None.
        steps: Length of the training; needed with a schedule.
        steps_per_epoch: If given, times are given in epochs, too.
        print_fn: What to print the table with, or None to print nothing.

    Returns:
        The numbers and sentences of the table.

    Raises:
        ValueError: As `from_sgd`; or a schedule without `steps`, or one that is negative or 0
            throughout.

    Example:
        >>> recipe = lqf.recipes.explain(0.1, 0.9, 1e-4, steps_per_epoch=390, print_fn=None)
        >>> recipe.forgotten_after
        460515
        >>> recipe.hyperparameters[0].effect
        'Counts until below 1 % of its size: for 460,515 steps (1,181 epochs).'

    Source:
        Quist, Li, van Gemert, ICLR 2023 (arXiv 2303.02452).
    """
    for name, value in {"steps": steps, "steps_per_epoch": steps_per_epoch}.items():
        if value is not None:
            _numbers.positive(name, value)
    rest = momentum, weight_decay, nesterov, decoupled, dampening
    filter, _ = _sgd.sgd(learning_rate, *rest, clip)
    rates = _rates(learning_rate, steps)
    linear, _ = _sgd.sgd(float(rates.max()), *rest, clip=None)
    coupled = not decoupled and weight_decay > 0.0 and momentum > 0.0
    recipe = Recipe(rates, momentum, weight_decay, nesterov, coupled, dampening, clip)
    explanation = _explanation(recipe, filter, linear, steps, steps_per_epoch)
    if print_fn is not None:
        print_fn(str(explanation))
    return explanation


def _explanation(
    recipe: Recipe,
    filter: Filter,
    linear: Filter,
    steps: int | None,
    steps_per_epoch: float | None,
) -> Explanation:
    slow, fast = recipe.shares(recipe.rate)
    ringing = slow.imag != 0.0
    turn = max(abs(np.angle(1.0 - share)) for share in (slow, fast))
    factors = {"learning_rate": 2.0, "initial_weights": 2.0}
    explanation = Explanation(
        filter=filter,
        linear=linear,
        alpha=None if ringing else slow.real,
        gamma=None if ringing else fast.real,
        poles=(1.0 - slow, 1.0 - fast),
        alpha_time_constant=time_constant(slow),
        gamma_time_constant=time_constant(fast),
        ringing_period=float(2.0 * math.pi / turn) if turn > 0.0 else None,
        forgotten_after=recipe.forgotten_after(),
        remaining=None if steps is None else recipe.remaining(steps),
        steps_per_epoch=steps_per_epoch,
        changes_nothing=factors
        | ({"weight_decay": 0.5} if recipe.weight_decay else {})
        | ({"clip": 2.0} if recipe.clip is not None else {}),
        hyperparameters=(),
    )
    rows = tuple(sentences(recipe, explanation, steps))
    return dataclasses.replace(explanation, hyperparameters=rows)


def _rates(learning_rate: Coefficient, steps: int | None) -> np.ndarray:
    if not isinstance(learning_rate, Schedule):
        return np.array([learning_rate], "float64")
    if steps is None:
        raise ValueError(
            "with a schedule, explain needs the length of the training: give `steps`. Received: "
            f"learning_rate={learning_rate!r}, steps=None"
        )

    @tf.function
    def rates() -> tf.Tensor:
        def rate(step: tf.Tensor) -> tf.Tensor:
            return tf.cast(learning_rate(step), tf.float64)

        return tf.map_fn(rate, tf.range(int(steps), dtype=tf.int64), fn_output_signature=tf.float64)

    values = rates.get_concrete_function()().numpy()
    if not (np.isfinite(values).all() and values.min() >= 0.0 and values.max() > 0.0):
        raise ValueError(
            "learning rates are finite, and positive but for a few zeros. Received: a schedule "
            f"with values from {values.min():g} to {values.max():g}"
        )
    return values
