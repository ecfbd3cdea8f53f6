import larq_filters  # noqa: F401  (before TensorFlow's Keras is touched: selects Keras 2)

import hypothesis
import larq as lq
import pytest
import tensorflow as tf
from datasets import write_cifar10
from sklearn.datasets import load_digits

# The same examples at every run and on every machine.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("repeatable")

# Two devices for the tests under a distribution strategy; before TensorFlow first runs anything.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


@pytest.fixture(autouse=True)
def _fresh_keras():
    """The same seeds and layer names for every test, in whichever order."""
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(7)
    tf.keras.mixed_precision.set_global_policy("float32")
    yield
    tf.keras.mixed_precision.set_global_policy("float32")


@pytest.fixture(scope="session")
def mirrored():
    """A strategy of two replicas: one for all, as those of a process share TensorFlow's keys."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture(scope="session")
def digits():
    """scikit-learn's real handwritten digits: images (1797, 8, 8, 1) in [−1, 1], and labels."""
    data = load_digits()
    return (data.images[..., None] / 8.0 - 1.0).astype("float32"), data.target


@pytest.fixture(scope="session")
def small_cifar10(tmp_path_factory):
    """Real digits in the files that tensorflow-datasets expects of CIFAR-10."""
    folder = tmp_path_factory.mktemp("tensorflow_datasets")
    write_cifar10(folder)
    return folder


@pytest.fixture(scope="session")
def make_model():
    """Builds a small binary network for the digits; the same weights at every call."""

    def make(optimizer=None, kernel_quantizer="ste_sign", dropout=0.0):
        tf.keras.utils.set_random_seed(7)
        binary = {
            "input_quantizer": "ste_sign",
            "kernel_quantizer": kernel_quantizer,
            "kernel_constraint": "weight_clip",
            "use_bias": False,
        }
        model = tf.keras.Sequential(
            [
                lq.layers.QuantConv2D(8, 3, name="first", use_bias=False, input_shape=(8, 8, 1)),
                tf.keras.layers.BatchNormalization(),
                lq.layers.QuantConv2D(16, 3, name="conv", **binary),
                tf.keras.layers.BatchNormalization(),
                tf.keras.layers.Flatten(),
                tf.keras.layers.Dropout(dropout),
                lq.layers.QuantDense(16, name="dense", **binary),
                tf.keras.layers.BatchNormalization(),
                tf.keras.layers.Dense(10, name="last"),
            ]
        )
        if optimizer is not None:
            loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])
        return model

    return make


@pytest.fixture(scope="session")
def make_small():
    """As `make_model`, but traced in half the time: for what does not ask how well it trains."""

    def make(optimizer=None, kernel_quantizer="ste_sign"):
        tf.keras.utils.set_random_seed(7)
        binary = {
            "kernel_quantizer": kernel_quantizer,
            "kernel_constraint": "weight_clip",
            "use_bias": False,
        }
        model = tf.keras.Sequential(
            [
                lq.layers.QuantConv2D(
                    16, 3, strides=2, name="conv", input_shape=(8, 8, 1), **binary
                ),
                tf.keras.layers.Flatten(),
                lq.layers.QuantDense(16, name="dense", **binary),
                tf.keras.layers.Dense(10, name="last"),
            ]
        )
        if optimizer is not None:
            loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])
        return model

    return make


@pytest.fixture(params=["op by op", "fused"])
def jit_compile(request):
    return request.param == "fused"
