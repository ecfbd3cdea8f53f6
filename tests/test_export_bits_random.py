"""Random networks: the C program, a NumPy twin and Keras agree."""

import larq_filters as lqf

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from bits_compilers import COMPILERS, compile_programs, run_program, write_programs
from bits_networks import network
from bits_twin import Twin, read_header, read_npz

SAMPLES = 8


def samples(model, seed):
    """Random inputs; a quarter of them from a coarse grid, on which many values are 0."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(SAMPLES, *model.input_shape[1:]))
    x[: SAMPLES // 4] = np.round(x[: SAMPLES // 4])
    return x.astype("float32")


def check(seeds, folder, compilers):
    """Some networks everywhere; how many samples have a sign next to its edge."""
    near, made = 0, []
    for seed in seeds:
        model = network(seed)
        x = samples(model, seed)
        packed = lqf.export.bits(model)
        # Keras. Samples with a sign of floats within rounding of its edge may differ, no other.
        proof = packed.verify(x, model, tolerance=2e-5, compiler="")
        assert proof.unexplained == 0
        near += proof.near
        # The twin, which reads the file, bit for bit.
        packed.save(folder / f"network_{len(made)}.npz")
        expected = packed.predict(x)
        (twin,) = Twin(folder / f"network_{len(made)}.npz").predict(x[2:3])
        np.testing.assert_array_equal(twin, expected[2:3], err_msg=f"twin, seed {seed}")
        made.append((packed, x, expected.reshape(SAMPLES, -1)))
        tf.keras.backend.clear_session()
    # The program, bit for bit.
    write_programs([(p, x[0].size, flat.shape[1]) for p, x, flat in made], folder)
    for i in range(len(made)):
        assert_header_is_file(folder, f"network_{i}")
    for compiler in compilers:
        command = compile_programs(folder, compiler)
        for i, (_, x, flat) in enumerate(made):
            outputs, best = run_program(command, i, [x], flat.shape[1])
            np.testing.assert_array_equal(outputs, flat, err_msg=f"{compiler}, seed {seeds[i]}")
            np.testing.assert_array_equal(best, flat.argmax(1))
    return near


def assert_header_is_file(folder, stem):
    """Every number of the header is the file's."""
    _, arrays = read_npz(folder / f"{stem}.npz")
    found, _ = read_header((folder / f"{stem}.h").read_text())
    assert found.keys() == {f"{stem}_{name.replace('.', '_')}" for name in arrays}
    for name, array in arrays.items():
        got = found[f"{stem}_{name.replace('.', '_')}"]
        assert got.dtype == array.dtype and got.tobytes() == array.tobytes(), name


def test_a_network_by_all_compilers(tmp_path):
    check([1003], tmp_path, list(COMPILERS))


@pytest.mark.slow
@pytest.mark.parametrize("tens", range(20))
def test_200_networks(tens, tmp_path):
    """Ten in each test. Few samples have a sign that rounding may turn."""
    others = [name for name in COMPILERS if name != "gcc, sanitized"]
    compilers = ["gcc, sanitized", others[tens % len(others)]]
    near = check(range(10 * tens, 10 * tens + 10), tmp_path, compilers)
    assert near <= 0.1 * 10 * SAMPLES


def test_what_random_networks_have_seldom(tmp_path):
    """Quick: relu6, an average over part of a window, one scale for all channels, equal outputs."""
    keras = tf.keras
    inputs = keras.Input((5, 5, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu6", padding="same")(inputs)
    x = keras.layers.AveragePooling2D(3, 2, padding="same")(x)
    x = lq.layers.QuantConv2D(
        6, 2, input_quantizer="ste_sign", kernel_quantizer=Tripled(), use_bias=False
    )(x)
    x = keras.layers.Flatten()(x)
    head = keras.layers.Dense(4)
    model = keras.Model(inputs, head(x))
    rng = np.random.default_rng(3)
    model.set_weights([rng.normal(size=w.shape) * 3 for w in model.get_weights()])
    kernel, bias = head.get_weights()
    kernel[:, 1], kernel[:, 3], bias[:] = kernel[:, 2], kernel[:, 2], (-1e3, 2.0, 2.0, 2.0)
    head.set_weights([kernel, bias])
    images = (4 * rng.normal(size=(SAMPLES, 5, 5, 3))).astype("float32")
    packed = lqf.export.bits(model)
    assert packed.verify(images, model, tolerance=2e-5, compiler="").unexplained == 0
    expected = packed.predict(images)
    assert (expected[:, 1] == expected[:, 3]).all() and set(expected.argmax(1)) <= {0, 1}
    assert np.abs(model.layers[1](images)).max() == 6.0
    write_programs([(packed, images[0].size, 4)], tmp_path)
    outputs, best = run_program(compile_programs(tmp_path, "gcc, sanitized"), 0, [images], 4)
    np.testing.assert_array_equal(outputs, expected)
    np.testing.assert_array_equal(best, expected.argmax(1))


@lq.utils.register_keras_custom_object
class Tripled(lq.quantizers.SteSign):
    """±3: a scale that is the same for all channels."""

    def call(self, inputs):
        return 3.0 * super().call(inputs)
