"""What is refused, what is left alone, and what is done with the file."""

import itertools
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
from helpers import (
    FROZEN,
    assert_one_sentence,
    assert_same,
    frozen_inside,
    model_state,
    slow_but,
)

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
    assert_one_sentence(lambda: convert(model), ValueError, "Train it with a FilteredFlip")


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


def of_text():
    text = keras.Input((4,), dtype="string", name="text")
    lengths = layers.Lambda(lambda x: tf.cast(tf.strings.length(x), tf.float32))(text)
    return keras.Model(text, Q.QuantDense(4, **BINARY)(lengths))


def of_keras_3():
    return type("Model", (), {"__module__": "keras.src.models.model"})()


REFUSED = {
    "a path": (lambda: "model.h5", TypeError, "tf.keras.models.load_model first"),
    "a layer": (lambda: conv(4), TypeError, "takes a model of Keras 2"),
    "Keras 3": (of_keras_3, TypeError, "a model of Keras 3"),
    "not built": (lambda: keras.Sequential([conv(4)]), ValueError, "has no weights yet"),
    "mixed precision": (mixed, ValueError, "not in mixed precision"),
    "dynamic": (lambda: stack(conv(4), shape=(None, None, 8)), ValueError, "fixed input shape"),
    "text": (of_text, ValueError, "Received: input 'text' of type string"),
    "not clonable": (unclonable, ValueError, "cannot be cloned"),
    "a layer that forgets": (forgetful, ValueError, "has other outputs"),
    "no sign": (
        lambda: stack(ThreeOrMore(), conv(4, input_quantizer=None), shape=(4, 4, 8)),
        ValueError,
        "would treat sign(sign(a) + b) as binary",
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
        "the shape (channels,)",
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


OF_A_BATCH = {
    "ternary": lambda: lq.quantizers.SteTern(ternary_weight_networks=True),
    "magnitude aware": lambda: lq.quantizers.MagnitudeAwareSign(),
    "DoReFa of weights": lambda: lq.quantizers.DoReFa(2, mode="weights"),
}


@pytest.mark.parametrize("make", [convert, lqf.export.bits])
@pytest.mark.parametrize("name", OF_A_BATCH)
def test_quantizers_of_a_whole_batch_are_refused(name, make):
    """Which of activations: outputs of a sample depend on the others."""
    model = stack(conv(4, input_quantizer=OF_A_BATCH[name](), name="bad"), shape=(4, 4, 8))
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 8)) * np.reshape([0.1, 9.0], (2, 1, 1, 1))
    assert not np.allclose(model.predict_on_batch(x)[:1], model.predict_on_batch(x[:1]))
    assert_one_sentence(lambda: make(model), ValueError, "layer 'bad' with input_quantizer")
    activation = layers.Activation(OF_A_BATCH[name](), name="bad")
    model = stack(activation, conv(4), shape=(4, 4, 8))
    assert_one_sentence(lambda: make(model), ValueError, "layer 'bad' with activation")
    convert(stack(conv(4, kernel_quantizer="magnitude_aware_sign"), shape=(4, 4, 8)))


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_in_one_sentence(name):
    make, kind, text = REFUSED[name]
    model = make()
    assert_one_sentence(lambda: convert(model), kind, text)


def test_bits_refuse_a_layer_that_forgets():
    assert_one_sentence(lambda: lqf.export.bits(forgetful()), ValueError, "has other outputs")


BETWEEN = {
    "nothing": lambda: [],
    "PReLU": lambda: [layers.PReLU(shared_axes=[1, 2])],
    "ReLU": lambda: [layers.ReLU()],
}


@pytest.mark.parametrize(
    ("kind", "shape", "between"),
    slow_but(
        [("shift", (32,), "PReLU"), ("factor", (32,), "nothing"), ("factor", (), "ReLU")],
        list(itertools.product(("shift", "factor"), [(32,), (1,), ()], BETWEEN)),
    ),
)
def test_constants_that_are_merged_right(kind, shape, between, digits):
    model = with_constant(kind, shape, *BETWEEN[between]())
    exported = convert(model, strict=True)
    assert_computes_the_same(exported.data, model, samples((8, 8, 32), digits))


@pytest.mark.parametrize("kind", ["shift", "factor"])
def test_constants_of_every_place_are_left_alone(kind, digits):
    model = with_constant(kind, (8, 8, 32), layers.PReLU())
    assert_computes_the_same(convert(model).data, model, samples((8, 8, 32), digits))


ARGUMENTS = {
    "target": ({"target": "x86"}, "target is one of"),
    "type": ({"inference_input_type": "uint8"}, "inference_input_type is float32 or int8"),
    "no type": ({"inference_output_type": object()}, "inference_output_type is float32 or int8"),
    **{
        f"range {value}": (
            {"experimental_default_int8_range": value},
            "experimental_default_int8_range is a pair of finite numbers",
        )
        for value in ((3, -3), (2, 2), (np.nan, 3.0), (-3.0, np.inf), 3, ("a", "b"), (1, 2, 3))
    },
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


@pytest.mark.parametrize("optimizer", slow_but(["filtered"], ["filtered", "adam"]))
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


@pytest.mark.parametrize("make", [convert, lqf.export.bits])
@pytest.mark.parametrize(("units", "name"), FROZEN)
def test_what_is_frozen_inside_a_layer_gets_its_own_weights(units, name, make):
    model, x = frozen_inside(units, name)
    make(model).verify(x, model)


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


def test_strict_is_for_binary_models():
    model = stack(layers.Dense(4), shape=(8,))
    convert(model)
    text = "no layer asks for any"
    assert_one_sentence(lambda: convert(model, strict=True), lqf.export.NotPacked, text)


def test_a_dense_layer_behind_batch_norm_is_found():
    """The converter multiplies batch norm's factors into the weights, input by input."""
    model = stack(
        Q.QuantDense(40, use_bias=False, **BINARY),
        layers.BatchNormalization(),
        Q.QuantDense(24, use_bias=False, **BINARY),
        layers.BatchNormalization(),
        layers.Flatten(),
        Q.QuantDense(10, name="last"),
        shape=(64,),
    )
    variables = {v.name: v for v in model.variables}
    assert len(variables) == len(model.variables)
    report = convert(model).report
    assert report.layers[-1].name == "last" and report.layers[-1].operator == "FULLY_CONNECTED"
    assert report.layers[-1].bytes == 4 * 24 * 10


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
    _, (kernel,) = lqf.export._frozen.freeze(model)
    known = lqf.export._trace.Call(["model/q"], binarized=True)
    for emitted, made in (([one], "MUL"), ([], "another operator")):
        reason, _ = lqf.export._packing.reason(
            kernel, known, emitted, pack_dense=True, target="xcore"
        )
        assert reason == f"the converter made {made} of it"
    real = operator("CONV_2D", "model/q/three", np.ones(1))
    file.operators.insert(1, real)
    assert lqf.export._packing.unmatched(file, call) == [real]


def test_small_matrices_are_no_evidence():
    """Factors for rows and columns are found for large ones; small ones match too easily."""
    rng = np.random.default_rng(0)
    large, small, other = (rng.normal(size=s) for s in ((10, 24), (3, 8), (10, 24)))
    scaled = lqf.export._packing._scaled
    rows, columns = rng.normal(size=(10, 1)), rng.normal(size=(1, 24))
    assert scaled(large, large * rows * columns) and scaled(large, large)
    assert not scaled(large, other) and not scaled(large, None) and not scaled(large, large.T)
    assert not scaled(small, small)
