import contextlib
import csv
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


class CountByHand(keras.callbacks.Callback):
    """The oracle: compares the weights before and after every step. Needs steps_per_execution 1."""

    def on_epoch_begin(self, epoch, logs=None):
        self.flips, self.steps = 0, 0
        self.before = self.kernels()

    def on_train_batch_end(self, batch, logs=None):
        after = self.kernels()
        self.flips = self.flips + np.array(
            [(a != b).sum() for a, b in zip(self.before, after, strict=True)]
        )
        self.steps, self.before = self.steps + 1, after

    def on_epoch_end(self, epoch, logs=None):
        sizes = np.array([w.size for w in self.before])
        self.ratios = getattr(self, "ratios", [])
        flips = self.flips / self.steps
        self.ratios.append([flips.sum() / sizes.sum(), *flips / sizes])

    def kernels(self):
        kernels = [self.model.get_layer(name).get_weights()[0] for name in ("one", "two")]
        return [np.where(kernel < 0, -1, 1) for kernel in kernels]  # latent before the first step


def logged(history):
    return np.transpose(
        [history[name] for name in ("flip_ratio", "flip_ratio/one", "flip_ratio/two")]
    )


@pytest.fixture
def by_hand():
    """Of a training with exact sums, as another graph of the same training may round otherwise."""
    oracle = CountByHand()
    exact.fit(FilteredFlip(alpha=0.05), [oracle], epochs=3)
    assert np.min(oracle.ratios) > 0
    return oracle.ratios


@pytest.mark.parametrize(
    ("replicas", "steps_per_execution"), [(1, 1), (1, 4), (2, 1)], ids=["1", "4", "two replicas"]
)
def test_ratios_are_those_counted_by_hand(replicas, steps_per_execution, by_hand, mirrored):
    callback = lqf.callbacks.FlipRatio()
    with mirrored.scope() if replicas == 2 else contextlib.nullcontext():
        _, history = exact.fit(
            FilteredFlip(alpha=0.05), [callback], epochs=3, steps_per_execution=steps_per_execution
        )
    np.testing.assert_allclose(logged(history), by_hand, rtol=1e-12)


def test_in_the_middle_of_training(by_hand):
    """A model whose step was traced without counting counts from now on."""
    model, _ = exact.fit(FilteredFlip(alpha=0.05))
    x, y = (a.reshape(-1, a.shape[-1]) for a in exact.batches())
    callback = lqf.callbacks.FlipRatio()
    history = model.fit(
        x, y, exact.BATCH, epochs=2, shuffle=False, verbose=0, callbacks=[callback]
    ).history
    np.testing.assert_allclose(logged(history), by_hand[1:], rtol=1e-12)


@pytest.mark.slow
def test_under_loss_scaling_and_a_strategy(digits, make_small, mirrored):
    keras.mixed_precision.set_global_policy("mixed_float16")
    with mirrored.scope():
        model = make_small(FilteredFlip(alpha=0.5))
    history = model.fit(*digits, batch_size=128, verbose=0, callbacks=[lqf.callbacks.FlipRatio()])
    assert 0 < history.history["flip_ratio"][0] < 1


def test_other_callbacks_see_it(digits, make_small, tmp_path):
    model = make_small(FilteredFlip())
    model.fit(
        *digits,
        batch_size=512,
        verbose=0,
        callbacks=[
            lqf.callbacks.FlipRatio(),
            keras.callbacks.CSVLogger(tmp_path / "log.csv"),
            keras.callbacks.TensorBoard(tmp_path / "board"),
            keras.callbacks.EarlyStopping("flip_ratio"),
        ],
    )
    with open(tmp_path / "log.csv") as file:
        (row,) = csv.DictReader(file)
    assert {"flip_ratio", "flip_ratio/conv", "flip_ratio/dense"} <= set(row)
    tags = set()
    for path in (tmp_path / "board" / "train").iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            tags |= {value.tag for value in event.summary.value}
    assert {"epoch_flip_ratio", "epoch_flip_ratio/conv"} <= tags


def test_nested_models_are_counted_by_their_layers():
    inner = keras.Sequential([lq.layers.QuantDense(3, kernel_quantizer="ste_sign", name="deep")])
    model = keras.Sequential([keras.Input((2,)), inner])
    model.compile(FilteredFlip(), "mse")
    history = model.fit(
        np.ones((2, 2)), np.ones((2, 3)), verbose=0, callbacks=[lqf.callbacks.FlipRatio()]
    )
    assert set(history.history) == {"loss", "flip_ratio", "flip_ratio/deep"}


def test_another_optimizer_is_refused(digits, make_small):
    with pytest.raises(TypeError, match="metrics_scope.*Received: optimizer=Adam"):
        make_small("adam").fit(*digits, verbose=0, callbacks=[lqf.callbacks.FlipRatio()])


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
        warnings.simplefilter("error")
        model.fit(x, x, verbose=0, validation_data=(x, x), callbacks=[recalibrate])


def test_the_total_alone(digits, make_small):
    model = make_small(FilteredFlip())
    callbacks = [lqf.callbacks.FlipRatio(per_layer=False)]
    history = model.fit(*digits, verbose=0, callbacks=callbacks).history
    assert [name for name in history if "flip_ratio" in name] == ["flip_ratio"]


def test_what_tensorboard_shows(tmp_path, digits, make_small):
    """Read back by TensorBoard's own reader."""
    from tensorboard.backend.event_processing import event_accumulator

    model = make_small(FilteredFlip(0.05, filter={"conv": lqf.filters.EMA(0.1)}, threshold=1e-4))
    flips = lqf.callbacks.FlipRatio(per_layer=False, log_dir=tmp_path / "logs")
    history = model.fit(*digits, epochs=2, verbose=0, callbacks=[flips]).history
    events = event_accumulator.EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    tensors = {
        tag: [(e.step, tf.make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }
    assert set(tensors) == {
        "flip_ratio",
        *(f"filter/{name}" for name in ("alpha", "gamma", "threshold", "conv/alpha")),
        *(f"theta_y/{layer}/kernel" for layer in ("conv", "dense")),
    }
    ratios = [float(value) for _, value in tensors["flip_ratio"]]
    np.testing.assert_allclose(ratios, history["flip_ratio"], rtol=1e-5)
    assert [float(value) for _, value in tensors["filter/conv/alpha"]] == pytest.approx([0.1] * 2)
    (_, (step, bins)) = tensors["theta_y/dense/kernel"]
    kernel = model.get_layer("dense").kernel
    y = model.optimizer.slots(kernel)["y"].numpy().ravel()
    values = y * kernel.numpy().ravel() / np.sqrt(np.mean(y**2))
    assert step == 1 and bins[:, 2].sum() == values.size
    assert (bins[0, 0], bins[-1, 1]) == pytest.approx((values.min(), values.max()), rel=1e-5)


def test_a_logger_before_it_sees_nothing_and_is_named(tmp_path):
    logger = lambda: keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))  # noqa: E731
    with pytest.warns(UserWarning, match="CSVLogger before FlipRatio"):
        exact.fit(FilteredFlip(0.05), [logger(), lqf.callbacks.FlipRatio()])
    assert "flip_ratio" not in (tmp_path / "log.csv").read_text()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        exact.fit(FilteredFlip(0.05), [lqf.callbacks.FlipRatio(), logger()])
    assert "flip_ratio" in (tmp_path / "log.csv").read_text()
    theirs = type("WandbMetricsLogger", (keras.callbacks.Callback,), {"__module__": "wandb.keras"})
    with pytest.warns(UserWarning, match="WandbMetricsLogger before FlipRatio"):
        exact.fit(FilteredFlip(0.05), [theirs(), lqf.callbacks.FlipRatio()])
