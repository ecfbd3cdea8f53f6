"""The examples, as a person runs them, in processes of their own."""

import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"


def run(name, *arguments, timeout=300):
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def test_quickstart():
    result = run("quickstart.py", timeout=90)
    assert result.returncode == 0, result.stderr
    accuracy = float(re.search(r"test accuracy +([\d.]+)% of 599", result.stdout)[1])
    assert accuracy >= 96.0
    assert "with values [-1.0, 1.0]" in result.stdout
    assert result.stdout.count("flips per step") == 20
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


def test_quickstart_is_seeded():
    one, two = (run("quickstart.py", "--epochs", 2).stdout.splitlines()[:-1] for _ in range(2))
    assert one == two and len(one) > 2


def test_export_edge(tmp_path):
    """`make quickstart`: trained, packed, verified on every image held out, within 40 s."""
    result = run("export_edge.py", "--output", tmp_path / "new" / "folder", timeout=90)
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if str(tmp_path) not in line]
    assert all(len(line) <= 80 for line in lines)
    assert "packed              2 of 2 layers" in result.stdout
    assert "on 599 images held out" in result.stdout
    assert re.search(r"dense .* 100.00% +0.00%", result.stdout)
    assert float(re.search(r"test accuracy +([\d.]+)% of 599", result.stdout)[1]) >= 96.0
    data = (tmp_path / "new" / "folder" / "digits.tflite").read_bytes()
    header = (tmp_path / "new" / "folder" / "digits.h").read_text()
    numbers = re.search(r"digits_tflite\[(\d+)\] = {(.*?)}", header, re.DOTALL)
    assert bytes(int(n, 16) for n in numbers[2].split(",")) == data
    assert int(numbers[1]) == len(data) < 16_000


@pytest.fixture(scope="module")
def small_cifar10(tmp_path_factory, digits):
    """The digits, enlarged to 32×32 in colour, in the files that tfds expects of CIFAR-10."""
    folder = tmp_path_factory.mktemp("tensorflow_datasets")
    images = np.kron((digits[0] * 127 + 128).astype("uint8"), np.ones((1, 4, 4, 3), "uint8"))
    builder = tfds.builder("cifar10", data_dir=folder)

    def examples(some):
        for i in some:
            yield i, {"id": f"{i}", "image": images[i], "label": int(digits[1][i])}

    tfds.dataset_builders.store_as_tfds_dataset(
        name="cifar10",
        version=str(builder.version),
        features=builder.info.features,
        split_datasets={"train": examples(range(512)), "test": examples(range(1600, 1797))},
        data_dir=folder,
        disable_shuffling=True,
    )
    return folder


@pytest.mark.parametrize("optimizer", ["filtered", "adam", "sgd", "bop"])
def test_cifar10(optimizer, small_cifar10, tmp_path):
    output = tmp_path / "results" / "history.json"
    result = run(
        "cifar10.py",
        *("--epochs", 1, "--batch-size", 64, "--optimizer", optimizer),
        *("--recalibrate", 2, "--data-dir", small_cifar10, "--output", output),
    )
    assert result.returncode == 0, result.stderr
    assert re.search(r"test accuracy \d+\.\d+%", result.stdout)
    record = json.loads(output.read_text())
    assert record["arguments"]["optimizer"] == optimizer
    assert len(record["history"]["val_accuracy"]) == 1
    assert ("flip_ratio" in record["history"]) == (optimizer == "filtered")
    assert [path.name for path in output.parent.iterdir()] == ["history.json"]


def test_cifar10_says_how_to_get_the_data(tmp_path):
    result = run("cifar10.py", "--data-dir", tmp_path)
    assert result.returncode == 1
    assert "CIFAR-10 is not prepared in" in result.stderr
    assert f"tfds build cifar10 --data_dir {tmp_path}" in result.stderr
    assert "Traceback" not in result.stderr
