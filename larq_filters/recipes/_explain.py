"""What each hyperparameter of a latent SGD recipe does to the equivalent filter."""

import dataclasses
import math

from larq_filters._numbers import Coefficient, Schedule, positive, whole_number
from larq_filters.recipes._explain_text import Explanation, sentences
from larq_filters.recipes._form import Form
from larq_filters.recipes._response import Response, time_constant

import numpy as np
import tensorflow as tf


def explanation_of(recipe: Form, steps: int | None, steps_per_epoch: float | None) -> Explanation:
    """What each number of a recipe does."""
    if steps is not None:
        steps = whole_number("steps", steps, least=1)
    if steps_per_epoch is not None:
        positive("steps_per_epoch", steps_per_epoch)
    response = Response(recipe, _rates(recipe.learning_rate, steps))
    slow, fast = response.shares
    ringing = slow.imag != 0.0
    turn = max(abs(np.angle(1.0 - share)) for share in (slow, fast))
    factors = {"learning_rate": 2.0, "initial_weights": 2.0}
    explanation = Explanation(
        optimizer="SGD",
        filter=recipe.filter,
        linear=dataclasses.replace(recipe, learning_rate=response.rate, clip=None).filter,
        alpha=None if ringing else slow.real,
        gamma=None if ringing else fast.real,
        poles=(1.0 - slow, 1.0 - fast),
        alpha_time_constant=time_constant(slow),
        gamma_time_constant=time_constant(fast),
        ringing_period=float(2.0 * math.pi / turn) if turn > 0.0 else None,
        forgotten_after=response.forgotten_after(),
        remaining=None if steps is None else response.remaining(steps),
        steps_per_epoch=steps_per_epoch,
        largest_rate=response.rate,
        changes_nothing=factors
        | ({"weight_decay": 0.5} if recipe.weight_decay else {})
        | ({"clip": 2.0} if recipe.clip is not None else {}),
        hyperparameters=(),
    )
    rows = tuple(sentences(response, explanation, steps))
    return dataclasses.replace(explanation, hyperparameters=rows)


def _rates(learning_rate: Coefficient, steps: int | None) -> np.ndarray:
    if not isinstance(learning_rate, Schedule):
        return np.array([learning_rate], "float64")
    if steps is None:
        raise ValueError(
            "a learning rate schedule needs the length of the training. Give `steps`. Received: "
            f"learning_rate={learning_rate!r}, steps=None"
        )

    values = _at_once(learning_rate, int(steps))
    if values is None:
        values = _one_by_one(learning_rate, int(steps))
    if not (np.isfinite(values).all() and values.min() >= 0.0 and values.max() > 0.0):
        raise ValueError(
            "learning rates must be finite, at least 0, and not all 0. Received: a schedule "
            f"with values from {values.min():g} to {values.max():g}"
        )
    return values


def _at_once(schedule: Schedule, steps: int) -> np.ndarray | None:
    """A schedule at all steps, of which it is given a vector; None if it takes single ones only."""
    some = np.unique(np.linspace(0, steps - 1, 40).astype(int))
    try:
        values = np.asarray(tf.cast(schedule(tf.range(steps, dtype=tf.int64)), tf.float64))
        single = [float(schedule(tf.constant(step, tf.int64))) for step in some]
        rounding = 1e-6 * np.abs(values).max()
        same = values.shape == (steps,) and np.allclose(values[some], single, 1e-6, rounding)
    except Exception:  # whatever it computes with a step, it may not be able to with a vector
        return None
    return values if same else None


def _one_by_one(schedule: Schedule, steps: int) -> np.ndarray:
    """A schedule at all steps, of which it is given one at a time: a minute for a million."""

    @tf.function
    def rates() -> tf.Tensor:
        def rate(step: tf.Tensor) -> tf.Tensor:
            return tf.cast(schedule(step), tf.float64)

        return tf.map_fn(rate, tf.range(steps, dtype=tf.int64), fn_output_signature=tf.float64)

    return rates.get_concrete_function()().numpy()
