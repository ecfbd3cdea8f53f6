"""Every number that `recipes.Adam(...).explain` prints, against Adam simulated in float64."""

import json

import larq_filters as lqf

import numpy as np
import pytest
import tensorflow as tf
from helpers import found, near

Adam = lqf.recipes.Adam
SMALL = {"learning_rate": 0.01, "beta_1": 0.8, "beta_2": 0.95, "epsilon": 0.1, "clip": 0.3}


def simulate(gradients, w, recipe):
    """The latent weights after every step of the paper's Adam, with decoupled weight decay."""
    m = v = np.zeros_like(w)
    weights = []
    for t, g in enumerate(gradients, 1):
        m = recipe.beta_1 * m + (1 - recipe.beta_1) * g
        v = recipe.beta_2 * v + (1 - recipe.beta_2) * g**2
        m_hat, v_hat = m / (1 - recipe.beta_1**t), v / (1 - recipe.beta_2**t)
        rate = recipe.learning_rate
        w = (1 - rate * recipe.weight_decay) * w - rate * m_hat / (np.sqrt(v_hat) + recipe.epsilon)
        w = w if recipe.clip is None else np.clip(w, -recipe.clip, recipe.clip)
        weights.append(w)
    return np.array(weights)


def trajectory(optimizer, gradients):
    """The steps that an optimizer of Keras makes."""
    w = tf.Variable(0.0, dtype="float64")
    optimizer.build([w])

    @tf.function
    def run():
        return tf.map_fn(step, tf.constant(gradients))

    def step(g):
        optimizer.apply_gradients([(g, w)])
        return w.read_value()

    return np.diff(run().numpy(), prepend=0.0)


def rows(recipe, **arguments):
    explanation = recipe.explain(**arguments, print_fn=None)
    return {row.name: row.effect for row in explanation.hyperparameters}


@pytest.mark.parametrize("decay", [0.0, 2.0])
@pytest.mark.parametrize("clip", [1.0, 0.3])
def test_from_the_clip_to_a_flip(clip, decay):
    recipe = Adam(1e-3, clip=clip, weight_decay=decay)
    weights = simulate(np.ones(1100), np.float64(clip), recipe)
    text = rows(recipe, steps_per_epoch=50)["learning rate"]
    steps, epochs = found(r"to a flip in about ([\d,]+) steps \(([\d.]+) epochs\)", text)
    assert steps == pytest.approx(np.flatnonzero(weights < 0)[0], abs=1.5, rel=6e-3)
    assert epochs == near(steps / 50)
    if not decay:
        assert weights[0] - weights[1] == pytest.approx(1e-3, rel=1e-3)  # η per step


@pytest.mark.parametrize("decay", [0.0, 2.0])
def test_a_clip_that_one_step_crosses(decay):
    text = rows(Adam(0.5, weight_decay=decay, clip=0.3))["learning rate"]
    assert found(r"in about ([\d.]+) steps", text) == 1.0


def test_weight_decay_bounds_the_weights():
    recipe = Adam(0.1, weight_decay=0.5, clip=None)
    bound = found(r"beyond 1/λ = ([\d.]+)", rows(recipe)["clipping"])
    weights = simulate(np.ones(400), np.float64(0.0), recipe)
    assert np.abs(weights).max() <= bound == near(-weights[-1])


def test_the_initial_weights_are_forgotten_when_it_says():
    recipe = Adam(0.1, weight_decay=0.5, clip=None)
    weights = simulate(np.zeros(100), np.float64(1.0), recipe)
    explanation = recipe.explain(steps=20, print_fn=None)
    assert explanation.forgotten_after == np.flatnonzero(weights < 0.01)[0] + 1
    assert explanation.remaining == pytest.approx(weights[19])
    assert explanation.alpha == pytest.approx(1 - weights[1] / weights[0])


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_the_linear_filter_is_adam_where_v_is_given(decay):
    """Two runs whose gradients of ±1 differ in one sign have the same v, of 1."""
    recipe = Adam(0.1, beta_1=0.8, beta_2=0.95, weight_decay=decay, clip=None)
    gradients = np.random.default_rng(0).choice([-1.0, 1.0], 300)
    other = gradients.copy()
    other[200] *= -1
    runs = [simulate(g, np.float64(0.0), recipe)[200:] for g in (gradients, other)]
    response = (runs[1] - runs[0]) * gradients[200] / 2
    h = recipe.explain(print_fn=None).linear.impulse_response(100)
    np.testing.assert_allclose(response * (decay or 1.0), h, rtol=1e-6)  # y = −λw, or −w


def test_the_factors_change_no_binary_weight_and_each_is_needed():
    recipe = Adam(**SMALL, weight_decay=5.0)
    factors = recipe.explain(print_fn=None).changes_nothing
    gradients = np.random.default_rng(0).normal(0.02, 0.2, (400, 200))
    start = np.random.default_rng(1).normal(0.0, 0.1, 200)

    def signs(factors):
        numbers = {n: getattr(recipe, n) * factors.get(n, 1.0) for n in (*SMALL, "weight_decay")}
        scaled = gradients * factors.get("gradients", 1.0)
        return simulate(scaled, start * factors.get("initial_weights", 1.0), Adam(**numbers)) < 0

    assert set(factors) == {
        *("learning_rate", "initial_weights", "weight_decay", "clip", "gradients", "epsilon")
    }
    assert (signs(factors) == signs({})).all()
    for name in factors:
        assert (signs({n: f for n, f in factors.items() if n != name}) != signs({})).any(), name


def test_with_a_large_epsilon_adam_is_sgd():
    gradients = 1e-6 * np.random.default_rng(0).normal(size=600)
    for epsilon_hat in (False, True):
        kept = {"beta_1": 0.9, "beta_2": 0.95, "epsilon": 10.0}
        text = rows(Adam(1.0, **kept, clip=None, epsilon_hat=epsilon_hat))["epsilon"]
        steps, rate = found(
            r"after some ([\d]+) steps, a learning rate of η\(1 − β₁\)/ε = ([\d.e-]+)\.", text
        )
        assert steps == (20 if epsilon_hat else 10)
        if epsilon_hat:  # Keras has it
            adam = tf.keras.optimizers.Adam(1.0, **kept)
            adam_steps = trajectory(adam, gradients)
        else:
            weights = simulate(gradients, np.float64(0.0), Adam(1.0, **kept))
            adam_steps = np.diff(weights, prepend=0.0)
        sgd_steps = trajectory(tf.keras.optimizers.SGD(rate, momentum=0.9), gradients)
        late = 15 * int(steps)
        np.testing.assert_allclose(adam_steps[late:], sgd_steps[late:], rtol=1e-2, atol=1e-11)


def test_the_averages_of_gradients_and_their_squares():
    text = rows(Adam(beta_1=0.8, beta_2=0.95))
    for name, beta in (("first moment", 0.8), ("second moment", 0.95)):
        steps = found(r"time constant of ([\d.]+) steps", text[name])
        assert beta**steps == pytest.approx(np.exp(-1), rel=1e-2)
    alone = rows(Adam(beta_1=0.0, beta_2=0.0))
    assert "None: gradients are not averaged" in alone["first moment"]
    assert "√v is the size of the newest gradient" in alone["second moment"]


def test_what_a_clip_and_a_schedule_change():
    free, clipped = rows(Adam(clip=None)), rows(Adam())
    assert "Never forgotten" in free["initialization"]
    assert "Forgotten only where the clip is reached" in clipped["initialization"]
    ends = [simulate(np.tile([1.0] * 150 + [-1.0] * 20, 2), w, Adam(1e-2)) for w in (0.9, -0.9)]
    assert ends[0][-1] == ends[1][-1]  # which it has forgotten there
    text = rows(Adam(SCHEDULE, weight_decay=0.1), steps=100)["learning rate"]
    assert "α = ηλ = 0.01 at most" in text and "a flip in at least" in text
    small = tf.keras.optimizers.schedules.PolynomialDecay(1e-3, 100, 0.0)
    # 1 / 1e-3 is a little less in float32.
    assert "a flip in at least 1,000 steps" in rows(Adam(small), steps=100)["learning rate"]
    rising = tf.keras.optimizers.schedules.PolynomialDecay(0.0, 100, 0.1)
    assert "less and less" not in rows(Adam(rising), steps=100)["its decay"]
    assert "less and less" in rows(Adam(SCHEDULE), steps=100)["its decay"]


SCHEDULE = tf.keras.optimizers.schedules.PolynomialDecay(0.1, 100, 0.0)


@pytest.mark.parametrize(
    "recipe",
    [Adam(), Adam(1e-2, weight_decay=0.1), Adam(SCHEDULE, clip=None), Adam(SCHEDULE, 0.0, 0.0)],
)
def test_the_table_fits_a_terminal_and_the_rest_fits_json(recipe, capsys):
    explanation = recipe.explain(steps=100, steps_per_epoch=390)
    printed = capsys.readouterr().out
    assert printed == f"{explanation}\n" and printed.startswith("Adam on latent weights")
    assert all(len(line) <= 80 for line in printed.splitlines())
    assert [row.name for row in explanation.hyperparameters] == [
        *("initialization", "learning rate", "its decay", "weight decay", "first moment"),
        *("second moment", "epsilon", "clipping", "scaling"),
    ]
    values = json.loads(json.dumps(explanation.to_dict(), allow_nan=False))
    assert values["optimizer"] == "Adam" and values["filter"] == str(recipe.filter)
    assert "Adam on latent weights" in explanation._repr_html_()


def test_of_a_keras_optimizer():
    recipe = lqf.recipes.recipe_of(tf.keras.optimizers.AdamW(SCHEDULE, weight_decay=0.1), clip=1)
    text = rows(recipe, steps=100)
    assert "A decay of α: 0.01 in the first step" in text["its decay"]
    with pytest.raises(ValueError, match="Give `steps`"):
        recipe.explain()
