"""What several test modules share."""

import re
import socket

import larq_filters as lqf

import larq as lq
import numpy as np
import pytest
import tensorflow as tf


def slow_but(quick, cases):
    """All cases for pytest.mark.parametrize, of which only some are of the quick tier."""
    assert set(quick) <= set(cases)
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else [case]),
            marks=[] if case in quick else pytest.mark.slow,
        )
        for case in cases
    ]


def from_zero(*args, **kwargs):
    """The optimizer whose filters start at zero, as in the papers' equations."""
    return lqf.optimizers.FilteredFlip(*args, **{"inertia": 0.0, **kwargs})


def binary_variable(initial):
    """A variable marked as binary, the way larq's layers make one."""
    variable = tf.Variable(tf.cast(initial, tf.float32))
    return lq.quantized_variable.QuantizedVariable.from_variable(
        variable, lq.quantizers.NoOp(precision=1)
    )


def train(optimizer, variables, gradients):
    """Applies gradients[t][k] to variable k; yields the variables' values after every step."""
    step = tf.function(lambda *g: optimizer.apply_gradients(zip(g, variables, strict=True)))
    for gradient in gradients:
        step(*[tf.convert_to_tensor(g) for g in gradient])
        yield [variable.numpy() for variable in variables]


def model_state(model):
    """All that training must carry on: weights and everything the optimizer keeps."""
    return [w.copy() for w in model.get_weights()] + [v.numpy() for v in model.optimizer.variables]


def assert_same(one, two):
    """Bit for bit."""
    assert len(one) == len(two)
    for i, (a, b) in enumerate(zip(one, two, strict=True)):
        np.testing.assert_array_equal(a, b, err_msg=f"array {i}")


def assert_one_sentence(call, kind, text):
    """The call is refused with an error of a kind: one line, then what was received."""
    with pytest.raises(kind) as error:
        call()
    message = str(error.value)
    assert text in message and "Received: " in message
    assert "\n" not in message.split("Received: ")[0]


@tf.keras.utils.register_keras_serializable("helpers")
class Pair(tf.keras.layers.Layer):
    """Two binary layers that a layer's code makes, with batch norm between them."""

    def __init__(self, units=8, **kwargs):
        super().__init__(**kwargs)
        binary = {"kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}
        self.units = units
        self.first = lq.layers.QuantDense(units, use_bias=False, **binary)
        self.norm = tf.keras.layers.BatchNormalization()
        self.second = lq.layers.QuantDense(8, use_bias=False, **binary)

    def call(self, x, training=None):
        return self.second(self.norm(self.first(x), training=training))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


FROZEN = [(8, "first"), (8, "norm"), (8, "second"), (4, "first"), (4, "norm"), (4, "second")]


def frozen_inside(units, name):
    """A model of a Pair with random weights, one of whose layers is frozen, and samples."""
    pair = Pair(units, input_shape=(8,))
    model = tf.keras.Sequential([pair])
    rng = np.random.default_rng(1)
    for weight in model.weights:  # variances are positive
        weight.assign(rng.uniform(-1 if len(weight.shape) > 1 else 0.1, 1, weight.shape))
    getattr(pair, name).trainable = False
    return model, rng.normal(size=(5, 8)).astype("float32")


def free_addresses(**tasks):
    """So many addresses on this machine for each job: a cluster, as TensorFlow describes one."""
    sockets = {job: [socket.socket() for _ in range(number)] for job, number in tasks.items()}
    cluster = {}
    for job, some in sockets.items():
        for one in some:
            one.bind(("127.0.0.1", 0))
        cluster[job] = [f"127.0.0.1:{one.getsockname()[1]}" for one in some]
    for some in sockets.values():
        for one in some:
            one.close()
    return cluster


def found(pattern, text):
    """The numbers in a text: at least one."""
    match = re.search(pattern, text)
    assert match, text
    numbers = [float(group.replace(",", "").rstrip(".")) for group in match.groups()]
    return numbers if len(numbers) > 1 else numbers[0]


def near(value):
    """Equal but for the three digits that a text has."""
    return pytest.approx(value, rel=6e-3)
