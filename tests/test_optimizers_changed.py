"""Weights that are changed from outside in mid-training keep the values that they were given."""

import larq_filters as lqf

import numpy as np
import pytest
import reference
import scipy.signal
import tensorflow as tf
from helpers import assert_same, binary_variable, from_zero, slow_but

F, recipes = lqf.filters, lqf.recipes
keras = tf.keras
SIZE = 4000
FILTERS = {
    "EMA": lambda: F.EMA(1e-2),
    "CascadedEMA": lambda: F.CascadedEMA(1e-2, 0.1),
    "Integrator": lambda: F.Integrator(0.1, 1.0),
    "CoupledSGD": lambda: F.CoupledSGD(0.1, 0.9, 1e-2, limit=1.0),
    "IIR": lambda: F.IIR([0.01], [1, -1.9, 0.91]),
    "Butterworth": lambda: F.IIR.from_sos(scipy.signal.butter(3, 0.05, output="sos")),
    "Chebyshev": lambda: F.IIR.from_sos(scipy.signal.cheby2(4, 30, 0.1, output="sos")),
    "NormalizedEMA": lambda: F.NormalizedEMA(1e-2, 1e-3),
    "Adam's average": lambda: F.NormalizedEMA(1e-2, 1e-3, 1e-7, True, True),
    "Diode": lambda: recipes.diode(0.9, 0.99).filter,
    "latent Adam": lambda: recipes.from_adam(1e-2),
    "latent SGD": lambda: recipes.from_sgd(0.1, 0.9, 1e-2),
    "coupled SGD": lambda: recipes.from_sgd(0.1, 0.9, 1e-2, decoupled=False),
    "of signs": lambda: F.Cascade(F.EMA(0.1), F.Sign(), F.EMA(0.01)),
    "to a sign": lambda: F.Cascade(F.EMA(0.01), F.Sign()),
}
QUICK = ["CascadedEMA", "Butterworth", "Adam's average", "latent Adam", "to a sign"]


def test_every_filter_is_here():
    def classes(filter):
        return {type(filter).__name__}.union(*map(classes, getattr(filter, "filters", ())))

    assert set.union(*(classes(make()) for make in FILTERS.values())) == set(F.__all__) - {"Filter"}


@pytest.fixture
def start():
    rng = np.random.default_rng(0)
    weights = np.where(rng.random(SIZE) < 0.5, -1.0, 1.0).astype("f")
    return weights, rng.normal(size=(60, SIZE)).astype("f")


def stepping(optimizer, weights):
    """A function that takes some gradients and returns the weights after each."""
    step = tf.function(lambda g: optimizer.apply_gradients([(g, weights)]))

    def steps(gradients):
        after = []
        for g in gradients:
            step(tf.constant(g))
            after.append(weights.numpy())
        return after

    return steps


@pytest.mark.parametrize("name", slow_but(QUICK, FILTERS))
@pytest.mark.parametrize("dtype", slow_but([None], [None, "bfloat16"]))
def test_the_negative_of_a_training(name, dtype, start):
    """All weights are negated, and all gradients from then on: so are the weights, ever after.

    The state is rounded down as often as up, but to the one side for g and to the other for −g:
    bfloat16 is compared by shares.
    """
    initial, gradients = start
    weights = binary_variable(initial)
    optimizer = from_zero(filter=FILTERS[name](), state_dtype=dtype)
    steps = stepping(optimizer, weights)
    steps(gradients[:30])
    values = [v.numpy() for v in (weights, *optimizer.variables)]
    expected = steps(gradients[30:])
    for variable, value in zip((weights, *optimizer.variables), values, strict=True):
        variable.assign(value)
    weights.assign(-weights)
    after = steps(-gradients[30:])
    assert (np.diff(expected, axis=0) != 0).mean() > 1e-3  # bits do flip
    if dtype is None:
        assert_same(after, [-w for w in expected])
    else:
        assert np.mean(after[0] != -expected[0]) < 0.02


@pytest.mark.parametrize("name", slow_but(["CascadedEMA", "Butterworth"], FILTERS))
@pytest.mark.parametrize(("dtype", "threshold"), [("bfloat16", 0.0), (None, 0.3)])
def test_random_bits_are_not_undone(name, dtype, threshold, start):
    """No more than flip in a step that nobody disturbed, but for chance: 4 deviations of it.

    Where |y| ≤ τ, either value of the weight is one that training may have left there.
    """
    initial, gradients = start
    filter, weights = FILTERS[name](), binary_variable(initial)
    y = last_output(filter, gradients[:40])
    threshold = threshold * np.sqrt(np.mean(y**2))
    optimizer = from_zero(filter=filter, state_dtype=dtype, threshold=threshold)
    steps = stepping(optimizer, weights)
    *_, last, undisturbed = steps(gradients[:40])
    usual = np.mean(undisturbed != last)
    random = np.where(np.random.default_rng(1).random(SIZE) < 0.5, -1.0, 1.0).astype("f")
    changed = (random != undisturbed) & (np.abs(y) > 1.02 * threshold)
    assert changed.sum() > SIZE / 4
    weights.assign(random)
    (after,) = steps(gradients[40:41])
    undone = np.mean(after[changed] != random[changed])
    assert undone <= usual + 4 * np.sqrt(max(usual, 1e-3) / changed.sum())


def last_output(filter, gradients):
    state = {slot: np.zeros(SIZE) for slot in filter.slots}
    state |= {slot: np.zeros(()) for slot in filter.scalar_slots}
    for g in gradients:
        state, y = filter.step(state, g.astype("float64"), filter.coefficients)
    return np.asarray(y)


@pytest.mark.parametrize(("jit_compile", "size"), [(False, SIZE), (True, SIZE), (True, 65_536)])
def test_by_hand(jit_compile, size):
    """m = 1, y = ½ after one step of g = 1 to 4; then θ stands against y, and both turn."""
    weights = binary_variable(np.ones(size))
    optimizer = from_zero(0.5, 0.5, jit_compile=jit_compile)
    gradient = tf.fill([size], 2.0)
    optimizer.apply_gradients([(gradient, weights)])
    assert (weights.numpy() == -1.0).all()
    weights.assign(np.where(np.arange(size) % 2, 1.0, -1.0))
    optimizer.apply_gradients([(0 * gradient, weights)])
    np.testing.assert_array_equal(weights, np.where(np.arange(size) % 2, 1.0, -1.0))
    np.testing.assert_array_equal(
        optimizer.slots(weights)["m"], np.where(np.arange(size) % 2, -0.5, 0.5)
    )
    np.testing.assert_array_equal(
        optimizer.slots(weights)["y"], np.where(np.arange(size) % 2, -0.5, 0.5)
    )


def test_what_only_a_lower_threshold_condemns_was_not_changed(start):
    """τ falls from 0.3 to 0: flips are those of the equation, which knows of no change."""
    initial, gradients = start
    thresholds = [0.3] * 20 + [0.1] * 10 + [0.0] * 10
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([19, 29], [0.3, 0.1, 0.0])
    set_by_hand = from_zero(0.1, None, threshold=0.3)
    for optimizer in (from_zero(0.1, None, threshold=schedule), set_by_hand):
        twin, expected, weights = reference.EMA(0.1), initial, binary_variable(initial)
        steps = stepping(optimizer, weights)
        for t, threshold in enumerate(thresholds):
            if optimizer is set_by_hand:
                optimizer.threshold = threshold
            (after,) = steps(gradients[t : t + 1])
            y = twin(gradients[t].astype("float64"))
            sure = np.abs(expected * y - threshold) > 1e-5
            assert sure.mean() > 0.99
            expected = np.where(sure, reference.flip(expected, y, threshold), after)
            np.testing.assert_array_equal(after, expected, err_msg=str(t))


@pytest.mark.parametrize("format", slow_but([".keras"], [".keras", ".h5", "checkpoint"]))
def test_after_loading(format, tmp_path, digits, make_model):
    """What is loaded goes on bit for bit while τ falls; what is changed after that is kept."""
    x, y = digits
    falling = lambda: keras.optimizers.schedules.PolynomialDecay(1e-3, 60, 0.0)  # noqa: E731
    make = lambda: make_model(from_zero(0.05, 0.1, threshold=falling()))  # noqa: E731
    model = make()
    model.fit(x, y, batch_size=60, epochs=1, shuffle=False, verbose=0)
    path = tmp_path / f"model{format}"
    if format == "checkpoint":
        path = tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(path)
        loaded = make()
        loaded.optimizer.build(loaded.trainable_variables)
        tf.train.Checkpoint(model=loaded, optimizer=loaded.optimizer).restore(path)
    else:
        model.save(path)
        loaded = keras.models.load_model(path)
    before = {k: float(v) for k, v in model.optimizer._before.items()}
    assert {k: float(v) for k, v in loaded.optimizer._before.items()} == before
    kernel = loaded.get_layer("dense").kernel
    changed = np.where(np.random.default_rng(2).random(kernel.shape) < 0.5, -1.0, 1.0)
    kernel.assign(changed)
    loaded.fit(x[:60], y[:60], batch_size=60, verbose=0)
    assert np.mean(kernel.numpy() != changed) < 0.03
    # The filter's state without its weights, as before there was a memory of τ: many are undone.
    kernel.assign(changed := -kernel.numpy())
    for variable in loaded.optimizer._before.values():
        variable.assign(np.inf)
    loaded.fit(x[:60], y[:60], batch_size=60, verbose=0)
    assert np.mean(kernel.numpy() != changed) > 0.2


def test_best_weights_are_restored_and_kept(digits, make_model):
    """EarlyStopping puts other weights in place, and `fit` goes on from them."""
    x, y = digits
    model = make_model(from_zero(0.05))

    class FirstIsBest(keras.callbacks.EarlyStopping):
        def get_monitor_value(self, logs):
            return self.stopped_epoch + len(self.model.history.epoch)

    stop = FirstIsBest("loss", patience=2, restore_best_weights=True, mode="min")
    model.fit(x, y, batch_size=60, epochs=9, verbose=0, callbacks=[stop])
    best = model.get_layer("dense").kernel.numpy()
    model.fit(x[:60], y[:60], batch_size=60, verbose=0)
    assert np.mean(model.get_layer("dense").kernel.numpy() != best) < 0.03


def test_a_weight_at_the_threshold_was_not_changed():
    """Its filter goes on, as it did not flip: numbers of few digits, so that all is exact."""
    weights = binary_variable([1.0])
    optimizer = from_zero(0.5, None, threshold=0.25)
    for gradient, output, after in ((0.5, 0.25, 1.0), (0.5, 0.375, -1.0)):
        optimizer.apply_gradients([(tf.constant([gradient]), weights)])
        assert float(optimizer.output(weights)[0]) == output
        assert float(weights[0]) == after


class Silent(F.EMA):
    """A filter that does not tell its output from its state."""

    def output(self, state, coefficients):
        return None


TOLD = {  # by filter: its output after gradients of 1, 1
    "one that does not tell": (lambda: Silent(0.5), 0.375),  # its answer to no gradient
    "EMA": (lambda: F.EMA(0.5), 0.75),
    "CascadedEMA": (lambda: F.CascadedEMA(0.5, 0.5), 0.5),
    "to a sign": (lambda: F.Cascade(F.EMA(0.5), F.Sign()), 1.0),
}


@pytest.mark.parametrize("name", TOLD)
def test_the_output_of_the_last_step(name):
    make, expected = TOLD[name]
    weights, real = binary_variable([-1.0]), tf.Variable([1.0])
    optimizer = from_zero(filter=make())
    for _ in range(2):
        optimizer.apply_gradients([(tf.ones(1), weights), (tf.ones(1), real)])
    assert optimizer.output(real) is None
    np.testing.assert_array_equal(optimizer.output(weights), [expected])
    sign = from_zero(filter=F.Sign())
    sign.apply_gradients([(tf.ones(1), weights)])
    assert sign.output(weights) is None  # it has no state


def test_the_output_is_of_the_last_steps_coefficients():
    weights = binary_variable([-1.0])
    optimizer = from_zero(filter=F.NormalizedEMA(0.5, 0.5, bias_correction=True))
    for _ in range(2):
        optimizer.apply_gradients([(tf.constant([3.0]), weights)])
    before = float(optimizer.output(weights)[0])
    np.testing.assert_allclose(before, 1.0, rtol=1e-5)  # of a constant
    optimizer.coefficients["gamma"].assign(0.1)  # of which the correction would be another one
    assert float(optimizer.output(weights)[0]) == before
