"""Tables of the pages and of README, from the JSON in benchmarks/results.

python docs/tables.py   # writes them anew

Each is between two comments, of which the first names it.
"""

import pathlib
import re
import statistics
import sys
from collections.abc import Callable
from typing import Any

HERE = pathlib.Path(__file__).parent
PAGES = (HERE.parent / "README.md", HERE / "results.md", *sorted((HERE / "guides").glob("*.md")))
sys.path.append(str(HERE.parent / "benchmarks"))

import report
from support import regret

EVENTS = {  # in life_events.json: in words
    "resume": "a `.keras` file is loaded, training goes on",
    "restore_best": "`EarlyStopping` restores the best weights",
    "swap_and_back": "weights are swapped for an evaluation, and back",
    "recompile": "`compile` with a new optimizer, α = 1e-3",
    "fine_tune": "`compile` with a new optimizer, α = 1e-4",
    "new_head": "a new last layer",
    "unfreeze": "a frozen layer is trained again",
    "two_step": "real weights from a first step without binary weights, `inertia=0.1`",
    "to_latent_free": "`to_latent_free` of a trained model",
    "load_weights_h5": "`load_weights` of a `.h5` file into a new model",
    "load_weights_v3": "`load_weights` of a `.weights.h5` file",
    "load_weights_checkpoint": "`load_weights` of a checkpoint, with filters",
}
OPTIMIZERS = {  # of events in a model's life, and what they are called in the table
    **{name: name for name in ("latent Adam", "CascadedEMA", "EMA", "IIR", "NormalizedEMA")},
    "Diode": "Diode's filter",
    "Bop": "Bop, `inertia=None`",
}
FRONT = {  # in accuracy_cifar10/: what README calls it
    "latent_sgd": "latent weights, SGD with momentum, learning rate {:g}",
    "cascaded_ema_squared": "`FilteredFlip(decay_steps=...)`, α = {:g}, γ = 0.1",
    "bop": "`recipes.bop`, γ = {:g} decaying",
    "latent_adam": "latent weights, Adam, learning rate {:g}",
    "ema": "`EMA`, α = {:g} decaying",
}
LENGTHS = ("short", "medium", "long")  # of trainings in untuned.py
LONG = "accuracy_cifar10_epochs60_recalibrate20_mixed_bfloat16"  # the folder of long trainings


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return text.replace(" ± ", "\u00a0±\u00a0")  # is not broken over two lines


def percent(values: list[float], digits: int = 1) -> str:
    """Mean and standard deviation over seeds."""
    spread = f" ± {100 * statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.{digits}f}{spread}"


def front() -> str:
    """Five recipes on CIFAR-10, for README."""
    found: dict[str, Any] = {}
    for one in report.standings(report.RESULTS / "accuracy_cifar10"):
        if one.family in FRONT:
            found.setdefault(one.family, one)  # the best rate of the real weights
    rows = []
    for family, one in found.items():
        accuracies = one.accuracies[one.best]
        name = FRONT[family].format(one.best)
        rows.append([name, report.mean(accuracies), str(len(accuracies))])
    return table(["binary weights are trained by", "test accuracy, %", "seeds"], rows)


def by_steps() -> str:
    """The default filter in trainings of several lengths, and other α."""
    tuned = report.read("fine_tuning")
    small = report.searched(report.RESULTS / "filter_search")
    cifar = {
        one.family: one
        for one in reversed(report.standings(report.RESULTS / "accuracy_cifar10"))
        if one.real_rate in (None, report.REAL_RATE)
    }
    default = tuned["from_random"]["0.0"]
    rows = [["380", "digits", "default", percent(default), str(len(default))]]
    for alpha, name in (
        ("0.03", "cascaded_ema_squared_alpha_3e-2"),
        ("0.01, the default", "cascaded_ema_squared"),
        ("0.003", "cascaded_ema_squared_alpha_3e-3"),
        ("0.001", "cascaded_ema_squared_alpha_1e-3"),
        ("0.0001", "cascaded_ema_squared_alpha_1e-4"),
    ):
        runs = [run["test_accuracy"] for run in small[name]]
        rows.append(
            ["3,900", "CIFAR-10, 16×16, width 8", f"α = {alpha}", percent(runs), str(len(runs))]
        )
    best = [value / 100 for value in cifar["cascaded_ema_squared"].accuracies[0.01]]
    rows.append(["3,900", "CIFAR-10, width 16", "default", percent(best), str(len(best))])
    return table(
        ["steps", "data and network", "`CascadedEMA`, γ = 0.1", "test accuracy, %", "seeds"], rows
    )


def decays() -> str:
    """Trials of a random search by the decay that they drew."""
    found: dict[str, list[float]] = {}
    for trial in report.read("search_budget")["spaces"]["filtered"]["trials"]:
        found.setdefault(trial["values"]["alpha_decay"], []).append(trial["held_out_accuracy"])
    rows = [
        [
            name,
            str(len(values)),
            f"{100 * statistics.median(values):.1f}",
            f"{100 * max(values):.1f}",
        ]
        for name, values in sorted(found.items(), key=lambda item: -statistics.median(item[1]))
    ]
    return table(["decay of α", "trials", "median accuracy, %", "best, %"], rows)


def budget() -> str:
    """Random searches over three and over seven hyperparameters."""
    rows = []
    names = {"filtered": "`filtered_flip`, 3", "latent": "`latent_sgd`, 7"}
    for space, name in names.items():
        record = report.read("search_budget")["spaces"][space]
        values = [trial["held_out_accuracy"] for trial in record["trials"]]
        again = record["repeats"]["test_accuracies"]
        rows.append(
            [
                name,
                f"{100 * max(values):.1f} %",
                f"{100 * best_of(values, 6):.1f} %",
                f"{100 * statistics.median(values):.1f} %",
                f"{percent(again)} % ({len(again)} seeds)",
            ]
        )
    best = f"best of {len(values)}"
    heads = ["space, hyperparameters", best, "best of 6, on average", "median trial"]
    return table([*heads, "best again, other seeds, test images"], rows)


def best_of(values: list[float], n: int) -> float:
    """The expected best of n trials drawn from these."""
    left, total = sorted(values, reverse=True), 0.0
    chance = 1.0  # that none of those before was drawn
    for i, value in enumerate(left):
        drawn = min(1.0, n / (len(left) - i))
        total += chance * drawn * value
        chance *= 1.0 - drawn
    return total


def inertia() -> str:
    """What a new optimizer leaves of trained bits."""
    record = report.read("fine_tuning")
    rows = []
    for value, row in record["rows"].items():
        cells = []
        for look, kept in row["kept"].items():
            pairs = zip(record["before"], row["after"][look], strict=True)
            changes = [100 * (after - before) for before, after in pairs]
            change = f"{statistics.mean(changes):+.1f} ± {statistics.stdev(changes):.1f} points"
            cells += [f"{percent(kept)} %", change]
        rows.append([f"{float(value):g}", *cells, f"{percent(record['from_random'][value])} %"])
    looks = record["rows"]["0.0"]["kept"]
    heads = [head for n in looks for head in (f"bits kept after {n} steps", "change of accuracy")]
    return table(["`inertia`", *heads, "accuracy of a training from random weights"], rows)


def events() -> str:
    """What the events in a model's life leave of its bits."""
    lost = report.read("life_events")["lost"]["compiled"]
    rows = [
        [name, *(f"{100 * lost[optimizer][event]:.2f}" for optimizer in OPTIMIZERS)]
        for event, name in EVENTS.items()
    ]
    return table(["bits that the next step changes, %", *OPTIMIZERS.values()], rows)


def recalibrated() -> str:
    """Validation accuracy by epoch, with and without new averages."""
    rows = []
    for label, name in (
        ("as it is", "cifar10_filtered"),
        ("with `RecalibrateBatchNorm`", "cifar10_filtered_recalibrated"),
    ):
        history = report.read(name)["history"]["val_accuracy"]
        rows.append([label, *(f"{100 * value:.1f} %" for value in history)])
    return table(["epoch", *map(str, range(1, len(rows[0])))], rows)


def flips() -> str:
    """Flip ratios of a training that went well."""
    run = report.searched(report.RESULTS / "filter_search")["cascaded_ema_squared"][0]
    epochs = [str(i + 1) for i in range(len(run["flip_ratio"]))]
    ratios = [f"{100 * ratio:.2f}" for ratio in run["flip_ratio"]]
    return table(["epoch", *epochs], [["flips, %", *ratios]])


def latency() -> str:
    """What exported files take on the machine of the benchmarks."""
    networks = report.read("export_latency")["networks"]
    rows = []
    for name, network in networks.items():
        times = {one["name"]: f"{one['median']:.2f}" for one in network["latencies"]}
        rows.append([name, f"{network['bytes'] / 1000:,.0f} kB", *times.values()])
    heads = [one["name"] for one in next(iter(networks.values()))["latencies"]]
    return table(["network", "file", *(f"{head}, ms" for head in heads)], rows)


def pretrained() -> str:
    """The trained networks that come with the package."""
    rows = []
    for path in sorted((report.RESULTS / "pretrained").glob("*.json")):
        one = report.read(f"pretrained/{path.stem}")
        times = {kernel["name"]: kernel["median"] for kernel in one["latency"]["latencies"]}
        rows.append(
            [
                f'`{one["network"]}(weights="{path.stem}")`',
                f"{100 * one['accuracy']:.1f}",
                f"{100 * one['packed_accuracy']:.1f}",
                f"{one['bytes'] / 1000:.0f} kB",
                f"{one['packed_bytes'] / 1000:.0f} kB",
                f"{times['default']:.2f}",
                f"`{one['command']}`",
            ]
        )
    heads = ["network", "test accuracy, %", "of the packed file, %", "weights", "packed file"]
    return table([*heads, "ms an image", "trained by"], rows)


def long_trainings() -> str:
    """Trainings of 60 epochs on CIFAR-10, and how they came there."""
    found = {
        FRONT[record["recipe"]["family"]].format(record["recipe"]["variant"]): record
        for path in sorted((report.RESULTS / LONG).glob("*.json"))
        for record in [report.read(f"{LONG}/{path.stem}")]
    }
    seen = (10, 20, 30, 40, 50, 60)
    rows = []
    for name, record in found.items():
        accuracies = record["history"]["val_accuracy"]
        rows.append([name, *(f"{100 * accuracies[n - 1]:.1f}" for n in seen)])
    teacher = 100 * report.read("cifar10_teacher")["history"]["val_accuracy"][-1]
    accuracies = report.read("cifar10_distilled")["history"]["val_accuracy"]
    name = f"the default of `FilteredFlip`, taught by a ResNet-20 of {teacher:.1f} %"
    rows.append([name, *(f"{100 * accuracies[n - 1]:.1f}" for n in seen)])
    rows.sort(key=lambda row: -float(row[-1]))
    return table(["test accuracy, %, after epoch", *map(str, seen)], rows)


def untuned() -> str:
    """How far optimizers at their own settings are below the best, over several tasks."""
    rows = []
    for name, cells in regret.regrets(report.RESULTS).items():
        by_length = [
            {cell: row for cell, row in cells.items() if cell.length == length}
            for length in range(len(LENGTHS))
        ]
        deviation = regret.deviation(cells)
        spread = "" if deviation is None else f" ± {deviation:.1f}"
        rows.append(
            [
                regret.ROWS[name],
                *(f"{regret.mean(some):.1f}" if some else "" for some in by_length),
                f"{regret.mean(cells):.1f}{spread}",
                f"{regret.worst(cells):.1f}",
            ]
        )
    return table(["optimizer, not tuned", *LENGTHS, "mean", "worst"], rows)


def untuned_tasks() -> str:
    """Test accuracies behind these, also of the small grid: a table for each task."""
    tables = []
    for path in sorted((report.RESULTS / regret.NAME).glob("*.json")):
        record = report.read(f"{regret.NAME}/{path.stem}")
        known = regret.accuracies(record)
        lengths = sorted({epochs for _, epochs in known})
        rows = []
        for name in dict.fromkeys([*regret.ROWS, *(name for name, _ in known)]):
            values = [[*known.get((name, epochs), {}).values()] for epochs in lengths]
            if any(values):
                cells = [report.mean(row) if row else "" for row in values]
                rows.append([regret.ROWS.get(name, name), *cells])
        heads = ["test accuracy, %, after", *map(_epochs, lengths)]
        tables.append(f"{record['what']}:\n\n{table(heads, rows)}")
    return "\n\n".join(tables)


def _epochs(number: Any) -> str:
    return f"{number} epoch{'' if str(number) == '1' else 's'}"


def without_end() -> str:
    """What was tried beside the default of a training without an end: a table for each task."""
    tables = []
    for task, variants in report.read("without_end")["runs"].items():
        lengths = list(next(iter(next(iter(variants.values())).values())))
        rows = []
        for name, by_seed in variants.items():
            cells = [
                " / ".join(
                    report.mean([run[n][key] for run in by_seed.values()])
                    for key in ("accuracy", "averaged")
                )
                for n in lengths
            ]
            rows.append([name, *cells, str(len(by_seed))])
        heads = ["test accuracy, % / of averages, after", *map(_epochs, lengths), "seeds"]
        tables.append(f"{task}:\n\n{table(heads, rows)}")
    return "\n\n".join(tables)


def ideas() -> str:
    """What was tried on a small task beside the default."""
    found = report.read("quick_search")
    known = regret.accuracies(found)
    lengths = sorted({epochs for _, epochs in known})
    rows = []
    for name, what in found["what"].items():
        values = [[*known.get((name, n), {}).values()] for n in lengths]
        if any(values):
            cells = [report.mean(row) if row else "" for row in values]
            rows.append([what, *cells, str(max(map(len, values)))])
    heads = ["test accuracy, %, after", *map(_epochs, lengths), "seeds"]
    return table(heads, rows)


TABLES: dict[str, Callable[[], str]] = {
    name: globals()[name]
    for name in (
        "front",
        "by_steps",
        "decays",
        "budget",
        "inertia",
        "events",
        "recalibrated",
        "flips",
        "latency",
        "pretrained",
        "long_trainings",
        "untuned",
        "untuned_tasks",
        "without_end",
        "ideas",
    )
}


def filled(page: str) -> str:
    """The text of a page with its tables as the results have them now."""

    def current(found: re.Match[str]) -> str:
        return f"{found[1]}\n{TABLES[found[2]]()}\n<!-- end -->"

    return re.sub(r"(?s)(<!-- (\w+) by docs/tables.py -->)\n.*?<!-- end -->", current, page)


def main() -> None:
    """Writes all tables anew."""
    for path in PAGES:
        path.write_text(filled(path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
