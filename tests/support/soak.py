"""Kills trainings at random moments and compares what they end with: `make soak`.

A training by examples/cifar10.py that saves after every step, on one device and on two, is killed
(SIGKILL) in the middle of start-ups, steps and saves, and started again each time. In the end its
last backup has to equal that of a training that nobody disturbed, in every variable and bit.
"""

import argparse
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import tensorflow as tf

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "cifar10.py"
SHALLOW = pathlib.Path(__file__).parent / "shallow.py"

DEVICES = {"one device": (), "two": ("--strategy", "mirrored", "--logical-devices", "2")}


def command(folder, data, arguments):
    files = ("--backup", folder / "backup", "--output", folder / "history.json")
    return [
        *(sys.executable, SHALLOW, EXAMPLE, "--data-dir", data, "--width", "4"),
        *("--batch-size", "64", "--backup-steps", "1", *files, *arguments),
    ]


def variables(folder):
    """All variables of the last backup, but for the number of backups."""
    path = tf.train.latest_checkpoint(folder / "backup" / "training" / "chief")
    reader = tf.train.load_checkpoint(path)
    names = sorted(reader.get_variable_to_shape_map())
    return {n: reader.get_tensor(n) for n in names if "save_counter" not in n and n[0] != "_"}


def saves(folder):
    """The number of the last complete save."""
    path = tf.train.latest_checkpoint(folder / "backup" / "training" / "chief")
    return int(path.rsplit("-", 1)[1]) if path else 0


def train_and_kill(folder, data, arguments, kills, seed):
    """Trains to the end, killed so many times; returns at how many saves each kill came."""
    moments, times = random.Random(seed), []
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        with (folder / "log.txt").open("a") as log:
            process = subprocess.Popen(command(folder, data, arguments), stdout=log, stderr=log)
            if len(times) < kills:
                wait_for(process, folder, saves(folder) + moments.choice([0, 1, 1, 2, 4]), moments)
                times.append(saves(folder))
                process.kill()
            code = process.wait()
        if code == 0:
            return times
        if code != -9:
            raise RuntimeError(f"the training failed: see {folder / 'log.txt'}")


def wait_for(process, folder, count, moments):
    """Until there are so many saves, and then some milliseconds: into a step, or the next save."""
    if count == saves(folder):
        time.sleep(moments.uniform(0.0, 8.0))  # the start-up
    while saves(folder) < count and process.poll() is None:
        time.sleep(0.002)
    time.sleep(moments.uniform(0.0, 0.15))


def differences(one, two):
    """The names of variables that two trainings do not share, or not to the bit."""
    one, two = variables(one), variables(two)
    both = one.keys() & two.keys()
    return sorted(one.keys() ^ two.keys()) + [
        name for name in sorted(both) if one[name].tobytes() != two[name].tobytes()
    ]


def main():
    from datasets import write_cifar10

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, nargs=2, default=(14, 6), help="on one device, on two")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as name:
        data = pathlib.Path(name) / "data"
        write_cifar10(data)
        for (devices, arguments), kills in zip(DEVICES.items(), args.kills, strict=True):
            one, two = (pathlib.Path(name) / devices / part for part in ("undisturbed", "killed"))
            arguments = ("--epochs", "5", *arguments)
            train_and_kill(one, data, arguments, 0, 0)
            times = train_and_kill(two, data, arguments, kills, args.seed)
            different = differences(one, two)
            print(f"{devices}, seed {args.seed}: killed after {times} saves", flush=True)
            print(f"{len(variables(one))} variables, different: {different or 'none'}", flush=True)
            failed |= bool(different)
    sys.exit(failed)


if __name__ == "__main__":
    main()
