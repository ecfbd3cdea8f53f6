"""Models of all kinds, of which a file is made."""

import larq_filters as lqf

import larq as lq
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

keras = tf.keras
Q = lq.layers
convert = lqf.export.convert


def two_inputs():
    one, two = keras.Input((6, 6, 32), name="zeta"), keras.Input((6, 6, 32), name="alpha")
    a, b = conv(name="a")(one), conv(name="b")(two)
    shared = conv(name="shared")
    c = shared(shared(layers.add([a, b])))
    z = layers.GlobalAveragePooling2D(name="z")(c)
    return randomize(keras.Model([one, two], [z, layers.concatenate([a, b], name="ab"), z, one]))


def test_several_inputs_and_outputs():
    model = two_inputs()
    exported = convert(model, strict=True)
    one, two = np.random.default_rng(0).normal(size=(2, 5, 6, 6, 32)).astype("float32")
    for inputs in ([one, two], (one, two), {"alpha": two, "zeta": one}):
        result = exported.verify(inputs, model)
        assert [output.name for output in result.outputs] == model.output_names
        assert all(output.relative < 1e-5 for output in result.outputs)
    with pytest.raises(ValueError, match="computes something else"):
        exported.verify([two, one], _swapped(model))
    shared = next(record for record in exported.report.layers if record.name == "shared")
    assert (shared.operator, shared.bytes) == ("2 LceBconv2d", 32 * 9 * 4)


def _swapped(model):
    one, two = (keras.Input((6, 6, 32)) for _ in range(2))
    return keras.Model([one, two], model([two, one]))


@keras.utils.register_keras_serializable("tests")
class SubclassedBlock(keras.Model):
    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.conv = conv(name="conv")
        self.dense = Q.QuantDense(units, name="dense", **BINARY)

    def call(self, x):
        return self.dense(layers.Flatten()(self.conv(x)))

    def get_config(self):
        return {"units": self.units, "name": self.name}


def test_a_subclassed_model(digits):
    model = SubclassedBlock()
    model(np.zeros((1, 4, 4, 32), "float32"))
    exported = convert(randomize(model), strict=True)
    assert [record.name for record in exported.report.layers] == ["conv", "dense"]
    assert_computes_the_same(exported.data, model, samples((4, 4, 32), digits))


def test_a_dict_of_inputs_and_a_dict_of_outputs():
    inputs = {"b": keras.Input((4, 4, 8), name="bb"), "a": keras.Input((4, 4, 8), name="aa")}
    outputs = {"z": conv(3)(inputs["a"]), "y": conv(4)(inputs["b"])}
    model = randomize(keras.Model(inputs, outputs))
    a, b = np.random.default_rng(0).normal(size=(2, 3, 4, 4, 8))
    exported = convert(model, strict=True)
    assert all(o.relative < 1e-5 for o in exported.verify({"a": a, "b": b}, model).outputs)
    with pytest.raises(ValueError, match="computes something else"):
        exported.verify({"a": b, "b": a}, _reversed(model))


def _reversed(model):
    inputs = {"a": keras.Input((4, 4, 8)), "b": keras.Input((4, 4, 8))}
    return keras.Model(inputs, model({"a": inputs["b"], "b": inputs["a"]}))


class Traced(layers.Layer):
    """Keeps what tf.function traced of it when the model was built."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = conv(8, name="conv")
        self.dense = Q.QuantDense(5, name="dense", **BINARY)

    @tf.function
    def call(self, x):
        if tf.reduce_max(tf.abs(x)) < 1e9:
            x = x + 0.5
        return self.dense(layers.Flatten()(self.conv(x)))


class TracedInside(Traced):
    @tf.function
    def helper(self, x):
        return self.dense(layers.Flatten()(self.conv(x)))

    def call(self, x):
        return self.helper(x)


def test_layers_in_a_tf_function(digits):
    model = stack(Traced(name="block"), shape=(4, 4, 32))
    exported = convert(model, strict=True)
    assert [record.name for record in exported.report.layers] == ["block/conv", "block/dense"]
    assert_computes_the_same(exported.data, model, samples((4, 4, 32), digits))


def test_a_trace_that_stays_is_seen_in_the_file(digits):
    """What is not rewritten stays in floats, and the report still finds it."""
    model = stack(TracedInside(name="block"), shape=(4, 4, 32))
    exported = convert(model)
    assert operators(exported.data)["FULLY_CONNECTED"] == 1
    packed = {record.name: record.packed for record in exported.report.layers}
    assert packed == {"conv": True, "dense": False}
    assert exported.report.layers[1].bytes == 4 * 5 * 4 * 4 * 8
    assert_computes_the_same(exported.data, model, samples((4, 4, 32), digits))


class BrokenOptimizer(keras.optimizers.Adam):
    def get_config(self):
        raise RuntimeError("broken")


def trained(model):
    model.fit(np.ones((4, 4, 4, 8)), np.ones((4, 4, 4, 4)), verbose=0)
    return model


def test_an_optimizer_that_cannot_be_saved(recwarn):
    model = stack(conv(8), layers.BatchNormalization(), conv(4), shape=(4, 4, 8))
    model.compile(BrokenOptimizer(), "mse")
    assert operators(convert(trained(model), strict=True).data)["LceBconv2d"] == 2
    assert not [w for w in recwarn if "falling back" in str(w.message)]


def test_metrics_of_quantizers():
    with lq.context.metrics_scope(["flip_ratio"]):
        model = stack(conv(8), layers.BatchNormalization(), conv(4), shape=(4, 4, 8))
    model.compile("adam", "mse")
    assert operators(convert(trained(model), strict=True).data)["LceBconv2d"] == 2


def test_under_a_strategy(mirrored):
    with mirrored.scope():
        model = stack(conv(8), layers.BatchNormalization(), conv(4), shape=(4, 4, 8))
        model.compile(lqf.optimizers.FilteredFlip(), "mse")
    exported = convert(trained(model), strict=True)
    exported.verify(np.random.default_rng(0).normal(size=(8, 4, 4, 8)), model)


def test_inputs_of_whole_numbers():
    x = keras.Input((8,), dtype="int32")
    y = Q.QuantConv1D(8, 3, **BINARY)(layers.Embedding(10, 32)(x))
    model = randomize(keras.Model(x, y))
    exported = convert(model, strict=True)
    exported.verify(np.random.default_rng(0).integers(0, 10, (5, 8)), model)


@pytest.mark.slow  # the quick one of whole networks is test_models.py::test_packs
def test_birealnet():
    """How it is packed; that it computes the same is tested with the models, on more samples."""
    model = randomize(lqf.models.BiRealNet20((8, 8, 3), width=32))
    exported = convert(model, strict=True)
    packed = [record for record in exported.report.layers if record.weight_bits == 1]
    assert len(packed) == 18 == operators(exported.data)["LceBconv2d"]
    bits = sum(int(np.prod(v.shape)) for v in model.variables if hasattr(v, "precision"))
    assert exported.report.binary_weight_bytes == bits // 8
