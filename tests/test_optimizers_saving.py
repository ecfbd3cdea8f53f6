"""Training that is saved, loaded and continued is bit-identical to training without a break."""

import subprocess
import sys

import larq_filters as lqf

import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_same, binary_variable, model_state, slow_but

FilteredFlip = lqf.optimizers.FilteredFlip
F = lqf.filters
keras = tf.keras


def decay(value):
    return keras.optimizers.schedules.PolynomialDecay(value, 100, 0.0)


@keras.utils.register_keras_serializable("tests")
class Halving(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that only a registration knows."""

    def __init__(self, start, every):
        self.start, self.every = start, every

    def __call__(self, step):
        return self.start * 0.5 ** (tf.cast(step, tf.float32) // self.every)

    def get_config(self):
        return {"start": self.start, "every": self.every}


OPTIMIZERS = {
    "CascadedEMA, scheduled": lambda: FilteredFlip(
        decay(0.05), 0.1, real_optimizer=keras.optimizers.Adam(decay(0.01))
    ),
    "EMA, numbers, SGD": lambda: FilteredFlip(
        0.05, None, threshold=1e-4, real_optimizer=keras.optimizers.SGD(0.01, momentum=0.9)
    ),
    "corrected cascade": lambda: FilteredFlip(
        filter=F.Cascade(F.NormalizedEMA(0.1, 0.01, 1e-7, True), F.Integrator(0.05, 1.0))
    ),
    "IIR": lambda: FilteredFlip(filter=F.IIR([0.01], [1, -1.9, 0.91])),
    "registered schedule": lambda: FilteredFlip(Halving(0.05, 7), 0.1),
}


def dataset(digits):
    return tf.data.Dataset.from_tensor_slices(tuple(a[:640] for a in digits)).batch(64)


QUICK = ["corrected cascade"]


@pytest.fixture(scope="module", params=slow_but(QUICK, OPTIMIZERS))
def trained(request, digits, make_small):
    """A model after 2 of 4 epochs, and the state of one that went on to the end."""
    make = OPTIMIZERS[request.param]
    half, whole = make_small(make()), make_small(make())
    half.fit(dataset(digits), epochs=2, verbose=0)
    whole.fit(dataset(digits), epochs=4, verbose=0)
    return half, model_state(whole), lambda: make_small(make())


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize("suffix", slow_but([".keras"], [".keras", ".h5"]))
def test_a_saved_model_goes_on(suffix, trained, digits, tmp_path):
    half, expected, _ = trained
    half.save(tmp_path / f"model{suffix}")
    loaded = keras.models.load_model(tmp_path / f"model{suffix}")
    assert_same(model_state(loaded), model_state(half))
    loaded.fit(dataset(digits), epochs=2, verbose=0)
    assert_same(model_state(loaded), expected)


@pytest.mark.parametrize("built", slow_but([False], [False, True]))
def test_a_checkpoint_goes_on(built, trained, digits, tmp_path):
    half, expected, make = trained
    path = tf.train.Checkpoint(model=half, optimizer=half.optimizer).save(tmp_path / "checkpoint")
    new = make()
    if built:
        new.fit(dataset(digits), epochs=1, verbose=0)
    status = tf.train.Checkpoint(model=new, optimizer=new.optimizer).restore(path)
    new.fit(dataset(digits), epochs=2, verbose=0)
    status.assert_consumed()
    assert_same(model_state(new), expected)


@pytest.mark.slow
def test_backup_and_restore_goes_on(trained, digits, tmp_path):
    _, expected, make = trained

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))
    with pytest.raises(KeyboardInterrupt):
        make().fit(dataset(digits), epochs=4, verbose=0, callbacks=[backup, Interrupt()])
    again = make()
    backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))
    history = again.fit(dataset(digits), epochs=4, verbose=0, callbacks=[backup])
    assert history.epoch == [2, 3]
    assert_same(model_state(again), expected)


GO_ON = """
import sys
import larq_filters as lqf
import numpy as np, tensorflow as tf
path, data, out = sys.argv[1:]
data = np.load(data)
dataset = tf.data.Dataset.from_tensor_slices((data["x"], data["y"])).batch(64)
model = tf.keras.models.load_model(path)
model.fit(dataset, epochs=2, verbose=0)
state = model.get_weights() + [v.numpy() for v in model.optimizer.variables]
np.savez(out, *state)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_new_process_goes_on(suffix, digits, make_small, tmp_path):
    make = OPTIMIZERS["CascadedEMA, scheduled"]
    half, whole = make_small(make()), make_small(make())
    half.fit(dataset(digits), epochs=2, verbose=0)
    whole.fit(dataset(digits), epochs=4, verbose=0)
    half.save(tmp_path / f"model{suffix}")
    np.savez(tmp_path / "data.npz", x=digits[0][:640], y=digits[1][:640])
    arguments = [tmp_path / f"model{suffix}", tmp_path / "data.npz", tmp_path / "out.npz"]
    subprocess.run([sys.executable, "-c", GO_ON, *map(str, arguments)], check=True, timeout=300)
    with np.load(tmp_path / "out.npz") as out:
        assert_same([out[name] for name in out.files], model_state(whole))


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_what_was_set_in_training_is_saved(digits, make_small, tmp_path):
    model = make_small(FilteredFlip(alpha=0.5))
    model.fit(dataset(digits), verbose=0)
    model.optimizer.alpha, model.optimizer.gamma = 0.0, 0.25
    checkpoint = tf.train.Checkpoint(optimizer=model.optimizer).save(tmp_path / "checkpoint")
    for suffix in (".keras", ".h5"):
        model.save(tmp_path / f"model{suffix}")
        optimizer = keras.models.load_model(tmp_path / f"model{suffix}").optimizer
        assert [float(optimizer.alpha), float(optimizer.gamma)] == [0.0, 0.25]
    optimizer = FilteredFlip(alpha=0.5)
    tf.train.Checkpoint(optimizer=optimizer).restore(checkpoint)
    assert [float(optimizer.alpha), float(optimizer.gamma)] == [0.0, 0.25]


@pytest.mark.parametrize("name", ["scheduled", "flip ratio", "by layer"])
def test_weights_with_an_optimizer_go_on(name, digits, make_small, tmp_path):
    """A .weights.h5 file has no config: all that is not as it was made is in its variables."""
    make = {
        "scheduled": lambda: FilteredFlip(decay(0.05), average=4.0),
        "flip ratio": lambda: FilteredFlip(flip_ratio=0.01),
        "by layer": lambda: FilteredFlip(filter={"conv": F.EMA(decay(0.1)), "*": F.EMA(0.2)}),
    }[name]
    half = make_small(make())
    half.fit(dataset(digits), epochs=2, verbose=0)
    if name != "flip ratio":
        half.optimizer.learning_rate = 0.02
    half.save_weights(tmp_path / "half.weights.h5")
    new = make_small(make())
    new.optimizer.build(new.trainable_variables)
    new.load_weights(tmp_path / "half.weights.h5")
    assert_same(model_state(new), model_state(half))
    for one in (half, new):
        one.fit(dataset(digits), epochs=1, verbose=0)
    assert_same(model_state(new), model_state(half))
    values = [{k: float(v) for k, v in one.optimizer.coefficients.items()} for one in (half, new)]
    assert values[0] == values[1] != {k: float(v) for k, v in make().coefficients.items()}


def test_a_saved_model_folder_says_that_it_lost_the_state(digits, make_small, tmp_path):
    """SavedModel carries the weights and the configuration, not the optimizer's variables."""
    model = make_small(OPTIMIZERS["CascadedEMA, scheduled"]())
    model.fit(dataset(digits), verbose=0)
    model.save(tmp_path / "folder")
    loaded = keras.models.load_model(tmp_path / "folder")
    assert_same(loaded.get_weights(), model.get_weights())
    assert loaded.optimizer.filter == model.optimizer.filter
    with pytest.warns(UserWarning, match="filters start anew.*had done 10 steps"):
        loaded.fit(dataset(digits), verbose=0)


@pytest.mark.filterwarnings("error:the filters start anew")
def test_formats_with_state_do_not_say_so(digits, make_small, tmp_path):
    model = make_small(FilteredFlip())
    model.fit(dataset(digits), verbose=0)
    model.save(tmp_path / "model.keras")
    keras.models.load_model(tmp_path / "model.keras").fit(dataset(digits), verbose=0)


@pytest.mark.slow
def test_a_mixed_precision_model_goes_on(digits, make_model, tmp_path):
    """With batch norm no gradient overflows: a loss scale that fell is not in a .keras file."""
    keras.mixed_precision.set_global_policy("mixed_float16")
    make = OPTIMIZERS["CascadedEMA, scheduled"]
    half, whole = make_model(make()), make_model(make())
    half.fit(dataset(digits), epochs=2, verbose=0)
    whole.fit(dataset(digits), epochs=4, verbose=0)
    half.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert float(loaded.optimizer.loss_scale) == float(half.optimizer.loss_scale)
    loaded.fit(dataset(digits), epochs=2, verbose=0)
    assert_same(model_state(loaded), model_state(whole))


@pytest.mark.slow
def test_a_model_loads_without_this_package(digits, make_small, tmp_path):
    model = make_small(FilteredFlip())
    model.fit(dataset(digits), verbose=0)
    model.save(tmp_path / "model.keras")
    script = (
        "import os; os.environ['TF_USE_LEGACY_KERAS'] = '1'; import larq, tensorflow as tf, sys;"
        "tf.keras.models.load_model(sys.argv[1], compile=False);"
        "assert 'larq_filters' not in sys.modules"
    )
    path = str(tmp_path / "model.keras")
    subprocess.run([sys.executable, "-c", script, path], check=True, timeout=300)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_latent_sgd_goes_on(suffix, digits, make_small, tmp_path):
    model = make_small(lqf.optimizers.LatentSGD(0.1, momentum=0.9))
    x, y = digits[0][:64], digits[1][:64]
    model.fit(x, y, verbose=0)
    model.save(tmp_path / f"model{suffix}")
    loaded = keras.models.load_model(tmp_path / f"model{suffix}")
    for one in (model, loaded):
        one.fit(x, y, verbose=0, shuffle=False)
    assert_same(model_state(loaded), model_state(model))
    real = loaded.optimizer.real_optimizer.iterations
    assert int(real) == int(loaded.optimizer.iterations) == 4


def test_latent_sgd_counts_steps_without_binary_gradients():
    """As of a frozen part of a network; the real weights move."""
    real, binary = tf.Variable([1.0]), binary_variable([0.5])
    optimizer = lqf.optimizers.LatentSGD(1.0, real_optimizer="sgd")
    optimizer.build([real, binary])
    optimizer.apply_gradients([(tf.constant([1.0]), real), (None, binary)])
    assert int(optimizer.iterations) == 1 and float(real[0]) < 1.0 and float(binary[0]) == 0.5


def test_latent_sgd_and_what_keras_optimizers_do_beside_steps():
    """Averages of `use_ema`, and weights that do not decay, of both optimizers."""
    real, binary = tf.Variable([1.0, 1.0]), binary_variable([0.5, -0.5])
    kept = {"use_ema": True, "ema_momentum": 0.5, "weight_decay": 0.5}
    inner = keras.optimizers.SGD(1.0, **kept)
    optimizer = lqf.optimizers.LatentSGD(1.0, real_optimizer=inner, **kept)
    optimizer.exclude_from_weight_decay(var_list=[real, binary])
    optimizer.build([real, binary])
    optimizer.apply_gradients([(tf.constant([1.0, 0.0]), real), (tf.constant([0.25, 0.0]), binary)])
    np.testing.assert_allclose([real, binary], [[0.0, 1.0], [0.25, -0.5]])
    optimizer.finalize_variable_values([real, binary])  # half of the first value, half of the last
    np.testing.assert_allclose([real, binary], [[0.5, 1.0], [0.375, -0.5]])
