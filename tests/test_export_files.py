"""What is refused, what is left alone, and what is done with the file."""

import json
import os
import types

import larq_filters as lqf

import larq as lq
import larq_compute_engine as lce
import numpy as np
import pytest
import tensorflow as tf
from export_helpers import (
    BINARY,
    assert_computes_the_same,
    conv,
    layers,
    operators,
    randomize,
    samples,
    stack,
)
from helpers import assert_one_sentence, assert_same, model_state

keras = tf.keras
Q = lq.layers
convert = lqf.export.convert
NO_OP = lq.quantizers.NoOp(precision=1)


def latent_free(kind):
    """One layer of a kind, all of whose binary kernels are exactly ±1."""
    quantizers = {"input_quantizer": "ste_sign", "kernel_quantizer": NO_OP, "name": "spoiled"}
    pair = {"input_quantizer": "ste_sign", "name": "spoiled"}
    layer, shape = {
        "conv": (lambda: Q.QuantConv2D(4, 3, **quantizers), (5, 5, 8)),
        "conv, groups": (lambda: Q.QuantConv2D(4, 3, groups=2, **quantizers), (5, 5, 8)),
        "conv 1D": (lambda: Q.QuantConv1D(4, 3, **quantizers), (5, 8)),
        "conv 3D": (lambda: Q.QuantConv3D(4, 3, **quantizers), (5, 5, 5, 8)),
        "dense": (lambda: Q.QuantDense(4, **quantizers), (8,)),
        "transposed": (lambda: Q.QuantConv2DTranspose(4, 3, **quantizers), (5, 5, 8)),
        "locally connected": (lambda: Q.QuantLocallyConnected1D(4, 3, **quantizers), (5, 8)),
        "depthwise": (
            lambda: Q.QuantDepthwiseConv2D(3, depthwise_quantizer=NO_OP, **pair),
            (5, 5, 8),
        ),
        "pointwise": (
            lambda: Q.QuantSeparableConv2D(
                4, 3, depthwise_quantizer=NO_OP, pointwise_quantizer=NO_OP, **pair
            ),
            (5, 5, 8),
        ),
    }[kind]
    return stack(layer(), shape=shape)


KINDS = ["conv", "conv, groups", "conv 1D", "conv 3D", "dense", "transposed"]
KINDS += ["locally connected", "depthwise", "pointwise"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 1.0000001, -0.5])
def test_one_spoiled_weight_is_refused(kind, value):
    model = latent_free(kind)
    if value == 0.0:
        convert(model)  # as long as it is not spoiled
    variable = [v for v in model.variables if getattr(v, "precision", 32) == 1][-1]
    weights = variable.numpy()
    weights.ravel()[-2] = value
    variable.assign(weights)
    text = "of layer 'spoiled' asks for 1 bit and is not ±1"
    assert_one_sentence(lambda: convert(model), ValueError, text)


def test_a_float_model_that_never_trained_is_refused():
    model = keras.Sequential([Q.QuantDense(4, kernel_quantizer=NO_OP, input_shape=(8,))])
    assert_one_sentence(lambda: convert(model), ValueError, "train it with a FilteredFlip")


class Unclonable(keras.Model):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, x):
        return self.layer(x)


class ThreeOrMore(layers.Layer):
    def call(self, x):
        return tf.sign(tf.sign(x - 0.5) + tf.sign(x + 0.5))


class Constant(layers.Layer):
    """Adds a constant, or multiplies with it."""

    def __init__(self, kind, shape, **kwargs):
        super().__init__(**kwargs)
        self.kind, self.shape = kind, shape

    def build(self, _):
        self.constant = self.add_weight("constant", self.shape)

    def call(self, x):
        return x * self.constant if self.kind == "factor" else self.constant + x

    def get_config(self):
        return {**super().get_config(), "kind": self.kind, "shape": self.shape}


def with_constant(kind, shape, *between):
    return stack(conv(name="before"), *between, Constant(kind, shape), conv(4))


class Forgetful(layers.Layer):
    """Computes with what its config does not hold."""

    shift = 0.0

    def call(self, x):
        return x + self.shift


def forgetful():
    layer = Forgetful()
    layer.shift = 1.0
    return stack(layer, conv(4), shape=(4, 4, 8))


def mixed():
    keras.mixed_precision.set_global_policy("mixed_float16")
    return stack(conv(4))


def unclonable():
    model = Unclonable(conv(4))
    model(np.zeros((1, 4, 4, 8), "float32"))
    return model


def of_keras_3():
    return type("Model", (), {"__module__": "keras.src.models.model"})()


REFUSED = {
    "a path": (lambda: "model.h5", TypeError, "tf.keras.models.load_model first"),
    "a layer": (lambda: conv(4), TypeError, "takes a model of Keras 2"),
    "Keras 3": (of_keras_3, TypeError, "a model of Keras 3"),
    "not built": (lambda: keras.Sequential([conv(4)]), ValueError, "has no weights yet"),
    "mixed precision": (mixed, ValueError, "not in mixed precision"),
    "dynamic": (lambda: stack(conv(4), shape=(None, None, 8)), ValueError, "fixed input shape"),
    "not clonable": (unclonable, ValueError, "cannot be cloned"),
    "a layer that forgets": (forgetful, ValueError, "computes something else"),
    "no sign": (
        lambda: stack(ThreeOrMore(), conv(4, input_quantizer=None), shape=(4, 4, 8)),
        ValueError,
        "takes the sign of a sum of signs for a binary one",
    ),
    "a shift that varies": (
        lambda: with_constant("shift", (8, 8, 32), layers.BatchNormalization()),
        ValueError,
        "binary convolution 'before'",
    ),
    "a factor that varies": (
        lambda: with_constant("factor", (8, 1, 1), layers.ReLU()),
        ValueError,
        "binary convolution 'before'",
    ),
    "a factor of three dimensions": (
        lambda: with_constant("factor", (1, 1, 32)),
        ValueError,
        "give it that shape",
    ),
    "a shift of the output of three dimensions": (
        lambda: stack(conv(4), Constant("shift", (1, 1, 4))),
        ValueError,
        "the shape (channels,)",
    ),
    "string operators": (
        lambda: stack(layers.Lambda(lambda x: tf.strings.length(tf.strings.as_string(x)))),
        ValueError,
        "cannot run it",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_in_one_sentence(name):
    make, kind, text = REFUSED[name]
    model = make()
    assert_one_sentence(lambda: convert(model), kind, text)


@pytest.mark.parametrize("kind", ["shift", "factor"])
@pytest.mark.parametrize("shape", [(32,), (1,), ()])
def test_constants_that_are_merged_right(kind, shape, digits):
    for between in ([], [layers.PReLU(shared_axes=[1, 2])], [layers.ReLU()]):
        model = with_constant(kind, shape, *between)
        exported = convert(model, strict=True)
        assert_computes_the_same(exported.data, model, samples((8, 8, 32), digits))
    model = with_constant(kind, (8, 8, 32), layers.PReLU())
    assert_computes_the_same(convert(model).data, model, samples((8, 8, 32), digits))


ARGUMENTS = {
    "target": ({"target": "x86"}, "target is one of"),
    "type": ({"inference_input_type": "uint8"}, "inference_input_type is float32 or int8"),
    "no type": ({"inference_output_type": object()}, "inference_output_type is float32 or int8"),
    "int8": ({"inference_input_type": tf.int8}, "fake quantization"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_refuses_arguments_in_one_sentence(name):
    arguments, text = ARGUMENTS[name]
    model = stack(conv(4), shape=(4, 4, 8))
    assert_one_sentence(lambda: convert(model, **arguments), ValueError, text)


@pytest.mark.parametrize("package", ["larq_compute_engine", "ai_edge_litert.interpreter"])
def test_a_missing_package_is_named(package, monkeypatch):
    model = stack(conv(4), shape=(4, 4, 8))
    exported = None if package == "larq_compute_engine" else convert(model)
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(ImportError, match=r"pip install 'larq-filters\[export\]'"):
        convert(model) if exported is None else lqf.export.benchmark(exported, runs=1)


@pytest.mark.parametrize("optimizer", ["filtered", "adam"])
def test_the_model_is_left_as_it_was(optimizer, make_model, digits):
    def train():
        keras.utils.set_random_seed(3)
        made = (
            lqf.optimizers.FilteredFlip(1e-2)
            if optimizer == "filtered"
            else keras.optimizers.Adam()
        )
        model = make_model(made)
        model.fit(*digits, epochs=1, verbose=0)
        return model

    model, other = train(), train()
    before = model_state(model)
    call = [layer.call for layer in model.layers]
    quantizers = [getattr(layer, "kernel_quantizer", None) for layer in model.layers]
    exported = convert(model)
    exported.verify(digits[0][:16], model)
    assert_same(model_state(model), before)
    assert call == [layer.call for layer in model.layers]
    assert quantizers == [getattr(layer, "kernel_quantizer", None) for layer in model.layers]
    for one in (model, other):
        keras.utils.set_random_seed(4)
        history = one.fit(*digits, epochs=1, verbose=0).history
    assert_same(model_state(model), model_state(other))
    assert history["accuracy"] == other.history.history["accuracy"]


def test_latent_and_latent_free_give_the_same_file(make_model):
    latent = randomize(make_model())
    one, two = convert(latent), convert(lqf.conversion.to_latent_free(latent))
    assert one.data == two.data
    assert one.report == two.report


def test_the_report(make_model, digits):
    exported = convert(randomize(make_model()))
    report = exported.report
    assert len(str(report).splitlines()) == 11
    assert all(len(line) <= 80 for line in str(report).splitlines())
    read = json.loads(json.dumps(report.to_dict()))
    assert [r["name"] for r in read["layers"]] == ["first", "conv", "dense", "last"]
    assert [r["weight_bits"] for r in read["layers"]] == [32, 1, 1, 32]
    assert [r["weights"] for r in read["layers"]] == [72, 9 * 8 * 16, 16 * 16 * 16, 160]
    assert read["totals"] == {
        "file_bytes": len(exported.data),
        "binary_weight_bytes": 4 * 9 * 16 + 4 * 8 * 16,
        "binary_weight_bytes_as_floats": 4 * (9 * 8 * 16 + 16 * 16 * 16),
        "binary_operators": sum(n for k, n in operators(exported.data).items() if "Lce" in k),
        "float_operators": sum(n for k, n in operators(exported.data).items() if "Lce" not in k),
        "binary_macs": 16 * 9 * 8 * 16 + 16 * 16 * 16,
        "float_macs": 36 * 72 + 160,
    }


def test_saving_replaces_the_file_when_it_is_whole(tmp_path, monkeypatch):
    exported = convert(stack(conv(4), shape=(4, 4, 8)))
    path = tmp_path / "model.tflite"
    path.write_bytes(b"before")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        exported.save(path)
    assert path.read_bytes() == b"before" and os.listdir(tmp_path) == ["model.tflite"]
    monkeypatch.undo()
    exported.save(path)
    assert path.read_bytes() == exported.data and os.listdir(tmp_path) == ["model.tflite"]
    lce.testing.Interpreter(path.read_bytes())


@pytest.mark.parametrize("folder", ["missing", "file"])
def test_saving_where_it_cannot_be(folder, tmp_path):
    exported = convert(stack(conv(4), shape=(4, 4, 8)))
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError):
        exported.save(tmp_path / folder / "model.tflite")
    assert os.listdir(tmp_path) == ["file"]


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


def test_operators_of_a_layer_whose_weights_are_not_in_the_file():
    """By their names: those with weights, or the last of those without."""
    Operator, Tensor = lqf.export._flatbuffer.Operator, lqf.export._flatbuffer.Tensor

    def operator(name, path, data=None):
        weights = Tensor("", (1,), "FLOAT32", 1, data)
        return Operator(name, (None, weights), (Tensor(path, (1,), "FLOAT32", 2, None),), {})

    one, two = operator("MUL", "model/q/one"), operator("ADD", "model/q/two")
    other = operator("MUL", "model/other/one", np.ones(1))
    call = lqf.export._trace.Call(["model/q"])
    file = types.SimpleNamespace(operators=[one, two, other])
    assert lqf.export._packing.unmatched(file, call) == [two]
    model = stack(conv(8, padding="valid", pad_values=0.0))  # which pads nothing, for any target
    _, (kernel,) = lqf.export._frozen.freeze(model, model.inputs)
    known = lqf.export._trace.Call(["model/q"], binarized=True)
    for emitted, made in (([one], "MUL"), ([], "another operator")):
        reason, _ = lqf.export._packing.reason(
            kernel, known, emitted, pack_dense=True, target="xcore"
        )
        assert reason == f"the converter made {made} of it"
    real = operator("CONV_2D", "model/q/three", np.ones(1))
    file.operators.insert(1, real)
    assert lqf.export._packing.unmatched(file, call) == [real]


INPUTS = {
    "shape": (lambda x: x[..., :3], "samples for every input"),
    "none": (lambda x: x[:0], "samples for every input"),
    "two": (lambda x: [x, x], "samples for every input"),
    "NaN": (lambda x: np.where(x > 2, np.nan, x), "takes finite samples"),
}


@pytest.mark.parametrize("name", INPUTS)
def test_verify_refuses_inputs_in_one_sentence(name):
    model = stack(conv(4), shape=(4, 4, 8))
    exported = convert(model)
    change, text = INPUTS[name]
    x = change(np.random.default_rng(0).normal(size=(16, 4, 4, 8)))
    assert_one_sentence(lambda: exported.verify(x, model), ValueError, text)


def test_verify_counts_what_is_not_finite():
    model, x = stack(conv(4), shape=(4, 4, 8)), np.ones((2, 4, 4, 8))
    x.ravel()[[3, 5]] = np.nan, np.inf
    exported = convert(model)
    assert_one_sentence(lambda: exported.verify(x, model), ValueError, "with 2 values that are not")


def test_verify_refuses_another_model_and_bad_tolerances():
    model = stack(conv(4), shape=(4, 4, 8))
    exported, x = convert(model), np.ones((2, 4, 4, 8))
    for other, text in ((stack(conv(5), shape=(4, 4, 8)), "outputs"), (stack(conv(4)), "inputs")):
        assert_one_sentence(lambda o=other: exported.verify(x, o), ValueError, f"other {text}")
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
    assert_one_sentence(lambda: convert(model), ValueError, "has no kernel for this file")


def test_benchmark():
    exported = convert(stack(conv(), conv(8), shape=(6, 6, 32)))
    results = {i: lqf.export.benchmark(exported, runs=5, indirect=i) for i in (None, True, False)}
    names = {i: [latency.name for latency in r.latencies] for i, r in results.items()}
    assert names[None] == ["default", "indirect", "float, LiteRT"]
    assert names[True] == ["indirect", "float, LiteRT"]
    assert names[False] == ["default", "float, LiteRT"]
    for result in results.values():
        assert all(0 < t.lower <= t.median <= t.upper for t in result.latencies)
        assert "64-bit Arm" in str(result) and "x86" in str(result)
        assert all(len(line) <= 80 for line in str(result).splitlines())
        assert json.loads(json.dumps(result.to_dict()))["runs"] == 5
    for bad in ({"runs": 0}, {"threads": 0}, {"runs": 2.5}):
        assert_one_sentence(
            lambda b=bad: lqf.export.benchmark(exported, **b), ValueError, "whole number"
        )


def test_benchmarks_float_file_computes_what_the_model_computes(monkeypatch):
    """Also after rewrites: the float file is of the network as it was."""
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 32)).astype("float32")
    model = stack(conv(), layers.MaxPooling2D(), layers.BatchNormalization(), layers.Flatten())
    model = stack(*model.layers, Q.QuantDense(5, **BINARY))
    norm = model.layers[2]
    norm.gamma.assign(np.abs(norm.gamma.numpy()))
    files = []
    monkeypatch.setattr(
        lqf.export._benchmark, "litert", lambda file, *_: files.append(file) or (lambda: None)
    )
    exported = convert(model)
    lqf.export.benchmark(exported, runs=1)
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=files[0]).get_signature_runner()
    (output,) = runner(**{model.input_names[0]: x}).values()
    np.testing.assert_allclose(output, model.predict(x, verbose=0), atol=1e-3)
    assert set(operators(files[0])).isdisjoint({"LceBconv2d", "LceQuantize"})
