"""Bits in files: every byte, broken ones, names in C, and a `verify` that sees what changed."""

import dataclasses
import json
import os
import types
import zipfile

import larq_filters as lqf

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from bits_compilers import compile_programs, need, run_program, write_programs
from bits_twin import Twin, read_header, read_npz
from export_helpers import BINARY, conv, layers, randomize, stack
from helpers import assert_one_sentence

keras = tf.keras
bits, load_bits = lqf.export.bits, lqf.export.load_bits


def small():
    """Something of every kind of array: real, binary, thresholds, flips, float signs, scales."""
    x = keras.Input((5, 5, 3))
    y = layers.BatchNormalization()(layers.Conv2D(33, 2, padding="same")(x))
    y = layers.BatchNormalization()(conv(34, 3, kernel_quantizer="magnitude_aware_sign")(y))
    y = layers.add([y, layers.PReLU(shared_axes=[1, 2])(conv(34, 2)(y))])
    y = layers.MaxPooling2D()(y)
    y = layers.GlobalAveragePooling2D()(conv(6, 1, strides=2)(y))
    return randomize(keras.Model(x, layers.Dense(4)(y)))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model, its bits, samples, and a file."""
    model = small()
    x = np.random.default_rng(0).normal(size=(40, 5, 5, 3)).astype("float32")
    packed = bits(model)
    path = tmp_path_factory.mktemp("bits") / "network.npz"
    packed.save(path)
    return types.SimpleNamespace(model=model, packed=packed, x=x, path=path)


def test_a_file_gives_the_same_network(saved, tmp_path):
    again = load_bits(saved.path)
    assert repr(again) == repr(saved.packed) and again.report == saved.packed.report
    assert np.array_equal(again.predict(saved.x), saved.packed.predict(saved.x))
    again.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == saved.path.read_bytes()


def test_every_byte_of_a_file_is_read(saved):
    """By the twin's reader; it asserts that arrays fill their entries, and unused bits are 0."""
    head, arrays = read_npz(saved.path)
    assert head["version"] == 1 and len(head["sha256"]) == 64
    assert arrays.keys() == saved.packed.arrays.keys()
    for name, array in saved.packed.arrays.items():
        assert arrays[name].dtype == array.dtype and np.array_equal(arrays[name], array), name
    with zipfile.ZipFile(saved.path) as archive:
        stored = sum(info.file_size for info in archive.infolist())
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
    assert stored > saved.packed.report.constant_bytes
    used = {s["weights"] for s in head["steps"]} | {s["thresholds"] for s in head["steps"]}
    used |= {s["flips"] for s in head["steps"]}
    used |= {a for s in head["steps"] for line in s["code"] for a in line[1:]}
    assert arrays.keys() <= used  # nothing lies there for nobody
    assert np.array_equal(
        Twin(saved.path).predict(saved.x[:2])[0], saved.packed.predict(saved.x[:2])
    )


def test_kernels_are_the_models(saved):
    """The documented axes and bits: (outputs, rows, columns, words), channel c at c % 32."""
    layer = saved.model.layers[3]
    expected = np.asarray(layer.kernel) > 0
    (name,) = [f"s{i}.kernel" for i, s in enumerate(read_npz(saved.path)[0]["steps"])
               if s["name"] == layer.name and s["weights"]]  # fmt: skip
    kernel = saved.packed.arrays[name]
    assert kernel.shape == (34, 3, 3, 2) and kernel.dtype == np.uint32
    for c in range(33):
        assert np.array_equal(
            (kernel[..., c // 32] >> np.uint32(c % 32) & 1).transpose(1, 2, 0), expected[:, :, c]
        )


@pytest.mark.parametrize("where", ["cut", "changed", "appended"])
def test_a_broken_file_is_refused_in_one_sentence(where, saved, tmp_path):
    """Or it is no different network: some of a zip archive's bytes, as dates, mean nothing."""
    data, path = saved.path.read_bytes(), tmp_path / "broken.npz"
    expected = saved.packed.predict(saved.x[:3])
    refused = 0
    places = np.random.default_rng(0).integers(len(data), size=60)
    for place in places:
        broken = {
            "cut": data[:place],
            "changed": data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :],
            "appended": data + data[:place],
        }[where]
        path.write_bytes(broken)
        try:
            again = load_bits(path).predict(saved.x[:3])
        except ValueError as error:
            refused += 1
            assert "save the bits again. Received: '" in str(error) and len(str(error)) < 500
            assert "\n" not in str(error)
        else:
            assert np.array_equal(again, expected)
    assert refused >= {"cut": 60, "changed": 50, "appended": 0}[where]


@pytest.mark.parametrize("change", ["a bit", "a missing array", "an array more", "a step"])
def test_a_whole_archive_of_something_else_is_refused(change, saved, tmp_path):
    with np.load(saved.path) as loaded:
        arrays = {name: loaded[name] for name in loaded.files}
    if change == "a bit":
        arrays["s0.kernel"].view(np.uint32)[0, 0, 0, 0] ^= 1
    elif change == "a missing array":
        del arrays["s0.kernel"]
    elif change == "an array more":
        arrays["s99.kernel"] = np.zeros(3)
    else:
        text = arrays["network"].tobytes().replace(b'"rows": 2', b'"rows": 1', 1)
        arrays["network"] = np.frombuffer(text, np.uint8)
    np.savez(tmp_path / "other.npz", **arrays)
    text = "whose checksum does not match"
    assert_one_sentence(lambda: load_bits(tmp_path / "other.npz"), ValueError, text)


OTHERS = {
    "nothing": b"",
    "text": b"no archive",
    "an array": None,
    "another archive": {"a": np.zeros(3)},
    "no JSON": {"network": np.zeros(3, np.uint8)},
    "an older version": {"network": np.frombuffer(b'{"version": 0}', np.uint8)},
    "pickles": {"network": np.array([{}], object)},
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_file_is_refused(name, tmp_path):
    path, content = tmp_path / "other.npz", OTHERS[name]
    if content is None:
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif isinstance(content, dict):
        np.savez(path, **content)
    else:
        path.write_bytes(content)
    assert_one_sentence(lambda: load_bits(path), ValueError, "save the bits again")


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_bits(tmp_path / "missing.npz")


def test_nothing_is_half_written(saved, tmp_path, monkeypatch):
    for name in ("a.npz", "a.c", "a.h"):
        (tmp_path / name).write_text("before")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    for write in (
        lambda: saved.packed.save(tmp_path / "a.npz"),
        lambda: saved.packed.to_header(tmp_path / "a.h"),
        lambda: saved.packed.to_c(tmp_path / "a.c"),
    ):
        with pytest.raises(OSError, match="disk full"):
            write()
    assert sorted(os.listdir(tmp_path)) == ["a.c", "a.h", "a.npz"]
    assert {path.read_text() for path in tmp_path.iterdir()} == {"before"}


@pytest.mark.parametrize("folder, file", [("a.c", "a.h"), ("a.h", "a.c")])
def test_a_folder_in_the_place_of_a_file_leaves_the_other(folder, file, saved, tmp_path):
    (tmp_path / folder).mkdir()
    (tmp_path / file).write_text("before")
    with pytest.raises(IsADirectoryError, match=folder):
        saved.packed.to_c(tmp_path / "a.c")
    assert sorted(os.listdir(tmp_path)) == ["a.c", "a.h"]
    assert (tmp_path / file).read_text() == "before"


@pytest.mark.parametrize("stem", ["1net", "my-net", "int", "window", "w1", "ünet"])
def test_names_that_c_does_not_have(stem, saved, tmp_path):
    text = "become names in C"
    assert_one_sentence(lambda: saved.packed.to_c(tmp_path / f"{stem}.c"), ValueError, text)
    path = tmp_path / "net.h"
    assert_one_sentence(lambda: saved.packed.to_header(path, function=stem), ValueError, text)
    assert not os.listdir(tmp_path)


def test_a_program_ends_in_c(saved, tmp_path):
    path = tmp_path / "net.h"
    assert_one_sentence(lambda: saved.packed.to_c(path), ValueError, "ends in .c")


def test_the_header_says_sizes(saved, tmp_path):
    saved.packed.to_c(tmp_path / "net.c", function="infer")
    text = (tmp_path / "net.h").read_text()
    _, macros = read_header(text)
    report = saved.packed.report
    assert macros == {
        "NET_INPUTS": 75,
        "NET_OUTPUTS": 4,
        "NET_CONSTANT_BYTES": report.constant_bytes,
        "NET_BUFFER_BYTES": report.buffer_bytes,
    }
    assert "int infer(const float *x, float *y);" in text
    assert "int infer(const float *x, float *y)\n{" in (tmp_path / "net.c").read_text()
    assert all(len(line) <= 110 for line in text.splitlines())


def test_the_header_is_cpp_too(saved, tmp_path):
    need("g++")
    saved.packed.to_header(tmp_path / "net.h")
    (tmp_path / "main.cc").write_text('#include "net.h"\nint main() { return NET_OUTPUTS - 4; }\n')
    assert (
        os.system(f"cd {tmp_path} && g++ -Wall -Werror -Wno-unused main.cc -o main && ./main") == 0
    )


# What `verify` sees


def changed(packed, name, change):
    """The bits with one array changed."""
    arrays = {n: np.array(a) for n, a in packed.arrays.items()}
    change(arrays[name])
    network = dataclasses.replace(packed._network, arrays=arrays)
    return lqf.export.Bits(network, {})


def with_step(packed, number, **fields):
    steps = list(packed._network.steps)
    steps[number] = dataclasses.replace(steps[number], **fields)
    return lqf.export.Bits(dataclasses.replace(packed._network, steps=tuple(steps)), {})


def flip_a_bit(array):
    array[1, 0, 0, 0] ^= np.uint32(1)


def raise_one(array):
    array[3] += 2


@pytest.fixture(scope="module")
def stacked():
    """A network whose bits all matter: two binary layers, and the sum of the last as output."""
    x = keras.Input((6, 6, 40))
    y = layers.BatchNormalization()(conv(40, pad_values=-1.0)(x))
    model = randomize(keras.Model(x, layers.BatchNormalization()(conv(8, strides=2)(y))))
    inputs = np.random.default_rng(0).normal(size=(20, 6, 6, 40)).astype("float32")
    return model, bits(model), inputs


def window(packed, number, **fields):
    step = packed._network.steps[number]
    return with_step(packed, number, window=dataclasses.replace(step.window, **fields))


MUTANTS = {
    "a bit of a kernel": lambda p: changed(p, "s1.kernel", flip_a_bit),
    "a bit of the last kernel": lambda p: changed(p, "s2.kernel", flip_a_bit),
    "a threshold, by one step": lambda p: changed(p, "s1.thresholds", raise_one),
    "a flip": lambda p: changed(p, "s1.flips", lambda a: a.__setitem__(0, a[0] ^ np.uint32(4))),
    "a constant": lambda p: changed(p, "s2.c1", lambda a: a.__setitem__(0, a[0] * 1.01)),
    "what it pads with": lambda p: window(p, 1, pad=1),
    "where it pads": lambda p: window(p, 1, top=0),
    "a step": lambda p: window(p, 2, strides=(1, 2)),
    "an operation": lambda p: with_step(
        p, 2, code=(("add", *p._network.steps[2].code[0][1:]), *p._network.steps[2].code[1:])
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_verify_sees(name, stacked):
    model, packed, x = stacked
    with pytest.raises(lqf.export.Mismatch, match="the bits compute something else"):
        MUTANTS[name](packed).verify(x, model, compiler="")


def test_verify_sees_nothing_in_the_bits_themselves(stacked):
    model, packed, x = stacked
    proof = packed.verify(x, model)
    assert proof.unexplained == 0 and proof.samples == 20
    assert str(proof).count("\n") == 3
    assert ("equal bit for bit" in str(proof)) == bool(proof.compiler)
    assert "not compiled here" in str(packed.verify(x, model, compiler=""))


def test_verify_sees_another_program(stacked, monkeypatch):
    """A C program that is wrong: its popcount misses a bit."""
    need("cc")
    from larq_filters.export._bits import _kernels

    model, packed, x = stacked
    text = _kernels._PARTS["ones"].replace("0x33333333u", "0x33333331u")
    monkeypatch.setitem(_kernels._PARTS, "ones", text)
    with pytest.raises(lqf.export.Mismatch, match="the C program computes something else"):
        packed.verify(x, model)


def test_verify_refuses(stacked, tmp_path):
    model, packed, x = stacked
    for arguments in ({"tolerance": -1.0}, {"allowed": 1.0}):
        text = "tolerance is 0 or more"
        assert_one_sentence(lambda a=arguments: packed.verify(x, model, **a), ValueError, text)
    other = stack(conv(4), shape=(6, 6, 41))
    assert_one_sentence(
        lambda: packed.verify(x, other),
        ValueError,
        "the inputs of model and file have different shapes",
    )
    assert_one_sentence(
        lambda: packed.verify(x * np.nan, model), ValueError, "samples must be finite"
    )
    with pytest.raises(TypeError, match="export takes a model of Keras 2"):
        packed.verify(x, None)


COMPILERS_REFUSED = {
    "false": "the C compiler fails",
    "no-such-compiler": "there is no such C compiler",
    "arm-linux-gnueabihf-gcc": "does not run here",
}


@pytest.mark.parametrize("compiler", COMPILERS_REFUSED)
@pytest.mark.parametrize("where", ["argument", "CC"])
def test_a_compiler_that_cannot_be_used_is_refused(where, compiler, stacked, monkeypatch):
    model, packed, x = stacked
    if "gcc" in compiler:
        need(compiler)
    if where == "CC":
        monkeypatch.setenv("CC", compiler)
    given = compiler if where == "argument" else None
    text = COMPILERS_REFUSED[compiler]
    assert_one_sentence(lambda: packed.verify(x, model, compiler=given), ValueError, text)


def test_a_compiler_has_arguments(stacked, monkeypatch):
    need("cc")
    model, packed, x = stacked
    monkeypatch.setenv("CC", "cc -DSOMETHING=1 -O0")
    assert packed.verify(x, model).compiler.endswith("cc -DSOMETHING=1 -O0")


@pytest.mark.parametrize(
    "name",
    [
        "uint32_t",
        "INT32_MIN",
        "_Bool",
        "_stdint",
        "printf",
        "class",
        "network_s1_kernel",
        "2d",
        "a-b",
    ],
)
def test_names_that_c_or_cpp_has_are_refused(name, stacked, tmp_path):
    _, packed, _ = stacked
    for write in (packed.to_c, packed.to_header):
        path = tmp_path / "network.c"
        assert_one_sentence(lambda w=write, p=path: w(p, function=name), ValueError, f"'{name}'")
    if name != "network_s1_kernel":
        path = tmp_path / f"{name}.c"
        assert_one_sentence(lambda: packed.to_c(path), ValueError, f"'{name}'")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_version_says_so(stacked, tmp_path):
    """Whether or not its checksum is one of today."""
    _, packed, _ = stacked
    packed.save(tmp_path / "bits.npz")
    with np.load(tmp_path / "bits.npz") as file:
        arrays = dict(file)
    head = {**json.loads(bytes(arrays["network"])), "version": 0}
    arrays["network"] = np.frombuffer(json.dumps(head).encode(), np.uint8)
    np.savez(tmp_path / "old.npz", **arrays)
    text = "of version 0, not 1"
    assert_one_sentence(lambda: lqf.export.load_bits(tmp_path / "old.npz"), ValueError, text[:12])
    with pytest.raises(ValueError, match=text):
        lqf.export.load_bits(tmp_path / "old.npz")


def test_differences_count_where_every_sample_is_next_to_an_edge():
    """Then no sample shows that the rest is right, so `allowed` has to say how many may differ."""
    layer = lq.layers.QuantDense(
        40, input_quantizer="ste_sign", kernel_quantizer="magnitude_aware_sign", use_bias=False
    )
    model = stack(layer, lq.layers.QuantDense(3, **BINARY), shape=(34,))
    packed, x = bits(model), np.random.default_rng(1).normal(size=(50, 34)).astype("float32")
    proof = packed.verify(x, model, compiler="", allowed=0.99)
    beyond = np.abs(packed.predict(x) - model.predict_on_batch(x)).max(1) > 1
    assert proof.near == 50 and proof.unexplained == beyond.sum() > 0
    with pytest.raises(lqf.export.Mismatch, match="all samples have a sign near rounding"):
        packed.verify(x, model, compiler="")


@pytest.mark.slow
def test_8_bits_in_c(saved, tmp_path):
    packed = bits(saved.model, representative=saved.x)
    expected = packed.predict(saved.x[:8])
    write_programs([(packed, 75, 4)], tmp_path)
    for compiler in ("gcc, sanitized", "clang", "gcc -m32", "gcc for Arm"):
        outputs, _ = run_program(compile_programs(tmp_path, compiler), 0, [saved.x[:8]], 4)
        assert np.array_equal(outputs, expected), compiler
