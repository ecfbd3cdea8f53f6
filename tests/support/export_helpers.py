"""What the tests of `lqf.export` share: random models, and readers that are not ours."""

import collections

import larq as lq
import larq_compute_engine as lce
import numpy as np
import tensorflow as tf
from larq_compute_engine.mlir.python import tflite_schema

keras = tf.keras
layers = keras.layers
BINARY = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}


def conv(filters=32, size=3, **kwargs):
    """A binary convolution that keeps the resolution."""
    defaults = {"padding": "same", "pad_values": 1.0, "use_bias": False, **BINARY}
    return lq.layers.QuantConv2D(filters, size, **{**defaults, **kwargs})


def randomize(model, seed=0):
    """Weights and statistics unlike those at the start, with batch norms of both signs."""
    rng = np.random.default_rng(seed)
    weights = []
    for variable in model.weights:
        value = rng.normal(size=variable.shape)
        if "variance" in variable.name:
            value = np.abs(value) + 0.1
        if getattr(variable, "precision", 32) == 1:
            value = value.clip(-1, 1)
            if isinstance(variable.quantizer, lq.quantizers.NoOp):
                value = np.where(value < 0, -1, 1)
        weights.append(value)
    model.set_weights(weights)
    return model


def stack(*some_layers, shape=(8, 8, 32)):
    return randomize(keras.Sequential([keras.Input(shape), *some_layers]))


def operators(data):
    """How often each operator is in a file, read with Larq Compute Engine's own schema."""
    model = tflite_schema.ModelT.InitFromObj(tflite_schema.Model.GetRootAsModel(data, 0))
    names = {v: k for k, v in vars(tflite_schema.BuiltinOperator).items() if isinstance(v, int)}
    counts = collections.Counter()
    for operator in model.subgraphs[0].operators:
        code = model.operatorCodes[operator.opcodeIndex]
        custom = code.customCode
        name = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        counts[custom.decode() if custom else name] += 1
    return dict(counts)


def constants(data):
    """Sizes in bytes of all constants of a file."""
    model = tflite_schema.ModelT.InitFromObj(tflite_schema.Model.GetRootAsModel(data, 0))
    used = {t.buffer for t in model.subgraphs[0].tensors}
    buffers = [model.buffers[i].data for i in used]
    return [len(data) for data in buffers if data is not None and len(data)]


def samples(shape, digits):
    """Random inputs, real ones, and ones at the edge of the sign: 0, −0 and next to them."""
    rng = np.random.default_rng(1)
    edge = np.float32([0.0, -0.0, 1e-45, -1e-45, 1e-38, -1e-38, 0.5, -0.5])
    images = digits[0][:12].reshape(12, -1)  # in steps of 1/8
    size = int(np.prod(shape))
    real = np.tile(images, size // images.shape[1] + 1)[:, :size]
    real = real - (np.arange(size) % 8 / 8 - 0.5)  # so many of them are exactly 0
    return {
        "random": rng.normal(size=(12, *shape)).astype("float32"),
        "digits": real.reshape(12, *shape).astype("float32"),
        "edges": rng.choice(edge, size=(12, *shape)),
    }


def assert_computes_the_same(data, model, inputs, **kernel):
    """Larq Compute Engine's interpreter against Keras, of one input and one output."""
    interpreter = lce.testing.Interpreter(data, **kernel)
    for name, x in inputs.items():
        expected = model.predict_on_batch(x)
        bound = 1e-5 * max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(interpreter.predict(x), expected, atol=bound, err_msg=name)
