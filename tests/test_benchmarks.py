"""Every benchmark runs, small, and leaves its figures and its picture."""

import json
import pathlib
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parent.parent / "benchmarks"
SCRIPTS = {
    "optimizer_step": "--sizes 1000 70000 --rounds 2 --variables 3 --variable-size 50 "
    "--optimizers CascadedEMA Adam",
    "memory": "--width 64 --layers 1 --optimizers CascadedEMA",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_runs(name):
    output = f"test_{name}"
    command = [sys.executable, FOLDER / f"{name}.py", *SCRIPTS[name].split(), "--output", output]
    paths = [FOLDER / "results" / f"{output}{suffix}" for suffix in (".json", ".png")]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
        record = json.loads(paths[0].read_text("utf-8"))
        assert {"processor", "cores", "tensorflow"} <= set(record["machine"])
        assert paths[1].stat().st_size > 5000
        assert all(len(line) <= 80 for line in done.stdout.splitlines())
    finally:
        for path in paths:
            path.unlink(missing_ok=True)
    if name == "memory":
        held = record["bytes_per_binary_weight"]["CascadedEMA"]["held"]
        assert 12 <= held < 12.1  # a weight and two states, and a few numbers
    else:
        assert set(record["sizes"]) == {"1000", "70000"}
        assert set(record["sizes"]["1000"]) == {"copy", "CascadedEMA", "Adam"}
