"""Random networks: the C program, a NumPy twin and Keras agree."""

import larq_filters as lqf

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
