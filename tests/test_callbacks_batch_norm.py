"""RecalibrateBatchNorm: what it estimates, and what it leaves alone."""

import copy
import warnings

import larq_filters as lqf

import exact
import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_one_sentence

keras = tf.keras
FilteredFlip = lqf.optimizers.FilteredFlip


def batch_norm_averages(model):
    layers = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    return [v.numpy() for layer in layers for v in (layer.moving_mean, layer.moving_variance)]


def test_recalibration_is_the_plain_average_over_batches():
    model = keras.Sequential([keras.layers.BatchNormalization(input_shape=(3,), momentum=0.5)])
    batches = [
        np.random.default_rng(i).normal(i, 1 + i, (50, 3)).astype("float32") for i in range(5)
    ]
    lqf.callbacks.RecalibrateBatchNorm(batches, batches=4)(model)
    mean, variance = batch_norm_averages(model)
    np.testing.assert_allclose(mean, np.mean([b.mean(0) for b in batches[:4]], 0), rtol=1e-5)
    np.testing.assert_allclose(variance, np.mean([b.var(0) for b in batches[:4]], 0), rtol=1e-5)
    assert model.layers[0].momentum == 0.5 and "call" not in vars(model.layers[0])
    np.testing.assert_allclose(
        model(batches[0], training=False),
        (batches[0] - mean) / np.sqrt(variance + 1e-3),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("run_eagerly", [False, True], ids=["graph", "eager"])
def test_recalibration_leaves_training_alone(run_eagerly):
    """Same weights, bit for bit, with dropout; eagerly, all random numbers come in one order."""
    x, y = (a.reshape(-1, a.shape[-1]) for a in exact.batches())
    dataset = tf.data.Dataset.from_tensor_slices((x[:256], y[:256])).batch(32)
    binary = {"kernel_quantizer": lq.quantizers.NoOp(precision=1)}
    runs = []
    for callbacks in ([], [lqf.callbacks.RecalibrateBatchNorm(dataset, batches=5)]):
        keras.utils.set_random_seed(5)
        model = keras.Sequential(
            [
                lq.layers.QuantDense(8, input_shape=(12,), **binary),
                keras.layers.BatchNormalization(),
                keras.layers.Dropout(0.2),
                lq.layers.QuantDense(4, **binary),
            ]
        )
        model.compile(FilteredFlip(alpha=0.1), "mse", run_eagerly=run_eagerly)
        valid = {"validation_data": (x[256:], y[256:]), "validation_batch_size": 128}
        history = model.fit(dataset, epochs=2, verbose=0, callbacks=callbacks, **valid)
        runs.append(([v.numpy() for v in model.trainable_variables], history.history))
    for a, b in zip(runs[0][0], runs[1][0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert runs[0][1]["loss"] == runs[1][1]["loss"]
    assert runs[0][1]["val_loss"] != runs[1][1]["val_loss"]


def test_recalibration_closes_the_gap_to_training(digits, make_model):
    """Averages that lag behind flipping weights make another network than the one that trains.

    Of 10 seeds, 1.1 ± 0.6 % of the gap is left.
    """
    images, labels = digits
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(256)
    model = make_model(FilteredFlip(alpha=0.5))
    model.fit(dataset, epochs=2, verbose=0)

    def gap():
        trains, infers = (model(images[:1024], training=t).numpy() for t in (True, False))
        return np.abs(trains - infers).mean()

    saved = model.get_weights()
    before = gap()
    model.set_weights(saved)  # a call in training moved the averages
    lqf.callbacks.RecalibrateBatchNorm(dataset, batches=4)(model)
    assert gap() < 0.2 * before


def test_recalibration_under_a_strategy_and_of_frozen_layers(mirrored):
    with mirrored.scope():
        frozen = keras.layers.BatchNormalization(input_shape=(1,), trainable=False)
        model = keras.Sequential([frozen, keras.layers.BatchNormalization()])
    lqf.callbacks.RecalibrateBatchNorm([np.array([[1.0], [3.0]], "float32")])(model)
    assert [float(x[0]) for x in batch_norm_averages(model)][:2] == [0.0, 1.0]
    assert float(batch_norm_averages(model)[2][0]) == pytest.approx(2.0, rel=1e-2)


def test_each_of_two_replicas_averages_its_own_batches(mirrored):
    """Both call the one layer, and one's calls are none of the other's."""
    with mirrored.scope():
        model = keras.Sequential([keras.layers.BatchNormalization(input_shape=(1,))])
    batches = [np.array([[low], [low + 2.0]], "float32") for low in (1.0, 5.0, 30.0)]
    lqf.callbacks.RecalibrateBatchNorm(batches)(model)
    for replica in mirrored.experimental_local_results(model.layers[0].moving_mean):
        assert float(replica.numpy()[0]) == pytest.approx(13.0, rel=1e-5)


def test_recalibration_wants_batches():
    model = keras.Sequential([keras.layers.BatchNormalization(input_shape=(1,))])
    with pytest.raises(ValueError, match="batches=0"):
        lqf.callbacks.RecalibrateBatchNorm([], batches=0)
    with pytest.raises(ValueError, match="no batch"):
        lqf.callbacks.RecalibrateBatchNorm([])(model)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (np.ones((8, 1)), "Received: ndarray"),
        ((np.ones((8, 1)), np.ones(8)), "Received: tuple"),
        (iter([np.ones((8, 1))]), "only once"),
        ((batch for batch in [np.ones((8, 1))]), "Received: generator"),
    ],
)
def test_recalibration_names_data_that_it_cannot_use(data, text):
    assert_one_sentence(lambda: lqf.callbacks.RecalibrateBatchNorm(data), TypeError, text)


def test_recalibration_without_validation_says_so():
    model = tf.keras.Sequential([tf.keras.layers.BatchNormalization(input_shape=(1,))])
    model.compile("sgd", "mse")
    x = np.ones((8, 1), "float32")
    recalibrate = lqf.callbacks.RecalibrateBatchNorm([x])
    with pytest.warns(UserWarning, match="did nothing, because fit did not validate"):
        model.fit(x, x, verbose=0, callbacks=[recalibrate])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.fit(x, x, verbose=0, validation_data=(x, x), callbacks=[recalibrate])


def batches_of(*means, shape=(16, 3)):
    """Batches of noise about these means."""
    random = np.random.default_rng(3)
    return [random.normal(mean, 1.0, shape).astype("float32") for mean in means]


class Subclassed(keras.Model):
    """Batch norm between other layers, of which one draws at random."""

    def __init__(self):
        super().__init__()
        self.parts = [keras.layers.Dropout(0.5), keras.layers.BatchNormalization()]

    def call(self, x, training=None):
        for part in self.parts:
            x = part(x, training=training)
        return x


class Decorated(Subclassed):
    call = tf.function(Subclassed.call)


@pytest.mark.parametrize("is_traced", [False, True], ids=["new", "traced"])
@pytest.mark.parametrize("kind", [Subclassed, Decorated])
def test_recalibration_of_a_model_whose_call_is_compiled(kind, is_traced):
    """A trace that is there has another momentum in it; one that is made would keep ours."""
    batches, model = batches_of(0, 3, 6), kind()
    model.build((None, 3))
    if is_traced:
        model(batches[0], training=False)
    lqf.callbacks.RecalibrateBatchNorm(batches)(model)
    mean, variance = model.parts[1].non_trainable_weights
    np.testing.assert_allclose(mean, np.mean([b.mean(0) for b in batches], 0), rtol=1e-4)
    np.testing.assert_allclose(variance, np.mean([b.var(0) for b in batches], 0), rtol=1e-4)
    before = model.get_weights()
    model(batches[0], training=False)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not tf.config.functions_run_eagerly()


def test_recalibration_leaves_batch_norm_alone_that_is_called_without_training():
    """As in Keras' guide to fine-tuning: the loss of training depends on these averages."""
    base = keras.Sequential([keras.layers.BatchNormalization(input_shape=(3,))])
    inputs = keras.Input((3,))
    outputs = keras.layers.BatchNormalization()(base(inputs, training=False))
    model = keras.Model(inputs, outputs)
    lqf.callbacks.RecalibrateBatchNorm(batches_of(5, 6))(model)
    assert not base.layers[0].moving_mean.numpy().any()
    assert (model.layers[-1].moving_mean.numpy() > 4).all()


@pytest.mark.parametrize(
    "kind",
    [keras.layers.BatchNormalization, keras.layers.experimental.SyncBatchNormalization],
    ids=["plain", "sync"],
)
def test_recalibration_averages_all_calls_of_a_shared_layer(kind):
    """And begins anew, though the averages were not finite."""
    first, second = keras.Input((3,)), keras.Input((3,))
    norm = kind()
    model = keras.Model([first, second], [norm(first), norm(second)])
    norm.moving_mean.assign([np.nan, np.inf, 1e30])
    means = ((0, 10), (20, 40))
    data = [(tuple(batches_of(*pair)),) for pair in means]
    lqf.callbacks.RecalibrateBatchNorm(data)(model)
    expected = np.mean([batch.mean(0) for (pair,) in data for batch in pair], 0)
    np.testing.assert_allclose(norm.moving_mean, expected, rtol=1e-4)


def test_recalibration_sees_masks():
    """Steps that are masked do not count, as they do not in training."""
    model = keras.Sequential(
        [keras.layers.Masking(input_shape=(2, 3)), keras.layers.BatchNormalization()]
    )
    x = np.stack([np.full((4, 3), 6.0), np.zeros((4, 3))], axis=1).astype("float32")
    lqf.callbacks.RecalibrateBatchNorm([x])(model)
    np.testing.assert_allclose(model.layers[-1].moving_mean, [6.0] * 3, rtol=1e-5)


@pytest.mark.parametrize("kind", ["RecalibrateBatchNorm", "SwapAverages"])
def test_callbacks_are_copied_with_their_dataset_shared(kind):
    """As KerasTuner does, for each trial."""
    data = tf.data.Dataset.from_tensor_slices(np.ones((8, 3), "float32")).batch(4)
    copied = copy.deepcopy(getattr(lqf.callbacks, kind)(data, batches=2))
    model = keras.Sequential(
        [lq.layers.QuantDense(2, kernel_quantizer="ste_sign"), keras.layers.BatchNormalization()]
    )
    model.compile(FilteredFlip(average=16), "mse")
    x, y = np.ones((8, 3)), np.ones((8, 2))
    history = model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=[copied])
    assert "val_loss" in history.history
