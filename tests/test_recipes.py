"""Latent recipes against recursions in float64 NumPy, Keras' optimizers, and recordings."""

import inspect

import larq_filters as lqf

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_one_sentence, binary_variable, slow_but, train
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracles import load
from reference import keras_sgd, torch_sgd

recipes, F = lqf.recipes, lqf.filters
keras = tf.keras


def polynomial(value, steps):
    return keras.optimizers.schedules.PolynomialDecay(value, steps, 0.1 * value)


def run(filter, state, gradients):
    """The filter's outputs, in float64."""
    state = {**{slot: np.zeros(gradients.shape[1:]) for slot in filter.slots}, **state}
    outputs = []
    for t, g in enumerate(gradients):
        coefficients = {
            name: float(c(t)) if callable(c) else c for name, c in filter.coefficients.items()
        }
        state, y = filter.step(state, g, coefficients)
        outputs.append(np.asarray(y))
    return np.array(outputs)


class Exact(keras.optimizers.schedules.LearningRateSchedule):
    """A decay in float64, so that only the filter's own arithmetic is compared."""

    def __init__(self, value, steps):
        self.value, self.steps = value, steps

    def __call__(self, step):
        return self.value * (1 - 0.9 * step / self.steps)

    def get_config(self):
        return {"value": self.value, "steps": self.steps}


@given(
    rate=st.floats(1e-3, 1.0),
    momentum=st.sampled_from([0.0, 0.5, 0.9, 0.99]),
    weight_decay=st.sampled_from([0.0, 1e-4, 1e-2, 0.3]),
    nesterov=st.booleans(),
    decoupled=st.booleans(),
    dampening=st.sampled_from([0.0, 0.3, 0.9]),
    clip=st.sampled_from([None, None, 1.0]),
    scheduled=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=300, deadline=None)
def test_from_sgd_is_latent_sgd(seed, scheduled, decoupled, rate, **recipe):
    """−w is the output times one positive number, at every step, from any latent state."""
    steps = 60
    if recipe["nesterov"]:
        assume(recipe["momentum"] > 0)
        recipe["dampening"] = 0.0
    if recipe["momentum"] == 0.0:
        recipe["dampening"] = 0.0
    schedule = Exact(rate, steps) if scheduled else rate
    rng = np.random.default_rng(seed)
    gradients, w, m = rng.normal(size=(steps, 8)), rng.uniform(-1, 1, 8), rng.normal(size=8)
    arguments = {**recipe, "learning_rate": schedule, "decoupled": decoupled}
    filter = recipes.from_sgd(**arguments)
    outputs = run(filter, recipes.sgd_state(w, m, **arguments), gradients)
    latent, one_step = [], keras_sgd if decoupled else torch_sgd
    for t, g in enumerate(gradients):
        w, m = one_step(w, m, g, schedule(t) if scheduled else rate, **recipe)
        latent.append(w)
    latent = np.array(latent)
    scale = -np.vdot(outputs, latent) / np.vdot(latent, latent)
    assert scale > 0
    np.testing.assert_allclose(outputs, -scale * latent, atol=1e-8 * scale * np.abs(latent).max())


FORMS = [
    ({"weight_decay": 0.25}, F.EMA(0.125)),
    ({"weight_decay": 0.25, "momentum": 0.5}, F.CascadedEMA(0.125, 0.5)),
    ({"weight_decay": 0.25, "momentum": 0.5, "dampening": 0.5}, F.CascadedEMA(0.125, 0.5)),
    ({}, F.Integrator(0.5)),
    ({"momentum": 0.5}, F.Cascade(F.EMA(0.5), F.Integrator(1.0))),
    ({"momentum": 0.5, "decoupled": False}, F.Cascade(F.EMA(0.5), F.Integrator(1.0))),
    ({"decoupled": False, "weight_decay": 0.25}, F.EMA(0.125)),
    (
        {"decoupled": False, "weight_decay": 0.25, "momentum": 0.5},
        F.IIR([0.5], [1, -(1 + 0.5 - 0.125), 0.5]),
    ),
    (
        {"decoupled": False, "weight_decay": 0.25, "momentum": 0.5, "nesterov": True},
        F.IIR([0.5 * 1.5, -0.5 * 0.5], [1, -1.5 * 0.875, 0.5 * 0.875]),
    ),
]


@pytest.mark.parametrize(("arguments", "expected"), FORMS)
def test_the_form_of_a_recipe(arguments, expected):
    assert recipes.from_sgd(0.5, **arguments) == expected


def test_defaults_of_states_are_those_of_filters():
    w, m = np.array([0.5, -2.0]), np.array([1.0, 3.0])
    for arguments in ({}, {"weight_decay": 0.25}, {"momentum": 0.5}, {"clip": 1.0}):
        filter = recipes.from_sgd(0.5, **arguments)
        state = recipes.sgd_state(w, m, learning_rate=0.5, **arguments)
        assert state.keys() == set(filter.slots)
        rest = {"momentum": 0.0, "weight_decay": 0.0, "nesterov": False, "dampening": 0.0}
        spelled = {**rest, "decoupled": True, "clip": None, **arguments}
        assert recipes.from_sgd(0.5, **spelled) == filter
        for slot, value in recipes.sgd_state(w, m, learning_rate=0.5, **spelled).items():
            np.testing.assert_array_equal(state[slot], value)
    keras_own = keras.optimizers.Adam()
    assert recipes.from_adam() == recipes.from_adam(
        *(1e-3, keras_own.beta_1, keras_own.beta_2, keras_own.epsilon, 1.0),
        weight_decay=0.0,
        epsilon_hat=False,
    )


def test_zero_of_nesterov():
    """A zero at β/(1+β), and poles at the roots of z² − (1+β)(1−ηλ)z + β(1−ηλ)."""
    filter = recipes.from_sgd(0.1, 0.9, 1e-2, nesterov=True, decoupled=False)
    b, a = filter.sos[0, :3], filter.sos[0, 3:]
    assert np.roots(b[:2]) == pytest.approx([0.9 / 1.9])
    kept = 1 - 0.1 * 1e-2
    np.testing.assert_allclose(a, [1, -1.9 * kept, 0.9 * kept], rtol=1e-12)


SGDS = {
    "plain": lambda: keras.optimizers.SGD(0.05, weight_decay=0.1),
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9, weight_decay=0.1),
    "no decay": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "nesterov": lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
    "schedule": lambda: keras.optimizers.SGD(polynomial(0.05, 100), momentum=0.9, weight_decay=0.1),
    "schedule, nesterov": lambda: keras.optimizers.SGD(
        polynomial(0.05, 100), momentum=0.9, nesterov=True
    ),
}
ADAMS = {
    "Adam": lambda: keras.optimizers.Adam(0.05),
    "Adam, large epsilon": lambda: keras.optimizers.Adam(0.05, epsilon=0.1),
    "Adam, schedule": lambda: keras.optimizers.Adam(polynomial(0.05, 100)),
    "AdamW": lambda: keras.optimizers.AdamW(0.05, weight_decay=0.1),
}


def differing(latent_optimizer, optimizer, clip, state, warm_up=0):
    """The share of latent weights next to 0, where rounding decides; and of how many of the others
    the binary weight is not the sign.
    """
    rng = np.random.default_rng(3)
    gradients = rng.normal(size=(100 + warm_up, 1, 500)).astype("float32")
    constraint = (lambda w: tf.clip_by_value(w, -clip, clip)) if clip else None
    latent = tf.Variable(rng.uniform(-1, 1, 500).astype("float32"), constraint=constraint)
    for _ in train(latent_optimizer, [latent], gradients[:warm_up]):
        pass
    weights = binary_variable(np.sign(latent.numpy()))
    optimizer.build([weights])
    for slot, value in state(latent).items():
        optimizer.slots(weights)[slot].assign(value)
    optimizer.iterations.assign(latent_optimizer.iterations)
    near, far, total = 0, 0, 0
    for (w,), (theta,) in zip(
        train(latent_optimizer, [latent], gradients[warm_up:]),
        train(optimizer, [weights], gradients[warm_up:]),
        strict=True,
    ):
        is_near = np.abs(w) <= 1e-5
        near += is_near.sum()
        far += (np.where(w < 0, -1, 1) != theta)[~is_near].sum()
        total += is_near.size
    return near / total, far


@pytest.mark.parametrize(
    ("warm_up", "clip"),
    slow_but([(30, None)], [(w, c) for w in (0, 30) for c in (None, 1.0)]),
)
@pytest.mark.parametrize("name", SGDS)
def test_keras_sgd_and_its_filter_agree_on_every_sign(name, warm_up, clip):
    latent_optimizer = SGDS[name]()
    recipe = recipes.recipe_of(latent_optimizer, clip=clip)
    filter = recipes.from_optimizer(latent_optimizer, clip=clip)
    optimizer = lqf.optimizers.FilteredFlip(filter=filter)

    def state(latent):
        buffer = latent_optimizer.momentums[0] if warm_up else None
        return recipe.state(latent.numpy(), buffer)

    near, far = differing(latent_optimizer, optimizer, clip, state, warm_up)
    assert far == 0 and near < 1e-3


@pytest.mark.parametrize(
    ("warm_up", "clip"),
    slow_but([(30, None)], [(w, c) for w in (0, 30) for c in (None, 1.0)]),
)
@pytest.mark.parametrize("name", ADAMS)
def test_keras_adam_and_its_filter_agree_on_every_sign(name, warm_up, clip):
    latent_optimizer = ADAMS[name]()
    optimizer = lqf.optimizers.FilteredFlip(
        filter=recipes.from_optimizer(latent_optimizer, clip=clip)
    )

    def state(latent):
        moments = {}
        if warm_up:
            m, v = latent_optimizer._momentums[0], latent_optimizer._velocities[0]
            moments = {"m": m.numpy(), "v": v.numpy(), "steps": warm_up}
        return recipes.adam_state(latent.numpy(), **moments)

    near, far = differing(latent_optimizer, optimizer, clip, state, warm_up)
    assert far == 0 and near < 1e-3


def test_from_adam_is_adam_of_the_paper():
    """ε after the bias correction, in float64 NumPy."""
    filter = recipes.from_adam(0.01, 0.9, 0.99, 1e-3, clip=None, weight_decay=0.5)
    rng = np.random.default_rng(0)
    gradients, w, m, v = rng.normal(size=(50, 8)), rng.normal(size=8), 0.0, 0.0
    state = recipes.adam_state(w)
    outputs = run(filter, state, gradients)
    for t, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        w = (1 - 0.01 * 0.5) * w - 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-3)
        np.testing.assert_allclose(outputs[t - 1], -w, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "filter",
    [
        recipes.from_sgd(polynomial(0.1, 10), 0.9, 1e-2, decoupled=False),
        recipes.from_sgd(polynomial(0.1, 10), 0.9, 1e-2),
        recipes.from_sgd(0.1, 0.9, 1e-2, nesterov=True, clip=1.0),
        recipes.from_adam(polynomial(0.1, 10), weight_decay=0.1),
    ],
    ids=str,
)
def test_recipes_serialize(filter):
    assert type(filter).from_config(filter.get_config()) == filter
    optimizer = lqf.optimizers.FilteredFlip(filter=filter)
    assert lqf.optimizers.FilteredFlip.from_config(optimizer.get_config()).filter == filter
    assert not any(callable(c) for c in filter.at(5).coefficients.values())


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("bop", lambda o: recipes.bop(float(o["threshold"]), float(o["gamma"]))),
        (
            "bop2ndorder",
            lambda o: recipes.bop2ndorder(
                float(o["threshold"]), float(o["gamma"]), float(o["sigma"])
            ),
        ),
        ("diode", lambda o: recipes.diode(float(o["beta1"]), float(o["beta2"]))),
    ],
)
def test_peers_equal_their_recordings(name, make):
    o = load(name)
    optimizer = make(o)
    weights = binary_variable(o["initial_weights"])
    optimizer.build([weights])
    if name == "diode":
        optimizer.slots(weights)["2.y"].assign(o["initial_s"] / o["lr"])
    steps = train(optimizer, [weights], o["gradients"][:, None])
    for t, (theta,) in enumerate(steps):
        np.testing.assert_array_equal(theta, o["weights"][t], err_msg=f"step {t}")


def test_defaults_of_peers():
    """Those of larq's Bop, Bop2ndOrder's class and bitorch-engine's DiodeMix."""
    own = inspect.signature(lq.optimizers.Bop).parameters
    bop, second, diode = recipes.bop(), recipes.bop2ndorder(), recipes.diode()
    assert bop.filter == F.EMA(own["gamma"].default)
    assert float(bop.threshold) == np.float32(own["threshold"].default)
    assert second.filter == F.NormalizedEMA(1e-6, 1e-2, 1e-10)
    assert float(second.threshold) == np.float32(1e-6)
    assert diode.filter == F.Cascade(F.EMA(1 - 0.99), F.Sign(), F.EMA(1 - 0.9999))


def test_peers_take_what_the_optimizer_takes():
    optimizer = recipes.bop(1e-6, 1e-3, real_optimizer="sgd", clipnorm=1.0)
    assert isinstance(optimizer.real_optimizer, keras.optimizers.SGD)
    assert optimizer.clipnorm == 1.0 and float(optimizer.threshold) == np.float32(1e-6)


def excluding(kind, **arguments):
    optimizer = kind(0.1, **arguments)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


@pytest.mark.parametrize("kind", [keras.optimizers.SGD, keras.optimizers.AdamW])
@pytest.mark.parametrize("name", ["clipnorm", "clipvalue", "global_clipnorm"])
def test_gradient_clipping_is_no_part_of_the_filter(name, kind):
    optimizer = kind(0.1, weight_decay=0.25, **{name: 2.5})
    with pytest.warns(UserWarning, match=f"give FilteredFlip the same {name}=2.5. Received: "):
        filter = recipes.from_optimizer(optimizer)
    assert filter == recipes.from_optimizer(kind(0.1, weight_decay=0.25))
    flip = lqf.optimizers.FilteredFlip(filter=filter, **{name: 2.5})
    assert getattr(flip, name) == 2.5


def test_exceptions_from_no_weight_decay_are_none():
    assert recipes.recipe_of(excluding(keras.optimizers.SGD)).weight_decay == 0.0


BAD = {
    "excluded, SGD": (
        lambda: recipes.recipe_of(excluding(keras.optimizers.SGD, weight_decay=0.1)),
        ValueError,
        "exclude_from_weight_decay",
    ),
    "excluded, AdamW": (
        lambda: recipes.from_optimizer(excluding(keras.optimizers.AdamW)),
        ValueError,
        "exclude_from_weight_decay",
    ),
    "rate": (lambda: recipes.from_sgd(0), ValueError, "learning_rate=0"),
    "momentum": (lambda: recipes.from_sgd(0.1, 1.0), ValueError, "momentum=1.0"),
    "decay": (lambda: recipes.from_sgd(0.1, weight_decay=-1), ValueError, "weight_decay=-1.0"),
    "dampening": (lambda: recipes.from_sgd(0.1, 0.9, dampening=1), ValueError, "dampening=1.0"),
    "nesterov": (lambda: recipes.from_sgd(0.1, nesterov=True), ValueError, "momentum=0"),
    "nesterov, dampened": (
        lambda: recipes.from_sgd(0.1, 0.9, nesterov=True, dampening=0.1),
        ValueError,
        "dampening=0.1",
    ),
    "too much decay": (lambda: recipes.from_sgd(2.0, weight_decay=1.0), ValueError, "at most 1"),
    "too much decay, coupled": (
        lambda: recipes.SGD(20.0, weight_decay=0.1, decoupled=False),
        ValueError,
        "Received: learning_rate=20, weight_decay=0.1",
    ),
    "too much decay, Adam": (
        lambda: recipes.Adam(20.0, weight_decay=0.1),
        ValueError,
        "Received: learning_rate=20, weight_decay=0.1",
    ),
    "rate, Adam": (lambda: recipes.Adam(-1.0), ValueError, "learning_rate=-1"),
    "clip, Adam": (lambda: recipes.from_adam(clip=0.0), ValueError, "clip=0"),
    "epsilon, Adam": (lambda: recipes.Adam(epsilon=0.0), ValueError, "epsilon=0"),
    "amsgrad optimizer": (
        lambda: recipes.from_optimizer(keras.optimizers.Adam(amsgrad=True)),
        ValueError,
        "amsgrad=True",
    ),
    "averaged": (
        lambda: recipes.from_optimizer(keras.optimizers.SGD(use_ema=True)),
        ValueError,
        "use_ema=True",
    ),
    "other": (lambda: recipes.from_optimizer(keras.optimizers.RMSprop()), TypeError, "RMSprop"),
    "legacy": (
        lambda: recipes.from_optimizer(keras.optimizers.legacy.SGD()),
        TypeError,
        "legacy.SGD",
    ),
    "beta": (lambda: recipes.from_adam(beta_1=1.0), ValueError, "beta_1=1.0"),
    "diode": (lambda: recipes.diode(beta_2=1.0), ValueError, "beta_2=1.0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_sentence(name):
    assert_one_sentence(*BAD[name])


def as_lists(state):
    return {slot: value.tolist() for slot, value in state.items()}


def test_adam_as_one_object():
    """What is seldom given has to be named."""
    recipe, w = recipes.Adam(0.5, 0.5, 0.75), np.array([0.5, -0.25])
    normalized = F.NormalizedEMA(0.5, 0.25, 1e-7, bias_correction=True, epsilon_hat=False)
    assert recipe.filter == F.Cascade(normalized, F.Integrator(0.5, 1.0, leak=0.0))
    other = recipes.from_adam(0.5, 0.5, 0.75, 0.1, 2.0, weight_decay=0.25, epsilon_hat=True)
    normalized = F.NormalizedEMA(0.5, 0.25, 0.1, bias_correction=True, epsilon_hat=True)
    assert other == F.Cascade(normalized, F.Integrator(0.5, 2.0, leak=0.125))
    assert recipes.Adam() == recipes.Adam(1e-3, 0.9, 0.999, 1e-7, 1.0, weight_decay=0.0)
    assert recipes.recipe_of(keras.optimizers.Adam(0.5)).epsilon == recipes.Adam().epsilon == 1e-7
    m, v = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    for state in (recipe.state, recipes.adam_state):
        assert as_lists(state(w)) == {
            **{"0.m": [0.0, 0.0], "0.v": [0.0, 0.0]},
            **{"0.t": 0.0, "1.y": [-0.5, 0.25]},
        }
        assert as_lists(state(w, m, v, steps=3)) == {
            **{"0.m": [1.0, 2.0], "0.v": [3.0, 4.0]},
            **{"0.t": 3.0, "1.y": [-0.5, 0.25]},
        }
    with pytest.raises(TypeError, match="positional"):
        recipes.Adam(1e-2, 0.9, 0.999, 1e-7, 1.0, 0.1)


def test_sgd_as_one_object():
    recipe = recipes.SGD(0.5, 0.5, 0.25, nesterov=True)
    assert recipe.filter == F.Cascade(F.IIR([0.75, -0.25], [1.0, -0.5]), F.EMA(0.125))
    optimizer = recipe.optimizer("sgd")
    assert type(optimizer) is lqf.optimizers.LatentSGD and optimizer.momentum == 0.5
    assert optimizer.nesterov and optimizer.weight_decay == 0.25
    assert float(optimizer.learning_rate) == 0.5
    assert recipes.recipe_of(optimizer) == recipe
    for other in (
        recipes.SGD(0.1, 0.9, 1e-2, decoupled=False),
        recipes.SGD(0.1, 0.9, dampening=0.5),
    ):
        assert_one_sentence(other.optimizer, ValueError, "FilteredFlip(filter=recipe.filter)")
    assert recipes.recipe_of(keras.optimizers.SGD(0.5, 0.25)) == recipes.SGD(0.5, 0.25)
