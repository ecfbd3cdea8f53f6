"""Trainings that are killed, and disks that cannot be written to, with the example of CIFAR-10."""

import argparse
import importlib
import json
import re
import resource
import shutil
import signal
import subprocess

from larq_filters import _files

import numpy as np
import pytest
import soak
import tensorflow as tf
from helpers import assert_same


def run(folder, data, *arguments, **options):
    folder.mkdir(exist_ok=True)
    command = [str(part) for part in soak.command(folder, data, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


@pytest.mark.slow
def test_killed_twice_it_ends_as_if_nothing_had_happened(small_cifar10, tmp_path):
    """`make soak` does this with twenty kills."""
    length = ("--epochs", "2")
    assert run(tmp_path / "one", small_cifar10, *length).returncode == 0
    times = soak.train_and_kill(tmp_path / "two", small_cifar10, length, kills=2, seed=3)
    assert 0 < max(times) < 16
    assert "going on after step" in (tmp_path / "two" / "log.txt").read_text()
    one, two = (soak.variables(tmp_path / name) for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert sum("/optimizer/" in name for name in one) > 40  # the filters' states among them
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)
    rows = [
        json.loads((tmp_path / name / "history.json").read_text())["history"]["val_loss"]
        for name in ("one", "two")
    ]
    assert [row for row in rows[1] if row is not None] == [
        a for a, b in zip(*rows, strict=True) if b is not None
    ]


@pytest.mark.slow
def test_a_finished_training_is_not_done_again(small_cifar10, tmp_path):
    arguments = ("--epochs", "1", "--recalibrate", "2")
    save = ("--save", tmp_path / "network.h5")
    first = run(tmp_path, small_cifar10, *arguments, *save)
    assert first.returncode == 0, first.stderr
    (tmp_path / "network.h5").rename(tmp_path / "before.h5")
    again = run(tmp_path, small_cifar10, *arguments, *save)
    assert again.returncode == 0, again.stderr
    assert "loss:" in first.stdout and "loss:" not in again.stdout
    lines = [re.search(r"test accuracy.*", result.stdout)[0] for result in (first, again)]
    assert lines[0] == lines[1]
    before, after = (
        tf.keras.models.load_model(tmp_path / name, compile=False).get_weights()
        for name in ("before.h5", "network.h5")
    )
    assert_same(before, after)
    # As if it had been killed after its last step, before it validated.
    (tmp_path / "history.json").unlink()
    killed = run(tmp_path, small_cifar10, *arguments)
    assert killed.returncode == 0, killed.stderr
    assert lines[0] in killed.stdout
    history = json.loads((tmp_path / "history.json").read_text())["history"]
    assert len(history["val_accuracy"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--backup", "--tensorboard"])
def test_a_folder_that_cannot_be_written_is_reported_before_training(
    option, small_cifar10, tmp_path
):
    result = run(tmp_path, small_cifar10, option, "/proc/cannot")
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"{option}: cannot write to /proc/cannot")
    assert "Epoch" not in result.stdout and "Traceback" not in result.stderr


@pytest.mark.slow
def test_a_full_disk_is_reported_before_training(small_cifar10, tmp_path):
    """A limit on the size of files stands for the disk: writing fails, as it does there."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    result = run(tmp_path, small_cifar10, preexec_fn=limit)
    assert result.returncode == 1
    assert "--output: cannot write to" in result.stderr.splitlines()[-1]
    assert "Epoch" not in result.stdout
    assert not (tmp_path / "history.json").exists()


def surviving_of(monkeypatch):
    monkeypatch.syspath_prepend(str(soak.EXAMPLE.parent))
    return importlib.import_module("common.surviving")


def test_a_file_where_a_folder_should_be(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "history.json"
    args = argparse.Namespace(output=path, save=None, backup=None, tensorboard=None)
    with pytest.raises(SystemExit, match="--output: cannot write to"):
        surviving_of(monkeypatch).check_folders(args)
    with pytest.raises(NotADirectoryError) as error:
        _files.write(path, b"")
    assert error.value.filename == str(path)


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_new_training_takes_no_record_of_another(goes_on, tmp_path, monkeypatch):
    output = tmp_path / "history.json"
    output.write_text(json.dumps({"seconds": 99.0, "first_step": {}, "history": {"loss": [1.0]}}))
    args = argparse.Namespace(output=output, backup=tmp_path / "new", alpha=0.5)
    history = surviving_of(monkeypatch).History(
        args, "training", int(goes_on), is_chief=True, goes_on=goes_on
    )
    history.on_epoch_end(int(goes_on), {"loss": 2.0})
    record = json.loads(output.read_text())
    assert record["arguments"] == {"alpha": 0.5} and ("first_step" in record) == goes_on
    assert record["history"]["loss"] == ([1.0, 2.0] if goes_on else [2.0])
    assert (record["seconds"] >= 99.0) == goes_on


def test_too_little_room_for_backups_is_reported_before_training(tmp_path, monkeypatch):
    surviving = surviving_of(monkeypatch)
    model = tf.keras.Sequential([tf.keras.layers.Dense(4, input_shape=(3,))])
    model.compile("sgd")
    surviving.check_room(tmp_path, model)
    usage = shutil.disk_usage(tmp_path)._replace(free=2 * 16 * 4)  # a float for each weight, twice
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(SystemExit, match="MB free, and backups of this training need"):
        surviving.check_room(tmp_path, model)
