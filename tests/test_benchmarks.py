"""Every benchmark runs, small, and leaves its figures and its picture."""

import importlib
import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

FOLDER = pathlib.Path(__file__).parent.parent / "benchmarks"
SHALLOW = pathlib.Path(__file__).parent / "support" / "shallow.py"


def run(folder, name, *arguments):
    """The record and the output of a benchmark, with shallow networks and results in a folder."""
    command = [sys.executable, SHALLOW, FOLDER / f"{name}.py", *arguments]
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=500,
        env=os.environ | {"BENCHMARK_RESULTS": str(folder / "results")},
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    path = folder / "results" / f"{name}.json"
    record = json.loads(path.read_text("utf-8")) if path.exists() else None
    return record, done.stdout


def assert_machine(record):
    assert {"processor", "cores", "tensorflow"} <= record["machine"].keys()


def assert_fits(output):
    assert all(len(line) <= 80 for line in output.splitlines()), output


@pytest.mark.slow
def test_optimizer_step(tmp_path):
    few = ("--rounds", 2, "--variables", 3, "--variable-size", 50, "--split", 70000)
    optimizers = ("--optimizers", "CascadedEMA", "Adam")
    record, output = run(tmp_path, "optimizer_step", "--sizes", 1000, 1e12, *few, *optimizers)
    assert_machine(record)
    assert_fits(output)
    assert record["sizes"].keys() == {"1000", "70000"}
    assert "1,000,000,000,000 weights do not fit" in output
    assert record["sizes"]["1000"].keys() == {"copy", "CascadedEMA", "Adam"}
    assert record["in_parts"]["rows"].keys() == {"copy", "CascadedEMA", "Adam"}
    assert (tmp_path / "results" / "optimizer_step.png").stat().st_size > 5000


@pytest.mark.slow
def test_memory(tmp_path):
    small = ("--width", 64, "--layers", 1, "--optimizers", "CascadedEMA")
    record, output = run(tmp_path, "memory", *small)
    assert_machine(record)
    assert_fits(output)
    held = record["bytes_per_binary_weight"]["CascadedEMA"]["held"]
    assert 12 <= held < 12.1  # a weight and two states, and a few numbers
    assert (tmp_path / "results" / "memory.png").stat().st_size > 5000


@pytest.mark.slow
def test_training_throughput(small_cifar10, tmp_path):
    small = ("--width", 2, "--batch-size", 16, "--rounds", 2, "--data-dir", small_cifar10)
    record, output = run(tmp_path, "training_throughput", *small)
    assert_machine(record)
    assert record["traces"] == 1
    assert 0 < record["optimizer_share"]["median"] < 1
    assert len({tuple(seconds) for seconds in record["seconds"].values()}) == 1
    assert record["bfloat16_over_float32"]["median"] > 0


@pytest.mark.slow
def test_epoch_profile(small_cifar10, tmp_path):
    """The parts of the network's step, and the rest of fit, make a whole epoch."""
    small = ("--width", 2, "--batch-size", 16, "--steps", 3, "--rounds", 2)
    record, output = run(tmp_path, "epoch_profile", *small, "--data-dir", small_cifar10)
    assert_machine(record)
    assert_fits(output)
    assert record["seconds_of_callbacks"].keys() == {"FlipRatio", "Backup", "History"}
    spent = record["seconds_of_an_epoch"]
    steps = record["seconds_of_a_step"]["with the input pipeline"]["median"]
    outside = spent["callbacks"] + spent["validation"]
    np.testing.assert_allclose(sum(spent.values()) - outside, record["steps_per_epoch"] * steps)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("cc"), reason="needs cc: install a C compiler")
def test_bits_latency(tmp_path):
    record, output = run(tmp_path, "bits_latency", "--runs", 2, "--networks", 2)
    assert_machine(record)
    assert_fits(output)
    assert record["runs"] == 2 and len(record["milliseconds"]) == 2
    for rows in record["milliseconds"].values():
        assert rows.keys() == {"C, -O2", "C, native", "LCE, default", "LCE, indirect"}
        assert all(0 < r["lower"] <= r["median"] <= r["upper"] for r in rows.values())


@pytest.mark.slow
def test_export_latency(tmp_path):
    record, output = run(tmp_path, "export_latency", "--runs", 2, "--networks", 2)
    assert_machine(record)
    assert_fits(output)
    assert len(record["networks"]) == 2 and output.count("kB") == 2


@pytest.mark.slow
def test_fine_tuning(tmp_path):
    record, output = run(tmp_path, "fine_tuning", "--seeds", 1, "--epochs", 2)
    assert_machine(record)
    assert_fits(output)
    cold, warm, _ = record["rows"].values()
    assert [len(values) for values in record["from_random"].values()] == [1, 1, 1]
    assert warm["kept"].keys() == cold["after"].keys() == {"114", "418"}
    assert min(warm["kept"]["114"]) > 0.9 > 0.7 > max(cold["kept"]["114"])


@pytest.mark.slow
def test_life_events(tmp_path):
    """Trained weights survive a recompilation, and weights that are restored the next step."""
    few = ("--optimizers", "latent Adam", "EMA", "--ways", "compiled")
    events = ("resume", "restore_best", "fine_tune")
    record, output = run(tmp_path, "life_events", *few, "--events", *events)
    assert_machine(record)
    assert_fits(output)
    lost = record["lost"]["compiled"]["EMA"]
    assert lost.keys() == set(events) and lost["fine_tune"] < 1e-3
    # As in a step that nothing disturbs; a filter that lost its state flips half of all.
    assert lost["restore_best"] < lost["resume"] + 0.1


@pytest.mark.slow
def test_accuracy_cifar10(small_cifar10, tmp_path):
    """A finished run is not done again; one that was stopped is."""
    few = ("--epochs", 1, "--width", 2, "--data-dir", small_cifar10)
    folder = tmp_path / "results" / "accuracy_cifar10_epochs1_width2"
    _, output = run(tmp_path, "accuracy_cifar10", "ema", "latent_sgd", *few)
    names = ["ema_0.0005", "ema_0.001", "latent_sgd_100", "latent_sgd_10", "latent_sgd_30"]
    assert sorted(path.stem for path in folder.iterdir()) == [f"{n}_seed1" for n in names]
    records = {path.stem: json.loads(path.read_text("utf-8")) for path in folder.iterdir()}
    for record in records.values():
        assert_machine(record)
        assert len(record["history"]["val_accuracy"]) == 1
    assert "flip_ratio" in records["ema_0.0005_seed1"]["history"]
    _, table = output.split("family ")
    assert_fits(table)
    expected = [
        (f"{r['recipe']['variant']:g}", f"{100 * r['history']['val_accuracy'][-1]:.1f}")
        for r in records.values()
    ]
    rows = [line.split() for line in table.splitlines()[1:]]
    assert sorted((row[-3], row[-2]) for row in rows) == sorted(expected)
    firsts = {row[0]: row for row in rows if len(row) == 4}
    assert firsts.keys() == {"ema", "latent_sgd"}
    for family, row in firsts.items():
        own = [r for name, r in records.items() if name.startswith(family)]
        best = max(100 * record["history"]["val_accuracy"][-1] for record in own)
        assert row[2] == f"{best:.1f}" and row[3] == "1"
    (folder / "ema_0.0005_seed1.json").unlink()
    _, output = run(tmp_path, "accuracy_cifar10", "ema", *few)
    assert "ema_0.0005_seed1" in output and "ema_0.001_seed1" not in output
    again = json.loads((folder / "ema_0.0005_seed1.json").read_text("utf-8"))
    assert again["history"] == records["ema_0.0005_seed1"]["history"]


@pytest.mark.slow
def test_filter_search(small_cifar10, tmp_path):
    """A finished run is not done again, and another process makes the same of a seed."""
    arguments = ("filter_search", "cusum_sign", "latent_adam", "--data-dir", small_cifar10)
    folder = tmp_path / "results" / "filter_search"
    _, output = run(tmp_path, *arguments)
    paths = [folder / f"{name}_seed1.json" for name in ("cusum_sign", "latent_adam")]
    assert sorted(folder.iterdir()) == paths
    first = [json.loads(path.read_text("utf-8")) for path in paths]
    for record in first:
        assert_machine(record)
        assert len(record["accuracy"]) == 10 and record["candidate"] in output
    assert any(first[0]["flip_ratio"]) and not first[1]["flip_ratio"]
    assert_fits("\n".join(output.splitlines()[-3:]))
    paths[0].unlink()
    _, output = run(tmp_path, *arguments)
    assert "cusum_sign, seed 1" in output and "latent_adam, seed 1" not in output
    assert json.loads(paths[0].read_text("utf-8")) == first[0]


@pytest.mark.slow
def test_search_budget(small_cifar10, tmp_path):
    few = ("--trials", 2, "--epochs", 10, "--width", 2, "--subset", 256, "--held-out", 128)
    arguments = (*few, "--repeats", 1, "--data-dir", small_cifar10)
    record, output = run(tmp_path, "search_budget", *arguments)
    assert_machine(record)
    for space, number in (("filtered", 3), ("latent", 7)):
        results = record["spaces"][space]
        assert [len(trial["values"]) for trial in results["trials"]] == [number] * 2
        best = max(results["trials"], key=lambda trial: trial["held_out_accuracy"])
        assert results["repeats"]["values"] == best["values"]
        assert len(results["repeats"]["test_accuracies"]) == 1
    assert (tmp_path / "results" / "search_budget.png").stat().st_size > 5000
    again, output = run(tmp_path, "search_budget", *arguments)
    assert again == record and "Epoch" not in output


@pytest.fixture
def benchmark(monkeypatch):
    for folder in (FOLDER, FOLDER.parent / "examples"):  # as `support` puts it there, once
        monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module


def test_the_best_of_n_trials_on_average(benchmark):
    scores = [0.3, 0.1, 0.4, 0.1, 0.5]
    expected = [
        np.mean([max(some) for some in itertools.combinations(scores, n)]) for n in range(1, 6)
    ]
    np.testing.assert_allclose(benchmark("support.results").expected_best(scores), expected)


@pytest.mark.slow
def test_untuned(tmp_path):
    small = ("cells", "--epochs", 1, 2, "--seeds", 1)
    _, output = run(tmp_path, "untuned", *small)
    assert_fits(output)
    record = json.loads((tmp_path / "results" / "untuned" / "cells.json").read_text("utf-8"))
    assert_machine(record)
    runs = record["runs"]
    assert list(runs["FilteredFlip() | 1_2 epochs | seed 0"]["seen"]) == ["1", "2"]
    assert "FilteredFlip(decay_steps) | 2 epochs | seed 0" in runs  # its end is another
    assert not any("to its end" in run for run in runs)
    _, output = run(tmp_path, "untuned", *small)
    assert "epochs | seed" not in output  # all is done
    _, output = run(tmp_path, "untuned", *small, "--report")
    assert "regret" in output
    assert (tmp_path / "results" / "untuned.png").stat().st_size > 5000


@pytest.mark.slow
def test_quick_search(tmp_path):
    """Every filter that is its own, a step of each kind of idea."""
    some = ("default", "reste", "centered", "balanced", "stubborn", "forgetful", "restarts")
    small = (*some, "flip_ratio 1 %, by layer", "--epochs", 1, "--seeds", 1)
    record, output = run(tmp_path, "quick_search", *small)
    assert_machine(record)
    assert_fits(output)
    assert len(record["runs"]) == 8 and set(some) < set(record["what"])
    seen = [run["seen"]["1"]["accuracy"] for run in record["runs"].values()]
    assert min(seen) > 30 and len(set(seen)) > 5  # of seven languages, a seventh is 14
    _, output = run(tmp_path, "quick_search", *small)
    assert "epochs | seed" not in output  # all is done


def test_regret_is_the_distance_from_the_best_of_all(benchmark, tmp_path):
    """The best may be a mark; means are of seeds; lengths are the task's own."""
    regret = benchmark("support.regret")
    rows = {
        "FilteredFlip() | 2_10 epochs | seed 0": {2: 80.0, 10: 90.0},
        "FilteredFlip() | 2_10 epochs | seed 1": {2: 82.0, 10: 91.0},
        "Diode | 2_10 epochs | seed 0": {2: 70.0, 10: 92.5},
        "Diode | 5 epochs | seed 0": {5: 77.0},
        "alpha 0.01, to its end | 2 epochs | seed 0": {2: 85.0},
    }
    runs = {
        run: {"seen": {str(n): {"accuracy": value} for n, value in row.items()}}
        for run, row in rows.items()
    }
    (tmp_path / "untuned").mkdir()
    record = {"epochs": [2, 10, 100], "runs": runs}
    (tmp_path / "untuned" / "digits.json").write_text(json.dumps(record))
    short, long = ("digits", 2, 0), ("digits", 10, 1)
    found = regret.regrets(tmp_path)
    assert found == {
        "FilteredFlip()": {short: {0: 5.0, 1: 3.0}, long: {0: 2.5, 1: 1.5}},
        "Diode": {short: {0: 15.0}, long: {0: 0.0}},
    }
    ours = found["FilteredFlip()"]
    assert (regret.mean(ours), regret.worst(ours)) == (3.0, 4.0)
    assert np.isclose(regret.deviation(ours), np.std([3.75, 2.25], ddof=1))
    assert regret.deviation(found["Diode"]) is None


def test_what_fit_leaves_is_of_tasks_where_averages_were_looked_at(
    benchmark, monkeypatch, tmp_path
):
    reports, results = benchmark("reports.untuned"), benchmark("support.results")
    (tmp_path / "untuned").mkdir()

    def write(task, shift, **more):
        def run(value, **rest):
            rows = {n: {"as_it_is": value + n, "accuracy": value + n + 1.0, **rest} for n in (2, 4)}
            return {"seen": rows}

        rest = "2_4 epochs | seed"
        runs = {f"FilteredFlip() | {rest} {s}": run(shift + 2.0 * s) for s in (0, 1)}
        runs[f"FilteredFlip(average=16) | {rest} 0"] = run(shift, **more)
        runs[f"FilteredFlip(decay_steps) | {rest} 0"] = run(shift + 9.0)
        record = {"epochs": [2, 4], "runs": runs}
        (tmp_path / "untuned" / f"{task}.json").write_text(json.dumps(record))

    write("digits", 50.0, averages=55.0)
    write("cifar10_small", 70.0, averages=75.0)
    write("mnist", 0.0)
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(reports, "LENGTHS", ("short", "long"))
    lines = reports.left_by_fit().replace("\u00a0", " ").splitlines()
    assert [line.split(" | ")[1:] for line in lines[2:]] == [
        ["62.0", "64.0", "74.0 |"],
        ["64.0 ± 1.4", "66.0 ± 1.4", "76.0 ± 1.4 |"],
        ["65.0", "65.0", "75.0 |"],
        ["63.0", "65.0", "75.0 |"],
        ["71.0", "73.0", "83.0 |"],
    ]


def test_a_trained_network_is_shown_with_the_command_that_trains_it(benchmark, monkeypatch):
    pretrained, accuracy = benchmark("pretrained"), benchmark("accuracy_cifar10")
    records = sorted((FOLDER / "results").glob("accuracy_cifar10*/*.json"))
    assert len(records) > 20
    for path in records:
        command = pretrained.trained_by(json.loads(path.read_text("utf-8")))
        monkeypatch.setattr(sys, "argv", command.split())
        args = accuracy.parse_arguments()
        assert accuracy.name(args) == path.parent.name
        assert path.stem in [run for *_, run in accuracy.runs(args)]
    records = sorted((FOLDER / "results").glob("cifar10_*.json"))
    assert len(records) > 4
    elsewhere = ("data_dir", "output", "save", "backup", "backup_steps", "tensorboard")
    for path in records:
        record = json.loads(path.read_text("utf-8"))
        program, *options = pretrained.trained_by(record).split()
        args = vars(pretrained.cifar10.parse_arguments(options))
        assert program == "examples/cifar10.py"
        for name, value in record["arguments"].items():
            assert name in elsewhere or args[name] == value, (path, name)


def test_time_is_charged_to_the_callback_that_spent_it(benchmark):
    """Clocks are before, between and after two callbacks; `fit` runs a step between hooks."""
    notes, now = [], 0.0
    for hook, first, second, then in (
        ("on_epoch_begin", 1, 2, 100),
        ("on_train_batch_begin", 3, 4, 1000),  # the step
        ("on_train_batch_end", 5, 6, 100),
        ("on_train_batch_begin", 7, 8, 2000),
        ("on_train_batch_end", 9, 10, 100),
        ("on_epoch_end", 11, 12, 0),
    ):
        for clock, seconds in (("start", first), ("one", second), ("two", then)):
            notes.append((clock, hook, now))
            now += seconds
    inside, steps = benchmark("epoch_profile").spent(notes, scale=50)
    assert inside == {
        "one": 1 + 11 + 50 * (3 + 5 + 7 + 9),
        "two": 2 + 12 + 50 * (4 + 6 + 8 + 10),
    }
    assert steps == [1000, 2000]


def test_every_family_has_its_row(benchmark):
    rows = benchmark("reports.accuracy").FAMILIES
    assert rows.keys() == benchmark("accuracy_cifar10").ALL.keys()


def test_every_searched_row_is_of_a_candidate(benchmark):
    rows = benchmark("reports.searches")
    names = {name for row in (*rows.SEARCHED.values(), *rows.ROUNDED.values()) for name in row}
    assert names - {None} <= benchmark("filter_search").CANDIDATES.keys()


def test_a_cell_of_the_search_is_the_mean_of_its_runs(benchmark):
    paths = (FOLDER / "results" / "filter_search").glob("cascaded_ema_squared_seed*.json")
    runs = [100 * json.loads(path.read_text("utf-8"))["test_accuracy"] for path in paths]
    lines = benchmark("reports.searches").search().splitlines()
    row = next(line for line in lines if "α = 0.01, γ = 0.1" in line)
    expected = f"{np.mean(runs):.1f} ± {np.std(runs, ddof=1):.1f} ({len(runs)})"
    assert row.split(" | ")[1].replace("\u00a0", " ") == expected


def test_tables_of_pages_are_of_the_results(benchmark):
    report = benchmark("report")
    pages = [path.read_text("utf-8") for path in report.PAGES]
    assert [report.filled(page) for page in pages] == pages
    used = re.findall(r"<!-- (\w+) by benchmarks/report.py -->", "".join(pages))
    assert set(used) == report.TABLES.keys()
