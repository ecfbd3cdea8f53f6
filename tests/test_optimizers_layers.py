"""A filter for each layer: which layer has which, coefficients, saving."""

import warnings

import larq_filters as lqf

import exact
import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from helpers import (
    assert_one_sentence,
    assert_same,
    binary_variable,
    model_state,
    slow_but,
    train,
)

F = lqf.filters
FilteredFlip = lqf.optimizers.FilteredFlip
keras = tf.keras


def is_large(variable):
    return np.prod(variable.shape) > 2000


def decay(value):
    return keras.optimizers.schedules.PolynomialDecay(value, 200, 0.0)


def by_layer():
    return FilteredFlip(
        0.05, filter={"conv": F.EMA(decay(0.02)), is_large: F.IIR([0.01], [1, -1.9, 0.91])}
    )


def make_two():
    """Two binary variables as larq's layers name them, and gradients for both."""
    rng = np.random.default_rng(0)
    variables = []
    for name, shape in (("block/first/kernel", (40,)), ("block/second/kernel", (50,))):
        latent = tf.Variable(np.where(rng.random(shape) < 0.5, -1.0, 1.0).astype("f"), name=name)
        quantizer = lq.quantizers.NoOp(precision=1)
        variables.append(lq.quantized_variable.QuantizedVariable.from_variable(latent, quantizer))
    gradients = [[rng.normal(size=v.shape).astype("f") for v in variables] for _ in range(30)]
    return variables, gradients


@pytest.fixture
def two():
    return make_two()


def alone(filter, initial, gradients, **kwargs):
    """What a variable becomes whose optimizer has one filter."""
    variable = binary_variable(initial)
    optimizer = FilteredFlip(filter=filter, **kwargs)
    return [w for (w,) in train(optimizer, [variable], [[g] for g in gradients])]


ONE, OTHER = F.EMA(0.1), F.NormalizedEMA(0.1, 0.01, bias_correction=True)


@pytest.fixture(scope="module")
def each_alone():
    """What the first of two variables becomes by ONE, and the second by OTHER."""
    variables, gradients = make_two()
    return [
        alone(filter, variable.numpy(), [g[i] for g in gradients])
        for i, (filter, variable) in enumerate(zip((ONE, OTHER), variables, strict=True))
    ]


FIRST = ["first", "block/first", "block/first/kernel", "*/first", "f*", ("no", "first"),
         lambda v: v.shape == (40,)]  # fmt: skip


@pytest.mark.parametrize("key", FIRST, ids=map(str, range(len(FIRST))))
def test_each_layer_is_trained_by_its_filter(key, two, each_alone):
    optimizer = FilteredFlip(filter={key: ONE, "*": OTHER})
    after = list(train(optimizer, *two))
    for i, expected in enumerate(each_alone):
        assert_same([weights[i] for weights in after], expected)


def test_each_of_two_keys_has_its_own_coefficients(two):
    """Of the same filter, so that only the numbers tell them apart."""
    variables, gradients = two
    one, other = F.EMA(0.1), F.EMA(0.6)
    expected = [
        alone(filter, variable.numpy(), [g[i] for g in gradients])
        for i, (filter, variable) in enumerate(zip((one, other), variables, strict=True))
    ]
    optimizer = FilteredFlip(filter={"first": one, "second": other})
    after = list(train(optimizer, *two))
    for i in range(2):
        assert_same([weights[i] for weights in after], expected[i])


def test_all_other_layers_have_alpha_and_gamma(two):
    variables, gradients = two
    rest = F.CascadedEMA(0.02, 0.5)
    expected = alone(rest, variables[1].numpy(), [g[1] for g in gradients])
    optimizer = FilteredFlip(0.02, 0.5, filter={"first": F.EMA(0.1)})
    after = list(train(optimizer, variables, gradients))
    assert_same([b for _, b in after], expected)
    assert optimizer.filter == {"first": F.EMA(0.1), "*": rest}


def test_none_leaves_weights_as_they_are(two):
    variables, gradients = two
    variables[0].assign(np.linspace(-0.5, 0.5, 40))
    before, other = (variable.numpy() for variable in variables)
    optimizer = FilteredFlip(filter={"first": None}, inertia=0.0)
    optimizer.count_flips = True
    *_, (first, second) = train(optimizer, variables, gradients)
    np.testing.assert_array_equal(first, before)
    assert (second != other).any() and optimizer.slots(variables[0]) == {}
    assert optimizer.flips(variables[0]) is None and optimizer.output(variables[0]) is None
    assert int(optimizer.flips(variables[1])) > 0


def test_coefficients_by_layer(two):
    variables, gradients = two
    optimizer = FilteredFlip(0.02, filter={"f*": F.EMA(0.1), "second": F.EMA(decay(0.5))})
    assert sorted(optimizer.coefficients) == [
        "alpha", "f*/alpha", "gamma", "second/alpha", "threshold",
    ]  # fmt: skip
    list(train(optimizer, variables, gradients[:1]))
    assert_one_sentence(  # and not that of a filter that trains nothing
        lambda: setattr(optimizer, "alpha", 0.5), AttributeError, "more than one coefficient"
    )
    optimizer.coefficients["alpha"].assign(0.03)
    optimizer.coefficients["f*/alpha"].assign(0.25)
    assert optimizer.filter["f*"] == F.EMA(0.25)
    np.testing.assert_allclose(optimizer.filter["*"].alpha, 0.03)
    list(train(optimizer, variables, gradients[1:2]))
    assert float(optimizer.coefficients["second/alpha"]) == pytest.approx(0.5 * (1 - 1 / 200))
    assert float(optimizer.learning_rate) == 0.25  # of the first filter
    optimizer.learning_rate = 0.5  # twice as much, for all
    list(train(optimizer, variables, gradients[2:4]))
    values = [float(optimizer.coefficients[k]) for k in ("f*/alpha", "second/alpha", "alpha")]
    scheduled = 2 * (1 - 1 / 200) * (1 - 3 / 200) / (1 - 2 / 200)  # from twice its last value on
    np.testing.assert_allclose(values, [0.5, 0.5 * scheduled, 0.03], rtol=1e-5)


def test_a_scheduler_reaches_the_layers(two):
    """Also before the first step, and where no other layer is left."""
    variables, gradients = two
    optimizer = FilteredFlip(filter={"first": F.EMA(0.1), "second": F.EMA(0.2)})
    keras.backend.set_value(optimizer.learning_rate, 0.01)  # as LearningRateScheduler does
    list(train(optimizer, variables, gradients[:1]))
    values = [float(optimizer.coefficients[k]) for k in ("first/alpha", "second/alpha")]
    np.testing.assert_allclose(values, [0.01, 0.02], rtol=1e-5)


def test_a_learning_rate_of_0_for_some_epochs_keeps_the_proportions(two):
    """As in a schedule by hand, for LearningRateScheduler, that warms up or rests."""
    variables, gradients = two
    optimizer = FilteredFlip(filter={"first": F.EMA(0.1), "second": F.EMA(decay(0.2))})
    keys = ("first/alpha", "second/alpha")
    for rate in (0.05, 0.0, 0.0, 0.01):
        optimizer.learning_rate = rate
        list(train(optimizer, variables, gradients[:1]))
        values = [float(optimizer.coefficients[key]) for key in keys]
        np.testing.assert_allclose(values, [rate, 2 * rate], rtol=0.03)  # the second decays
    assert values[1] < 0.02


def test_a_learning_rate_that_begins_anew_leaves_other_layers_as_they_are(two):
    """Where the first has decayed to 0, nothing says how much more or less the others should be."""
    variables, gradients = two
    optimizer = FilteredFlip(filter={"first": F.EMA(decay(0.5)), "second": F.EMA(0.25)})
    optimizer.build(variables)
    optimizer.iterations.assign(300)
    list(train(optimizer, variables, gradients[:1]))
    optimizer.learning_rate = 0.125
    list(train(optimizer, variables, gradients[:1]))
    values = [float(optimizer.coefficients[k]) for k in ("first/alpha", "second/alpha")]
    assert values == [0.125, 0.25]


def test_a_rate_that_was_set_after_the_last_step_is_in_the_checkpoint(two, tmp_path):
    """As by ReduceLROnPlateau before BackupAndRestore."""
    variables, gradients = two
    make = lambda: FilteredFlip(filter={"first": F.EMA(0.1), "second": F.EMA(decay(0.2))})  # noqa: E731
    one, other = make(), make()
    list(train(one, variables, gradients[:2]))
    one.learning_rate = 0.01
    path = tf.train.Checkpoint(optimizer=one).write(str(tmp_path / "checkpoint"))
    other.build(variables)
    tf.train.Checkpoint(optimizer=other).read(path)
    assert float(other.learning_rate) == pytest.approx(0.01)
    list(train(other, variables, gradients[2:3]))
    values = [float(other.coefficients[k]) for k in ("first/alpha", "second/alpha")]
    np.testing.assert_allclose(values, [0.01, 0.02], rtol=0.03)  # the second decays


@pytest.mark.parametrize("reads", [True, False])
def test_the_learning_rate_of_a_restored_checkpoint(reads, two, tmp_path):
    """Is that of its last step, and setting it scales the filters from there."""
    variables, gradients = two
    make = lambda: FilteredFlip(filter={"first": F.EMA(0.1), "second": F.EMA(0.2)})  # noqa: E731
    one, other = make(), make()
    one.build(variables)
    one.learning_rate = 0.01
    list(train(one, variables, gradients[:1]))
    path = tf.train.Checkpoint(optimizer=one).write(str(tmp_path / "checkpoint"))
    other.build(variables)
    rate = other.learning_rate
    tf.train.Checkpoint(optimizer=other).read(path)
    if reads:
        assert float(other.learning_rate) == pytest.approx(0.01)
    rate.assign(0.005)
    list(train(other, variables, gradients[1:2]))
    values = [float(other.coefficients[k]) for k in ("first/alpha", "second/alpha")]
    np.testing.assert_allclose(values, [0.005, 0.01], rtol=1e-5)


def test_a_rate_that_was_set_after_the_last_step_is_in_the_config(two):
    """As by ReduceLROnPlateau before ModelCheckpoint; and counts once."""
    variables, gradients = two
    optimizer = FilteredFlip(filter={"first": F.EMA(0.1), "second": F.EMA(decay(0.2))})
    list(train(optimizer, variables, gradients[:2]))
    optimizer.learning_rate = 0.01
    again = FilteredFlip.from_config(optimizer.get_config())
    again.build(variables)
    again.iterations.assign(optimizer.iterations)
    for one in (optimizer, again):
        list(train(one, variables, gradients[2:3]))
        values = [float(one.coefficients[k]) for k in ("first/alpha", "second/alpha")]
        np.testing.assert_allclose(values, [0.01, 0.02 * (1 - 1 / 200)], rtol=1e-5)


def test_a_decay_of_some_layers_is_said_of_these(two):
    variables, gradients = two
    optimizer = FilteredFlip(filter={"first": F.EMA(decay(0.5)), "second": F.EMA(0.2)})
    optimizer.build(variables)
    optimizer.iterations.assign(300)
    list(train(optimizer, variables, gradients[:1]))
    with pytest.warns(UserWarning, match="no weight of these layers flips.*first/alpha=Polynomial"):
        optimizer.finalize_variable_values(variables)
    other = FilteredFlip(filter={"*ir*": F.EMA(0.1), "second": F.EMA(0.1)}, decay_steps=1)
    list(train(other, variables, gradients[:2]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        other.finalize_variable_values(variables)  # what has decayed trains no layer


def test_coefficients_that_are_not_unique(two):
    optimizer = FilteredFlip(filter={"first": F.EMA(0.1), "second": F.EMA(0.2), "*": F.Sign()})
    with pytest.raises(AttributeError, match="more than one coefficient 'alpha'"):
        _ = optimizer.alpha


@pytest.mark.parametrize("format", slow_but([".keras"], [".keras", "checkpoint"]))
def test_saved_and_resumed(format, digits, make_small, tmp_path):
    data = tf.data.Dataset.from_tensor_slices(tuple(a[:640] for a in digits)).batch(64)
    whole = make_small(by_layer())
    whole.fit(data, epochs=1, verbose=0)
    if format == ".keras":
        whole.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
    else:
        path = tf.train.Checkpoint(model=whole, optimizer=whole.optimizer).save(tmp_path / "c")
        loaded = make_small(by_layer())
        loaded.optimizer.build(loaded.trainable_variables)
        tf.train.Checkpoint(model=loaded, optimizer=loaded.optimizer).restore(path)
    for model in (loaded, whole):
        model.fit(data, epochs=1, verbose=0)
    assert_same(model_state(loaded), model_state(whole))
    assert set(loaded.optimizer.coefficients) == set(whole.optimizer.coefficients)
    again = FilteredFlip.from_config(loaded.optimizer.get_config())
    assert list(again.filter.values()) == list(loaded.optimizer.filter.values())


def test_a_config_is_for_other_models_by_name(two):
    """Of as many variables in another order: names count, where there are names."""
    variables, _ = two
    optimizer = FilteredFlip(filter={"first": F.EMA(0.1)})
    optimizer.build(variables)
    again = FilteredFlip.from_config(optimizer.get_config())
    again.build(variables[::-1])
    assert [set(again.slots(variable)) for variable in variables] == [{"y"}, {"m", "y"}]


def test_a_loaded_model_has_lost_the_names_of_its_layers(digits, make_small, tmp_path):
    """Keras names variables `kernel` then. Layers themselves are keys, too."""
    make_small("adam").save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    ema = F.EMA(0.1)
    assert_one_sentence(
        lambda: FilteredFlip(filter={"dense": ema}).build(model.trainable_variables),
        ValueError,
        "give the layer itself as the key",
    )
    dense, conv = model.get_layer("dense"), model.get_layer("conv")
    optimizer = FilteredFlip(filter={dense: ema})
    optimizer.build(model.trainable_variables)
    assert set(optimizer.slots(dense.kernel)) == {"y"}
    assert set(optimizer.slots(conv.kernel)) == {"m", "y"}
    assert "dense/alpha" in optimizer.coefficients
    assert list(FilteredFlip.from_config(optimizer.get_config()).filter) == ["dense", "*"]


def test_two_devices_train_as_one(mirrored):
    filters = {"one": F.EMA(0.5), "two": F.IIR([0.25], [1.0, -1.0, 0.25])}
    make = lambda: FilteredFlip(filter=filters)  # noqa: E731
    one, _ = exact.fit(make())
    with mirrored.scope():
        two = exact.network()
        two.compile(make(), exact.loss)
    x, y = (a.reshape(-1, a.shape[-1]) for a in exact.batches())
    two.fit(x, y, exact.BATCH, shuffle=False, verbose=0)
    assert_same(one.get_weights(), two.get_weights())


def test_errors_say_the_way_out(two):
    variables, _ = two
    ema = F.EMA(0.1)
    refuse = lambda filter, kind, text, **kw: assert_one_sentence(  # noqa: E731
        lambda: FilteredFlip(filter=filter, **kw).build(variables), kind, text
    )
    refuse(
        {"third": ema},
        ValueError,
        "the key 'third' matches no layer with binary weights that are trained (a frozen",
    )
    refuse({"f*": ema, "first": ema}, ValueError, "'first' matches only layers that a key before")
    refuse({3: ema}, TypeError, "a key is the name of a layer")
    refuse({(): ema}, TypeError, "a key is the name of a layer")
    refuse({"first": 0.1}, TypeError, "a value is an instance of a class")
    refuse({"*": ema}, ValueError, "`filter` replaces `alpha`", alpha=0.1)
    assert_one_sentence(
        lambda: FilteredFlip(filter={is_large: ema}).get_config(),
        ValueError,
        "keys are layers or functions",
    )


def test_only_some_layers_are_trained(two):
    variables, gradients = two
    before = variables[0].numpy()
    optimizer = FilteredFlip(filter={"second": F.EMA(0.1), "*": None})
    *_, (first, _) = train(optimizer, variables, gradients)
    np.testing.assert_array_equal(first, before)
    none = FilteredFlip(filter={"*": None})
    assert FilteredFlip.from_config(none.get_config()).filter is None
    again = FilteredFlip.from_config(optimizer.get_config())
    assert again.filter == {"second": F.EMA(0.1), "*": None}


def test_labels_of_functions():
    filters = {(lambda v: False): F.EMA(0.1), (lambda v: True): F.EMA(0.2), is_large: F.EMA(0.3)}
    optimizer = FilteredFlip(filter=filters)
    assert set(optimizer.coefficients) >= {"<lambda>/alpha", "<lambda>#2/alpha", "is_large/alpha"}


def test_a_filter_that_trains_nothing_has_no_learning_rate(two):
    variables, gradients = two
    optimizer = FilteredFlip(filter={"first": None, "second": F.IIR([0.5], [1.0, -0.5])})
    list(train(optimizer, variables, gradients[:2]))
    assert_one_sentence(
        lambda: keras.backend.set_value(optimizer.learning_rate, 0.01), AttributeError, "can be set"
    )
    assert_one_sentence(
        lambda: setattr(optimizer, "alpha", 0.5), AttributeError, "no coefficient 'alpha'"
    )


def test_the_learning_rate_of_a_cascade_is_that_of_its_last_stage():
    variable = binary_variable(np.ones(4))
    optimizer = FilteredFlip(filter=F.Cascade(F.EMA(0.5), F.EMA(0.25)))
    keras.backend.set_value(optimizer.learning_rate, 0.125)
    list(train(optimizer, [variable], np.ones((2, 1, 4), "float32")))
    assert optimizer.filter == F.Cascade(F.EMA(0.5), F.EMA(0.125))


def test_a_layer_of_another_model_is_told_from_a_wrong_name():
    layer = keras.layers.Dense(1)
    variable = binary_variable(np.ones(4))
    optimizer = FilteredFlip(filter={layer: F.EMA(0.1)})
    assert_one_sentence(
        lambda: optimizer.build([variable]), ValueError, "is a layer of another model, or has no"
    )
