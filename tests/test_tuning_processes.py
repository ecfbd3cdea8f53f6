"""Searches that are killed, and searches of several processes; and Keras 3 beside them."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow
SUPPORT = pathlib.Path(__file__).parent / "support"


@contextlib.contextmanager
def started(folder, *arguments, **environment):
    """A process of searching.py, ended for good at the end."""
    name = environment.get("KERASTUNER_TUNER_ID", "alone")
    command = [sys.executable, SUPPORT / "searching.py", folder, *arguments]
    with (folder / f"{name}.log").open("a") as log:
        process = subprocess.Popen(
            [str(part) for part in command],
            env=os.environ | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(path, lines, process, timeout=120):
    """Until a process has noted so many lines."""
    end = time.monotonic() + timeout
    while not path.exists() or len(path.read_text().splitlines()) < lines:
        assert process.poll() is None, f"{path}: the process ended"
        assert time.monotonic() < end, f"{path}: nothing came"
        time.sleep(0.05)


def trials(folder):
    """By name, the trials on disk."""
    return {
        path.parent.name: json.loads(path.read_text())
        for path in sorted(folder.glob("search/trial_*/trial.json"))
    }


def test_a_killed_search_goes_on(tmp_path):
    notes = tmp_path / "alone.txt"
    with started(tmp_path, "--trials", 3) as process:
        wait_for(notes, 3, process)  # the second trial runs
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = trials(tmp_path)
    assert before["trial_0"]["status"] == "COMPLETED"
    assert before["trial_1"]["status"] == "RUNNING"
    with started(tmp_path, "--trials", 3) as process:
        assert process.wait(180) == 0, (tmp_path / "alone.log").read_text()
    after = trials(tmp_path)
    assert [trial["status"] for trial in after.values()] == ["COMPLETED"] * 3
    assert after["trial_0"] == before["trial_0"]
    hyperparameters = [t["trial_1"]["hyperparameters"]["values"] for t in (before, after)]
    assert hyperparameters[0] == hyperparameters[1]
    lines = notes.read_text().split("\n")[:-1]
    assert lines == [
        *("start 0", "end 0", "start 1"),
        *("start 1", "end 1", "start 2", "end 2"),
    ]


def test_two_workers_one_of_them_killed(tmp_path):
    """The chief hands its trial out again when a worker of its name comes back."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    address = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(port)}
    arguments = (tmp_path, "--trials", 5)
    with contextlib.ExitStack() as stack:

        def start(name):
            process = started(*arguments, **address, KERASTUNER_TUNER_ID=name)
            return stack.enter_context(process)

        chief, first, second = map(start, ("chief", "worker0", "worker1"))
        notes = [tmp_path / f"worker{i}.txt" for i in (0, 1)]
        wait_for(notes[1], 3, second)
        second.send_signal(signal.SIGKILL)
        second.wait()
        lost = notes[1].read_text().splitlines()[-1].removeprefix("start ")
        assert trials(tmp_path)[f"trial_{lost}"]["status"] == "RUNNING"
        second = start("worker1")
        for process in (first, second, chief):
            assert process.wait(180) == 0, (tmp_path / "chief.log").read_text()
    assert [t["status"] for t in trials(tmp_path).values()] == ["COMPLETED"] * 5
    lines = [path.read_text().splitlines() for path in notes]
    assert lines[1][2:5] == [f"start {lost}", f"start {lost}", f"end {lost}"]
    ended = [line for both in lines for line in both if line.startswith("end")]
    assert len(ended) == len(set(ended)) == 5
    assert all(len(one) > 2 for one in lines)


SEARCH = """
import sys
sys.path.insert(0, {here!r})
import searching
train, test = searching.load()
tuner = lqf.tuning.RandomSearch(searching.build, "val_accuracy", max_trials=1, directory={folder!r})
tuner.search(*train, validation_data=test, epochs=1, verbose=0)
print("found", tuner.get_best_models()[0].__class__.__module__)
"""
KERAS_3 = """
def build(hp):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(hp.Float("rate", 0.1, 0.2)), "mse")
    return model
tuner = keras_tuner.RandomSearch(build, "loss", max_trials=1, directory={folder!r})
tuner.search(np.ones((4, 1)), np.ones((4, 1)), verbose=0)
print("found", tuner.get_best_models()[0].__class__.__module__)
"""


def run(code, folder):
    code = "import numpy as np\n" + code.format(here=str(SUPPORT), folder=str(folder))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)


def test_keras_3_in_the_same_program(tmp_path):
    """It works as ever; only KerasTuner is bound to Keras 2."""
    before = "import keras\nimport larq_filters as lqf\nassert lqf.tuning\n"
    use = "print('Keras', keras.layers.Dense(1)(np.ones((1, 2))).shape, keras.__version__)\n"
    after = "import keras\nprint('Keras', keras.__version__)\n"
    for code in (before + use + SEARCH, "import larq_filters as lqf\n" + SEARCH + after):
        result = run(code, tmp_path)
        assert result.returncode == 0, result.stderr
        assert "found tf_keras." in result.stdout and "Keras " in result.stdout


def test_keras_tuner_of_keras_3_is_told(tmp_path):
    result = run("import keras_tuner\nimport larq_filters as lqf\n" + SEARCH, tmp_path)
    assert result.returncode == 1
    assert "Import larq_filters.tuning before keras_tuner" in result.stderr.splitlines()[-1]


def test_a_search_of_keras_3_models_is_told(tmp_path):
    code = "import larq_filters.tuning\nimport keras\nimport keras_tuner\n" + KERAS_3
    result = run(code, tmp_path)
    assert result.returncode == 1
    assert "Search Keras 3 models in another program" in result.stderr


def test_in_a_program_of_their_own_keras_3_models_are_searched(tmp_path):
    result = run("import keras\nimport keras_tuner\n" + KERAS_3, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "found keras." in result.stdout


def test_keras_tuner_alone_does_not_respect_keras_2(tmp_path):
    """When this fails, KerasTuner does: delete larq_filters/tuning/_keras_tuner.py."""
    keras_2 = "import larq_filters\nimport keras_tuner\nfrom tensorflow import keras\n"
    result = run(keras_2 + KERAS_3, tmp_path)
    assert result.returncode == 1
    assert "valid Keras Model instance" in result.stderr


def test_without_keras_tuner(tmp_path):
    code = (
        "import sys\nsys.modules['keras_tuner'] = None\nimport larq_filters as lqf\n"
        "from larq_filters import *\nlqf.tuning\n"
    )
    result = run(code, tmp_path)
    assert result.returncode == 1
    assert "pip install 'larq-filters[tuner]'" in result.stderr.splitlines()[-1]
