"""Which layers are packed, and that the file computes what the model computes."""

import larq_filters as lqf

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from export_helpers import (
    BINARY,
    assert_computes_the_same,
    constants,
    conv,
    layers,
    operators,
    randomize,
    samples,
    stack,
)
from helpers import slow_but
from hypothesis import given, settings
from hypothesis import strategies as st

keras = tf.keras
Q = lq.layers
convert = lqf.export.convert


class Shift(layers.Layer):
    """A learnable shift before a sign, one value per channel."""

    def __init__(self, shape=None, **kwargs):
        super().__init__(**kwargs)
        self.shape = shape

    def build(self, input_shape):
        self.shift = self.add_weight("shift", self.shape or input_shape[-1:])

    def call(self, x):
        return x + self.shift

    def get_config(self):
        return {**super().get_config(), "shape": self.shape}


def reactnet_block(x):
    y = layers.BatchNormalization()(conv(name="wide")(Shift()(x)))
    x = layers.add([x, y])
    x = Shift()(layers.PReLU(shared_axes=[1, 2])(Shift()(x)))
    one = layers.BatchNormalization()(conv(size=1, name="one")(Shift()(x)))
    two = layers.BatchNormalization()(conv(size=1, name="two")(Shift()(x)))
    return layers.concatenate([layers.add([x, one]), layers.add([x, two])])


def functional(body, shape=(8, 8, 32)):
    x = keras.Input(shape)
    return randomize(keras.Model(x, body(x)))


SCALED = {**BINARY, "kernel_quantizer": "magnitude_aware_sign"}
LATENT_FREE = {**BINARY, "kernel_quantizer": lq.quantizers.NoOp(precision=1)}
WORD = 4  # bytes for 32 input channels

# name: (model, bytes of the packed weights, how many binary convolutions)
PACKED = {
    "valid": (lambda: stack(Q.QuantConv2D(16, 3, **BINARY)), 16 * 9 * WORD, 1),
    "same, zeros": (lambda: stack(conv(16, pad_values=0.0)), 16 * 9 * WORD, 1),
    "same, ones": (lambda: stack(conv(16)), 16 * 9 * WORD, 1),
    "strides": (lambda: stack(conv(16, strides=2), shape=(7, 9, 32)), 16 * 9 * WORD, 1),
    "strides, zeros": (lambda: stack(conv(16, strides=2, pad_values=0.0)), 16 * 9 * WORD, 1),
    "dilation": (lambda: stack(conv(16, dilation_rate=2)), 16 * 9 * WORD, 1),
    "dilation, zeros": (
        lambda: stack(conv(16, dilation_rate=2, pad_values=0.0)),
        16 * 9 * WORD,
        1,
    ),
    "bias and ReLU": (
        lambda: stack(conv(16, use_bias=True, activation="relu")),
        16 * 9 * WORD,
        1,
    ),
    "33 channels": (lambda: stack(conv(8), shape=(4, 4, 33)), 8 * 9 * 2 * WORD, 1),
    "1 channel": (lambda: stack(conv(8), shape=(8, 8, 1)), 8 * 9 * WORD, 1),
    "uneven kernel": (lambda: stack(conv(8, (1, 5))), 8 * 5 * WORD, 1),
    "scale": (lambda: stack(Q.QuantConv2D(16, 3, **SCALED)), 16 * 9 * WORD, 1),
    "without latent weights": (lambda: stack(conv(**LATENT_FREE)), 32 * 9 * WORD, 1),
    "swish_sign": (
        lambda: stack(conv(input_quantizer="swish_sign", kernel_quantizer="swish_sign")),
        32 * 9 * WORD,
        1,
    ),
    "two groups of 16": (lambda: stack(conv(16, groups=2)), 2 * 8 * 9 * WORD, 2),
    "groups, strides": (lambda: stack(conv(8, groups=4, strides=2)), 4 * 2 * 9 * WORD, 4),
    "signs before": (
        lambda: stack(layers.Activation(lq.quantizers.SteSign()), conv(8, input_quantizer=None)),
        8 * 9 * WORD,
        1,
    ),
    "Conv1D": (lambda: stack(Q.QuantConv1D(8, 3, **BINARY), shape=(9, 32)), 8 * 3 * WORD, 1),
    "Conv1D, same": (
        lambda: stack(
            Q.QuantConv1D(8, 3, strides=2, padding="same", pad_values=1.0, **BINARY),
            shape=(9, 32),
        ),
        8 * 3 * WORD,
        1,
    ),
    "Conv1D, dilation, zeros": (
        lambda: stack(
            Q.QuantConv1D(8, 3, dilation_rate=2, padding="same", activation="relu", **BINARY),
            shape=(9, 40),
        ),
        8 * 3 * 2 * WORD,
        1,
    ),
    "Dense": (lambda: stack(Q.QuantDense(10, **BINARY), shape=(70,)), 10 * 3 * WORD, 1),
    "Dense, scale": (lambda: stack(Q.QuantDense(10, **SCALED), shape=(70,)), 10 * 3 * WORD, 1),
    "Dense, tanh": (
        lambda: stack(Q.QuantDense(10, activation="tanh", **BINARY), shape=(64,)),
        10 * 2 * WORD,
        1,
    ),
    "Dense on sequences": (
        lambda: stack(Q.QuantDense(10, **BINARY), shape=(2, 5, 32)),
        10 * WORD,
        1,
    ),
    "Dense in TimeDistributed": (
        lambda: stack(layers.TimeDistributed(Q.QuantDense(10, **BINARY)), shape=(5, 32)),
        10 * WORD,
        1,
    ),
    "Dense, signs before": (
        lambda: stack(
            layers.Activation(lq.quantizers.ApproxSign()),
            layers.Flatten(),
            Q.QuantDense(10, kernel_quantizer="ste_sign"),
            shape=(2, 2, 32),
        ),
        10 * 4 * WORD,
        1,
    ),
    "Flatten and Dense": (
        lambda: stack(
            conv(), layers.BatchNormalization(), layers.Flatten(), Q.QuantDense(8, **BINARY)
        ),
        32 * 9 * WORD + 8 * 64 * WORD,
        2,
    ),
    "residual add": (lambda: functional(lambda x: layers.add([conv()(x), x])), 32 * 9 * WORD, 1),
    "concatenation": (
        lambda: functional(lambda x: conv(8)(layers.concatenate([conv(16)(x), x]))),
        16 * 9 * WORD + 8 * 9 * 2 * WORD,
        2,
    ),
    "PReLU": (
        lambda: stack(
            conv(), layers.PReLU(shared_axes=[1, 2]), layers.BatchNormalization(), conv()
        ),
        2 * 32 * 9 * WORD,
        2,
    ),
    "shift": (lambda: stack(conv(), Shift(), conv()), 2 * 32 * 9 * WORD, 2),
    "shift for all channels": (
        lambda: stack(conv(), Shift((1, 1, 1)), conv()),
        2 * 32 * 9 * WORD,
        2,
    ),
    "ReActNet": (
        lambda: functional(reactnet_block),
        32 * 9 * WORD + 2 * 32 * WORD,
        3,
    ),
    "a model in a model": (
        lambda: stack(keras.Sequential([conv(8, name="deep")], name="inner"), shape=(4, 4, 32)),
        8 * 9 * WORD,
        1,
    ),
}


# Of rows that differ in one number only, the others are enough before a commit.
MORE = {
    *("strides, zeros", "dilation, zeros", "33 channels", "uneven kernel", "Dense, tanh"),
    *("Conv1D, dilation, zeros", "shift for all channels", "swish_sign"),
}


@pytest.mark.parametrize("name", slow_but(set(PACKED) - MORE, PACKED))
def test_packs(name, digits):
    make, size, count = PACKED[name]
    model = make()
    exported = convert(model, strict=True)
    found = operators(exported.data)
    assert found["LceBconv2d"] == count
    assert not {"CONV_2D", "FULLY_CONNECTED"} & set(found)
    assert "LceDequantize" not in found or "signs before" in name
    assert exported.report.binary_weight_bytes == size
    assert sum(constants(exported.data)) < size + 3000
    inputs = samples(model.input_shape[1:], digits)
    for kernel in ("use_indirect_bgemm", "use_reference_bconv"):
        assert_computes_the_same(exported.data, model, inputs, **{kernel: True})
    assert_computes_the_same(exported.data, model, inputs)
    exported.verify(inputs["random"], model)


def test_groups_of_32_need_the_indirect_kernels(digits):
    model = stack(conv(16, groups=2), shape=(4, 4, 64))
    exported = convert(model, strict=True)
    assert operators(exported.data) == {"LceQuantize": 1, "LceBconv2d": 1}
    assert exported.report.layers[0].bytes == 16 * 9 * WORD
    assert exported.report.engines == ("indirect", "reference")
    assert "runs with           indirect and reference engines only" in str(exported.report)
    inputs = samples((4, 4, 64), digits)
    assert_computes_the_same(exported.data, model, inputs, use_indirect_bgemm=True)
    assert exported.verify(inputs["random"], model).outputs[0].relative < 1e-5
    with pytest.raises(ValueError, match="these engines only.*Received: engine='default'"):
        exported.verify(inputs["random"], model, engine="default")


def scale_down(model):
    model.set_weights([1e-9 * weights for weights in model.get_weights()])
    return model


SEPARABLE = {
    "input_quantizer": "ste_sign",
    "depthwise_quantizer": "ste_sign",
    "pointwise_quantizer": "ste_sign",
}
DEPTHWISE = {"input_quantizer": "ste_sign", "depthwise_quantizer": "ste_sign"}


@keras.utils.register_keras_serializable("tests")
class ByComparison(lq.quantizers.NoOp):
    """Signs that the converter does not know as such."""

    def __init__(self, **kwargs):
        super().__init__(precision=1)

    def call(self, inputs):
        return 2.0 * tf.cast(inputs >= 0.0, tf.float32) - 1.0


# name: (model, operators, bytes in floats, in the reason, in the suggestion)
UNPACKED = {
    "a sign of one's own": (
        lambda: stack(conv(8, input_quantizer=ByComparison())),
        {"CONV_2D": 9216},
        "the converter made",
        "let its input quantizer act right before",
    ),
    "depthwise": (
        lambda: stack(Q.QuantDepthwiseConv2D(3, **DEPTHWISE)),
        {"DEPTHWISE_CONV_2D": 1152},
        "no binary depthwise convolution",
        "QuantConv2D",
    ),
    "separable": (
        lambda: stack(Q.QuantSeparableConv2D(8, 3, **SEPARABLE)),
        {"DEPTHWISE_CONV_2D": 1152, "CONV_2D": 1024},
        "no binary separable convolution",
        "QuantConv2D with an input quantizer",
    ),
    "separable 1D": (
        lambda: stack(Q.QuantSeparableConv1D(8, 3, **SEPARABLE), shape=(8, 32)),
        {"DEPTHWISE_CONV_2D": 384, "CONV_2D": 1024},
        "no binary separable convolution",
        "QuantConv1D",
    ),
    "transposed": (
        lambda: stack(Q.QuantConv2DTranspose(4, 3, **BINARY)),
        {"TRANSPOSE_CONV": 4608},
        "no binary transposed convolution",
        "UpSampling2D",
    ),
    "3D": (
        lambda: stack(Q.QuantConv3D(4, 3, **BINARY), shape=(4, 4, 4, 8)),
        {"CONV_3D": 3456},
        "no binary 3D convolution",
        "QuantConv2D",
    ),
    "transposed 3D": (
        lambda: stack(Q.QuantConv3DTranspose(4, 3, **BINARY), shape=(4, 4, 4, 8)),
        {"CONV_3D_TRANSPOSE": 3456},
        "no binary 3D convolution",
        "QuantConv2D",
    ),
    "locally connected 1D": (
        lambda: stack(Q.QuantLocallyConnected1D(4, 3, **BINARY), shape=(5, 8)),
        {"3 FULLY_CONNECTED": 1152},
        "no binary locally connected layer",
        "QuantConv1D",
    ),
    "locally connected 2D": (
        lambda: stack(Q.QuantLocallyConnected2D(4, 3, **BINARY), shape=(4, 4, 8)),
        {"4 FULLY_CONNECTED": 4608},
        "no binary locally connected layer",
        "QuantConv2D",
    ),
    "causal": (
        lambda: stack(Q.QuantConv1D(8, 3, padding="causal", **BINARY), shape=(9, 32)),
        {"CONV_2D": 3072},
        "causal padding",
        "ZeroPadding1D",
    ),
    "real input": (
        lambda: stack(conv(8, input_quantizer=None, pad_values=0.0)),
        {"CONV_2D": 9216},
        "its input is not binarized",
        "input_quantizer='ste_sign'",
    ),
    "real input of a dense layer": (
        lambda: stack(Q.QuantDense(8, kernel_quantizer="ste_sign"), shape=(32,)),
        {"FULLY_CONNECTED": 1024},
        "its input is not binarized",
        "input_quantizer='ste_sign'",
    ),
    "ternary input": (
        lambda: stack(conv(8, input_quantizer="ste_tern", pad_values=0.0)),
        {"CONV_2D": 9216},
        "its input has 2 bits",
        "input_quantizer='ste_sign'",
    ),
    "input of zeros and ones": (
        lambda: stack(conv(8, input_quantizer="ste_heaviside", pad_values=0.0)),
        {"CONV_2D": 9216},
        "0 or 1, not ±1",
        "input_quantizer='ste_sign'",
    ),
    "input of 1 bit, 0 or 1": (
        lambda: stack(conv(8, input_quantizer=lq.quantizers.DoReFa(1), pad_values=0.0)),
        {"CONV_2D": 9216},
        "0 or 1, not ±1",
        "input_quantizer='ste_sign'",
    ),
    "dense, 0 or 1": (
        lambda: stack(
            Q.QuantDense(8, **{**BINARY, "input_quantizer": lq.quantizers.DoReFa(1)}), shape=(64,)
        ),
        {"FULLY_CONNECTED": 2048},
        "0 or 1, not ±1",
        "input_quantizer='ste_sign'",
    ),
    "8-bit input": (
        lambda: stack(conv(8, input_quantizer=lq.quantizers.DoReFa(8), pad_values=0.0)),
        {"CONV_2D": 9216},
        "its input has 8 bits",
        "input_quantizer='ste_sign'",
    ),
    "padding with -1": (
        lambda: stack(conv(8, pad_values=-1.0)),
        {"CONV_2D": 9216},
        "pads with -1",
        "pad_values=1.0",
    ),
    "tiny scale": (
        lambda: scale_down(stack(conv(8, pad_values=0.0, **SCALED))),
        {"CONV_2D": 9216},
        "its scale is below",
        "scale its latent weights up",
    ),
}


@pytest.mark.parametrize("name", UNPACKED)
def test_says_why_not(name, digits):
    make, expected, reason, suggestion = UNPACKED[name]
    model = make()
    exported = convert(model)
    found = operators(exported.data)
    records = exported.report.layers
    assert {record.operator: record.bytes for record in records} == expected
    assert not any(record.packed for record in records) and "LceBconv2d" not in found
    for record in exported.report.unpacked:
        assert reason in record.reason and suggestion in record.suggestion
        assert reason in str(exported.report).replace("\n", " ")
    assert all(name.split()[-1] in found for name in expected)
    assert_computes_the_same(exported.data, model, samples(model.input_shape[1:], digits))
    with pytest.raises(ValueError) as error:
        convert(model, strict=True)
    assert f"layer '{records[0].name}'" in str(error.value) and reason in str(error.value)


def test_layers_of_equal_weights_are_told_apart(digits):
    """Each of two operators with the same weights belongs to one layer."""
    model = stack(conv(name="one"), layers.BatchNormalization(), conv(name="two"))
    two = model.get_layer("two")
    two.set_weights(model.get_layer("one").get_weights())
    exported = convert(model, strict=True)
    assert [record.packed for record in exported.report.layers] == [True, True]
    assert_computes_the_same(exported.data, model, samples(model.input_shape[1:], digits))


def test_a_dense_layer_can_stay(digits):
    model = stack(Q.QuantDense(8, name="dense", **BINARY), shape=(64,))
    exported = convert(model, pack_dense=False)
    assert operators(exported.data)["FULLY_CONNECTED"] == 1
    (record,) = exported.report.unpacked
    assert (record.name, record.bytes) == ("dense", 4 * 8 * 64)
    assert record.suggestion == "convert with pack_dense=True"
    assert_computes_the_same(exported.data, model, samples((64,), digits))


def test_the_target_without_zero_padding():
    model = stack(conv(8, pad_values=0.0, name="conv"))
    assert convert(model).report.layers[0].packed
    record = convert(model, target="xcore").report.layers[0]
    assert not record.packed and record.suggestion == "use pad_values=1.0"
    convert(stack(conv(8)), target="xcore", strict=True)


@pytest.mark.parametrize("gamma", ["positive", "one is 0", "one is negative", "none"])
def test_batch_norm_goes_before_max_pooling(gamma, digits):
    norm = layers.BatchNormalization(scale=gamma != "none")
    model = stack(conv(), layers.MaxPooling2D(3, 2, padding="same"), norm, conv(8))
    if gamma != "none":
        values = np.abs(norm.gamma.numpy()) + 0.1
        values[5] = {"positive": 0.5, "one is 0": 0.0, "one is negative": -0.5}[gamma]
        norm.gamma.assign(values)
    exported = convert(model, strict=True)
    found = operators(exported.data)
    assert_computes_the_same(exported.data, model, samples((8, 8, 32), digits))
    if gamma == "one is negative":
        assert found["MAX_POOL_2D"] == 1 and "LceBMaxPool2d" not in found
    else:
        assert found == {"LceQuantize": 1, "LceBconv2d": 2, "LceBMaxPool2d": 1}


def test_max_pooling_that_is_used_twice_stays(digits):
    def body(x):
        pooled = layers.MaxPooling2D()(conv()(x))
        return layers.add([layers.BatchNormalization()(pooled), pooled])

    model = functional(body)
    norm = next(x for x in model.layers if isinstance(x, layers.BatchNormalization))
    norm.gamma.assign(np.abs(norm.gamma.numpy()))
    assert_computes_the_same(convert(model).data, model, samples((8, 8, 32), digits))


def test_max_pooling_that_is_shared_stays():
    x, pool = keras.Input((8, 8, 32)), layers.MaxPooling2D()
    model = randomize(keras.Model(x, [layers.BatchNormalization()(pool(conv()(x))), pool(x)]))
    norm = model.layers[-1]
    norm.gamma.assign(np.abs(norm.gamma.numpy()))
    convert(model).verify(np.random.default_rng(0).normal(size=(8, 8, 8, 32)), model)


def test_max_pooling_that_is_an_output_stays():
    x = keras.Input((8, 8, 32))
    pooled = layers.MaxPooling2D()(conv()(x))
    model = randomize(keras.Model(x, [pooled, layers.BatchNormalization()(pooled)]))
    norm = model.layers[-1]
    norm.gamma.assign(np.abs(norm.gamma.numpy()))
    convert(model).verify(np.random.default_rng(0).normal(size=(8, 8, 8, 32)), model)


STAGES = st.sampled_from(["conv", "strided", "dilated", "zeros", "norm", "pool", "shift", "groups"])


@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.lists(STAGES, min_size=1, max_size=4), st.sampled_from([8, 32, 40]), st.booleans())
def test_random_architectures(stages, width, dense):
    make = {
        "conv": lambda: conv(width),
        "strided": lambda: conv(width, strides=2),
        "dilated": lambda: conv(width, dilation_rate=2),
        "zeros": lambda: conv(width, pad_values=0.0),
        "norm": layers.BatchNormalization,
        "pool": lambda: layers.MaxPooling2D(2, 1),
        "shift": Shift,
        "groups": lambda: conv(width, groups=2),
    }
    body = [conv(width), *(make[stage]() for stage in stages)]
    tail = [layers.Flatten(), Q.QuantDense(5, **BINARY)] if dense else [conv(3)]
    model = stack(*body, *tail, shape=(8, 8, 3))
    exported = convert(model, strict=True)
    assert all(record.packed for record in exported.report.layers)
    assert set(operators(exported.data)).isdisjoint({"CONV_2D", "FULLY_CONNECTED"})
    rng = np.random.default_rng(len(stages))
    exported.verify(rng.choice([-1.5, -0.5, 0.0, 0.5, 1.0], size=(6, 8, 8, 3)), model)


@keras.utils.register_keras_serializable("tests")
class ScaledDense(Q.QuantDense):
    """Subclasses of larq's layers, with something else in `call`."""

    def call(self, inputs):
        return 3.0 * super().call(inputs)


@keras.utils.register_keras_serializable("tests")
class ShiftedConv1D(Q.QuantConv1D):
    def call(self, inputs):
        return super().call(tf.nn.relu(inputs) - 0.5)


@keras.utils.register_keras_serializable("tests")
class DoubledConv2D(Q.QuantConv2D):
    def convolution_op(self, inputs, kernel):
        return 2.0 * super().convolution_op(inputs, kernel)


@keras.utils.register_keras_serializable("tests")
class TurnedNorm(layers.BatchNormalization):
    def call(self, inputs, training=None):
        return -super().call(inputs, training=training)


@keras.utils.register_keras_serializable("tests")
class TurnedTern(lq.quantizers.SteTern):
    def call(self, inputs):
        return -super().call(inputs)


SUBCLASSES = {
    "dense": lambda: stack(ScaledDense(16, name="own", **BINARY), shape=(32,)),
    "Conv1D": lambda: stack(ShiftedConv1D(16, 3, name="own", **BINARY), shape=(8, 32)),
    "groups": lambda: stack(DoubledConv2D(16, 3, groups=2, name="own", **BINARY), shape=(6, 6, 16)),
    "batch norm behind max pooling": lambda: stack(
        conv(name="own"), layers.MaxPooling2D(), TurnedNorm(scale=False)
    ),
}


@pytest.mark.parametrize("name", SUBCLASSES)
def test_what_a_subclass_computes_is_not_rewritten(name):
    model = SUBCLASSES[name]()
    x = np.random.default_rng(0).normal(size=(6, *model.input_shape[1:]))
    exported = convert(model)
    exported.verify(x, model)
    record = exported.report.layers[0]
    assert record.packed == ("pooling" in name)
    if name in ("dense", "Conv1D"):
        assert record.reason == "its class computes something else than larq's"


def test_a_quantizer_that_turns_three_values_is_not_rewritten():
    with pytest.raises(ValueError, match="would treat sign"):
        convert(stack(conv(input_quantizer=TurnedTern())))


def test_a_subclass_that_computes_the_same_is_packed():
    @keras.utils.register_keras_serializable("tests")
    class Named(Q.QuantDense):
        def get_config(self):
            return super().get_config()

    model = stack(Named(16, **BINARY), shape=(32,))
    convert(model, strict=True).verify(np.random.default_rng(0).normal(size=(6, 32)), model)


def test_synchronized_batch_norm_goes_before_max_pooling():
    norm = layers.experimental.SyncBatchNormalization(scale=False)
    model = stack(conv(), layers.MaxPooling2D(), norm, conv(8))
    exported = convert(model, strict=True)
    assert operators(exported.data) == {"LceQuantize": 1, "LceBconv2d": 2, "LceBMaxPool2d": 1}
    exported.verify(np.random.default_rng(0).normal(size=(6, 8, 8, 32)), model)
