"""Averages of binary and real variables over their past, and the network of averages."""

import warnings

import larq_filters as lqf

import exact
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

FilteredFlip = lqf.optimizers.FilteredFlip
keras = tf.keras
C = 4.0


class Weights(keras.callbacks.Callback):
    """What the variables are after every step."""

    def on_train_begin(self, logs=None):
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append([tf.convert_to_tensor(v).numpy() for v in self.model.trainable_variables])


def weighted(values, c=C):
    """The average by its weights: of the value s, Γ(s + c)/Γ(s + 1), which grows as s^(c − 1)."""
    weights = np.ones(len(values))
    for s in range(1, len(values)):
        weights[s] = weights[s - 1] * (s - 1 + c) / s
    return [np.average(value, 0, weights) for value in zip(*values, strict=True)]


def averages(model):
    return [model.optimizer.average(v).numpy() for v in model.trainable_variables]


WAYS = {"graph": {}, "eager": {"run_eagerly": True}, "compiled": {"jit_compile": True}}


@pytest.mark.parametrize("way", slow_but(["graph"], WAYS))
def test_is_the_weighted_mean_of_all_values(way):
    weights = Weights()
    model, _ = exact.fit(FilteredFlip(0.5, average=C), [weights], **WAYS[way])
    for found, expected in zip(averages(model), weighted(weights.seen), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_of_real_variables_and_what_real_optimizers_do_to_them():
    real, binary = tf.Variable([1.0, -2.0]), binary_variable([1.0, -1.0])
    optimizer = FilteredFlip(0.5, average=C, real_optimizer=keras.optimizers.SGD(0.1))
    optimizer.build([real, binary])
    gradients = np.random.default_rng(0).normal(size=(20, 2, 2)).astype("float32")
    seen = list(train(optimizer, [real, binary], gradients))
    for variable, expected in zip((real, binary), weighted(seen), strict=True):
        np.testing.assert_allclose(optimizer.average(variable), expected, atol=1e-6)
    optimizer.finalize_variable_values([real, binary])
    np.testing.assert_allclose(real, weighted(seen)[0], atol=1e-6)
    np.testing.assert_array_equal(binary, np.sign(weighted(seen)[1]))
    assert optimizer.average(tf.Variable(0.0)) is None


def test_of_a_narrow_variable_is_wide():
    """In bfloat16 it would not move: the weight of a value, late, is less than its precision."""
    variable = tf.Variable([1.0, -1.0], dtype=tf.bfloat16)
    optimizer = FilteredFlip(average=C, filter={"*": None}, real_optimizer="sgd")
    optimizer.build([variable])
    optimizer.iterations.assign(5000)
    variable.assign([0.0, 0.0])
    zeros = np.zeros((20, 1, 2), "float32")
    list(train(optimizer, [variable], tf.cast(zeros, tf.bfloat16)))
    left = np.prod([1 - C / (t + C) for t in range(5000, 5020)])
    np.testing.assert_allclose(optimizer.average(variable), [left, -left], rtol=1e-5)


def test_a_bit_whose_average_is_0_stays():
    binary = binary_variable([1.0, -1.0])
    optimizer = FilteredFlip(average=C)
    optimizer.build([binary])
    optimizer.average(binary).assign([0.0, 0.0])
    optimizer.put_averages([binary])
    np.testing.assert_array_equal(binary, [1.0, -1.0])


def test_a_bit_becomes_the_sign_of_its_average():
    """Also where the bit has just become another one."""
    weights = binary_variable([1.0, -1.0, 1.0])
    optimizer = FilteredFlip(1.0, None, average=1.0)
    optimizer.build([weights])
    for gradient in ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, -1.0, 0.0]):
        optimizer.apply_gradients([(tf.constant(gradient), weights)])
    np.testing.assert_array_equal(weights, [-1.0, 1.0, 1.0])
    np.testing.assert_allclose(optimizer.average(weights), [1 / 3, -1 / 3, 1.0], rtol=1e-6)
    optimizer.put_averages([weights])
    np.testing.assert_array_equal(weights, [1.0, -1.0, 1.0])


def test_bits_that_are_not_trained_stay():
    """Whatever they are: without a filter nothing makes them ±1."""
    variable, other = binary_variable([0.5, -0.25]), binary_variable([1.0, 1.0])
    optimizer = FilteredFlip(
        average=C, filter={lambda v: v is variable: None, "*": lqf.filters.Sign()}
    )
    list(train(optimizer, [variable, other], np.ones((2, 2, 2), "float32")))
    optimizer.finalize_variable_values([variable, other])
    np.testing.assert_array_equal(variable, [0.5, -0.25])
    assert optimizer.average(variable) is None and optimizer.average(other) is not None


def test_two_replicas_and_one_agree(mirrored):
    one, _ = exact.fit(FilteredFlip(0.5, average=C))
    with mirrored.scope():
        two = exact.network()
        two.compile(FilteredFlip(0.5, average=C), exact.loss)
    x, y = (a.reshape(-1, a.shape[-1]) for a in exact.batches())
    two.fit(x, y, exact.BATCH, shuffle=False, verbose=0)
    assert_same(averages(one), averages(two))
    assert_same(one.get_weights(), two.get_weights())


def test_training_is_the_same_without_averages():
    weights = [Weights(), Weights()]
    exact.fit(FilteredFlip(0.5, average=C), [weights[0]])
    exact.fit(FilteredFlip(0.5), [weights[1]])
    for one, two in zip(*(w.seen for w in weights), strict=True):
        assert_same(one, two)


@pytest.mark.parametrize("format", slow_but([".keras"], [".keras", "checkpoint"]))
def test_saved_and_resumed(format, tmp_path, digits, make_small):
    def fit(model, batches):
        for i in batches:
            model.train_on_batch(*(a[64 * i : 64 * (i + 1)] for a in digits))
        return model_state(model)

    model = make_small(FilteredFlip(average=C))
    fit(model, range(3))
    if format == ".keras":
        model.save(tmp_path / "model.keras")
        other = keras.models.load_model(tmp_path / "model.keras")
        assert other.optimizer.get_config()["average"] == C
    else:
        path = str(tmp_path / "checkpoint")
        tf.train.Checkpoint(model=model, optimizer=model.optimizer).write(path)
        other = make_small(FilteredFlip(average=C))
        other.optimizer.build(other.trainable_variables)
        tf.train.Checkpoint(model=other, optimizer=other.optimizer).read(path).assert_consumed()
    assert_same(fit(other, range(3, 6)), fit(model, range(3, 6)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the averages are in place")
def test_under_mixed_precision(digits, make_model):
    """Without batch norm every step would be skipped: the gradients overflow."""
    keras.mixed_precision.set_global_policy("mixed_float16")
    model = make_model(FilteredFlip(average=C))
    weights, scale = Weights(), float(model.optimizer.loss_scale)
    model.fit(*(a[:256] for a in digits), batch_size=64, verbose=0, callbacks=[weights])
    assert float(model.optimizer.loss_scale) == scale  # no step was skipped
    optimizer = FilteredFlip.of(model)
    for i, expected in enumerate(weighted(weights.seen)):
        average = optimizer.average(model.trainable_variables[i])
        assert average.dtype == tf.float32
        assert (weights.seen[0][i] != weights.seen[-1][i]).any()
        np.testing.assert_allclose(average, expected, atol=1e-5)
    kernel = model.get_layer("conv").get_weights()[0]
    assert set(np.unique(kernel)) == {-1.0, 1.0}


@pytest.mark.parametrize("average", [0.5, -1.0, float("inf"), float("nan")])
def test_bad_averages(average):
    assert_one_sentence(lambda: FilteredFlip(average=average), ValueError, f"average={average}")


def test_two_kinds_of_averages_are_refused():
    real = keras.optimizers.Adam(use_ema=True)
    assert_one_sentence(
        lambda: FilteredFlip(average=16, real_optimizer=real), ValueError, "use_ema"
    )
    assert_one_sentence(lambda: FilteredFlip(use_ema=True), ValueError, "Set `average`")


# The callback


def make(**options):
    """A network with batch norm."""
    keras.utils.set_random_seed(5)
    layers = [
        exact.lq.layers.QuantDense(8, kernel_quantizer="ste_sign", input_shape=(12,)),
        keras.layers.BatchNormalization(),
        exact.lq.layers.QuantDense(4, kernel_quantizer="ste_sign"),
    ]
    model = keras.Sequential(layers)
    model.compile(FilteredFlip(0.2, average=16), "mse", **options)
    return model


def fit(model, callbacks, validation=True, epochs=2, **options):
    x, y = (a.reshape(-1, a.shape[-1]) for a in exact.batches())
    kwargs = {"validation_data": (x, y)} if validation else {}
    kwargs |= {"shuffle": False, "verbose": 0, "callbacks": callbacks, **options}
    return model.fit(x, y, 64, epochs, **kwargs).history


def trained(callbacks, validation=True, **options):
    """A network with batch norm, its history, and its weights after every step."""
    model, weights = make(**options), Weights()
    history = fit(model, [*callbacks, weights], validation)
    return model, history, weights.seen


def data():
    return tf.data.Dataset.from_tensor_slices(exact.batches()[0]).take(4)


def swap(**kwargs):
    return lqf.callbacks.SwapAverages(data(), 4, **kwargs)


@pytest.mark.parametrize("swap_on_epoch", slow_but([True], [False, True]))
def test_training_does_not_see_it(swap_on_epoch):
    _, plain, expected = trained([])
    _, history, found = trained([swap(swap_on_epoch=swap_on_epoch)])
    assert history["loss"] == plain["loss"] and history["val_loss"] != plain["val_loss"]
    for one, two in zip(found, expected, strict=True):
        assert_same(one, two)


def test_what_is_validated_is_the_network_of_averages(tmp_path):
    path = str(tmp_path / "{epoch}.keras")
    saving = keras.callbacks.ModelCheckpoint(path)
    model, history, seen = trained([swap(swap_on_epoch=True), saving])
    expected = weighted(seen, c=16)
    for variable, average in zip(model.trainable_variables, expected, strict=True):
        is_binary = variable.shape.rank == 2
        if is_binary:
            average = np.where(abs(average) < 1e-5, variable, np.sign(average))
        np.testing.assert_allclose(variable, average, atol=1e-5)
    x, y = (a.reshape(-1, a.shape[-1]) for a in exact.batches())
    assert model.evaluate(x, y, verbose=0) == pytest.approx(history["val_loss"][-1], rel=1e-5)
    for epoch in (1, 2):
        saved = keras.models.load_model(str(tmp_path / f"{epoch}.keras"))
        assert saved.evaluate(x, y, verbose=0) == pytest.approx(history["val_loss"][epoch - 1])


def test_batch_norm_is_that_of_the_averages():
    model, _, _ = trained([swap()], validation=False)
    recalibrated = model.layers[1].moving_mean.numpy()
    expected = np.mean([np.mean(model.layers[0](x), 0) for x in data()], 0)
    np.testing.assert_allclose(recalibrated, expected, rtol=1e-5, atol=1e-5)


def test_put_in_and_taken_out_by_hand():
    model, _, _ = trained([])
    callback = swap()
    callback.set_model(model)
    model.optimizer.average(model.trainable_variables[0]).assign_add(-model.trainable_variables[0])
    before = model_state(model)
    callback.put_in()
    inside = model.get_weights()
    callback.put_in()
    assert_same(inside, model.get_weights())
    callback.take_out()
    assert_same(before, model_state(model))
    callback.put_in()  # what was computed for these steps is put in again
    assert_same(inside, model.get_weights())


def test_another_model_gets_its_own_averages():
    """After as many steps as the one before, whose validation was interrupted."""
    callback, inside = swap(), []
    for _ in range(2):
        keras.backend.clear_session()
        model, _, _ = trained([])
        callback.set_model(model)
        callback.put_in()
        inside.append(model.get_weights())
    assert_same(*inside)


@pytest.mark.parametrize("what", ["weights", "optimizer"])
def test_another_training_of_as_many_steps_gets_its_own_averages(what):
    """Of the same model: its weights are restored, or it is compiled anew."""
    model, _, _ = trained([])
    callback, inside = swap(), []
    for random in map(np.random.default_rng, range(2)):
        if what == "weights":
            model.set_weights([random.choice([-1.0, 1.0], w.shape) for w in model.get_weights()])
            for variable in model.trainable_variables:
                model.optimizer.average(variable).assign(variable)
        else:
            model.compile(FilteredFlip(0.2, average=16), "mse")
            for variable in model.trainable_variables:
                variable.assign(random.choice([-1.0, 1.0], variable.shape))
            model.optimizer.build(model.trainable_variables)
        callback.set_model(model)
        callback.put_in()
        inside.append(model.get_weights())
        callback.take_out()
    fresh = swap()
    fresh.set_model(model)
    fresh.put_in()
    assert_same(inside[1], model.get_weights())
    assert not np.array_equal(inside[0][0], inside[1][0])


@pytest.mark.parametrize("door", ["put_in", "take_out"])
def test_an_interrupt_within_a_swap_loses_nothing(door, monkeypatch):
    """The next training goes on with what was trained, whichever part had been exchanged."""
    model, _, _ = trained([])
    kernel = model.trainable_variables[0]
    model.optimizer.average(kernel).assign(-kernel)
    callback, before = swap(), model.get_weights()
    callback.set_model(model)
    if door == "take_out":
        callback.put_in()
        inside = model.get_weights()
    assigned = []

    def assign(variable, *args, **kwargs):
        if len(assigned) == 2:
            raise KeyboardInterrupt
        assigned.append(variable)
        return real(variable, *args, **kwargs)

    kind = type(model.layers[1].gamma)
    real = kind.assign
    monkeypatch.setattr(kind, "assign", assign)
    with pytest.raises(KeyboardInterrupt):
        getattr(callback, door)()
    monkeypatch.undo()
    if door == "take_out":
        assert not np.array_equal(model.get_weights()[0], inside[0])  # but the last ones are
        assert_same(model.get_weights()[-1:], inside[-1:])
    weights = []
    look = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: weights.append(model.get_weights())
    )
    fit(model, [swap(), look], epochs=1)
    assert_same(weights[0], before)


def test_an_end_that_came_too_early_is_said_after_the_epoch():
    model, said = make(), []
    model.compile(FilteredFlip(decay_steps=2, average=16), "mse")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        look = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: said.append(len(caught)))
        fit(model, [swap(), look])
    assert said == [1, 1] and "To train on, compile with a new optimizer" in str(caught[0].message)


@pytest.mark.parametrize("make_callback", [swap, lqf.callbacks.FlipRatio])
def test_a_regularizer_on_bits_is_said(make_callback):
    layer = exact.lq.layers.QuantDense(
        4, kernel_quantizer="ste_sign", kernel_regularizer="l2", input_shape=(12,), name="bad"
    )
    model = keras.Sequential([layer])
    model.compile(FilteredFlip(average=16), "mse")
    with pytest.warns(UserWarning, match=r"pushes every bit to flip.*\['bad'\]"):
        make_callback().set_model(model)
    with pytest.warns(UserWarning, match=r"pushes every bit to flip.*\['bad'\]"):
        lqf.conversion.to_latent_free(model)


def interrupted(hook):
    """A network whose first validation was interrupted, and what it was trained to."""

    def interrupt(*args):
        raise KeyboardInterrupt

    model, weights = make(), Weights()
    stop = keras.callbacks.LambdaCallback(**{hook: interrupt})
    with pytest.raises(KeyboardInterrupt):
        fit(model, [swap(), stop, weights])
    return model, weights.seen[-1]


def is_as(model, values):
    return all(map(np.array_equal, model.trainable_variables, values))


def test_another_callback_puts_back_what_trains_after_an_interrupt():
    model, trained_to = interrupted("on_test_batch_end")
    assert not is_as(model, trained_to)
    weights = Weights()
    fit(model, [swap(), weights], epochs=1)
    _, _, expected = trained([])
    assert_same(weights.seen[-1], expected[-1])


@pytest.mark.parametrize("then", ["fit", "by hand"])
def test_weights_that_are_set_after_an_interrupt_stay(then):
    model, _ = interrupted("on_test_batch_end")
    random = np.random.default_rng(0)
    model.set_weights([random.choice([-1.0, 1.0], w.shape) for w in model.get_weights()])
    given, callback, seen = model.get_weights(), swap(), []
    if then == "fit":
        look = keras.callbacks.LambdaCallback(
            on_train_batch_begin=lambda batch, logs: seen.append(model.get_weights())
        )
        fit(model, [callback, look], epochs=1)
    else:
        callback.set_model(model)
        callback.put_in()
        callback.take_out()
        seen.append(model.get_weights())
    assert_same(seen[0], given)


def test_an_interrupted_recalibration_changes_nothing(monkeypatch):
    def recalibrate(self, model):
        raise KeyboardInterrupt

    monkeypatch.setattr(lqf.callbacks.RecalibrateBatchNorm, "__call__", recalibrate)
    model, weights = make(), Weights()
    with pytest.raises(KeyboardInterrupt):
        fit(model, [swap(), weights])
    assert is_as(model, weights.seen[-1])


def test_averages_are_put_in_place_though_an_earlier_training_was_interrupted():
    model, _ = interrupted("on_test_batch_end")
    with pytest.warns(UserWarning, match="without SwapAverages"):
        fit(model, [], validation=False, epochs=1)
    real = model.layers[1].gamma
    np.testing.assert_array_equal(real, model.optimizer.average(real))


@pytest.mark.slow
def test_under_a_strategy(mirrored):
    """Each replica gets its own averages of batch norm back."""
    with mirrored.scope():
        model = keras.Sequential(
            [
                exact.lq.layers.QuantDense(8, kernel_quantizer="ste_sign", input_shape=(12,)),
                keras.layers.BatchNormalization(),
                exact.lq.layers.QuantDense(4, kernel_quantizer="ste_sign"),
            ]
        )
        model.compile(FilteredFlip(0.2, average=16), "mse")
    x, y = (a.reshape(-1, a.shape[-1]) for a in exact.batches())
    model.fit(x, y, 32, shuffle=False, verbose=0)
    local = mirrored.experimental_local_results
    before = [r.numpy() for v in model.weights for r in local(v)]
    assert (before[-5] != before[-6]).any() or (before[-4] != before[-3]).any()
    callback = swap()
    callback.set_model(model)
    callback.put_in()
    callback.take_out()
    assert_same(before, [r.numpy() for v in model.weights for r in local(v)])


class Worse(keras.callbacks.Callback):
    """The first epoch is the best."""

    def on_epoch_end(self, epoch, logs):
        logs["worse"] = epoch


@pytest.mark.parametrize("when", ["training ends", "an epoch ends"])
def test_the_averages_of_the_best_epoch_stay(when):
    """Keras' EarlyStopping restores them when training ends; others at once."""
    seen = []
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: seen.append(keep.model.get_weights())
    )
    early = keras.callbacks.EarlyStopping("worse", patience=1, restore_best_weights=True)
    if when == "an epoch ends":
        early = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda *_: early.model.set_weights(seen[0])
        )
    model, history, _ = trained([swap(swap_on_epoch=True), Worse(), keep, early])
    assert len(history["loss"]) == len(seen) == 2 and not np.array_equal(seen[0][0], seen[1][0])
    assert_same(model.get_weights(), seen[0])
    model.evaluate(*(a.reshape(-1, a.shape[-1]) for a in exact.batches()), verbose=0)
    assert_same(model.get_weights(), seen[0])


def test_batch_norm_that_does_not_follow_the_averages_is_said():
    with pytest.warns(UserWarning, match="SwapAverages.*Received: average=16 without") as said:
        trained([])
    assert [warning.category for warning in said].count(UserWarning) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model, _, _ = trained([swap()])
        exact.fit(FilteredFlip(0.5, average=C))  # without batch norm
    x, y = (a.reshape(-1, a.shape[-1]) for a in exact.batches())
    with pytest.warns(UserWarning, match="without SwapAverages"):
        model.fit(x, y, verbose=0)


def test_refuses():
    model = keras.Sequential([keras.layers.Dense(1, input_shape=(2,))])
    model.compile("sgd", "mse")
    assert_one_sentence(lambda: swap().set_model(model), ValueError, "FilteredFlip(average=16)")
    model.compile(FilteredFlip(), "mse")
    assert_one_sentence(lambda: swap().set_model(model), ValueError, "FilteredFlip(average=16)")


def test_a_backup_of_the_averages_is_refused(tmp_path):
    backup = lqf.callbacks.Backup(tmp_path)
    callbacks = keras.callbacks.CallbackList([swap(swap_on_epoch=True), backup])
    assert_one_sentence(callbacks.on_train_begin, ValueError, "Put the backup before it")


def test_histograms_of_the_averages_beside_the_filters_are_refused(tmp_path):
    ratio = lqf.callbacks.FlipRatio(log_dir=tmp_path)
    callbacks = keras.callbacks.CallbackList([swap(swap_on_epoch=True), ratio])
    assert_one_sentence(callbacks.on_train_begin, ValueError, "Put FlipRatio before it")


@pytest.mark.parametrize("swap_on_epoch", [False, True])
def test_what_keeps_the_weights_that_train_is_told(swap_on_epoch):
    early = keras.callbacks.EarlyStopping(restore_best_weights=True)
    callback = swap(swap_on_epoch=swap_on_epoch)
    model = keras.Sequential([exact.lq.layers.QuantDense(1, input_shape=(2,))])
    model.compile(FilteredFlip(average=16), "mse")
    callbacks = keras.callbacks.CallbackList([early, callback], model=model)
    with pytest.warns(UserWarning, match="EarlyStopping beside SwapAverages"):
        callbacks.on_train_begin()
