"""The bytes that training holds per binary weight, and that a step takes beside them."""

import re
import resource

import larq_filters as lqf
from larq_filters.optimizers import _update

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from helpers import binary_variable, from_zero

FilteredFlip = lqf.optimizers.FilteredFlip
keras = tf.keras.optimizers
BITS = lq.quantizers.NoOp(precision=1)
# (row and column of the table in FilteredFlip's docstring, optimizer, quantizer)
CASES = [
    ("`EMA`, larq's Bop", 0, lambda: FilteredFlip(1e-3, None), BITS),
    ("`EMA`, larq's Bop", 0, lambda: lq.optimizers.Bop(), BITS),
    ("`EMA`, larq's Bop", 1, lambda: FilteredFlip(1e-3, None, state_dtype="bfloat16"), BITS),
    ("`CascadedEMA`", 0, lambda: FilteredFlip(), BITS),
    ("`CascadedEMA`", 1, lambda: FilteredFlip(state_dtype="bfloat16"), BITS),
    ("latent weights, SGD with momentum", 0, lambda: keras.SGD(0.1, momentum=0.9), "ste_sign"),
    ("latent weights, Adam", 0, lambda: keras.Adam(1e-2), "ste_sign"),
]


@pytest.mark.filterwarnings("ignore:Clipping in Bop")
@pytest.mark.parametrize(("row", "column", "make", "quantizer"), CASES)
def test_bytes_per_binary_weight(row, column, make, quantizer):
    """As the docstring has them."""
    numbers = re.search(rf"^ *{re.escape(row)}((?: +\d+)+)$", FilteredFlip.__doc__, re.M)[1].split()
    layer = lq.layers.QuantDense(64, kernel_quantizer=quantizer, use_bias=False, input_shape=(64,))
    model = tf.keras.Sequential([layer])
    model.compile(make(), "mse")
    model.train_on_batch(np.ones((8, 64)), np.ones((8, 64)))
    own = model.optimizer.variables  # a method of Keras' legacy class, as larq's Bop is
    variables = [*model.trainable_variables, *(own() if callable(own) else own)]
    held = sum(variable.numpy().nbytes for variable in variables)
    assert held / 64**2 == pytest.approx(int(numbers[column]), abs=0.1)  # scalars are little


def fresh_arrays(call, size):
    """How many fresh arrays of `size` floats a call takes at a time.

    TensorFlow's allocator says it, where it counts: then it also keeps what was freed, so that
    fresh arrays need not fault. Elsewhere page faults tell, beside those of one such array, as
    nobody knows how large a page is.
    """
    stats = tf.config.experimental
    try:
        stats.reset_memory_stats("CPU:0")
    except ValueError:
        return faults(call) / faults(lambda: tf.zeros(size))
    before = stats.get_memory_info("CPU:0")["current"]
    call()
    return (stats.get_memory_info("CPU:0")["peak"] - before) / (4 * size)


def faults(call):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    call()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="of the code for CPUs")
@pytest.mark.parametrize("in_blocks", [True, False], ids=["in blocks", "whole"])
def test_a_step_in_blocks_takes_no_fresh_memory(in_blocks, monkeypatch):
    """Weights and states stay where they are: large fresh arrays would fault page by page."""
    if not in_blocks:
        monkeypatch.setattr(_update, "block_size", lambda elements: None)
    size = 2**24
    optimizer, weights = from_zero(jit_compile=True), binary_variable(np.ones(size))
    step = tf.function(lambda g: optimizer.apply_gradients([(g, weights)]))
    gradient = tf.zeros(size)
    step(gradient)
    assert fresh_arrays(lambda: [tf.zeros(size) for _ in range(3)], size) > 2.5
    taken = fresh_arrays(lambda: step(gradient), size)
    assert taken < 0.25 if in_blocks else taken > 1
