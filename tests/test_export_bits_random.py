"""Random networks: the C program, a NumPy twin and Keras agree."""

import larq_filters as lqf

import numpy as np
import pytest
import tensorflow as tf
from bits_compilers import COMPILERS, compile_program, run_program
from bits_networks import network
from bits_twin import Twin, read_header, read_npz

SAMPLES = 12


def samples(model, seed):
    """Random inputs; a quarter of them from a coarse grid, on which many values are 0."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(SAMPLES, *model.input_shape[1:]))
    x[: SAMPLES // 4] = np.round(x[: SAMPLES // 4])
    return x.astype("float32")


def check(seed, folder, compilers):
    """One network everywhere; how many samples have a sign next to its edge."""
    model = network(seed)
    x = samples(model, seed)
    packed = lqf.export.bits(model)
    # Keras. Samples with a sign of floats within rounding of its edge may differ, no other.
    proof = packed.verify(x, model, tolerance=2e-5, compiler="")
    assert proof.unexplained == 0
    # The twin, which reads the file, bit for bit.
    packed.save(folder / "network.npz")
    expected = packed.predict(x)
    (twin,) = Twin(folder / "network.npz").predict(x[:3])
    np.testing.assert_array_equal(twin, expected[:3])
    # The program, bit for bit.
    flat = expected.reshape(SAMPLES, -1)
    for compiler in compilers:
        command = compile_program(packed, folder, compiler)
        outputs, best = run_program(command, [x], flat.shape[1])
        np.testing.assert_array_equal(outputs, flat, err_msg=f"{compiler}, seed {seed}")
        np.testing.assert_array_equal(best, flat.argmax(1))
    if compilers:
        assert_header_is_file(folder)
    return proof.near, packed.report


def assert_header_is_file(folder):
    """Every number of the header is the file's."""
    _, arrays = read_npz(folder / "network.npz")
    found, _ = read_header((folder / "network.h").read_text())
    assert found.keys() == {f"network_{name.replace('.', '_')}" for name in arrays}
    for name, array in arrays.items():
        got = found[f"network_{name.replace('.', '_')}"]
        assert got.dtype == array.dtype and got.tobytes() == array.tobytes(), name


@pytest.mark.parametrize("seed", range(1000, 1006))
def test_a_few_networks(seed, tmp_path):
    check(seed, tmp_path, ["gcc, sanitized"] if seed % 2 else list(COMPILERS))


@pytest.mark.slow
@pytest.mark.parametrize("tens", range(20))
def test_200_networks(tens, tmp_path):
    """Ten in each test. Of their samples, few have a sign that rounding may turn."""
    near = 0
    for seed in range(10 * tens, 10 * tens + 10):
        compilers = list(COMPILERS) if seed % 10 == 0 else ["gcc, sanitized", "clang"]
        near += check(seed, tmp_path / str(seed), compilers)[0]
        tf.keras.backend.clear_session()
    assert near <= 0.1 * 10 * SAMPLES
