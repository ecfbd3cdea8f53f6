"""The examples, as a person runs them, in processes of their own."""

import json
import pathlib
import re
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest

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


def check_picture(path):
    picture = matplotlib.image.imread(path)
    assert 400 <= picture.shape[0] <= 700 and picture.shape[1] == 800
    assert len(np.unique(picture[..., :3].reshape(-1, 3), axis=0)) > 20
    assert path.stat().st_size < 200_000


@pytest.fixture(scope="module")
def invariance(tmp_path_factory):
    """The lines that magnitude_invariance.py prints, and its picture."""
    picture = tmp_path_factory.mktemp("plots") / "invariance.png"
    result = run("magnitude_invariance.py", "--steps", 60, "--plot", picture, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines(), picture


NEVER = ("never", "0.00%")


@pytest.mark.parametrize(
    ("recipe", "same"),
    [
        ("2ε, λ/2, 2w₀", True),
        ("ε/4, 4λ, w₀/4", True),
        ("16ε, λ/16, 16w₀", False),
        ("16ε, λ/16, 16w₀ without clip", True),
        ("0.3ε, λ/0.3, 0.3w₀ in float64", True),
        ("FilteredFlip in float64", True),
        ("ε, λ, one of w₀ negated", False),
        ("ε, λ, 4w₀", False),
        ("ε, λ/4, w₀", False),
        ("ε/4, λ, w₀", False),
        ("ε, λ/4, 4w₀", True),
    ],
)
def test_magnitude_invariance(recipe, same, invariance):
    row = next(line for line in invariance[0] if line.startswith(recipe + "   "))
    size, step, share, accuracy = row.removeprefix(recipe).split()
    assert (step, share) == NEVER if same else int(step) < 30 and float(share[:-1]) > 1.0
    assert (size == "±1") == ("FilteredFlip" in recipe)
    assert float(accuracy[:-1]) > 85.0


def test_magnitude_invariance_forgets_the_initialization(invariance):
    lines, picture = invariance
    rows = [re.split(" +", line.strip()) for line in lines]
    rows = {float(row[0]): row for row in rows if re.fullmatch(r"0(\.\d+)?", row[0])}
    assert list(rows) == [0.0, 0.003, 0.01, 0.03]
    for alpha, (_, steps, _, left, *shares) in rows.items():
        assert float(steps) == pytest.approx(1 / alpha if alpha else np.inf, abs=0.5)
        assert float(left) == pytest.approx((1 - alpha) ** 60, rel=0.05)
        fed, _, slower = shares[1:]
        assert (fed == slower) == (alpha == 0.0)  # where scaling ε and w₀ are the same
    assert all(len(line) <= 80 for line in lines)
    check_picture(picture)


def test_filter_design(tmp_path):
    picture = tmp_path / "design.png"
    arguments = ("--epochs", 5, "--seeds", 1, "--cutoff", 0.05, "--plot", picture)
    result = run("filter_design.py", *arguments, timeout=120)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    rows = [re.fullmatch(r"  (\S.*?) +(\d) +(\S+) +(\S+) +(\S+) ± +nan +(\S+)%", s) for s in lines]
    rows = [row.groups() for row in rows if row]
    assert [int(order) for _, order, *_ in rows] == [1, 2, 2, 2, 3, 4, 1, 2, 3]
    assert {cutoff for _, _, cutoff, *_ in rows} == {"0.0500"}
    lags, accuracies, flips = np.array([row[3:] for row in rows], float).T
    assert (lags[:3] == 3.1416).all() and (np.diff(lags[2:6]) < 0).all()
    assert (accuracies[[0, 1, 2, 6, 7]] > 75).all() and accuracies[5] < 60  # order 4 swings
    assert (flips[6:8] < flips[:2]).all()
    assert all(len(line) <= 80 for line in lines)
    check_picture(picture)


def test_filter_design_refuses_a_cutoff_that_not_all_filters_have():
    result = run("filter_design.py", "--cutoff", 0.2)
    assert result.returncode == 2 and "--cutoff must be in (0, 0.09)" in result.stderr
