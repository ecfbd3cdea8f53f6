"""What is done with a file: compared with its model, in floats and int8."""

import warnings

import larq_filters as lqf

import larq as lq
import larq_compute_engine as lce
import numpy as np
import pytest
import tensorflow as tf
from export_helpers import BINARY, conv, layers, stack
from helpers import assert_one_sentence

keras = tf.keras
Q = lq.layers
convert = lqf.export.convert


def test_verify_fails_loudly_on_another_file():
    model = stack(conv(), layers.BatchNormalization(), conv(8), shape=(4, 4, 32))
    exported = convert(model)
    x = np.random.default_rng(0).normal(size=(16, 4, 4, 32))
    exported.verify(x, model)
    bits = np.packbits(
        model.layers[2].get_weights()[0].transpose(3, 0, 1, 2) < 0, bitorder="little"
    )
    position = exported.data.find(bits.tobytes())
    assert position > 0
    tampered = bytearray(exported.data)
    tampered[position] ^= 1  # one weight
    exported.data = bytes(tampered)
    with pytest.raises(ValueError, match="computes something else.*by up to 2,") as error:
        exported.verify(x, model)
    assert "output 'quant_conv2d_1'" in str(error.value) and "tolerance" in str(error.value)
    result = exported.verify(x, model, tolerance=0.5)
    assert result.outputs[0].absolute == 2.0 and result.outputs[0].beyond == 0.0


def test_a_single_output_has_no_arg_max_to_differ():
    model = stack(conv(8), layers.Flatten(), layers.Dense(1), shape=(4, 4, 8))
    (difference,) = convert(model).verify(np.ones((3, 4, 4, 8)), model).outputs
    assert difference.agreement == 1.0
    numbers = [np.array([1.0, 2.0])], [np.array([2.0, 1.0])]  # one of each sample
    (difference,) = lqf.export._verify.compare(["y"], *numbers, tolerance=1.0).outputs
    assert difference.agreement == 1.0 and difference.absolute == 1.0
    numbers = [np.array([[1.0, 2.0]])], [np.array([[2.0, 1.0]])]  # two of one sample
    (difference,) = lqf.export._verify.compare(["y"], *numbers, tolerance=1.0).outputs
    assert difference.agreement == 0.0


INPUTS = {
    "shape": (lambda x: x[..., :3], "samples for every input"),
    "none": (lambda x: x[:0], "samples for every input"),
    "two": (lambda x: [x, x], "samples for every input"),
    "NaN": (lambda x: np.where(x > 2, np.nan, x), "samples must be finite"),
}


@pytest.mark.parametrize("name", INPUTS)
def test_verify_refuses_inputs_in_one_sentence(name):
    model = stack(conv(4), shape=(4, 4, 8))
    exported = convert(model)
    change, text = INPUTS[name]
    x = change(np.random.default_rng(0).normal(size=(16, 4, 4, 8)))
    assert_one_sentence(lambda: exported.verify(x, model), ValueError, text)


def test_verify_wants_a_model():
    exported = convert(stack(conv(4), shape=(4, 4, 8)))
    x = np.zeros((2, 4, 4, 8))
    assert_one_sentence(lambda: exported.verify(x, "m.keras"), TypeError, "load_model first")


def test_verify_counts_what_is_not_finite():
    model, x = stack(conv(4), shape=(4, 4, 8)), np.ones((2, 4, 4, 8))
    x.ravel()[[3, 5]] = np.nan, np.inf
    exported = convert(model)
    assert_one_sentence(lambda: exported.verify(x, model), ValueError, "with 2 values that are not")


@pytest.mark.parametrize("spoiled", [np.nan, np.inf])
def test_verify_refuses_what_is_not_finite(spoiled):
    """Of the model: nothing compares with it. Of the file alone: it computes something else."""
    model = stack(conv(4), layers.BatchNormalization(), shape=(4, 4, 8))
    exported, x = convert(model), np.random.default_rng(0).normal(size=(3, 4, 4, 8))
    gamma, *others = model.layers[-1].get_weights()
    model.layers[-1].set_weights([np.full_like(gamma, spoiled), *others])
    text = "the model itself gives NaN or infinity"
    assert_one_sentence(lambda: exported.verify(x, model), ValueError, text)
    wrong = convert(model)
    model.layers[-1].set_weights([gamma, *others])
    with pytest.raises(lqf.export.Mismatch, match="computes something else"):
        wrong.verify(x, model, allowed=0.99)


# Larq Compute Engine corrects zero padding on the assumption that the image is the larger one.
OVER = {
    "3 over 2": (dict(kernel_size=3), (2, 2, 32), False),
    "3 over 3": (dict(kernel_size=3), (3, 3, 32), True),
    "4 over 3": (dict(kernel_size=4), (3, 3, 32), False),
    "5 over 4": (dict(kernel_size=5), (4, 4, 32), False),
    "dilated": (dict(kernel_size=3, dilation_rate=2), (4, 4, 32), False),
    "dilated, in 5": (dict(kernel_size=3, dilation_rate=2), (5, 5, 32), True),
    "high": (dict(kernel_size=(3, 1)), (2, 8, 32), False),
    "wide": (dict(kernel_size=(1, 3)), (2, 8, 32), True),
    "ones": (dict(kernel_size=3, pad_values=1.0), (2, 2, 32), True),
    "ones, odd channels": (dict(kernel_size=3, pad_values=1.0), (4, 4, 5), True),
    "valid": (dict(kernel_size=1, padding="valid"), (1, 1, 32), True),
}


def test_the_reference_takes_no_odd_channels_with_zero_padding():
    model = stack(Q.QuantConv2D(8, 3, padding="same", **BINARY), shape=(9, 9, 5))
    exported = convert(model)
    assert exported.report.engines == ("default", "indirect")
    x = np.random.default_rng(0).normal(size=(4, 9, 9, 5)).astype("float32")
    exported.verify(x, model)
    over = stack(Q.QuantConv2D(8, 3, padding="same", **BINARY), shape=(2, 2, 5))
    assert_one_sentence(lambda: convert(over), ValueError, "has no engine for this file")


@pytest.mark.parametrize("name", OVER)
def test_only_engines_that_compute_right_are_offered(name):
    arguments, shape, every = OVER[name]
    arguments = {"padding": "same", "use_bias": False, **arguments}
    model = stack(Q.QuantConv2D(8, **arguments, **BINARY), shape=shape)
    exported = convert(model)
    engines = ("default", "indirect", "reference") if every else ("reference",)
    assert exported.report.engines == engines
    x = np.random.default_rng(0).normal(size=(4, *shape)).astype("float32")
    exported.verify(x, model)
    for name, option in {"default": {}, "indirect": {"use_indirect_bgemm": True}}.items():
        got = lce.testing.Interpreter(exported.data, **option).predict(x)
        assert np.allclose(got, model(x), atol=1e-3) == every, name


def test_samples_that_are_allowed_to_differ_may_be_among_the_first(monkeypatch):
    """The other engines run on 16 samples: a large share of these is a small one of all."""
    model = stack(conv(), conv(8), shape=(4, 4, 32))
    exported, predict = convert(model), lqf.export._verify.predict

    def turned(model, arrays):
        (outputs,) = predict(model, arrays)
        outputs[3] *= -1.0
        return [outputs]

    monkeypatch.setattr(lqf.export._verify, "predict", turned)
    x = np.random.default_rng(0).normal(size=(160, 4, 4, 32))
    assert exported.verify(x, model, allowed=0.01).outputs[0].beyond == 1 / 160
    with pytest.raises(lqf.export.Mismatch, match="than the model with the engine 'default'"):
        exported.verify(x, model)


@pytest.mark.parametrize("layer", ["LSTM", "Bidirectional", "unrolled", "cell", "GRU"])
def test_recurrent_layers_are_right_or_refused(layer):
    inputs = keras.Input((5, 3))
    outputs = {
        "LSTM": lambda: layers.LSTM(4),
        "Bidirectional": lambda: layers.Bidirectional(layers.LSTM(4)),
        "unrolled": lambda: layers.LSTM(4, unroll=True),
        "cell": lambda: layers.RNN(layers.LSTMCell(4)),
        "GRU": lambda: layers.GRU(4),
    }[layer]()(inputs)
    model = keras.Model(inputs, outputs)
    if layer in ("LSTM", "Bidirectional"):
        assert_one_sentence(lambda: convert(model), ValueError, "use LSTM(unroll=True)")
    else:
        x = np.random.default_rng(0).normal(size=(4, 5, 3))
        convert(model).verify(x, model)


def test_every_engine_is_verified(monkeypatch):
    """One that computes something else is named, and far from rounding that is not the word."""
    model = stack(conv(), conv(8), shape=(4, 4, 32))
    exported = convert(model)
    original = lqf.export._lce.Interpreter.predict

    def predict(self, values):
        outputs = original(self, values)
        return [-o for o in outputs] if self._run is spoiled[0] else outputs

    spoiled = [None]
    interpreter = lqf.export._program.Program.interpreter

    def spoil(self, engine, threads=1):
        made = interpreter(self, engine, threads)
        spoiled[0] = made._run if engine == "indirect" else spoiled[0]
        return made

    monkeypatch.setattr(lqf.export._program.Program, "interpreter", spoil)
    monkeypatch.setattr(lqf.export._lce.Interpreter, "predict", predict)
    x = np.random.default_rng(0).normal(size=(4, 4, 4, 32))
    with pytest.raises(lqf.export.Mismatch, match="engine 'indirect'") as error:
        exported.verify(x, model)
    assert "rounding" not in str(error.value)
    exported.verify(x, model, engine="default")


def test_a_shared_layer_is_binarized_if_every_call_is():
    """A call on ±1 and one on reals: the file holds one of them in floats."""
    inputs = keras.Input((4, 4, 32))
    shared = Q.QuantConv2D(32, 1, kernel_quantizer="ste_sign", use_bias=False, name="shared")
    signs = lq.quantizers.SteSign()(inputs)
    for order in ((signs, inputs), (inputs, signs)):
        shared_too = type(shared).from_config(shared.get_config())
        model = keras.Model(inputs, [shared_too(tensor) for tensor in order])
        record = convert(model).report.layers[0]
        assert record.input_bits == 32 and "not binarized" in record.reason


def test_verify_refuses_another_model_and_bad_tolerances():
    model = stack(conv(4), shape=(4, 4, 8))
    exported, x = convert(model), np.ones((2, 4, 4, 8))
    for other, text in ((stack(conv(5), shape=(4, 4, 8)), "outputs"), (stack(conv(4)), "inputs")):
        assert_one_sentence(
            lambda o=other: exported.verify(x, o),
            ValueError,
            f"the {text} of model and file have different shapes",
        )
    for bad in (
        {"tolerance": -1.0},
        {"allowed": 1.0},
        {"allowed": -0.1},
        {"tolerance": float("nan")},
    ):
        text = "tolerance is 0 or more and allowed is in [0, 1)"
        assert_one_sentence(lambda b=bad: exported.verify(x, model, **b), ValueError, text)
    with pytest.raises(TypeError, match="positional"):
        exported.verify(x, model, 1e-3)  # of which number?
    exported.verify(inputs=x, model=model)


def test_verify_does_not_take_one_number_for_samples():
    inputs = keras.Input(())
    model = keras.Model(inputs, layers.Dense(4)(layers.Reshape((1,))(inputs)))
    exported = convert(model)
    exported.verify(np.ones(3), model)
    one = np.float32(1.0)
    assert_one_sentence(lambda: exported.verify(one, model), ValueError, "shapes [()]")


class FakeQuant(layers.Layer):
    def __init__(self, bound, **kwargs):
        super().__init__(**kwargs)
        self.bound = bound

    def call(self, x):
        return tf.quantization.fake_quant_with_min_max_args(x, -self.bound, self.bound)

    def get_config(self):
        return {**super().get_config(), "bound": self.bound}


def on_a_grid(shape, seed=0):
    """Whole multiples of 1/64 that int8 holds exactly: the largest of each channel is 127/64."""
    values = np.random.default_rng(seed).integers(-127, 128, shape)
    values.reshape(-1, shape[-1])[0] = 127
    return values / 64


def batch_norm(factor, shift):
    """With a power of two as its factor, as float32 makes 1 of 0.999 and the 0.001 of Keras."""
    layer = layers.BatchNormalization(beta_initializer=keras.initializers.Constant(shift))
    layer.gamma_initializer = keras.initializers.Constant(factor)
    layer.moving_variance_initializer = keras.initializers.Constant(0.999)
    return layer


def exact_in_int8():
    """A network all of whose sums are exact, in int8 as in floats.

    Steps of fake quantization are powers of two, and all numbers whole multiples of smaller ones,
    so no order of sums changes anything. Small shifts keep what is rounded to a step away from
    halves, as int8 kernels round twice.
    """
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            FakeQuant(127.5 / 64),
            layers.Conv2D(16, 3, padding="same", use_bias=False),
            batch_norm(1 / 16, 1 / 16384),
            FakeQuant(127.5 / 32),
            conv(),
            batch_norm(1 / 64, 1 / 32),
            FakeQuant(127.5 / 128),
            layers.MaxPooling2D(4),
            layers.Flatten(),
            layers.Dense(10, bias_initializer=keras.initializers.Constant(1 / 4096)),
            FakeQuant(127.5 / 8),
        ]
    )
    for layer in (model.layers[1], model.layers[9]):
        kernel, *bias = layer.get_weights()
        layer.set_weights([on_a_grid(kernel.shape), *bias])
    bits = np.random.default_rng(1).choice([-1.0, 1.0], (3, 3, 16, 32))
    model.layers[4].set_weights([bits])
    return model


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_int8(dtype, digits):
    model, images = exact_in_int8(), digits[0][:400]
    exported = convert(model, inference_input_type=dtype, inference_output_type=dtype)
    assert [r.packed for r in exported.report.layers] == [False, True, False]
    assert [r.bytes for r in exported.report.layers] == [16 * 9, 32 * 9 * 4, 1280]  # one a weight
    interpreter = lce.testing.Interpreter(exported.data)
    assert interpreter.input_types == interpreter.output_types == [np.dtype(dtype)]
    (difference,) = exported.verify(images, model, tolerance=0.0).outputs
    assert difference.absolute == 0.0
    outputs = model.predict(images, verbose=0)
    assert np.abs(outputs).max() > 4 and len(np.unique(outputs)) > 50 and outputs.std(0).min() > 0.5
    kernel, bias = model.layers[9].get_weights()
    kernel[0] -= 1 / 8
    model.layers[9].set_weights([kernel, bias])
    with pytest.raises(ValueError, match="computes something else"):
        exported.verify(images, model, tolerance=0.01)


def test_int8_without_fake_quantization():
    """For its latency: all values have one range, which 255 steps divide."""
    model = stack(layers.Conv2D(8, 3), conv(8), layers.Conv2D(4, 1), shape=(6, 6, 4))
    dtypes = {"inference_input_type": "int8", "inference_output_type": "int8"}
    with pytest.warns(UserWarning, match="only be used for latency"):
        exported = convert(model, experimental_default_int8_range=(-3.0, 3.0), **dtypes)
    assert [r.packed for r in exported.report.layers] == [False, True, False]
    interpreter = lce.testing.Interpreter(exported.data)
    assert interpreter.input_types == interpreter.output_types == [np.dtype("int8")]
    assert interpreter.input_scales == interpreter.output_scales == pytest.approx([6 / 255])
    names = [t.name for t in lqf.export.benchmark(exported, runs=1).latencies]
    assert names == [*(e for e in exported.report.engines if e != "reference"), "float, LiteRT"]
    with pytest.raises(ValueError, match="experimental_default_int8_range"):
        convert(model, **dtypes)


def test_int8_that_a_binary_layer_would_leave_floats():
    model = stack(layers.Conv2D(8, 3), conv(8), shape=(6, 6, 4))
    given = {"inference_input_type": "int8", "experimental_default_int8_range": (-3.0, 3.0)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the range is for latency only
        convert(model, **given)
        assert_one_sentence(
            lambda: convert(model, inference_output_type="int8", **given),
            ValueError,
            "inference_output_type cannot be int8",
        )


def test_zero_padding_in_int8():
    """Larq Compute Engine's fast kernels cannot, and the report says so."""
    head = [FakeQuant(127.5 / 64), layers.Conv2D(8, 3), FakeQuant(127.5 / 8)]
    model = stack(*head, conv(8, pad_values=0.0), FakeQuant(127.5), shape=(6, 6, 1))
    bias = np.full(8, 1 / 8192)  # sums are whole multiples of 1/4096, and steps 1/8
    model.layers[1].set_weights([on_a_grid((3, 3, 1, 8)), bias])
    exported = convert(model)
    assert exported.report.engines == ("reference",)
    x = np.random.default_rng(0).integers(-64, 65, size=(4, 6, 6, 1)) / 64
    assert exported.verify(x, model, tolerance=0.0).outputs[0].absolute == 0.0
    assert np.abs(model.predict(x, verbose=0)).max() > 20
    assert len(lqf.export.benchmark(exported, runs=2).latencies) == 2
    model = stack(*head[:1], conv(9, 1), FakeQuant(9.0), conv(8, pad_values=0.0), FakeQuant(9.0))
    assert_one_sentence(lambda: convert(model), ValueError, "has no engine for this file")


def test_old_names_still_work_and_say_so():
    model = stack(conv(4), shape=(4, 4, 8))
    exported, x = convert(model), np.ones((2, 4, 4, 8))
    with pytest.warns(DeprecationWarning, match="Exported.data"):
        assert exported.model is exported.data
    with pytest.warns(DeprecationWarning, match="Report.engines"):
        assert exported.report.kernels == exported.report.engines
    with pytest.warns(DeprecationWarning, match="engine="):
        exported.verify(x, model, kernel="reference")
    assert exported.report.to_dict()["kernels"] == exported.report.to_dict()["engines"]
