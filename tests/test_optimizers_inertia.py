"""Weights that training starts from are kept where `inertia` asks for it."""

import larq_filters as lqf

import exact
import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_one_sentence, assert_same, binary_variable, model_state, slow_but

F, recipes = lqf.filters, lqf.recipes
FilteredFlip = lqf.optimizers.FilteredFlip
keras = tf.keras


def steps(optimizer, weights, gradients):
    """The weights after each step."""
    step = tf.function(lambda g: optimizer.apply_gradients([(g, weights)]))
    for g in gradients:
        step(tf.constant(g))
        yield weights.numpy()


@pytest.fixture
def start():
    rng = np.random.default_rng(0)
    weights = np.where(rng.random(2000) < 0.5, -1.0, 1.0).astype("f")
    return weights, rng.normal(size=(200, 2000)).astype("f")


FILTERS = {
    "EMA": lambda: F.EMA(1e-3),
    "CascadedEMA": lambda: F.CascadedEMA(1e-3, 0.1),
    "IIR": lambda: F.IIR.from_sos(F.CascadedEMA(1e-3, 0.1).sos),
    "NormalizedEMA": lambda: F.NormalizedEMA(1e-3, 1e-3),
    "Diode": lambda: recipes.diode(0.9, 0.999).filter,
    "latent Adam": lambda: recipes.from_adam(1e-3),
    "latent SGD": lambda: recipes.from_sgd(0.1, 0.9, 1e-2),
}


@pytest.mark.parametrize("name", slow_but(["CascadedEMA", "IIR", "latent Adam"], FILTERS))
def test_noise_moves_nothing_at_first(name, start):
    """Without inertia, the first gradient decides: half of the weights flip."""
    initial, gradients = start
    weights = binary_variable(initial)
    (first,) = steps(FilteredFlip(filter=FILTERS[name](), inertia=0.0), weights, gradients[:1])
    assert 0.45 < (first != initial).mean() < 0.55
    weights = binary_variable(initial)
    optimizer = FilteredFlip(filter=FILTERS[name](), inertia=1.0)
    for step, after in enumerate(steps(optimizer, weights, gradients[:20])):
        assert (after != initial).mean() == 0.0, step


def test_the_state_is_the_steady_one(start):
    """By hand, for an EMA: y_0 = −θ·k·rms(g), and then a step."""
    initial, gradients = start
    weights, optimizer = binary_variable(initial), FilteredFlip(0.25, None, inertia=0.5)
    list(steps(optimizer, weights, gradients[:1]))
    g = gradients[0].astype("float64")
    y = -initial * 0.5 * np.sqrt(np.mean(g**2))
    y += 0.25 * (g - y)
    np.testing.assert_allclose(optimizer.slots(weights)["y"], y, rtol=1e-5, atol=1e-7)


def test_a_constant_gradient_still_wins(start):
    initial, _ = start
    weights, optimizer = binary_variable(initial), FilteredFlip(0.1, 0.1, inertia=1.0)
    *_, last = steps(optimizer, weights, [np.ones(2000, "f")] * 60)
    np.testing.assert_array_equal(last, -np.ones(2000))


def test_a_gradient_that_is_not_finite_spoils_no_start(start):
    initial, gradients = start
    gradients[0, :3] = np.nan, np.inf, -np.inf
    weights, optimizer = binary_variable(initial), FilteredFlip(1e-3, None, inertia=0.5)
    *_, last = steps(optimizer, weights, gradients[:5])
    assert (last == initial).all() and np.isfinite(optimizer.slots(weights)["y"]).all()


@pytest.mark.parametrize("first", ["zero", "not finite", "of another variable", "skipped"])
def test_it_waits_for_a_gradient(first, start):
    """That is not zero: so after a batch without weight, or a step that a loss scale skipped."""
    initial, gradients = start
    weights, other = binary_variable(initial), tf.Variable(1.0)
    optimizer = FilteredFlip(1e-3, inertia=0.5)
    optimizer.build([weights, other])
    if first == "of another variable":
        optimizer.apply_gradients([(tf.constant(1.0), other)])
    elif first == "skipped":
        scaled = keras.mixed_precision.LossScaleOptimizer(optimizer)
        scaled.apply_gradients([(tf.constant(gradients[0] * np.inf), weights)])
        assert optimizer.iterations == 1
    else:
        list(steps(optimizer, weights, [gradients[0] * (0.0 if first == "zero" else np.nan)]))
    *_, last = steps(optimizer, weights, gradients[:5])
    np.testing.assert_array_equal(last, initial)


def test_a_large_gradient_is_no_infinite_start(start):
    initial, gradients = start
    weights, optimizer = binary_variable(initial), FilteredFlip(1e-3, None, inertia=0.5)
    *_, last = steps(optimizer, weights, 1e25 * gradients[:5])
    assert (last == initial).all() and np.isfinite(optimizer.slots(weights)["y"]).all()


@pytest.mark.parametrize("latent", [np.linspace(-1, 1, 2000), np.linspace(0.1, 1, 2000)])
def test_state_that_was_seeded_is_kept(latent, start):
    initial, gradients = start
    recipe = recipes.SGD(0.5, weight_decay=0.5)
    runs = []
    for inertia in (0.0, 10.0):
        weights = binary_variable(initial)
        optimizer = FilteredFlip(filter=recipe.filter, inertia=inertia)
        optimizer.build([weights])
        for slot, value in recipe.state(latent).items():
            optimizer.slots(weights)[slot].assign(value)
        runs.append(list(steps(optimizer, weights, gradients[:10])))
    assert_same(*runs)


def test_state_that_was_saved_is_kept(start, tmp_path):
    initial, gradients = start
    whole, half = (binary_variable(initial) for _ in range(2))
    make = lambda: FilteredFlip(0.5, 0.5, inertia=0.25)  # noqa: E731
    expected = list(steps(make(), whole, gradients[:20]))
    optimizer = make()
    list(steps(optimizer, half, gradients[:10]))
    path = tf.train.Checkpoint(optimizer=optimizer, weights=half).save(tmp_path / "checkpoint")
    restored, again = make(), binary_variable(initial)
    restored.build([again])
    tf.train.Checkpoint(optimizer=restored, weights=again).restore(path)
    assert_same(list(steps(restored, again, gradients[10:20])), expected[10:])


WAYS = {"graph": {}, "eager": {"run_eagerly": True}, "several": {"steps_per_execution": 4}}


@pytest.mark.parametrize("way", slow_but(["graph"], WAYS))
def test_alike_in_every_way_of_training(way, mirrored):
    """On one device and two, in graphs and eagerly.

    All sums of this training are exact, and the start of a filter is one function in all of them.
    """
    options = WAYS[way]
    make = lambda **kw: FilteredFlip(0.5, None, inertia=0.0, **kw)  # noqa: E731
    plain, _ = exact.fit(make(), **options)
    warm, _ = exact.fit(FilteredFlip(0.5, None, inertia=4.0), **options)
    assert any((a != b).any() for a, b in zip(plain.get_weights(), warm.get_weights(), strict=True))
    assert warm.optimizer.get_config()["inertia"] == 4.0
    graph, _ = exact.fit(FilteredFlip(0.5, None, inertia=4.0))
    assert_same(model_state(graph), model_state(warm))
    if options.get("run_eagerly"):
        return
    with mirrored.scope():
        model = exact.network()
        model.compile(FilteredFlip(0.5, None, inertia=4.0), exact.loss, **options)
    x, y = (a.reshape(-1, a.shape[-1]) for a in exact.batches())
    model.fit(x, y, exact.BATCH, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), warm.get_weights(), strict=True):
        assert (a != b).mean() < 0.05  # rms(g) is not exact, so a weight at the edge may differ


@pytest.mark.slow
def test_fine_tuning_keeps_what_was_trained(digits, make_model):
    """A trained network goes on with a new optimizer and a small α, for 114 steps.

    Of 6 seeds, 99.8 ± 0.4 % of its bits stay, and accuracy moves by 0.2 ± 0.9 points; without
    inertia 48 ± 3 % of them stay.
    """
    x, y = digits
    train, test = (x[:1200], y[:1200]), (x[1200:], y[1200:])
    model = make_model(
        FilteredFlip(decay_steps=10 * 38, real_optimizer=keras.optimizers.Adam(1e-2))
    )
    model.fit(*train, epochs=10, verbose=0)
    trained = [layer.get_weights()[0] for layer in model.layers if layer.name in ("conv", "dense")]
    before = model.evaluate(*test, verbose=0)[1]
    path = model.get_weights()
    kept, accuracy = {}, {}
    for inertia in (0.0, 0.1):
        model.set_weights(path)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(FilteredFlip(1e-3, inertia=inertia), loss, metrics=["accuracy"])
        model.fit(*train, epochs=3, verbose=0)
        after = [lay.get_weights()[0] for lay in model.layers if lay.name in ("conv", "dense")]
        pairs = list(zip(trained, after, strict=True))
        kept[inertia] = sum((a == b).sum() for a, b in pairs) / sum(a.size for a, _ in pairs)
        accuracy[inertia] = model.evaluate(*test, verbose=0)[1]
    assert kept[0.1] > 0.95 > 0.9 > kept[0.0]
    assert accuracy[0.1] > before - 0.05


def test_saved_and_loaded(digits, make_small, tmp_path):
    model = make_small(FilteredFlip(0.05, inertia=0.5))
    model.fit(*digits, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.get_config()["inertia"] == 0.5
    assert_same(model_state(loaded), model_state(model))


@pytest.mark.parametrize("inertia", [-1.0, float("inf"), float("nan")])
def test_bad_inertia(inertia):
    assert_one_sentence(lambda: FilteredFlip(inertia=inertia), ValueError, f"inertia={inertia}")


def first_flips(optimizer, initial, gradient):
    weights = binary_variable(initial)
    (after,) = steps(optimizer, weights, [gradient])
    return np.mean(after != np.where(initial < 0, -1.0, 1.0))


def test_the_default(start):
    """Bits are kept, and what is set after `build`; signs of real numbers not.

    By peers and by configs of before, neither.
    """
    initial, gradients = start
    real = (initial * np.random.default_rng(1).random(2000)).astype("f")
    assert first_flips(FilteredFlip(), initial, gradients[0]) == 0.0
    assert 0.45 < first_flips(FilteredFlip(), real, gradients[0]) < 0.55
    one = real.copy()
    one[1:] = initial[1:]
    assert first_flips(FilteredFlip(), one, gradients[0]) > 0.45  # all of them are, or none
    assert first_flips(FilteredFlip(inertia=0.1), real, gradients[0]) == 0.0
    for seed in (0, 10):  # the fingerprint of the first is smaller than that of `real`, then larger
        given = np.random.default_rng(seed).permutation(initial)
        weights, optimizer = binary_variable(real), FilteredFlip()
        optimizer.build([weights])
        weights.assign(given)  # as by `load_weights`
        (after,) = steps(optimizer, weights, gradients[:1])
        np.testing.assert_array_equal(after, given)
    old = FilteredFlip().get_config()
    assert old.pop("inertia") is None
    for make in (recipes.bop, recipes.diode, lambda: FilteredFlip.from_config(old)):
        assert first_flips(make(), initial, gradients[0]) > 0.45
    assert first_flips(FilteredFlip.from_config({}), initial, gradients[0]) == 0.0
    stateless = FilteredFlip(filter=F.Sign())
    assert first_flips(stateless, initial, gradients[0]) > 0.45


WARM = keras.optimizers.schedules.CosineDecay(0.0, 10**5, warmup_target=0.1, warmup_steps=10)
WARMING = {
    "momentum, decay": lambda: recipes.from_sgd(WARM, 0.9, 1e-2),
    "momentum, decay, clip": lambda: recipes.from_sgd(WARM, 0.9, 1e-2, clip=1.0),
    "decay, clip": lambda: recipes.from_sgd(WARM, 0.0, 1e-2, clip=1.0),
    "momentum": lambda: recipes.from_sgd(WARM, 0.9),
    "coupled": lambda: recipes.from_sgd(WARM, 0.9, 1e-2, decoupled=False),
    "Adam": lambda: recipes.from_adam(WARM),
    "Adam, decay": lambda: recipes.from_adam(WARM, weight_decay=1e-2),
}


@pytest.mark.parametrize("name", slow_but(["momentum, decay", "Adam"], WARMING))
def test_a_rate_that_warms_up_from_0(name, start):
    """Given weights are kept from the first step with a rate on; random ones start at zero."""
    initial, gradients = start
    weights, optimizer = binary_variable(initial), FilteredFlip(filter=WARMING[name]())
    for step, after in enumerate(steps(optimizer, weights, gradients[:4])):
        assert (after != initial).mean() == 0.0, step
    *_, last = steps(optimizer, weights, [np.ones(2000, "f")] * 300)
    assert (last == -1.0).all()
    assert all(np.isfinite(slot).all() for slot in optimizer.slots(weights).values())
    weights, optimizer = binary_variable(0.5 * initial), FilteredFlip(filter=WARMING[name]())
    *_, after = steps(optimizer, weights, gradients[:4])
    assert 0.3 < (after != initial).mean() < 0.7


def test_a_filter_that_blocks_constants_starts_once(start):
    """Its steady output is 0 however long one waits: its state is that of the gradients then."""
    initial, gradients = start
    states = []
    for second in (gradients[1], 2 * gradients[1]):
        weights = binary_variable(initial)
        optimizer = FilteredFlip(filter=F.IIR([1.0, -1.0], [1.0, -0.5]))
        list(steps(optimizer, weights, [gradients[0], second, gradients[2]]))
        states.append(optimizer.slots(weights)["r0"].numpy())
    assert np.abs(states[1] - states[0]).max() > 0.1


def test_random_weights_start_as_without_inertia(start):
    """Also what is no average: Adam's count of steps, for its bias correction."""
    initial, gradients = start
    found = []
    for inertia in (None, 0.0):
        weights = binary_variable(0.5 * initial)
        optimizer = FilteredFlip(filter=recipes.from_adam(0.01), inertia=inertia)
        list(steps(optimizer, weights, gradients[:2]))
        found.append([slot.numpy() for slot in optimizer.slots(weights).values()])
    assert_same(*found)


def test_a_filter_without_state_has_no_inertia():
    make = lambda: FilteredFlip(filter=F.Sign(), inertia=0.1)  # noqa: E731
    assert_one_sentence(make, ValueError, "this filter has no state")
