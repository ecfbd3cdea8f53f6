"""The hyperparameters of FilteredFlip, and what it refuses."""

import math
import re
import warnings

import larq_filters as lqf

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_one_sentence, assert_same, binary_variable, model_state, slow_but, train

FilteredFlip = lqf.optimizers.FilteredFlip
F = lqf.filters
keras = tf.keras
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def decay(value, steps=100):
    return keras.optimizers.schedules.PolynomialDecay(value, steps, 0.0)


# Hyperparameters


def test_alpha_and_gamma_can_be_read_and_set():
    optimizer = FilteredFlip(alpha=0.5, gamma=0.25, inertia=0.0)
    weights = binary_variable([1.0])
    step = tf.function(lambda: optimizer.apply_gradients([(tf.constant([1.0]), weights)]))
    step()
    assert optimizer.slots(weights)["y"].numpy() == [0.125]
    assert float(optimizer.lr) == float(optimizer.learning_rate) == float(optimizer.alpha) == 0.5
    optimizer.lr, optimizer.gamma, optimizer.threshold = 1.0, 1.0, 0.75
    step()
    assert [s.numpy() for s in optimizer.slots(weights).values()] == [[1.0], [1.0]]
    optimizer.alpha = 0.0  # the end of a decay
    step()
    assert optimizer.slots(weights)["y"].numpy() == [1.0]
    with pytest.raises(ValueError, match="alpha=2"):
        optimizer.alpha = 2
    with pytest.raises(ValueError, match="threshold=-1"):
        optimizer.threshold = -1.0


def test_coefficients_of_a_cascade_have_names():
    optimizer = FilteredFlip(filter=F.Cascade(F.NormalizedEMA(0.1, 0.2), F.EMA(0.3)))
    assert set(optimizer.coefficients) == {"threshold", "0.gamma", "0.sigma", "1.alpha"}
    assert float(optimizer.alpha) == np.float32(0.3) and float(optimizer.gamma) == np.float32(0.1)
    diode = FilteredFlip(filter=F.Cascade(F.EMA(0.1), F.Sign(), F.EMA(0.3)))
    with pytest.raises(AttributeError, match="more than one coefficient 'alpha'"):
        _ = diode.alpha
    with pytest.raises(AttributeError, match="no coefficient 'gamma'"):
        _ = FilteredFlip(gamma=None).gamma


def test_schedules_count_steps():
    weights = binary_variable([1.0])
    optimizer = FilteredFlip(decay(1.0, 4), decay(0.5, 2), threshold=decay(8.0, 4))
    seen = []
    for _ in train(optimizer, [weights], np.ones((4, 1, 1), "float32")):
        seen.append([float(c) for c in (optimizer.alpha, optimizer.gamma, optimizer.threshold)])
    np.testing.assert_allclose(seen, [[1, 0.5, 8], [0.75, 0.25, 6], [0.5, 0, 4], [0.25, 0, 2]])
    with pytest.raises(TypeError, match="schedule"):
        FilteredFlip().alpha = decay(1.0)


def set_alpha(optimizer, value):
    optimizer.alpha = value


def set_as_keras_does(optimizer, value):
    keras.backend.set_value(optimizer.learning_rate, value)


@pytest.mark.parametrize("by", [set_alpha, set_as_keras_does])
def test_a_coefficient_that_is_set_scales_the_rest_of_its_schedule(by, tmp_path):
    """1, 3/4, and then a half of what is left: 1/4 at the step where the schedule has 1/2."""
    weights = binary_variable([1.0])
    optimizer = FilteredFlip(decay(1.0, 4), None)
    step = tf.function(lambda: optimizer.apply_gradients([(tf.constant([1.0]), weights)]))
    seen = []
    for i in range(4):
        if i == 2:
            by(optimizer, 0.25)
        step()
        seen.append(float(optimizer.alpha))
    assert seen == [1.0, 0.75, 0.25, 0.125]
    assert float(optimizer.filter.alpha(0)) == 0.5  # what is used now: half of the schedule
    again = FilteredFlip.from_config(optimizer.get_config())
    assert float(again.filter.alpha(2)) == 0.25
    path = tf.train.Checkpoint(optimizer=optimizer).save(tmp_path / "checkpoint")
    for restored in (FilteredFlip(decay(1.0, 4), None), again):
        other = binary_variable([1.0])
        restored.build([other])
        tf.train.Checkpoint(optimizer=restored).restore(path)
        restored.iterations.assign(3)
        restored.apply_gradients([(tf.constant([1.0]), other)])
        assert float(restored.alpha) == 0.125
    step()
    assert float(optimizer.alpha) == 0.0
    by(optimizer, 0.25)  # after its end there is nothing to scale
    for _ in range(2):
        step()
        assert float(optimizer.alpha) == 0.25


@pytest.mark.parametrize("by", [set_alpha, set_as_keras_does])
def test_the_value_that_it_has_already_is_set_like_any_other(by):
    """As by a HyperparameterScheduler that gives the same number in every step."""
    optimizer, weights = FilteredFlip(decay(1.0, 8), None), binary_variable([1.0])
    for _ in range(4):
        by(optimizer, 0.5)
        list(train(optimizer, [weights], np.ones((1, 1, 1), "float32")))
        assert float(optimizer.alpha) == 0.5
    list(train(optimizer, [weights], np.ones((1, 1, 1), "float32")))
    assert float(optimizer.alpha) == pytest.approx(0.5 * 4 / 5, rel=1e-6)


@pytest.mark.parametrize("by", [set_alpha, set_as_keras_does])
def test_a_schedule_that_begins_at_0(by):
    """What is set there counts at once, and scales the schedule as soon as it is not 0."""
    optimizer, weights = FilteredFlip(Warmup(4), None), binary_variable([1.0])
    gradients = np.ones((1, 1, 1), "float32")
    by(optimizer, 0.125)
    seen = []
    for _ in range(6):
        list(train(optimizer, [weights], gradients))
        seen.append(float(optimizer.alpha))
    assert seen == [0.125, 0.125, 0.25, 0.375, 0.5, 0.5]


class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, steps):
        self.steps = steps

    def __call__(self, step):
        return tf.minimum(tf.cast(step, tf.float32) / self.steps, 1.0)

    def get_config(self):
        return {"steps": self.steps}


def test_what_was_set_before_saving_is_in_the_file(tmp_path, make_small, digits):
    """As by ReduceLROnPlateau, before ModelCheckpoint saves: α goes on from there."""
    model = make_small(FilteredFlip(decay_steps=100))
    batch = [a[:64] for a in digits]
    for _ in range(3):
        model.train_on_batch(*batch)
    model.optimizer.alpha = 1e-3
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert float(loaded.optimizer.alpha) == float(np.float32(1e-3))
    for one in (model, loaded):
        one.train_on_batch(*batch)
        assert float(one.optimizer.alpha) == pytest.approx(1e-3, rel=1e-6)
        one.train_on_batch(*batch)
        assert float(one.optimizer.alpha) == pytest.approx(1e-3 * (96 / 97) ** 2, rel=1e-6)


@pytest.mark.parametrize(
    ("filter", "value", "used"),
    [
        (F.Integrator(0.1), -1.0, 0.0),
        (F.NormalizedEMA(0.1, 0.01), 5.0, 1.0),
        (F.EMA(0.1), float("nan"), 0.1),
    ],
    ids=str,
)
def test_every_coefficient_has_its_range(filter, value, used):
    optimizer, weights = FilteredFlip(filter=filter), binary_variable([1.0])
    gradients = np.ones((1, 1, 1), "float32")
    list(train(optimizer, [weights], gradients))
    keras.backend.set_value(optimizer.learning_rate, value)
    list(train(optimizer, [weights], gradients))
    assert float(optimizer.learning_rate) == np.float32(used)
    with pytest.warns(UserWarning, match=f"Received: .*={value:g}"):
        optimizer.finalize_variable_values([weights])


def test_a_schedule_out_of_range_is_limited_and_not_taken_for_one_that_was_set(tmp_path):
    """8 and 6 count as 1, and the rest of the schedule is as it was, also when it is restored."""
    start = decay(8.0, 4)
    optimizer, weights = FilteredFlip(start, None), binary_variable([1.0])
    gradients = np.ones((2, 1, 1), "float32")
    for _ in train(optimizer, [weights], gradients):
        assert float(optimizer.alpha) == 1.0
    path = tf.train.Checkpoint(optimizer=optimizer).save(tmp_path / "checkpoint")
    restored, other = FilteredFlip(start, None), binary_variable([1.0])
    restored.build([other])
    tf.train.Checkpoint(optimizer=restored).restore(path)
    for one, variable in ((optimizer, weights), (restored, other)):
        seen = [float(one.alpha) for _ in train(one, [variable], np.ones((2, 1, 1), "float32"))]
        assert seen == [1.0, 1.0] and one.get_config()["scales"] == {}
        assert int(one.iterations) == 4


def test_schedulers_work_beside_decay_steps(digits, make_small):
    """α is what ReduceLROnPlateau makes of it, times what is left of the decay."""
    model = make_small(FilteredFlip(decay_steps=8 * 57))
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.1, patience=0, min_delta=1e9)
    model.fit(*digits, epochs=3, verbose=0, callbacks=[plateau])
    left = (1 - (3 * 57 - 1) / (8 * 57)) ** 2
    assert float(model.optimizer.alpha) < 0.02 * 0.01 * left * 1.2  # twice a tenth, in two epochs
    scale = float(model.optimizer.alpha) / (0.01 * left)
    assert 0.01 < scale < 0.02  # what was set at the end of an epoch counts from the next step on


def test_float64_coefficients_are_not_rounded():
    keras.backend.set_floatx("float64")
    try:
        optimizer = FilteredFlip(alpha=3e-3, gamma=0.1, threshold=1e-9)
        values = {name: float(value) for name, value in optimizer.coefficients.items()}
    finally:
        keras.backend.set_floatx("float32")
    assert values == {"alpha": 3e-3, "gamma": 0.1, "threshold": 1e-9}


def test_without_arguments_rates_fall_without_an_end():
    """α as 1/t, the learning rate of real weights as 1/√t: at every step what they were asked."""
    optimizer, real = FilteredFlip(), tf.Variable([0.0])
    weights = binary_variable([1.0])
    for t in (0, 1, 200, 40_000):
        optimizer.iterations.assign(t)
        before = float(real)
        optimizer.apply_gradients([(tf.ones(1), weights), (1e3 * tf.ones(1), real)])
        np.testing.assert_allclose(float(optimizer.alpha), 1e-2 / (1 + t / 200), rtol=1e-6)
        rate = float(optimizer.real_optimizer.learning_rate)
        np.testing.assert_allclose(rate, 1e-2 / np.sqrt(1 + t / 390), rtol=1e-6)
        if t == 0:  # the first step of Adam is as large as its rate
            np.testing.assert_allclose(before - float(real), 1e-2, rtol=1e-4)


REAL_RATES = {  # by what is given: the rate of real weights at first, after 50 and after 100 steps
    "decay_steps": (dict(decay_steps=100), (1e-2, 5e-3, 0.0)),
    "alpha": (dict(alpha=1e-3), (1e-3, 1e-3, 1e-3)),
    "a large alpha": (dict(alpha=0.5), (1e-2, 1e-2, 1e-2)),
    "alpha, decay_steps": (dict(alpha=1e-3, decay_steps=100), (1e-3, 5e-4, 0.0)),
    "alpha of some layers": (dict(alpha=1e-3, filter={"a": None}), (1e-3, 1e-3, 1e-3)),
    "a schedule": (dict(alpha=decay(1e-2)), (1e-3, 1e-3, 1e-3)),
    "a filter": (dict(filter=lqf.filters.EMA(1e-2)), (1e-3, 1e-3, 1e-3)),
    "filters": (dict(filter={"*": lqf.filters.EMA(1e-2)}), (1e-3, 1e-3, 1e-3)),
    "a name": (dict(alpha=1e-2, real_optimizer="adam"), (1e-3, 1e-3, 1e-3)),
}


@pytest.mark.parametrize("name", REAL_RATES)
def test_the_learning_rate_of_real_weights_starts_like_alpha(name):
    given, expected = REAL_RATES[name]
    real = FilteredFlip(**given).real_optimizer
    assert isinstance(real, keras.optimizers.Adam)
    seen = []
    for steps in (0, 50, 100):
        real.iterations.assign(steps)
        seen.append(float(real._learning_rate(steps) if callable(real._learning_rate) else real.lr))
    np.testing.assert_allclose(seen, expected, rtol=1e-6, atol=1e-12)
    config = FilteredFlip(**given).get_config()
    assert FilteredFlip.from_config(config).get_config() == config


@pytest.mark.filterwarnings("ignore:FilteredFlip found no binary")
@pytest.mark.parametrize("value", slow_but([5.0], [5.0, -1.0]))
def test_what_a_callback_sets_out_of_range_is_limited_and_said(value, digits, make_small):
    model = make_small(FilteredFlip(1e-2))
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: value)
    with pytest.warns(UserWarning, match="outside its range, and the nearest value"):
        model.fit(*digits, verbose=0, callbacks=[scheduler])
    assert float(model.optimizer.alpha) == min(max(value, 0.0), 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.fit(*digits, verbose=0)  # said once


@pytest.mark.parametrize(("value", "used"), [(5.0, 1.0), (math.nan, 0.5), (-1.0, 0.0)])
def test_a_value_out_of_range_leaves_the_rest_of_a_schedule_in_it(value, used):
    """What goes on is the schedule from the nearest value, or for NaN from the last one."""
    optimizer, weights = FilteredFlip(decay(0.5, steps=1_000)), binary_variable([1.0])
    optimizer.apply_gradients([(tf.ones(1), weights)])
    optimizer.learning_rate.assign(value)  # as callbacks do
    for step in range(1, 4):
        optimizer.apply_gradients([(tf.ones(1), weights)])
        expected = used * (1 - (step - (value == value)) / 1_000)
        np.testing.assert_allclose(float(optimizer.alpha), expected, atol=2e-3)
    with pytest.warns(UserWarning, match=f"Received: alpha={value:g}"):
        optimizer.finalize_variable_values([weights])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        optimizer.finalize_variable_values([weights])


def test_decay_steps_of_any_type_are_whole():
    for steps in (40, 40.0, np.float32(40), np.int64(40)):
        assert FilteredFlip(decay_steps=steps).filter.alpha.decay_steps == 40
    for steps in (True, 40.5, np.inf, "40"):
        assert_one_sentence(
            lambda steps=steps: FilteredFlip(decay_steps=steps), ValueError, "a whole number from 1"
        )


def test_a_decay_that_ended_is_said_after_the_first_epoch(digits, make_small):
    said = []

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            said.append(len(warned))

    model = make_small(FilteredFlip(decay_steps=2))
    x, y = digits[0][:128], digits[1][:128]
    with pytest.warns(UserWarning, match="decayed to 0 before training ended") as warned:
        model.fit(x, y, epochs=3, verbose=0, callbacks=[lqf.callbacks.FlipRatio(), Look()])
    assert said == [1, 1, 1] and len(warned) == 1


def test_a_schedule_out_of_range_is_said_once_a_training(digits, make_small):
    """Also with a callback that looks after every epoch."""
    schedule = keras.optimizers.schedules.PolynomialDecay(3.0, 100, 2.0)
    model = make_small(FilteredFlip(schedule))
    with pytest.warns(UserWarning, match="outside its range") as warned:
        callbacks = [lqf.callbacks.FlipRatio()]
        model.fit(digits[0][:64], digits[1][:64], epochs=3, verbose=0, callbacks=callbacks)
    assert len(warned) == 1


def test_a_decay_that_ended_too_early_is_said(digits, make_small):
    model = make_small(FilteredFlip(decay_steps=5))
    with pytest.warns(UserWarning, match="decayed to 0 before training ended"):
        model.fit(*digits, verbose=0)
    model = make_small(FilteredFlip(decay_steps=57))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.fit(*digits, verbose=0)


def test_what_is_set_on_a_loss_scaler_reaches_the_optimizer_inside(digits, make_small):
    keras.mixed_precision.set_global_policy("mixed_float16")
    model = make_small(FilteredFlip())
    model.optimizer.alpha, model.optimizer.gamma, model.optimizer.threshold = 0.5, 0.25, 0.125
    inner = FilteredFlip.of(model)
    assert model.optimizer is not inner and model.optimizer.alpha is inner.alpha
    assert [float(c) for c in (inner.alpha, inner.gamma, inner.threshold)] == [0.5, 0.25, 0.125]
    scheduler = lq.callbacks.HyperparameterScheduler(lambda epoch: 0.75, "alpha")
    model.fit(digits[0][:64], digits[1][:64], verbose=0, callbacks=[scheduler])
    assert float(inner.alpha) == 0.75
    assert model.optimizer.count_flips is inner.count_flips is False
    model.optimizer.count_flips = True
    assert inner.count_flips is True
    other = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.Adam())
    assert not hasattr(other, "alpha")
    for name, given in (
        ("flip_ratio", FilteredFlip(flip_ratio=0.25)),
        ("sigma", FilteredFlip(filter=F.NormalizedEMA(0.5, 0.25))),
    ):
        scaled = keras.mixed_precision.LossScaleOptimizer(given)
        setattr(scaled, name, 0.125)
        assert float(getattr(given, name)) == float(getattr(scaled, name)) == 0.125


RATES = {  # what is called the learning rate of each
    "EMA": (F.EMA(0.25), 0.25),
    "CascadedEMA": (F.CascadedEMA(0.25, 0.5), 0.25),
    "Diode": (F.Cascade(F.EMA(0.5), F.Sign(), F.EMA(0.25)), 0.25),
    "NormalizedEMA": (F.NormalizedEMA(0.5, 0.25), 0.5),
    "latent Adam": (lqf.recipes.from_adam(0.25), 0.25),
    "latent SGD": (lqf.recipes.from_sgd(0.25, 0.5), 0.25 / 0.5),
    "coupled SGD": (lqf.recipes.from_sgd(0.25, 0.5, 0.1, decoupled=False, clip=1.0), 0.25),
    "IIR": (F.IIR([0.5], [1.0, -0.5]), 1.0),
    "Sign": (F.Sign(), 1.0),
}


@pytest.mark.parametrize("name", slow_but(["Diode", "latent Adam", "IIR"], RATES))
def test_every_filter_has_a_learning_rate(name, digits, make_small, tmp_path):
    """As loggers read it: Keras' TensorBoard and CSVLogger; `test_trackers` has others."""
    filter, rate = RATES[name]
    model = make_small(FilteredFlip(filter=filter))
    x, y = digits[0][:64], digits[1][:64]
    board = keras.callbacks.TensorBoard(tmp_path)
    model.fit(x, y, verbose=0, callbacks=[board, keras.callbacks.CSVLogger(tmp_path / "log.csv")])
    optimizer = model.optimizer
    for value in (optimizer.learning_rate, optimizer.lr):
        assert float(keras.backend.get_value(value)) == rate
    assert callable(getattr(optimizer, "_learning_rate", None)) or optimizer._learning_rate == rate
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    if name in ("IIR", "Sign"):
        for refused in (
            lambda: setattr(optimizer, "learning_rate", 0.5),
            lambda: model.fit(x, y, verbose=0, callbacks=[scheduler]),
        ):
            assert_one_sentence(refused, AttributeError, "no coefficient that can be set")
        kept = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate)
        model.fit(x, y, verbose=0, callbacks=[kept])
        return
    model.fit(x, y, verbose=0, callbacks=[scheduler])
    assert float(optimizer.learning_rate) == rate / 2
    optimizer.learning_rate = rate / 4
    assert float(optimizer.learning_rate) == rate / 4


def test_tensorboard_shows_the_rate_that_was_set_beside_a_schedule(digits, make_small, tmp_path):
    """It calls the schedule, which knows nothing of what was set."""
    model = make_small(FilteredFlip(decay_steps=100))
    x, y = digits[0][:64], digits[1][:64]
    model.fit(x, y, verbose=0)
    model.optimizer.alpha = 1e-3
    model.fit(x, y, verbose=0, callbacks=[keras.callbacks.TensorBoard(tmp_path)])
    shown = [
        float(tf.make_ndarray(value.tensor))
        for path in (tmp_path / "train").iterdir()
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
        if value.tag == "epoch_learning_rate"
    ]
    assert shown == pytest.approx([1e-3], rel=0.1)
    assert float(model.optimizer.alpha) == pytest.approx(1e-3, rel=0.1)


TRACKED = {
    **{
        name: lambda filter=filter: FilteredFlip(filter=filter)
        for name, (filter, _) in RATES.items()
    },
    "decay_steps": lambda: FilteredFlip(decay_steps=40),
    "by layer": lambda: FilteredFlip(filter={"conv": F.EMA(0.1), "d*": F.IIR([0.5], [1.0, -0.5])}),
    "bop": lambda: lqf.recipes.bop(),
    "bop2ndorder": lambda: lqf.recipes.bop2ndorder(1e-6, 1e-7, 1e-3),
    "diode": lambda: lqf.recipes.diode(0.9, 0.99),
}


@pytest.mark.parametrize("name", TRACKED)
def test_trackers(name):
    """What Keras callbacks of W&B 0.31 and MLflow 3.18 read of an optimizer, and ask of it."""
    optimizer = TRACKED[name]()
    rate = optimizer.learning_rate  # W&B's WandbMetricsLogger
    assert isinstance(rate, tf.Variable | tf.Tensor) and np.isfinite(rate.numpy().item())
    assert optimizer.iterations.numpy() == 0  # MLflow's, for "every n steps"
    params = {f"opt_{k}": v for k, v in optimizer.get_config().items()}
    for key, value in params.items():
        assert re.fullmatch(r"[\w./ :-]+", key) and len(key) <= 250 and len(str(value)) <= 6000
    numbers = {k: v for k, v in params.items() if k.startswith("opt_filter_")}
    assert all(type(value) is float for value in numbers.values())
    assert len(numbers) == len(optimizer.coefficients) - 1  # without the threshold
    assert FilteredFlip.from_config(optimizer.get_config()).filter == optimizer.filter


def test_a_number_beside_the_filter_is_not_ignored():
    config = FilteredFlip(0.25, 0.5).get_config()
    assert (config["filter_alpha"], config["filter_gamma"]) == (0.25, 0.5)
    assert FilteredFlip(decay_steps=40).get_config()["filter_alpha"] == pytest.approx(1e-2)
    config["filter_alpha"] = 0.125
    assert_one_sentence(lambda: FilteredFlip.from_config(config), ValueError, "Change `filter`")


@pytest.mark.parametrize("gamma", [None, 0.1])
def test_decay_steps(gamma):
    weights = binary_variable([1.0])
    optimizer = FilteredFlip(0.5, gamma, decay_steps=4)
    seen = [float(optimizer.alpha) for _ in train(optimizer, [weights], np.ones((6, 1, 1), "f"))]
    np.testing.assert_allclose(seen, [0.5, 0.28125, 0.125, 0.03125, 0, 0])
    optimizer.count_flips = True
    for _ in train(optimizer, [weights], -np.ones((20, 1, 1), "f")):
        assert optimizer.flips(weights).numpy() == 0  # however the gradients point
    again = FilteredFlip.from_config(optimizer.get_config())
    assert again.filter == optimizer.filter


@pytest.mark.parametrize(
    ("alpha", "gamma"),
    slow_but([(1e-2, 0.1), (1e-1, 0.1)], [(1e-2, 0.1), (1e-1, 0.1), (1e-3, 0.05)]),
)
def test_flips_in_noise(alpha, gamma):
    """The share of weights that flip in a step is what the docstring says.

    It is the limit of small α and γ: of 4 seeds, −0.5 to 3.3 % from it. The seed is fixed, and
    TensorFlow's random numbers are whole-number arithmetic, the same on every processor.
    """
    weights, steps = binary_variable(np.ones(20_000)), round(4 / alpha)
    optimizer = FilteredFlip(alpha, gamma)
    optimizer.build([weights])

    def noise(steps):
        for _ in tf.range(steps):
            optimizer.apply_gradients([(tf.random.normal(weights.shape), weights)])

    tf.random.set_seed(0)
    tf.function(noise)(tf.constant(steps))  # until the filter has forgotten where it began
    optimizer.count_flips = True
    tf.function(noise)(tf.constant(200))
    share = int(optimizer.flips(weights)) / (200 * 20_000)
    assert share == pytest.approx(np.sqrt(alpha * gamma) / np.pi, rel=0.05)


def test_keras_and_larq_callbacks_set_hyperparameters(digits, make_small, tmp_path):
    model = make_small(FilteredFlip(alpha=0.5, gamma=0.5))
    model.fit(
        *digits,
        batch_size=512,
        epochs=3,
        verbose=0,
        validation_data=(digits[0][:9], digits[1][:9]),
        callbacks=[
            keras.callbacks.LearningRateScheduler(lambda epoch: 0.5 / (epoch + 1)),
            lq.callbacks.HyperparameterScheduler(lambda epoch: 0.1 * (epoch + 1), "gamma"),
            lq.callbacks.HyperparameterScheduler(lambda epoch: 0.01 * epoch, "threshold"),
            keras.callbacks.TensorBoard(tmp_path),
        ],
    )
    optimizer = model.optimizer
    assert [float(optimizer.alpha), float(optimizer.gamma)] == pytest.approx([0.5 / 3, 0.3])
    assert float(optimizer.threshold) == pytest.approx(0.02)
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=0, min_delta=1e9)
    history = model.fit(*digits, batch_size=512, epochs=2, verbose=0, callbacks=[plateau])
    assert history.history["lr"] == pytest.approx([0.5 / 3, 0.5 / 3])
    assert float(optimizer.alpha) == pytest.approx(0.5 / 6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: FilteredFlip(),
        lambda: FilteredFlip(0.1, None, threshold=decay(0.1), name="mine", clipnorm=1.0),
        lambda: FilteredFlip(decay(0.1), decay(0.2), real_optimizer="sgd", jit_compile=False),
        lambda: FilteredFlip(
            filter=F.IIR([0.1], [1, -0.9]), real_optimizer=keras.optimizers.AdamW(1e-2)
        ),
        lambda: FilteredFlip(
            filter=F.Cascade(F.EMA(0.1), F.Sign(), F.EMA(decay(0.1))),
            real_optimizer=keras.optimizers.Adam(decay(1e-2)),
        ),
    ],
)
def test_config_round_trip(make):
    optimizer = make()
    for again in (
        FilteredFlip.from_config(optimizer.get_config()),
        keras.optimizers.deserialize(keras.optimizers.serialize(optimizer)),
        keras.optimizers.get(keras.optimizers.serialize(optimizer)),
    ):
        assert isinstance(again, FilteredFlip)
        assert again.get_config() == optimizer.get_config()
        assert again.filter == optimizer.filter
        assert type(again.real_optimizer) is type(optimizer.real_optimizer)


def test_config_has_what_was_set():
    optimizer = FilteredFlip(alpha=0.5)
    optimizer.alpha, optimizer.threshold = 0.0, 0.25
    again = FilteredFlip.from_config(optimizer.get_config())
    assert float(again.alpha) == 0.0 and float(again.threshold) == 0.25


# Errors

SGD = keras.optimizers.SGD


def test_a_config_is_of_the_current_class():
    given = {"class_name": "SGD", "config": {"learning_rate": 0.25}}
    for config in (given, keras.optimizers.serialize(SGD(0.25))):
        real = FilteredFlip(real_optimizer=config).real_optimizer
        assert type(real) is SGD and float(real.learning_rate) == 0.25
    assert given == {"class_name": "SGD", "config": {"learning_rate": 0.25}}


BAD = {
    "alpha 0": (lambda: FilteredFlip(alpha=0), ValueError, "alpha=0"),
    "alpha 2": (lambda: FilteredFlip(alpha=2), ValueError, "alpha=2"),
    "gamma 2": (lambda: FilteredFlip(gamma=2), ValueError, "gamma=2"),
    "threshold": (lambda: FilteredFlip(threshold=-1), ValueError, "threshold=-1"),
    "filter and alpha": (
        lambda: FilteredFlip(alpha=1e-3, filter=F.EMA(0.1)),
        ValueError,
        "alpha=0.001",
    ),
    "filter and gamma": (
        lambda: FilteredFlip(gamma=None, filter=F.EMA(0.1)),
        ValueError,
        "gamma=None",
    ),
    "filter and decay": (
        lambda: FilteredFlip(filter=F.EMA(0.1), decay_steps=10),
        ValueError,
        "decay_steps=10",
    ),
    "schedule and decay": (
        lambda: FilteredFlip(decay(0.1), decay_steps=10),
        ValueError,
        "decay_steps=10",
    ),
    "no steps": (lambda: FilteredFlip(decay_steps=0), ValueError, "decay_steps=0"),
    "half a step": (lambda: FilteredFlip(decay_steps=0.5), ValueError, "decay_steps=0.5"),
    "decay from 2": (lambda: FilteredFlip(2, decay_steps=10), ValueError, "alpha=2"),
    "not a filter": (lambda: FilteredFlip(filter="ema"), TypeError, "filter='ema'"),
    "larq's name": (
        lambda: FilteredFlip(default_optimizer=None),
        TypeError,
        "give real_optimizer.",
    ),
    "misspelt": (lambda: FilteredFlip(decay_step=3), TypeError, "give decay_steps."),
    "τ by name": (lambda: FilteredFlip(tau=1e-6), TypeError, "give threshold."),
    "legacy": (
        lambda: FilteredFlip(real_optimizer=keras.optimizers.legacy.Adam()),
        TypeError,
        "legacy.Adam",
    ),
    "larq's Bop": (
        lambda: FilteredFlip(real_optimizer=lq.optimizers.Bop()),
        TypeError,
        "recipes.bop is larq's Bop",
    ),
    "larq's CaseOptimizer": (
        lambda: FilteredFlip(
            real_optimizer=lq.optimizers.CaseOptimizer(
                (lq.optimizers.Bop.is_binary_variable, lq.optimizers.Bop()),
                default_optimizer=keras.optimizers.legacy.Adam(),
            )
        ),
        TypeError,
        "takes the place of a CaseOptimizer",
    ),
    "latent": (
        lambda: FilteredFlip(real_optimizer=lqf.optimizers.LatentSGD()),
        TypeError,
        "LatentSGD",
    ),
    "latent in latent": (
        lambda: lqf.optimizers.LatentSGD(real_optimizer=lqf.optimizers.LatentSGD()),
        TypeError,
        "LatentSGD",
    ),
    "its own name": (lambda: FilteredFlip(real_optimizer="FilteredFlip"), TypeError, "neither"),
    "momentum": (lambda: FilteredFlip(momentum=0.9), ValueError, "gamma = 1 − momentum"),
    "no momentum": (lambda: FilteredFlip(momentum=0.0), ValueError, "momentum=0.0"),
    "nesterov": (lambda: FilteredFlip(nesterov=True), ValueError, "from_sgd(..., nesterov"),
    "beta_1": (lambda: FilteredFlip(beta_1=0.9), ValueError, "from_adam(..., beta_1"),
    "beta_2": (lambda: FilteredFlip(beta_2=0.9), ValueError, "from_adam(..., beta_2"),
    "epsilon": (lambda: FilteredFlip(epsilon=1e-7), ValueError, "from_adam(..., epsilon"),
    "amsgrad": (lambda: FilteredFlip(amsgrad=True), ValueError, "AMSGrad is not a filter"),
    "old decay": (lambda: FilteredFlip(decay=1e-4), ValueError, "`decay_steps` makes alpha"),
    "ema_momentum": (lambda: FilteredFlip(ema_momentum=0.9), ValueError, "not binary"),
    "filter's class": (lambda: FilteredFlip(filter=F.EMA), TypeError, "filters.EMA(0.01)"),
    "scaler": (
        lambda: FilteredFlip(real_optimizer=keras.mixed_precision.LossScaleOptimizer(SGD())),
        TypeError,
        "LossScaleOptimizer",
    ),
    "itself": (lambda: FilteredFlip(real_optimizer=FilteredFlip()), TypeError, "FilteredFlip"),
    "unknown": (lambda: FilteredFlip(real_optimizer="adamm"), TypeError, "'adamm'"),
    "class": (lambda: FilteredFlip(real_optimizer=SGD), TypeError, "SGD"),
    "arguments of an optimizer": (
        lambda: FilteredFlip(real_optimizer=SGD(0.1).get_config()),
        TypeError,
        "the config that tf.keras.optimizers.serialize(optimizer) makes",
    ),
    "a class and no config": (
        lambda: FilteredFlip(real_optimizer={"class_name": "SGD"}),
        TypeError,
        "tf.keras.optimizers.serialize",
    ),
    "a number": (lambda: FilteredFlip(real_optimizer=0.1), TypeError, "real_optimizer=0.1"),
    "weight decay": (lambda: FilteredFlip(weight_decay=1e-4), ValueError, "weight_decay=0.0001"),
    "use_ema": (lambda: FilteredFlip(use_ema=True), ValueError, "use_ema=True"),
    "learning rate": (lambda: FilteredFlip(learning_rate=0.1), ValueError, "learning_rate=0.1"),
    "lr": (lambda: FilteredFlip(lr=0.1), ValueError, "lr=0.1"),
    "lr of 0": (lambda: FilteredFlip(lr=0.0), ValueError, "lr=0.0"),
    "learning rate of 0": (lambda: FilteredFlip(learning_rate=0), ValueError, "learning_rate=0"),
    "ema_overwrite_frequency": (
        lambda: FilteredFlip(ema_overwrite_frequency=3),
        ValueError,
        "Set `average`",
    ),
    "inertia, a word": (lambda: FilteredFlip(inertia="a"), TypeError, "a number. Received"),
    "average, a word": (lambda: FilteredFlip(average="a"), TypeError, "a number. Received"),
}


def test_keras_finds_it_by_name():
    assert type(keras.optimizers.get("FilteredFlip")) is FilteredFlip
    model = keras.Sequential([keras.layers.Dense(1, input_shape=(1,))])
    model.compile("FilteredFlip")
    assert type(model.optimizer) is FilteredFlip


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize(
    "make",
    [lambda: "FilteredFlip", FilteredFlip, lambda: FilteredFlip(average=16, gamma=None)],
    ids=["name", "default", "averages"],
)
def test_what_is_compiled_by_default_is_loaded(make, suffix, digits, make_small, tmp_path):
    model = make_small(make())
    x, y = digits[0][:64], digits[1][:64]
    model.fit(x, y, verbose=0)
    model.save(tmp_path / f"model{suffix}")
    loaded = keras.models.load_model(tmp_path / f"model{suffix}")
    assert type(loaded.optimizer) is FilteredFlip
    assert_same(model_state(loaded), model_state(model))
    for one in (model, loaded):
        one.fit(x, y, verbose=0, shuffle=False)
    assert_same(model_state(loaded), model_state(model))


def test_repr_says_what_was_set():
    optimizer = FilteredFlip(0.01, 0.1)
    optimizer.gamma, optimizer.threshold = 0.5, 0.25
    assert "gamma=0.5), threshold=0.25," in repr(optimizer)


def test_repr_says_what_it_is():
    optimizer = FilteredFlip(filter=F.EMA(0.5), threshold=0.25, real_optimizer="sgd")
    assert repr(optimizer) == (
        "FilteredFlip(filter=EMA(alpha=0.5), threshold=0.25, real_optimizer='SGD')"
    )
    options = {"inertia": 0.0, "average": 16.0, "state_dtype": "bfloat16"}
    given = ", ".join(f"{name}={value!r}" for name, value in options.items())
    assert repr(FilteredFlip(**options)).endswith(f"real_optimizer='Adam', {given})")


def test_whole_numbers_of_any_kind():
    one, two = FilteredFlip(decay_steps=40.0), FilteredFlip(decay_steps=np.int64(40))
    assert one.filter == two.filter == FilteredFlip(decay_steps=40).filter
    assert FilteredFlip(state_dtype="float32").get_config()["state_dtype"] is None


def test_weight_decay_with_exceptions():
    """Of the real optimizer, to which it is passed on."""
    variables = [tf.Variable([2.0], name=name) for name in ("kernel", "bias")]
    optimizer = FilteredFlip(real_optimizer=keras.optimizers.SGD(1.0, weight_decay=0.1))
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    with pytest.warns(UserWarning, match="no binary variable"):
        optimizer.apply_gradients([(tf.zeros(1), variable) for variable in variables])
    assert [float(v) for v in variables] == pytest.approx([1.8, 2.0])


@pytest.mark.filterwarnings("ignore:FilteredFlip found no binary")
def test_steps_counted_in_int32():
    optimizer, variable = FilteredFlip(real_optimizer="sgd"), tf.Variable([1.0])
    optimizer.iterations = tf.Variable(5, dtype=tf.int32)
    optimizer.apply_gradients([(tf.ones(1), variable)])
    assert int(optimizer.iterations) == 6 and float(variable) < 1.0


def test_a_config_is_left_as_it_was():
    config = FilteredFlip(real_optimizer=keras.optimizers.Adam(decay(0.1))).get_config()
    before = repr(config)
    FilteredFlip.from_config(config)
    assert repr(config) == before


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_sentence(name):
    assert_one_sentence(*BAD[name])


@pytest.mark.parametrize(
    ("quantizer", "effect"),
    [
        ("approx_sign", "never flip"),
        ("swish_sign", "flip the wrong way"),
        (lq.quantizers.SteSign(clip_value=0.5), "never flip"),
    ],
)
def test_a_starving_quantizer_is_refused_by_layer(quantizer, effect, digits, make_small):
    images, labels = (a[:64] for a in digits)
    model = make_small(FilteredFlip(), kernel_quantizer=quantizer)
    with pytest.raises(ValueError, match=f"layer 'conv' would {effect}.*to_latent_free"):
        model.fit(images, labels, verbose=0)
    assert not model.optimizer.slots(model.get_layer("conv").kernel)
    converted = lqf.conversion.to_latent_free(model)  # the way out works
    converted.compile(FilteredFlip(), LOSS)
    converted.fit(images, labels, verbose=0)


def test_build_does_not_touch_the_quantizers_metrics():
    with lq.context.metrics_scope(["flip_ratio"]):
        layer = lq.layers.QuantDense(2, kernel_quantizer="ste_sign", input_shape=(3,))
    model = keras.Sequential([layer])
    model.compile(FilteredFlip(), "mse")
    history = model.fit(np.ones((4, 3)), np.ones((4, 2)), epochs=2, verbose=0)
    assert any(name.startswith("flip_ratio/") for name in history.history)


def test_a_model_without_binary_weights_warns(digits, make_small):
    model = make_small(FilteredFlip(), kernel_quantizer=None)
    with pytest.warns(UserWarning, match="no binary variable"):
        model.fit(*digits, verbose=0)


def test_a_variable_after_build_and_a_reused_optimizer(digits, make_small):
    model = make_small(FilteredFlip())
    model.fit(*digits, verbose=0)
    with pytest.raises(ValueError, match="already trains other variables"):
        make_small(model.optimizer).fit(*digits, verbose=0)
    known, late = model.trainable_variables[0], tf.Variable([1.0], name="late")
    pairs = [(tf.zeros_like(known), known), (tf.constant([1.0]), late)]
    with pytest.raises(ValueError, match="appeared after .*late"):
        model.optimizer.apply_gradients(pairs)
    model.fit(*digits, verbose=0)  # and nothing is lost
    with pytest.raises(ValueError, match="real_optimizer already trains"):
        real = model.optimizer.real_optimizer
        make_small(FilteredFlip(real_optimizer=real)).fit(*digits, verbose=0)


def test_latent_weights_loaded_after_build_become_binary(digits, make_small):
    model = make_small(FilteredFlip())
    model.fit(*digits, verbose=0)
    model.set_weights([w * 0.3 for w in model.get_weights()])
    model.fit(*digits, verbose=0)
    assert set(np.unique(model.get_layer("conv").get_weights()[0])) == {-1.0, 1.0}


def test_warnings_point_at_the_line_of_the_user(digits):
    """Not at Keras' `apply_gradients`, also out of a graph that Keras traces."""
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(10)])
    model.compile(FilteredFlip(), LOSS)
    with pytest.warns(UserWarning, match="found no binary variable") as caught:
        model.fit(digits[0][:8], digits[1][:8], verbose=0)
    assert next(w for w in caught if w.category is UserWarning).filename == __file__
    with pytest.warns(UserWarning, match="never forgets its start") as caught:
        F.IIR([0.1], [1.0, -1.0])
    assert next(w for w in caught if w.category is UserWarning).filename == __file__


@pytest.mark.parametrize("value, kept", [(5.0, 1.0), (-0.5, 0.0)])
def test_a_leak_out_of_range_is_limited(value, kept):
    variable = binary_variable(np.ones(4))
    decay = keras.optimizers.schedules.PolynomialDecay(value, 100)
    optimizer = FilteredFlip(filter=F.Integrator(0.5, leak=decay))
    with pytest.warns(UserWarning, match=f"leak={value:g}"):
        list(train(optimizer, [variable], np.ones((1, 1, 4), "float32")))
        optimizer.finalize_variable_values([variable])
    assert float(optimizer.coefficients["leak"]) == kept


def test_nan_before_the_first_step_is_the_value_that_was_given():
    variable = binary_variable(np.ones(4))
    optimizer = FilteredFlip(0.25, 0.5)
    keras.backend.set_value(optimizer.learning_rate, np.nan)
    with pytest.warns(UserWarning, match="alpha=nan"):
        list(train(optimizer, [variable], np.ones((1, 1, 4), "float32")))
        optimizer.finalize_variable_values([variable])
    assert float(optimizer.alpha) == 0.25


def test_a_normalized_filter_is_scheduled_by_gamma():
    """σ alone changes no sign: a learning rate that sets it would be ignored."""
    variable = binary_variable(np.ones(4))
    optimizer = lqf.recipes.bop2ndorder(1e-6, 0.25, 0.125)
    keras.backend.set_value(optimizer.learning_rate, 0.5)
    list(train(optimizer, [variable], np.ones((1, 1, 4), "float32")))
    assert float(optimizer.gamma) == 0.5 and float(optimizer.sigma) == 0.125
    optimizer.sigma = 0.25
    assert float(optimizer.coefficients["sigma"]) == 0.25


def test_repr_of_a_schedule_that_was_scaled_makes_it_again():
    optimizer = FilteredFlip(decay_steps=10)
    optimizer.alpha = 0.001
    names = {**vars(F), **vars(lqf.optimizers), **vars(keras.optimizers.schedules)}
    for filter in (
        optimizer.filter,
        lqf.recipes.from_sgd(keras.optimizers.schedules.CosineDecay(0.1, 50), 0.9, 1e-2),
    ):
        again = eval(repr(filter), dict(names))
        for step in (0, 3, 9):
            assert again.at(step) == filter.at(step)
