"""Bits: what cannot be written as such, and the layer and reason that are named."""

import larq_filters as lqf

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from export_helpers import BINARY, conv, stack
from helpers import assert_one_sentence

keras, layers, Q = tf.keras, tf.keras.layers, lq.layers
bits = lqf.export.bits


class Own(layers.Layer):
    """A function as a layer."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, x):
        return self.function(x)

    def get_config(self):
        return {**super().get_config(), "function": self.function}


def own(function, *others, shape=(4, 4, 3)):
    """A network that begins with a function."""
    return stack(Own(function, name="bad"), *others, shape=shape)


def padded(value, axis=1):
    """A function that pads one axis on both sides with a value."""
    pads = [[int(i == axis)] * 2 for i in range(4)]
    return lambda x: tf.pad(x, pads, constant_values=value)


def normalized(x):
    return tf.compat.v1.nn.fused_batch_norm(x, tf.ones(3), tf.zeros(3), is_training=True)[0]


def concatenated(axis):
    x = keras.Input((4, 4, 3))
    return keras.Model(x, layers.Concatenate(axis, name="bad")([x, layers.ReLU()(x)]))


def embedding():
    x = keras.Input((3,), dtype="int32", name="bad")
    return keras.Model(x, layers.Embedding(5, 2)(x))


def with_nan(model):
    model.layers[0].set_weights([np.full((3, 4), np.nan), np.zeros(4)])
    return model


def folded(layer, shape=(3, 4, 4, 8)):
    """A layer that has one axis more than it works on, which Keras then puts into the batch."""
    return lambda: stack(layer(), layers.Flatten(), layers.Dense(2), shape=shape)


def folded_by_reshape():
    fold = Own(lambda x: tf.reshape(x, [-1, 4, 4, 8]))
    unfold = Own(lambda x: tf.reshape(x, [-1, 3 * 2 * 2 * 4]))
    binary = conv(4, padding="valid", name="bad")
    return stack(fold, binary, unfold, layers.Dense(2), shape=(3, 4, 4, 8))


FOLDED = "an axis is folded into the batch"
NO_BATCH_NORM = "no batch norm over the last axis with fixed averages"
FIRST = {"data_format": "channels_first"}
REFUSED = {
    "an operation": (lambda: stack(layers.Dense(4, "sigmoid", name="bad"), shape=(3,)), "Sigmoid"),
    "a layer of one's own": (lambda: own(lambda x: tf.reduce_sum(x, -1)), "no operation Sum"),
    "transposed": (
        lambda: stack(layers.Conv2DTranspose(4, 3, name="bad"), shape=(4, 4, 3)),
        "Conv2DBackpropInput",
    ),
    "3D": (lambda: stack(layers.Conv3D(4, 2, name="bad"), shape=(3, 3, 3, 3)), "Conv3D"),
    "LSTM": (lambda: stack(layers.LSTM(2, name="bad"), shape=(3, 3)), "cannot be written as bits"),
    "softmax": (lambda: stack(layers.Softmax(name="bad"), shape=(3,)), "Softmax"),
    "padding of maxima": (
        lambda: stack(layers.ZeroPadding2D(name="bad"), layers.MaxPool2D(), shape=(4, 4, 3)),
        "put the padding before one",
    ),
    "not finite": (
        lambda: with_nan(stack(layers.Dense(4, name="bad"), shape=(3,))),
        "weights that are not finite",
    ),
    "concatenated positions": (lambda: concatenated(axis=1), "concatenates along positions"),
    "concatenated with a constant": (
        lambda: own(lambda x: tf.concat([x, tf.ones((1, 4, 4, 2))], -1)),
        "it concatenates a constant",
    ),
    "convolution, channels first": (
        lambda: stack(layers.Conv2D(4, 3, name="bad", **FIRST), shape=(3, 4, 4)),
        "its channels come first",
    ),
    "pooling, channels first": (
        lambda: stack(layers.MaxPool2D(name="bad", **FIRST), shape=(3, 4, 4)),
        "its channels come first",
    ),
    "layer norm": (
        lambda: stack(layers.LayerNormalization(name="bad"), shape=(4, 4, 3)),
        NO_BATCH_NORM,
    ),
    "batch norm over rows": (
        lambda: stack(layers.BatchNormalization(axis=1, name="bad"), shape=(4, 4, 3)),
        NO_BATCH_NORM,
    ),
    "averages of the batch": (lambda: own(normalized), NO_BATCH_NORM),
    "mean of channels": (
        lambda: own(lambda x: tf.reduce_mean(x, -1)),
        "pools over other axes than positions",
    ),
    "mean of rows": (
        lambda: own(lambda x: tf.reduce_mean(x, 1)),
        "pools over other axes than positions",
    ),
    "whole numbers": (embedding, "its type is int32"),
    "padded channels": (
        lambda: own(padded(0.0, axis=3), layers.Conv2D(4, 3)),
        "it pads other axes than positions",
    ),
    "padded with 2": (lambda: own(padded(2.0), layers.Conv2D(4, 3)), "it pads with 2"),
    "floats padded with 1": (
        lambda: stack(Own(padded(1.0)), layers.Conv2D(4, 3, name="bad"), shape=(4, 4, 3)),
        "it pads floats with 1",
    ),
    "convolutions over time": (
        folded(lambda: layers.TimeDistributed(conv(4), name="bad")),
        FOLDED,
    ),
    "dilated convolutions over time": (
        folded(lambda: layers.TimeDistributed(conv(4, dilation_rate=2), name="bad")),
        FOLDED,
    ),
    "pooling over time": (
        folded(lambda: layers.TimeDistributed(layers.MaxPool2D(), name="bad")),
        FOLDED,
    ),
    "means over time": (
        folded(lambda: layers.TimeDistributed(layers.GlobalAveragePooling2D(), name="bad")),
        FOLDED,
    ),
    "a convolution of five axes": (folded(lambda: conv(4, padding="valid", name="bad")), FOLDED),
    "a 1D convolution of four axes": (
        folded(lambda: Q.QuantConv1D(4, 3, name="bad", **BINARY), (3, 5, 8)),
        FOLDED,
    ),
    "positions put into the batch": (folded_by_reshape, FOLDED),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_by_layer_and_reason(name):
    make, text = REFUSED[name]
    model = make()
    assert_one_sentence(lambda: bits(model), ValueError, text)
    with pytest.raises(ValueError, match=r"layer '[^']*bad"):
        bits(model)


def test_a_dense_layer_over_time_is_no_convolution_of_a_batch():
    dense = layers.TimeDistributed(Q.QuantDense(4, **BINARY))
    model = folded(lambda: dense, (5, 8))()
    x = np.random.default_rng(0).normal(size=(6, 5, 8)).astype("float32")
    assert bits(model).verify(x, model).unexplained == 0


def test_what_is_padded_before_a_sign_may_be_any_number():
    model = own(padded(2.0), conv(4, padding="valid"))
    x = np.random.default_rng(0).normal(size=(6, 4, 4, 3)).astype("float32")
    assert bits(model).verify(x, model, compiler="").outputs[0].absolute == 0.0


@pytest.mark.slow
def test_refuses_more_terms_than_floats_can_count():
    """With 1.5 GB of memory."""
    layer = Q.QuantDense(1, use_bias=False, kernel_initializer="ones", name="bad", **BINARY)
    model = keras.Sequential([keras.Input((2**24,)), layer])
    text = "layer 'bad' cannot be written as bits, as a sum has 2²⁴ terms or more"
    assert_one_sentence(lambda: bits(model), ValueError, text)


def test_refuses_what_is_no_model():
    with pytest.raises(TypeError, match="export takes a model of Keras 2"):
        bits("model.keras")
    model = stack(conv(4), shape=(4, 4, 8))
    assert_one_sentence(lambda: bits(model, labels=[1]), ValueError, "labels are of representative")
    x = np.zeros((3, 4, 4, 8), "float32")
    model = stack(layers.Dense(4), shape=(8,))
    x = np.zeros((3, 8), "float32")
    for labels in (1, [1], ["a", "b", "c"], [0.0, 1.0, 2.0]):
        wrong = lambda labels=labels: bits(model, representative=x, labels=labels)  # noqa: E731
        assert_one_sentence(wrong, ValueError, "for each representative sample")


def with_bad_batch_norm(index, value):
    """Batch norm behind a binary layer, with a number of gamma, beta, mean or variance."""
    model = stack(
        lq.layers.QuantDense(6, name="bad", **BINARY),
        layers.BatchNormalization(epsilon=0.0 if value == 0.0 else 1e-3),
        lq.layers.QuantDense(3, **BINARY),
        shape=(8,),
    )
    weights = model.layers[1].get_weights()
    weights[index][2] = value
    model.layers[1].set_weights(weights)
    return model


@pytest.mark.filterwarnings("error", "ignore::DeprecationWarning")
@pytest.mark.parametrize("index, value", [(0, np.nan), (1, np.inf), (3, -1.0), (3, 0.0)])
def test_batch_norm_that_is_not_finite_is_refused(index, value):
    model = with_bad_batch_norm(index, value)
    assert_one_sentence(lambda: bits(model), ValueError, "layer 'bad', or the batch norm behind it")
