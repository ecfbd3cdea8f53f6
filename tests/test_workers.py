"""Under tf.distribute, over several processes on 127.0.0.1."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

HERE = pathlib.Path(__file__).parent
EPOCHS, STEPS = 7, 56
ARGUMENTS = ("--epochs", EPOCHS, "--batch-size", 64, "--width", 4)


class Workers:
    """Processes of worker.py, and what they note in a folder; ended for good at the end."""

    def __init__(self, folder, data, strategy="multi_worker", number=2, arguments=()):
        folder.mkdir()
        self.notes = [folder / f"{i}" for i in range(number)]
        sockets = [socket.socket() for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        cluster = {"worker": [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]}
        for one in sockets:
            one.close()
        self.processes = []
        for i, path in enumerate(self.notes):
            task = {"cluster": cluster, "task": {"type": "worker", "index": i}}
            environment = os.environ | {"TF_CONFIG": json.dumps(task)}
            command = [sys.executable, HERE / "worker.py", path, *ARGUMENTS, *arguments]
            command += ["--strategy", strategy, "--data-dir", data, "--output", folder / "h.json"]
            with path.with_suffix(".log").open("w") as log:
                self.processes.append(
                    subprocess.Popen(
                        [str(part) for part in command],
                        env=environment if strategy == "multi_worker" else None,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                    )
                )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()

    def wait(self, timeout=180):
        """Exit statuses, within some seconds for all."""
        end = time.monotonic() + timeout
        return [process.wait(max(0, end - time.monotonic())) for process in self.processes]

    def wait_for_step(self, step, timeout=180):
        end = time.monotonic() + timeout
        while not all(len(self.steps(i)) >= step for i in range(len(self.notes))):
            assert time.monotonic() < end, self.log(0)
            assert all(process.poll() is None for process in self.processes), self.log(0)
            time.sleep(0.02)

    def log(self, worker):
        return self.notes[worker].with_suffix(".log").read_text(errors="replace")

    def steps(self, worker):
        """Pairs of a step's number and the fingerprint of all binary weights after it."""
        path = self.notes[worker].with_suffix(".txt")
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def state(self, worker):
        """Whether an array is one of batch norm's averages, and the array, of all that is kept."""
        with np.load(self.notes[worker].with_suffix(".npz")) as file:
            return [(name.startswith("average"), file[name]) for name in file.files]


@pytest.fixture(scope="module")
def uninterrupted(small_cifar10, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    arguments = ("--save", folder / "network.h5", "--backup", folder / "backup")
    with Workers(folder / "notes", small_cifar10, arguments=arguments) as workers:
        assert workers.wait() == [0, 0], workers.log(0)
    assert sorted(path.name for path in folder.iterdir()) == ["backup", "network.h5", "notes"]
    return workers


def test_two_workers_stay_equal(uninterrupted):
    """All bits of the binary weights after every step, and of everything else at the end."""
    one, two = uninterrupted.steps(0), uninterrupted.steps(1)
    assert one == two and [int(step) for step, _ in one] == list(range(1, STEPS + 1))
    assert len({fingerprint for _, fingerprint in one}) > STEPS / 2
    for (_, a), (_, b) in zip(uninterrupted.state(0), uninterrupted.state(1), strict=True):
        np.testing.assert_array_equal(a, b)
    assert "test accuracy" in uninterrupted.log(0)


def test_two_workers_do_what_one_process_does(uninterrupted, small_cifar10, tmp_path):
    """With two devices in it, so that batch norm sees the same halves of the same batches.

    All bits of the binary weights at first. Later, as threads share the sums of a convolution out
    differently, an activation near 0 may get the other sign: then a few weights may differ, and
    real numbers, among them the filters' state, by little of their scale. A sum of gradients where
    there should be a mean would double that state.
    """
    arguments = ("--logical-devices", 2)
    with Workers(tmp_path / "notes", small_cifar10, "mirrored", 1, arguments) as one:
        assert one.wait() == [0], one.log(0)
    assert one.steps(0)[:10] == uninterrupted.steps(0)[:10]
    for (_, a), (_, b) in zip(one.state(0), uninterrupted.state(0), strict=True):
        if set(np.unique(b)) == {-1.0, 1.0}:
            assert (a != b).mean() <= 0.02
        else:
            np.testing.assert_allclose(a, b, rtol=0, atol=0.1 * np.abs(b).max())


def test_a_killed_worker_ends_the_other_and_a_restart_goes_on(
    uninterrupted, small_cifar10, tmp_path
):
    """From the last backup, with the weights of a training that was never stopped.

    All bits of all that is trained. Keras saves the mean of the workers' averages of batch norm,
    and all go on from it: the mean in the end is the same but for rounding.
    """
    arguments = ("--backup", tmp_path / "backup", "--backup-steps", 5)
    with Workers(tmp_path / "killed", small_cifar10, arguments=arguments) as workers:
        workers.wait_for_step(22)
        workers.processes[1].send_signal(signal.SIGKILL)
        statuses = workers.wait(timeout=60)
    assert statuses[1] == -signal.SIGKILL and statuses[0] > 0
    assert "Collective ops is aborted" in workers.log(0)
    assert len(workers.steps(0)) < STEPS
    with Workers(tmp_path / "restarted", small_cifar10, arguments=arguments) as workers:
        assert workers.wait() == [0, 0], workers.log(0)
    steps = workers.steps(0)
    assert 20 < int(steps[0][0]) < STEPS and (int(steps[0][0]) - 1) % 5 == 0
    assert steps == workers.steps(1) == uninterrupted.steps(0)[-len(steps) :]
    for (is_average, a), (_, b) in zip(workers.state(0), uninterrupted.state(0), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5 if is_average else 0, atol=0)


@pytest.mark.parametrize("workers", [1, 2])
def test_parameter_servers(workers):
    """One worker does exactly what one device does; two work at once, and do not wait."""
    command = [sys.executable, HERE / "parameter_servers.py", f"{workers}", "2"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["steps"] == 90
    # The last of two workers to write a scheduled value need not be the last to count its step.
    assert found["alpha"] == pytest.approx(2e-2 / 90, rel=1e-4 if workers == 1 else 2.0)
    assert found["accuracy"][-1] > 0.8 and 0 < found["flip_ratio"][-1] < found["flip_ratio"][0]
    for layer in found["layers"]:
        assert layer["values"] == [-1.0, 1.0]
        assert layer["same_as_one_device"] or workers == 2
        assert len(layer["devices"]) == 1  # a weight's filter is where the weight is
    assert {device for layer in found["layers"] for device in layer["devices"]} == {
        f"/job:ps/replica:0/task:{i}/device:CPU:0" for i in range(2)
    }
