import csv

import larq_filters as lqf

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
        kernels = [self.model.get_layer(name).get_weights()[0] for name in ("conv", "dense")]
        return [np.where(kernel < 0, -1, 1) for kernel in kernels]  # latent before the first step


def logged(history):
    return np.transpose(
        [history.history[name] for name in ("flip_ratio", "flip_ratio/conv", "flip_ratio/dense")]
    )


@pytest.fixture
def by_hand(digits, make_model):
    model, oracle = make_model(FilteredFlip(alpha=0.05)), CountByHand()
    model.fit(*digits, batch_size=128, epochs=3, shuffle=False, verbose=0, callbacks=[oracle])
    assert np.min(oracle.ratios) > 0
    return oracle.ratios


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_ratios_are_those_counted_by_hand(steps_per_execution, by_hand, digits, make_model):
    model = make_model()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(FilteredFlip(alpha=0.05), loss, steps_per_execution=steps_per_execution)
    history = model.fit(
        *digits,
        batch_size=128,
        epochs=3,
        shuffle=False,
        verbose=0,
        callbacks=[lqf.callbacks.FlipRatio()],
    )
    np.testing.assert_allclose(logged(history), by_hand, rtol=1e-12)


def test_in_the_middle_of_training(by_hand, digits, make_model):
    """A model whose step was traced without counting counts from now on."""
    model = make_model(FilteredFlip(alpha=0.05))
    fit = {"batch_size": 128, "shuffle": False, "verbose": 0}
    model.fit(*digits, epochs=1, **fit)
    history = model.fit(*digits, epochs=2, callbacks=[lqf.callbacks.FlipRatio()], **fit)
    np.testing.assert_allclose(logged(history), by_hand[1:], rtol=1e-12)


def test_under_loss_scaling_and_a_strategy(digits, make_model):
    keras.mixed_precision.set_global_policy("mixed_float16")
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = make_model(FilteredFlip(alpha=0.5))
    history = model.fit(*digits, batch_size=128, verbose=0, callbacks=[lqf.callbacks.FlipRatio()])
    assert 0 < history.history["flip_ratio"][0] < 1


def test_other_callbacks_see_it(digits, make_model, tmp_path):
    model = make_model(FilteredFlip())
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


def test_another_optimizer_is_refused(digits, make_model):
    with pytest.raises(TypeError, match="metrics_scope.*Received: optimizer=Adam"):
        make_model("adam").fit(*digits, verbose=0, callbacks=[lqf.callbacks.FlipRatio()])
