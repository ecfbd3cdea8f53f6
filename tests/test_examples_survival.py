"""Trainings that are killed, and disks that cannot be written to, with the example of CIFAR-10."""

import contextlib
import importlib
import json
import re
import resource
import shutil
import signal
import subprocess

import larq_filters as lqf
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
    history = (tmp_path / "history.json").rename(tmp_path / "before.json").read_text()
    again = run(tmp_path, small_cifar10, *arguments, *save)
    assert again.returncode == 0, again.stderr
    assert "loss:" in first.stdout and "loss:" not in again.stdout
    lines = [re.search(r"test accuracy.*", result.stdout)[0] for result in (first, again)]
    assert lines[0] == lines[1]
    written = json.loads((tmp_path / "history.json").read_text())
    assert written["history"] == json.loads(history)["history"] and "loss" in written["history"]
    before, after = (
        tf.keras.models.load_model(tmp_path / name, compile=False).get_weights()
        for name in ("before.h5", "network.h5")
    )
    assert_same(before, after)
    # As if it had been killed after its last step, before it validated.
    for folder in (tmp_path, tmp_path / "backup"):
        (folder / "history.json").unlink()
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


def arguments(*given):
    return importlib.import_module("cifar10").parse_arguments(list(map(str, given)))


@pytest.mark.parametrize("option", ["--output", "--save", "--teacher-logits"])
def test_a_file_where_a_folder_should_be(option, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "network.keras"
    surviving = surviving_of(monkeypatch)
    args = arguments("--output", tmp_path / "history.json", option, path)
    with pytest.raises(SystemExit, match=f"{option}: cannot write to"):
        surviving.check_folders(args)
    with pytest.raises(NotADirectoryError) as error:
        _files.write(path, b"")
    assert error.value.filename == str(path)


def test_a_training_takes_no_record_of_another(tmp_path, monkeypatch):
    """What --output has may be of another; what the backup has is its own."""
    output = tmp_path / "history.json"
    output.write_text(json.dumps({"seconds": 99.0, "first_step": {}, "history": {"loss": [1.0]}}))
    surviving = surviving_of(monkeypatch)
    args = arguments("--output", output, "--backup", tmp_path / "backup")
    (tmp_path / "backup").mkdir()
    for epoch, seconds in ((0, 0.0), (1, 1e6)):
        record = surviving.begin(args)
        history = surviving.History(args, record, "training", 8 * epoch, 8, is_chief=True)
        assert history.before == seconds
        history.on_epoch_end(epoch, {"loss": 2.0 + epoch})
        record = json.loads(output.read_text())
        assert "first_step" not in record and record["arguments"]["alpha"] == 0.01
        assert record["history"]["loss"] == [2.0, 3.0][: epoch + 1]
        assert record["seconds"] >= seconds
        record["seconds"] = 1e6
        (tmp_path / "backup" / "history.json").write_text(json.dumps(record))
        output.write_text("{}")


@pytest.mark.parametrize("known", [[0.5, 0.4], [0.5]])
def test_an_epoch_that_goes_on_keeps_its_figures(known, tmp_path, monkeypatch):
    """Of the last 3 of 8 steps are neither the training's loss nor its flips."""
    surviving = surviving_of(monkeypatch)
    args = arguments("--output", tmp_path / "history.json")
    record = {"history": {"loss": [*known], "val_loss": [*known]}}
    history = surviving.History(args, record, "training", 13, 8, is_chief=True)
    history.on_epoch_end(1, {"loss": 9.0, "val_loss": 0.25})
    history.on_epoch_end(2, {"loss": 0.3, "val_loss": 0.2})
    second = known[1] if len(known) > 1 else None
    assert record["history"]["loss"] == [0.5, second, 0.3]
    assert record["history"]["val_loss"] == [0.5, 0.25, 0.2]
    history.on_epoch_end(3, {"val_loss": 0.1})  # stopped after its last step
    assert record["history"]["loss"] == [0.5, second, 0.3, None]


def test_a_backup_of_before_has_its_history_in_the_output(tmp_path, monkeypatch):
    surviving, output = surviving_of(monkeypatch), tmp_path / "history.json"
    output.write_text(json.dumps({"seconds": 9.0, "history": {"loss": [1.0]}}))
    args = arguments("--output", output, "--backup", tmp_path / "backup")
    (tmp_path / "backup").mkdir()
    assert "history" not in surviving.begin(args)
    (tmp_path / "backup" / "first_step.h5").touch()
    assert surviving.begin(args)["history"] == {"loss": [1.0]}


OTHERS = {
    "alpha": ("--alpha", 0.5),
    "epochs": ("--epochs", 7),
    "optimizer": ("--optimizer", "adam"),
    "steps_per_epoch": (),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_backup_of_other_arguments_is_refused(name, tmp_path, monkeypatch):
    surviving, folder = surviving_of(monkeypatch), tmp_path / "backup"
    folder.mkdir()
    args, steps = arguments("--backup", folder, *OTHERS[name]), 8 + (name == "steps_per_epoch")
    surviving.check_backup(args, True, steps)  # which was stopped before its first backup
    surviving.check_backup(arguments("--backup", folder), True, 8)
    (folder / "first_step.h5").touch()
    moved = ("--output", "elsewhere.json", "--strategy", "mirrored", "--backup-steps", 3)
    for known in (None, 8):
        surviving.check_backup(arguments("--backup", folder, *moved), True, known)
    for is_chief in (True, False):
        with pytest.raises(
            SystemExit, match=f"a training with {name} = .* or another folder.*: {name} ="
        ):
            surviving.check_backup(args, is_chief, steps)
    # Before the data are read, nothing is known of the steps.
    with pytest.raises(SystemExit) if OTHERS[name] else contextlib.nullcontext():
        surviving.check_backup(args, True, None)


def test_a_record_says_what_had_an_effect(tmp_path, monkeypatch):
    surviving, trial = surviving_of(monkeypatch), tmp_path / "trial.json"
    hp = lqf.tuning.HyperParameters()
    lqf.tuning.filtered_flip(hp, steps=100)
    trial.write_text(json.dumps({"hyperparameters": hp.get_config()}))
    searched = surviving.arguments(arguments("--trial", trial, "--save", tmp_path / "a.keras"))
    assert searched["trial"] == hp.values and searched["save"] == str(tmp_path / "a.keras")
    hp = lqf.tuning.HyperParameters()
    lqf.tuning.latent_sgd(hp, steps=100)
    trial.write_text(json.dumps({"hyperparameters": hp.get_config()}))
    of_latent = surviving.arguments(arguments("--trial", trial))
    assert of_latent["trial"]["learning_rate"] == 0.1
    assert not of_latent.keys() & {"optimizer", "learning_rate"}
    latent = surviving.arguments(arguments("--optimizer", "adam", "--teacher", "t.keras"))
    assert latent["teacher"] == "t.keras" and latent["epochs"] == 6
    for record in (searched, of_latent, latent):
        assert not record.keys() & {"alpha", "gamma", "alpha_power", "state_dtype", "data_dir"}


def test_no_image_counts_more_than_another(tmp_path, monkeypatch):
    surviving_of(monkeypatch)
    options = importlib.import_module("common.options")
    args = arguments("--batch-size", 16)
    options.check_replicas(args, 2)
    with pytest.raises(SystemExit, match="is a multiple of the number of devices, 3. Received"):
        options.check_replicas(args, 3)


def test_what_cannot_be_saved_leaves_nothing(tmp_path, monkeypatch):
    surviving_of(monkeypatch)
    files = importlib.import_module("common.files")

    def save(path):
        path.write_text("half")
        raise OSError("the disk is full")

    (tmp_path / "network.h5").write_text("before")
    with pytest.raises(OSError, match="full"):
        files.write(tmp_path / "network.h5", save)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_too_little_room_for_backups_is_reported_before_training(tmp_path, monkeypatch):
    surviving = surviving_of(monkeypatch)
    model = tf.keras.Sequential([tf.keras.layers.Dense(4, input_shape=(3,))])
    model.compile("sgd")
    surviving.check_room(tmp_path, model)
    usage = shutil.disk_usage(tmp_path)._replace(free=2 * 16 * 4)  # a float for each weight, twice
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(SystemExit, match="MB free, and backups of this training need"):
        surviving.check_room(tmp_path, model)
