"""`export` in a process of its own, as a build script calls it."""

import importlib
import json
import os
import subprocess
import sys
import zipfile

import larq_filters as lqf
import larq_filters_command

import larq as lq
import larq_compute_engine as lce
import numpy as np
import pytest
import tensorflow as tf
from export_helpers import BINARY, conv, layers, operators, stack

keras = tf.keras
pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")

CUSTOM = """
import tensorflow as tf


@tf.keras.utils.register_keras_serializable("tests")
class PlusOne(tf.keras.layers.Layer):
    def call(self, x):
        return x + 1.0
"""


def run(*arguments):
    return larq_filters_command.main(["export", *map(str, arguments)])


def forget_plus_one():
    """As it is in a program that never imported it."""
    sys.modules.pop("plus_one", None)
    keras.utils.get_custom_objects().pop("tests>PlusOne", None)


@pytest.fixture
def plus_one_is_forgotten():
    yield
    forget_plus_one()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models on disk, good and bad, and samples."""
    folder = tmp_path_factory.mktemp("models")
    keras.utils.set_random_seed(0)
    model = stack(conv(8), conv(4), layers.BatchNormalization(), shape=(4, 4, 8))
    for name in ("model.keras", "model.h5", "saved_model"):
        model.save(folder / name)
    model.save_weights(folder / "weights.h5")
    stack(conv(4, input_quantizer=None), shape=(4, 4, 8)).save(folder / "unpacked.keras")
    stack(layers.Dense(4), shape=(8,)).save(folder / "real.keras")
    tf.saved_model.save(tf.Module(), folder / "no_keras")
    noise = np.random.default_rng(0).bytes(500)
    for suffix in ("keras", "h5"):
        whole = (folder / f"model.{suffix}").read_bytes()
        (folder / f"truncated.{suffix}").write_bytes(whole[: len(whole) // 2])
        (folder / f"corrupt.{suffix}").write_bytes(noise)
    with zipfile.ZipFile(folder / "keras_3.keras", "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.5.0"}))
        archive.writestr("config.json", "{}")
    keras.mixed_precision.set_global_policy("mixed_float16")
    stack(conv(4), shape=(4, 4, 8)).save(folder / "mixed.keras")
    keras.mixed_precision.set_global_policy("float32")
    (folder / "modules").mkdir()
    (folder / "modules" / "plus_one.py").write_text(CUSTOM)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder / "modules"))
        layer = importlib.import_module("plus_one").PlusOne()
        custom = stack(layer, conv(4), shape=(4, 4, 8))
        custom.save(folder / "custom.keras")
        custom.save(folder / "custom_saved_model")
    forget_plus_one()
    samples = np.random.default_rng(0).normal(size=(6, 4, 4, 8))
    np.save(folder / "samples.npy", samples)
    np.savez(folder / "samples.npz", **{model.input_names[0]: samples})
    np.save(folder / "others.npy", samples[..., :3])
    (folder / "text.npy").write_text("not numbers")
    return folder


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "saved_model"])
@pytest.mark.parametrize("samples", ["samples.npy", "samples.npz"])
def test_exports(name, samples, folder, tmp_path, capsys):
    out, report = tmp_path / "out.tflite", tmp_path / "report.json"
    arguments = ["--strict", "--verify", folder / samples, "--report", report]
    assert run(folder / name, out, *arguments) == 0
    data = out.read_bytes()
    assert operators(data) == {"LceQuantize": 1, "LceBconv2d": 2}
    x = np.load(folder / "samples.npy").astype("float32")
    expected = keras.models.load_model(folder / "model.keras").predict(x, verbose=0)
    np.testing.assert_allclose(lce.testing.Interpreter(data).predict(x), expected, atol=1e-4)
    written = json.loads(report.read_text())
    assert written["report"]["totals"]["file_bytes"] == len(data)
    assert written["verification"]["outputs"][0]["beyond"] == 0.0
    printed = capsys.readouterr()
    assert "packed              2 of 2 layers" in printed.out and not printed.err
    assert all(len(line) <= 80 for line in printed.out.splitlines())
    assert sorted(os.listdir(tmp_path)) == ["out.tflite", "report.json"]


@pytest.mark.parametrize("to", ["npz", "c"])
def test_exports_bits(to, folder, tmp_path, capsys):
    arguments = ["--strict", "--verify", folder / "samples.npy", "--report", tmp_path / "r.json"]
    assert run(folder / "model.keras", tmp_path / f"out.{to}", *arguments) == 0
    files = {"npz": ["out.npz", "r.json"], "c": ["out.c", "out.h", "r.json"]}[to]
    assert sorted(os.listdir(tmp_path)) == files
    packed = lqf.export.bits(keras.models.load_model(folder / "model.keras"))
    if to == "npz":
        assert lqf.export.load_bits(tmp_path / "out.npz").report == packed.report
    else:
        assert "int predict(const float *x, float *y)" in (tmp_path / "out.c").read_text()
    written = json.loads((tmp_path / "r.json").read_text())
    assert written["report"] == json.loads(json.dumps(packed.report.to_dict()))
    assert written["verification"]["unexplained"] == 0
    printed = capsys.readouterr()
    assert "multiply-adds" in printed.out and not printed.err
    assert all(len(line) <= 80 for line in printed.out.splitlines())


@pytest.mark.slow
def test_the_format_goes_before_the_ending(folder, tmp_path):
    model, samples = folder / "model.keras", folder / "samples.npy"
    assert run(model, tmp_path / "a.bits", "--format", "npz", "--verify", samples) == 0
    assert lqf.export.load_bits(tmp_path / "a.bits").report.layers
    assert run(model, tmp_path / "b.npz", "--format", "tflite") == 0
    lce.testing.Interpreter((tmp_path / "b.npz").read_bytes())


# name: (arguments after MODEL and OUT, exit code, in the sentence)
REFUSED = {
    "missing.keras": ([], 1, "there is no such model"),
    "truncated.keras": ([], 1, "not a whole model"),
    "truncated.h5": ([], 1, "not a whole model"),
    "corrupt.keras": ([], 1, "not a whole model"),
    "corrupt.h5": ([], 1, "not a whole model"),
    "weights.h5": ([], 1, "not a whole model"),
    "samples.npz": ([], 1, "not a whole model"),
    "modules": ([], 1, "not a whole model"),
    "no_keras": ([], 1, "has no Keras layers"),
    "keras_3.keras": ([], 1, "is of Keras 3"),
    "mixed.keras": ([], 1, "not in mixed precision"),
    "custom.keras": ([], 1, "a custom object that is not known here"),
    "custom_saved_model": ([], 1, "a layer of the SavedModel has lost its class"),
    "unpacked.keras": (["--strict"], 3, "its input is not binarized"),
    "model.keras": (["--verify", "others.npy"], 1, "samples for every input"),
    "model.h5": (["--verify", "text.npy"], 1, "not a .npy or .npz file"),
    "saved_model": (["--verify", "samples.npy", "--tolerance", "0"], 4, "something else"),
    "./model.keras": (["--format", "c"], 1, "a C program's file ends in .c"),
    "./model.h5": (["--int8", "samples.npy"], 1, "--int8 is for --format npz or c"),
    "./saved_model": (["--format", "npz", "--no-pack-dense"], 1, "are for --format tflite"),
    "./corrupt.keras": (["--tolerance", "0"], 1, "give samples to verify with"),
    "./corrupt.h5": (["--allowed", "0.5"], 1, "give samples to verify with"),
    "real.keras": (["--format", "npz", "--strict"], 3, "no layer asks for any"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_in_one_sentence_and_writes_nothing(name, folder, tmp_path, capsys, monkeypatch):
    arguments, code, text = REFUSED[name]
    monkeypatch.chdir(folder)
    (tmp_path / "out.tflite").write_text("before")
    assert run(name, tmp_path / "out.tflite", *arguments) == code
    error = capsys.readouterr().err
    assert error.startswith("error: ") and text in error and "Received: " in error
    assert error.count("\n") == 1
    assert os.listdir(tmp_path) == ["out.tflite"]
    assert (tmp_path / "out.tflite").read_text() == "before"


def test_refuses_where_it_cannot_write(folder, tmp_path, capsys):
    for out, extra in (("missing/out.tflite", []), ("out", ["--report", tmp_path / "no" / "r"])):
        assert run(folder / "model.keras", tmp_path / out, *extra) == 1
        assert "no folder to write to" in capsys.readouterr().err
    assert not os.listdir(tmp_path)


def test_refuses_a_folder_in_the_place_of_a_file(folder, tmp_path, capsys):
    for arguments in (["."], ["out.tflite", "--report", tmp_path]):
        out, *more = arguments
        assert run(folder / "model.keras", tmp_path / out, *more) == 1
        assert "a folder is in the place of a file" in capsys.readouterr().err
    assert not os.listdir(tmp_path)


def test_what_tensorflow_cannot_run_is_one_sentence(folder, tmp_path, capsys, monkeypatch):
    def cannot(*args, **kwargs):
        raise tf.errors.UnimplementedError(None, None, "first line\nsecond line")

    monkeypatch.setattr(lqf.export, "convert", cannot)
    assert run(folder / "model.keras", tmp_path / "out.tflite") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: TensorFlow cannot run the model. Received: Unimplemented")
    assert error.count("\n") == 1 and not os.listdir(tmp_path)


@pytest.mark.parametrize("out", ["a.tflite", "a.npz", "a.c"])
def test_a_report_that_cannot_be_written_leaves_the_network(out, folder, tmp_path, capsys):
    before = {out: "before", out.replace(".c", ".h"): "before"}
    for name, text in before.items():
        (tmp_path / name).write_text(text)
    report = tmp_path / ("r" * 255)  # the longest name, with no room for one beside it
    assert run(folder / "model.keras", tmp_path / out, "--report", report) == 1
    assert "File name too long" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("out, report", [("a.npz", "a.npz"), ("a.c", "./a.c"), ("a.c", "a.h")])
def test_a_report_takes_no_place_of_a_network(out, report, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(folder / "model.keras", out, "--report", report) == 1
    assert "give it a file of its own" in capsys.readouterr().err
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        ["m.keras", "m.keras"],
        ["m.keras", "./m.keras", "--format", "npz"],
        ["m.keras", "link", "--format", "npz"],
        ["m.keras", "a.tflite", "--report", "m.keras"],
        ["m.keras", "x.npy", "--verify", "x.npy"],
        ["m.keras", "a.tflite", "--verify", "x.npy", "--report", "x.npy"],
        ["m.keras", "x.npy", "--format", "npz", "--int8", "x.npy"],
        ["m.keras", "y.npy", "--format", "npz", "--int8", "x.npy", "--labels", "y.npy"],
        ["m.keras", "a.npz", "--int8", "x.npy", "--labels", "y.npy", "--report", "y.npy"],
        ["m.h", "m.c"],
        ["saved", "saved/saved_model.pb"],
    ],
)
def test_what_is_read_is_not_replaced(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("saved")
    for name in ("m.keras", "m.h", "x.npy", "y.npy", "saved/saved_model.pb"):
        (tmp_path / name).write_text(name)
    os.symlink("m.keras", "link")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert run(*arguments) == 1
    assert "the place of one that the command reads" in capsys.readouterr().err
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.usefixtures("plus_one_is_forgotten")
def test_a_module_registers_custom_layers(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(folder / "modules"))  # and takes back what is added to it
    arguments = ["--import", "plus_one", "--verify", folder / "samples.npy", "--strict"]
    assert run(folder / "custom.keras", tmp_path / "out.tflite", *arguments) == 0
    assert run(folder / "custom.keras", tmp_path / "two.tflite", "--import", "plus_two") == 1
    assert "'plus_two', ModuleNotFoundError" in capsys.readouterr().err


@pytest.mark.usefixtures("plus_one_is_forgotten")
def test_a_module_may_be_in_the_current_folder(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(folder / "modules")
    assert run(folder / "custom.keras", tmp_path / "out.tflite", "--import", "plus_one") == 0


@pytest.mark.slow
def test_a_module_may_be_in_the_current_folder_of_a_process(folder, tmp_path):
    """As the installed command has it: Python looks for modules where the command is, not here."""
    command = [sys.executable, larq_filters_command.__file__, "export"]
    command += [folder / "custom.keras", tmp_path / "out.tflite", "--import", "plus_one"]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        cwd=folder / "modules",
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["./plus_one.py", "plus_one.py", "modules/plus_one", ".plus_one"])
def test_a_module_is_given_by_its_name(name, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert run(folder / "custom.keras", tmp_path / "out.tflite", "--import", name) == 1
    error = capsys.readouterr().err
    assert "--import takes the name of a module" in error and f"Received: '{name}'" in error


def test_options_reach_the_converter(tmp_path):
    dense = [lq.layers.QuantDense(8, **BINARY)]
    stack(*dense, shape=(32,)).save(tmp_path / "dense.keras")
    stack(conv(4, pad_values=0.0), shape=(4, 4, 8)).save(tmp_path / "zeros.keras")
    assert run(tmp_path / "dense.keras", tmp_path / "a", "--strict") == 0
    assert run(tmp_path / "dense.keras", tmp_path / "a", "--strict", "--no-pack-dense") == 3
    assert run(tmp_path / "zeros.keras", tmp_path / "a", "--strict", "--target", "arm") == 0
    assert run(tmp_path / "zeros.keras", tmp_path / "a", "--strict", "--target", "xcore") == 3


def test_wrong_arguments_are_code_2(capsys):
    for arguments in ([], ["one"], ["one", "two", "--target", "x86"]):
        with pytest.raises(SystemExit) as error:
            run(*arguments)
        assert error.value.code == 2
    assert "usage:" in capsys.readouterr().err
    with pytest.raises(SystemExit) as error:
        run("--help")
    assert error.value.code == 0 and "exit codes:" in capsys.readouterr().out


@pytest.mark.slow
def test_in_a_process(folder, tmp_path):
    def call(*arguments):
        command = [sys.executable, "-m", "larq_filters", "export", *map(str, arguments)]
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)

    done = call(folder / "model.keras", tmp_path / "out.tflite", "--strict")
    assert done.returncode == 0, done.stderr
    lce.testing.Interpreter((tmp_path / "out.tflite").read_bytes())
    refused = call(folder / "truncated.keras", tmp_path / "two.tflite")
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert refused.stderr.splitlines()[-1].startswith("error: this is not a whole model")
    assert os.listdir(tmp_path) == ["out.tflite"]


def test_names_of_c_files_are_looked_at_first(folder, tmp_path, capsys):
    for out, more in (("c.h", ()), ("b.txt", ("--format", "c")), ("b.c", ("--format", "npz"))):
        assert run(folder / "missing.keras", tmp_path / out, *more) == 1
        printed = capsys.readouterr()
        assert "ends in .c" in printed.err and out in printed.err and printed.out == ""
    assert list(tmp_path.iterdir()) == []


def test_8_bits_with_labels(folder, tmp_path, capsys):
    x = np.random.default_rng(1).normal(size=(20, 8)).astype("float32")
    model = keras.models.load_model(folder / "real.keras", compile=False)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", model.predict_on_batch(x).argmax(1))
    files = ("--int8", tmp_path / "x.npy", "--labels", tmp_path / "y.npy")
    report = ("--report", tmp_path / "report.json")
    assert run(folder / "real.keras", tmp_path / "real.c", *files, *report) == 0
    known = json.loads((tmp_path / "report.json").read_text())["report"]["accuracy"]
    assert known["floats"] == 1.0 and known["int8"] >= 0.9
    assert "int8_t" in (tmp_path / "real.h").read_text()
    assert "8-bit real layers" in capsys.readouterr().out
    assert run(folder / "real.keras", tmp_path / "b.c", *files[2:]) == 1
    assert "--labels are those of the samples of --int8" in capsys.readouterr().err
