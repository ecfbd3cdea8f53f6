"""What each hyperparameter of a latent Adam recipe does to the equivalent filter."""

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from larq_filters._numbers import Schedule
from larq_filters.recipes._explain import explanation_of
from larq_filters.recipes._explain_text import Explanation, Hyperparameter, number, time
from larq_filters.recipes._form import Form
from larq_filters.recipes._response import time_constant

if TYPE_CHECKING:
    from larq_filters.recipes._adam import Adam


def explanation_of_adam(
    recipe: "Adam", steps: int | None, steps_per_epoch: float | None
) -> Explanation:
    """What each number of a recipe does: beside the normalization, as for SGD with momentum."""
    form = Form(recipe.learning_rate, recipe.beta_1, recipe.weight_decay, clip=recipe.clip)
    sgd = explanation_of(form, steps, steps_per_epoch)
    # Averages of unit gain, as the moments are.
    linear = dataclasses.replace(
        form, learning_rate=sgd.largest_rate, dampening=recipe.beta_1, clip=None
    )
    return dataclasses.replace(
        sgd,
        optimizer="Adam",
        filter=recipe.filter,
        linear=linear.filter,
        changes_nothing={**sgd.changes_nothing, "gradients": 2.0, "epsilon": 2.0},
        hyperparameters=tuple(_sentences(recipe, sgd)),
    )


def _sentences(recipe: "Adam", sgd: Explanation) -> Iterator[Hyperparameter]:
    rows = {row.name: row for row in sgd.hyperparameters}
    rate, decay, clip = sgd.largest_rate, recipe.weight_decay, recipe.clip
    yield rows["initialization"]

    varies = isinstance(recipe.learning_rate, Schedule)
    alpha = ""
    if decay:
        alpha = (
            f"α = ηλ = {sgd.alpha:.3g}{' at most' if varies else ''}: a gradient is forgotten with "
            f"a time constant of {time(sgd.alpha_time_constant, sgd)}. "
        )
    text = f"{alpha}Gradients that are all alike move a weight by η per step"
    if clip is not None:
        about = "at least" if varies else "about"
        text += f": from the clip to a flip in {about} {time(_to_zero(clip, rate, decay), sgd)}"
    others = "w₀" if clip is None else "w₀ and the clip"
    text += f". Apart from that, it only matters relative to {others}."
    yield dataclasses.replace(rows["learning rate"], effect=text)
    yield rows["its decay"]
    yield rows["weight decay"]

    momentum = rows["momentum"]
    yield Hyperparameter(
        "first moment",
        momentum.value.replace("β", "β₁"),
        momentum.effect.replace("1 − β", "1 − β₁"),
    )
    text = "None: √v is the size of the newest gradient."
    if recipe.beta_2:
        average = time(time_constant(complex(1.0 - recipe.beta_2)), sgd)
        text = f"g² is averaged with a time constant of {average}: this is v."
    text += " The averaged gradient is divided by √v, so the filter is not linear."
    yield Hyperparameter("second moment", f"β₂ = {recipe.beta_2:g}", text)
    # Until both moments need no correction, of which ε has that of v if it is added before.
    corrected = 1.0 / (1.0 - max(recipe.beta_1, recipe.beta_2 if recipe.epsilon_hat else 0.0))
    yield Hyperparameter(
        "epsilon",
        f"ε = {recipe.epsilon:g}",
        "No effect where √v is well above it. Where √v is well below, Adam is SGD with momentum β₁ "
        f"and, after some {number(corrected)} steps, a learning rate of η(1 − β₁)/ε = "
        f"{number(rate * (1.0 - recipe.beta_1) / recipe.epsilon)}.",
    )

    if clip is None:
        text = "None: where |w| exceeds 1, ste_sign stops gradients."
    else:
        text = f"The filter saturates at ±{clip:g}."
    if decay:
        text += f" Gradients that are all alike move no weight beyond 1/λ = {number(1.0 / decay)}."
    yield dataclasses.replace(rows["clipping"], effect=text)
    yield Hyperparameter(
        "scaling", "of gradients", "Scaling all gradients by k equals dividing ε by k."
    )


def _to_zero(weight: float, rate: float, decay: float) -> float:
    """Steps of w ← (1 − ηλ)w − η that take a weight to 0."""
    if rate * decay >= 1.0:
        return 1.0
    steps = math.log1p(weight * decay) / -math.log1p(-rate * decay) if decay else weight / rate
    return max(steps, 1.0)
