import contextlib
import csv
import warnings

import larq_filters as lqf

import exact
import larq as lq
import numpy as np
import pytest
import tensorflow as tf

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
