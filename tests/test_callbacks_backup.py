"""`Backup`: a training on two replicas that was interrupted, and one that never was."""

import larq_filters as lqf

import exact
import pytest
import tensorflow as tf
from helpers import assert_same, slow_but

keras = tf.keras
EPOCHS, STEPS, INTERRUPTED = 3, 6, 10


def batches():
    """The same batch again and again: Keras resumes an epoch at its step, but not its data.

    The two halves are unlike each other, so each replica has its own averages of batch norm.
    """
    x, y = (a[0] for a in exact.batches())
    return tf.data.Dataset.from_tensors((x, y)).repeat(STEPS)


class Training:
    """Of one model, whose graph is traced once: each starts with the same weights."""

    def __init__(self, strategy):
        self.local = strategy.experimental_local_results
        with strategy.scope():
            self.model = keras.Sequential(
                [
                    exact.lq.layers.QuantDense(8, kernel_quantizer="ste_sign", input_shape=(12,)),
                    keras.layers.BatchNormalization(),
                    exact.lq.layers.QuantDense(4, kernel_quantizer="ste_sign"),
                ]
            )
            self.model.compile(lqf.optimizers.FilteredFlip(0.2, average=16), "mse")
            self.model.optimizer.build(self.model.trainable_variables)
        self.start = self.state()

    def variables(self):
        every = [*self.model.weights, *self.model.optimizer.variables]
        return [replica for variable in every for replica in self.local(variable)]

    def state(self):
        """All that every replica holds."""
        return [variable.numpy() for variable in self.variables()]

    def steps(self):
        return int(keras.backend.get_value(self.model.optimizer.iterations))

    def run(self, *callbacks):
        """Its steps, and the state at the end."""
        for variable, value in zip(self.variables(), self.start, strict=True):
            variable.assign(value)
        seen, look = [], lambda *_: seen.append(self.steps())
        note = keras.callbacks.LambdaCallback(on_train_batch_end=look)
        self.model.fit(batches(), epochs=EPOCHS, verbose=0, callbacks=[*callbacks, note])
        return seen, self.state()

    def interrupted(self, *callbacks):
        """In the middle of the second epoch."""

        def interrupt(*_):
            if self.steps() == INTERRUPTED:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.run(*callbacks, keras.callbacks.LambdaCallback(on_train_batch_end=interrupt))
        one, two = self.local(self.model.layers[1].moving_mean)
        assert (one.numpy() != two.numpy()).any()


@pytest.fixture
def training(mirrored):
    return Training(mirrored)


@pytest.mark.filterwarnings("ignore:the averages are in place")
@pytest.mark.parametrize("save_freq", slow_but(["epoch"], ["epoch", 3]))
def test_goes_on_bit_for_bit(save_freq, training, tmp_path):
    def backup(name):
        return lqf.callbacks.Backup(tmp_path / name, save_freq)

    steps, expected = training.run(backup("one"))
    assert steps == list(range(1, EPOCHS * STEPS + 1))
    training.interrupted(backup("two"))
    steps, found = training.run(backup("two"))
    saved = STEPS if save_freq == "epoch" else STEPS + 3
    assert steps == list(range(saved + 1, EPOCHS * STEPS + 1))
    assert_same(found, expected)


def test_goes_on_bit_for_bit_before_averages(training, tmp_path):
    """What is saved is the training, though averages are in place for the callbacks after them."""
    x = tf.data.Dataset.from_tensor_slices(exact.batches()[0])

    def callbacks(name):
        swap = lqf.callbacks.SwapAverages(x, 2, swap_on_epoch=True)
        return lqf.callbacks.Backup(tmp_path / name), swap

    _, expected = training.run(*callbacks("one"))
    training.interrupted(*callbacks("two"))
    steps, found = training.run(*callbacks("two"))
    assert steps[0] == STEPS + 1
    assert_same(found, expected)


@pytest.mark.parametrize("options", [{}, {"delete_checkpoint": False}], ids=["default", "kept"])
def test_checkpoints_are_deleted_at_the_end(options, tmp_path):
    seen = []
    backup = lqf.callbacks.Backup(tmp_path / "backup", **options)
    look = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: seen.extend(files()))
    files = lambda: list((tmp_path / "backup").rglob("*.index"))  # noqa: E731
    exact.fit(lqf.optimizers.FilteredFlip(), [backup, look])
    assert seen and bool(files()) == bool(options)
