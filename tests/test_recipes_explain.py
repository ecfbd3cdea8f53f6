"""Every number that `recipes.explain` prints, against latent SGD simulated in float64."""

import json

import larq_filters as lqf

import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_one_sentence, found, near
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference import keras_sgd, torch_sgd

explain = lqf.recipes.explain
PAPER = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 1e-4}
FAST = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.02}
COUPLED = FAST | {"decoupled": False}
RINGING = COUPLED | {"weight_decay": 0.2}
RECIPES = [
    FAST,
    FAST | {"nesterov": True},
    FAST | {"dampening": 0.5},
    FAST | {"momentum": 0.0},
    COUPLED,
    COUPLED | {"nesterov": True},
    COUPLED | {"dampening": 0.5},
    RINGING,
    RINGING | {"nesterov": True},
]


def simulate(gradients, w, recipe):
    """The latent weights after every step."""
    rest = {"weight_decay": 0.0, "momentum": 0.0, "nesterov": False, "dampening": 0.0, "clip": None}
    recipe = rest | recipe
    rate = recipe.pop("learning_rate")
    step = keras_sgd if recipe.pop("decoupled", True) else torch_sgd
    m, weights = np.zeros_like(w), []
    for t, g in enumerate(gradients):
        w, m = step(w, m, g, float(rate(t)) if callable(rate) else rate, **recipe)
        weights.append(w)
    return np.array(weights)


def impulse_response(recipe, steps):
    return -simulate(np.eye(steps)[0], 0.0, recipe)


def rows(recipe, **arguments):
    explanation = explain(**recipe, **arguments, print_fn=None)
    return {row.name: row.effect for row in explanation.hyperparameters}


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_the_initial_weights_are_forgotten_when_it_says(recipe):
    weights = np.abs(simulate(np.zeros(4000), 1.0, recipe))
    last = np.flatnonzero(weights >= 0.01)[-1] + 1  # the step, counted from 1
    explanation = explain(**recipe, steps=last, steps_per_epoch=20, print_fn=None)
    assert explanation.forgotten_after == last + 1
    assert explanation.remaining == pytest.approx(simulate(np.zeros(last), 1.0, recipe)[-1])
    text = explanation.hyperparameters[0].effect
    steps, epochs, percent = found(
        r"for ([\d,]+) steps \(([\d.]+) epochs\).* ([\d.]+) % of it is left", text
    )
    assert steps == last + 1
    assert epochs == near((last + 1) / 20)
    assert percent == near(100 * weights[last - 1])


@given(
    rate=st.floats(0.01, 1.0),
    momentum=st.sampled_from([0.0, 0.5, 0.9, 0.99]),
    weight_decay=st.floats(1e-3, 1.0),
    nesterov=st.booleans(),
    decoupled=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_forgetting_whatever_the_recipe(rate, **recipe):
    assume(not recipe["nesterov"] or recipe["momentum"] > 0)
    recipe["learning_rate"] = rate
    steps = 6000
    weights = np.abs(simulate(np.zeros(steps), 1.0, recipe))
    above = np.flatnonzero(weights >= 0.01)
    last = above[-1] + 1 if above.size else 0
    assume(last < 0.9 * steps)
    assume(abs(weights[last] / 0.01 - 1) > 1e-9 if last < steps else True)
    assert explain(**recipe, print_fn=None).forgotten_after == last + 1


def test_slow_recipes_are_not_simulated_step_by_step():
    slow = {"learning_rate": 1e-3, "momentum": 0.9, "weight_decay": 1e-6}
    decoupled = explain(**slow, print_fn=None).forgotten_after
    coupled = explain(**slow, decoupled=False, print_fn=None).forgotten_after
    assert decoupled == pytest.approx(np.log(100) / 1e-9, rel=1e-6)
    assert coupled == pytest.approx(decoupled / 10, rel=1e-4)
    # Two poles in one place, at 1 − p: w_t = (1 + pt)·exp(−pt)·w₀, as p is small.
    same = {"learning_rate": 1e-10, "momentum": 1 - 1e-5, "weight_decay": 0.25}
    t = explain(**same, decoupled=False, print_fn=None).forgotten_after
    assert (1 + 5e-6 * t) * np.exp(-5e-6 * t) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("recipe", [r for r in RECIPES if r["weight_decay"] < 0.1], ids=str)
def test_time_constants(recipe):
    """α's is how fast the response dies in the end; γ's how fast the rest of it does."""
    h = impulse_response(recipe, 2500)
    slow = h[-1] / h[-2]
    rest = h[1:60] - slow * h[:59]  # what is left without the slow pole
    text = rows(recipe, steps_per_epoch=20)
    share, steps, epochs = found(
        r"= ([\d.e-]+).*time constant of ([\d,.]+) steps \(([\d.e-]+) epochs\)",
        text["learning rate"],
    )
    assert share == near(1 - slow)
    assert steps == near(-1 / np.log(slow))
    assert epochs == near(-1 / np.log(slow) / 20)
    if not recipe["momentum"]:
        assert "γ = 1" in text["momentum"] and np.abs(rest).max() < 1e-12
        return
    fast = rest[20] / rest[19]
    share, steps = found(r"= ([\d.]+): .*time constant of ([\d.]+) steps", text["momentum"])
    assert share == near(1 - fast)
    assert steps == near(-1 / np.log(fast))


@pytest.mark.parametrize("recipe", [RINGING, RINGING | {"nesterov": True}], ids=str)
def test_ringing(recipe):
    text = rows(recipe, steps_per_epoch=10)["learning rate"]
    period, epochs, constant = found(
        r"period of ([\d.]+) steps \(([\d.]+) epochs\).*time constant of ([\d.]+) steps", text
    )
    h = impulse_response(recipe, 600)
    crossings = np.flatnonzero(np.diff(np.sign(h)) != 0)
    measured = 2 * (crossings[-1] - crossings[0]) / (len(crossings) - 1)
    assert period == pytest.approx(measured, rel=0.02)
    assert epochs == near(period / 10)
    envelope = [np.abs(h[start : start + int(measured)]).max() for start in (100, 400)]
    assert constant == pytest.approx(300 / np.log(envelope[0] / envelope[1]), rel=0.05)


def test_real_poles_keep_the_sign_of_a_gradient():
    for recipe in (FAST, COUPLED):
        assert explain(**recipe, print_fn=None).ringing_period is None
        assert (impulse_response(recipe, 500) > 0).all()


@pytest.mark.parametrize("decoupled", [True, False])
def test_poles_and_zero(decoupled):
    """(1 − p₁z⁻¹)(1 − p₂z⁻¹) leaves nothing of the response but the numerator."""
    recipe = FAST | {"nesterov": True, "decoupled": decoupled}
    explanation = explain(**recipe, print_fn=None)
    numerator = np.convolve(np.poly(explanation.poles), impulse_response(recipe, 100))[:100]
    np.testing.assert_allclose(numerator[2:], 0, atol=1e-12)
    zero = found(r"a zero at β/\(1\+β\) = ([\d.]+)", explanation.hyperparameters[4].effect)
    assert zero == near(-numerator[1] / numerator[0])


def test_coupled_decay_forgets_faster():
    factor = found(r"forgets ([\d.]+) times as fast", rows(COUPLED)["weight decay"])
    ends = [impulse_response(recipe, 4000)[-2:] for recipe in (COUPLED, FAST)]
    shares = [1 - last / before for before, last in ends]
    assert factor == near(shares[0] / shares[1])


def test_dampening():
    factor = found(r"1 − d = ([\d.]+)", rows(FAST | {"dampening": 0.7})["momentum"])
    damped, free = (impulse_response(FAST | {"dampening": d}, 50) for d in (0.7, 0.0))
    np.testing.assert_allclose(damped, factor * free)
    nothing_to_dampen = FAST | {"momentum": 0.0, "dampening": 0.7}
    assert rows(nothing_to_dampen) == rows(FAST | {"momentum": 0.0})


@pytest.mark.parametrize(
    "recipe",
    [
        FAST,
        COUPLED,
        FAST | {"dampening": 0.5},
        FAST | {"momentum": 0.0, "dampening": 0.5},
        COUPLED | {"momentum": 0.0, "dampening": 0.5},
    ],
    ids=str,
)
def test_gradients_that_never_reach_the_clip(recipe):
    bound = found(r"Gradients below ([\d.e-]+) never", rows(recipe | {"clip": 0.5})["clipping"])
    below, above = (
        np.abs(simulate(np.full(5000, size), 0.0, recipe)).max()
        for size in (0.994 * bound, 1.006 * bound)
    )
    assert below < 0.5 < above


def test_a_decaying_rate():
    steps = 1000
    decay = tf.keras.optimizers.schedules.PolynomialDecay(0.5, steps, 0.05)
    recipe = {"learning_rate": decay, "weight_decay": 0.02, "momentum": 0.9}
    text = rows(recipe, steps=steps)
    weights = simulate(np.zeros(steps), 1.0, recipe)
    assert found(r"for ([\d,]+) steps", text["initialization"]) == (weights >= 0.01).sum() + 1
    assert found(r"([\d.]+) % of it is left", text["initialization"]) == near(100 * weights[-1])
    shares = 1 - weights[1:] / weights[:-1]
    assert found(
        r"α: ([\d.e-]+) in the first step, ([\d.e-]+) half way, ([\d.e-]+) in the last",
        text["its decay"],
    ) == near([shares[0], shares[steps // 2 - 1], shares[-1]])
    # Coupled, and where too little is forgotten.
    coupled = recipe | {"decoupled": False, "weight_decay": 1e-4}
    text = rows(coupled, steps=steps)["initialization"]
    assert text.startswith("Not forgotten. After all 1,000 steps,")
    left = simulate(np.zeros(steps), 1.0, coupled)[-1]
    assert found(r"([\d.]+) % of it is left", text) == near(100 * left)


class Schedule(tf.keras.optimizers.schedules.LearningRateSchedule):
    """A function as a schedule, which keeps the shapes that it is called with."""

    def __init__(self, function):
        self.function, self.shapes = function, []

    def __call__(self, step):
        self.shapes.append(tuple(tf.convert_to_tensor(step).shape))
        return self.function(tf.cast(step, tf.float32))


def summed(step):
    """Of the shape of a vector, but not what each step would get alone."""
    return tf.reshape(tf.cumsum(tf.reshape(step, [-1])), tf.shape(step))


def by_python(step):
    return 0.5 if step < 30 else 0.25


SCHEDULES = {  # the first two can be given a vector of steps
    "falling": lambda step: 0.5 / (1.0 + step),
    "by tf.where": lambda step: tf.where(step < 30, 0.5, 0.25),
    "by tf.cond": lambda step: tf.cond(step < 30, lambda: 0.5, lambda: 0.25),
    "by Python": by_python,
    "a mean": lambda step: 0.5 / (1.0 + step + tf.reduce_mean(step)),
    "a sum of steps": lambda step: 0.5 / (1.0 + summed(step)),
    "a constant": lambda step: tf.constant(0.5),
}


@pytest.mark.parametrize("decoupled", [True, False])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_that_take_a_vector_and_others(name, decoupled):
    function = SCHEDULES[name]
    recipe = {"momentum": 0.5, "weight_decay": 0.05, "decoupled": decoupled}
    explanation = explain(Schedule(function), **recipe, steps=200, print_fn=None)
    weights = simulate(np.zeros(200), 1.0, {"learning_rate": Schedule(function), **recipe})
    assert explanation.remaining == pytest.approx(weights[-1], rel=1e-5)
    below = np.flatnonzero(np.abs(weights) >= 0.01)[-1] + 2
    assert explanation.forgotten_after == (below if below <= 200 else np.inf)
    assert explanation.largest_rate == 0.5


def test_a_schedule_is_called_once_for_all_steps():
    schedule = Schedule(lambda step: 0.5 / (1.0 + step))
    explain(schedule, weight_decay=0.1, steps=1000, print_fn=None)
    assert schedule.shapes.count((1000,)) == 1 and len(schedule.shapes) < 50  # a few to compare


def test_a_decaying_rate_without_weight_decay():
    steps = 400
    decay = tf.keras.optimizers.schedules.PolynomialDecay(0.5, steps, 0.05)
    middle, last = found(
        r"half way ([\d.]+), in the last step ([\d.]+) times",
        rows({"learning_rate": decay}, steps=steps)["its decay"],
    )
    changes = np.diff(simulate(np.ones(steps), 0.0, {"learning_rate": decay}), prepend=0.0)
    assert middle == near(changes[(steps - 1) // 2] / changes[0])
    assert last == near(changes[-1] / changes[0])


def test_without_weight_decay_nothing_is_forgotten():
    recipe = {"learning_rate": 0.1, "momentum": 0.9}
    explanation = explain(**recipe, print_fn=None)
    assert explanation.alpha == 0.0 and explanation.alpha_time_constant == np.inf
    assert explanation.forgotten_after == np.inf
    assert "Never forgotten" in explanation.hyperparameters[0].effect
    assert "forgets no gradient and no start" in explanation.hyperparameters[3].effect
    assert simulate(np.zeros(1000), 1.0, recipe)[-1] == 1.0
    h = impulse_response(recipe, 1000)
    assert h[-1] == pytest.approx(h.max())


@given(
    recipe=st.sampled_from([*RECIPES, {"learning_rate": 0.1}, FAST | {"clip": 0.25}]),
    seed=st.integers(0, 100),
)
@settings(max_examples=40, deadline=None)
def test_what_it_says_changes_nothing(recipe, seed):
    rng = np.random.default_rng(seed)
    gradients, w = rng.normal(size=(200, 20)), rng.uniform(-0.5, 0.5, 20)
    factors = explain(**recipe, print_fn=None).changes_nothing
    other = {k: v * factors.get(k, 1) if k != "decoupled" else v for k, v in recipe.items()}
    assert other != recipe
    one = simulate(gradients, w, recipe)
    two = simulate(gradients, w * factors["initial_weights"], other)
    np.testing.assert_array_equal(np.sign(one), np.sign(two))


@pytest.mark.parametrize("recipe", [FAST, COUPLED, {"learning_rate": 0.1}, FAST | {"clip": 0.5}])
def test_scaling_is_its_inverse_on_what_has_a_magnitude(recipe):
    rng = np.random.default_rng(3)
    gradients, w = rng.normal(size=(200, 20)), rng.uniform(-0.5, 0.5, 20)
    text = rows(recipe)["scaling"]
    assert ("the clip" in text) == ("clip" in recipe)
    unscaled = recipe | ({"clip": recipe["clip"] / 4} if "clip" in recipe else {})
    np.testing.assert_array_equal(
        np.sign(simulate(4 * gradients, w, recipe)),
        np.sign(simulate(gradients, w / 4, unscaled)),
    )


def test_half_the_rate_with_twice_the_decay_is_the_same_filter():
    assert "the same filter" in rows(FAST)["weight decay"]
    other = FAST | {"learning_rate": 0.05, "weight_decay": 0.04}
    assert explain(**FAST, print_fn=None).filter == explain(**other, print_fn=None).filter


def test_the_papers_recipe_in_numbers(capsys):
    explanation = explain(**PAPER, steps_per_epoch=390)
    printed = capsys.readouterr().out
    assert printed == f"{explanation}\n"
    assert explanation.filter == lqf.filters.CascadedEMA(0.1 * 1e-4, 1 - 0.9)
    assert "CascadedEMA(alpha=1e-05, gamma=0.1)" in printed
    flat = " ".join(printed.split())
    for text in ("460,515 steps", "(1,181 epochs)", "(256 epochs)", "9.49 steps"):
        assert text in flat, text
    assert [row.name for row in explanation.hyperparameters] == [
        *("initialization", "learning rate", "its decay", "weight decay"),
        *("momentum", "clipping", "scaling"),
    ]


@pytest.mark.parametrize(
    "recipe",
    [
        *RECIPES,
        {"learning_rate": tf.keras.optimizers.schedules.ExponentialDecay(0.1, 50, 0.9)},
        FAST | {"learning_rate": tf.keras.optimizers.schedules.CosineDecay(0.1, 90), "clip": 1.0},
    ],
)
def test_the_table_fits_a_terminal_and_the_rest_fits_json(recipe):
    explanation = explain(**recipe, steps=100, steps_per_epoch=390, print_fn=None)
    lines = str(explanation).splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert len([line for line in lines if line[:1] not in (" ", "")]) >= 11
    values = json.loads(json.dumps(explanation.to_dict(), allow_nan=False))
    assert len(values["hyperparameters"]) == 7
    assert len(repr(explanation)) < 1000


def test_print_fn(capsys):
    texts = []
    explanation = explain(**FAST, print_fn=texts.append)
    assert texts == [str(explanation)]
    explain(**FAST, print_fn=None)
    assert capsys.readouterr().out == ""


SCHEDULE = tf.keras.optimizers.schedules.PolynomialDecay(0.1, 100, 0.0)


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"learning_rate": SCHEDULE}, "Give `steps`"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"learning_rate": 2.0, "weight_decay": 1.0}, "at most 1"),
        ({"learning_rate": 0.1, "steps": 0}, "steps is a whole number from 1 on"),
        ({"learning_rate": 0.1, "steps": 0.5}, "Received: steps=0.5"),
        ({"learning_rate": 0.1, "steps_per_epoch": -3}, "steps_per_epoch must be positive"),
        ({"learning_rate": 0.1, "nesterov": True}, "Nesterov momentum needs a momentum"),
        (
            {"learning_rate": 9.0, "weight_decay": 1.0, "momentum": 0.5, "decoupled": False},
            "unstable",
        ),
        (
            {"learning_rate": tf.keras.optimizers.schedules.ExponentialDecay(-0.1, 5, 0.5)}
            | {"steps": 10},
            "finite, at least 0, and not all 0",
        ),
        (
            {"learning_rate": tf.keras.optimizers.schedules.ExponentialDecay(3.0, 5, 0.5)}
            | {"steps": 10, "weight_decay": 1.0},
            "at most 1",
        ),
    ],
)
def test_refused(arguments, text, capsys):
    assert_one_sentence(lambda: explain(**arguments), ValueError, text)
    assert capsys.readouterr().out == ""
