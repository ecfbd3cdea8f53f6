"""The pages "your own filter" and "your own recipe": their examples, through a whole life."""

import dataclasses
import doctest

import larq_filters as lqf

import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_same, model_state, slow_but
from scipy import signal


def page(docstring):
    """What the examples of a docstring define, after they ran."""
    names = {"lqf": lqf, "tf": tf, "np": np, "dataclasses": dataclasses}
    test = doctest.DocTestParser().get_doctest(docstring, names, "page", None, None)
    assert doctest.DocTestRunner().run(test, clear_globs=False).failed == 0
    return test.globs


@pytest.fixture(scope="module")
def own():
    return page(lqf.filters.Filter.__doc__) | page(lqf.recipes.__doc__)


OPTIMIZERS = {
    "filter": lambda own, alpha: lqf.optimizers.FilteredFlip(filter=own["DoubleEMA"](alpha)),
    "recipe": lambda own, gamma: own["double_bop"](threshold=1e-6, gamma=gamma),
}


@pytest.mark.parametrize("name", slow_but(["filter"], OPTIMIZERS))
def test_trains_saves_and_resumes(name, own, digits, make_small, tmp_path):
    decay = tf.keras.optimizers.schedules.PolynomialDecay(0.05, 40, 0.0)
    make = OPTIMIZERS[name]
    x, y = (array[:640] for array in digits)
    whole = make_small(make(own, decay))
    whole.fit(x, y, 64, epochs=2, shuffle=False, verbose=0)
    half = whole.get_weights()
    whole.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.filter == whole.optimizer.filter
    for model in (loaded, whole):
        model.fit(x, y, 64, epochs=2, shuffle=False, verbose=0)
    assert_same(model_state(loaded), model_state(whole))
    assert any((a != b).any() for a, b in zip(half, whole.get_weights(), strict=True))


def test_a_filter_of_ones_own_is_set_while_training(own):
    optimizer = lqf.optimizers.FilteredFlip(filter=own["DoubleEMA"](0.5))
    optimizer.alpha = 0.25
    assert optimizer.filter == own["DoubleEMA"](0.25)
    assert optimizer.learning_rate is optimizer.alpha


def test_a_filter_of_ones_own_is_drawn(own, digits, make_small):
    linear = own["LinearDoubleEMA"](0.1)
    assert linear.time_constant == pytest.approx(-1 / np.log(0.9))
    for draw in (lqf.plots.frequency_response, lqf.plots.impulse_response, lqf.plots.pole_zero):
        assert draw(linear, lqf.filters.EMA(0.1)).lines
    model = make_small(lqf.optimizers.FilteredFlip(filter=linear))
    model.fit(digits[0][:64], digits[1][:64], verbose=0)
    assert lqf.plots.state_histogram(model).patches


def test_it_computes_what_its_equation_says(own):
    """Against SciPy: two averages in a row."""
    x = np.random.default_rng(0).normal(size=(50, 3))
    filter, outputs = own["LinearDoubleEMA"](0.3), []
    state = {slot: np.zeros(3) for slot in filter.slots}
    for value in x:
        state, y = filter.step(state, value, filter.coefficients)
        outputs.append(y)

    np.testing.assert_allclose(outputs, signal.sosfilt(filter.sos, x, axis=0), atol=1e-12)
