"""What untuned.py found: how far each optimizer is below the best of all."""

import json
import pathlib
import statistics
from collections.abc import Mapping
from typing import Any, NamedTuple

NAME = "untuned"  # of the folder in results/
ROWS = {  # in the results: what tables call it
    "FilteredFlip(average=16)": "`FilteredFlip(average=16)` with `SwapAverages`",
    "FilteredFlip()": "`FilteredFlip()`",
    "FilteredFlip(decay_steps)": "`FilteredFlip(decay_steps=...)`, which knows its end",
    "larq's Bop": "larq's `Bop`",
    "Bop2ndOrder": "Bop2ndOrder",
    "Diode": "Diode",
    "latent SGD, 0.1": "latent weights, SGD 0.1 with momentum 0.9",
    "latent Adam, 1e-3": "latent weights, Adam 1e-3",
}


class Cell(NamedTuple):
    """A task and a length of training."""

    task: str
    epochs: int
    length: int
    """Its place among the lengths of the task: 0 is the shortest."""


def accuracies(
    record: Mapping[str, Any], kind: str = "accuracy"
) -> dict[tuple[str, int], dict[int, float]]:
    """Of a task's file, by optimizer and epochs: test accuracy in percent by seed.

    Args:
        record: The file.
        kind: Of the network with batch norm recalibrated; or another one that untuned.py looks at.
    """
    found: dict[tuple[str, int], dict[int, float]] = {}
    for run, result in record["runs"].items():
        name, _, seed = run.split(" | ")
        for epochs, row in result["seen"].items():
            if kind in row:
                by_seed = found.setdefault((name, int(epochs)), {})
                by_seed[int(seed.removeprefix("seed "))] = row[kind]
    return found


def regrets(folder: pathlib.Path) -> dict[str, dict[Cell, dict[int, float]]]:
    """By optimizer, cell and seed: points below the best mean over seeds, also of tuned ones.

    Args:
        folder: Where results are.
    """
    found: dict[str, dict[Cell, dict[int, float]]] = {name: {} for name in ROWS}
    for path in sorted((folder / NAME).glob("*.json")):
        record = json.loads(path.read_text("utf-8"))
        known = accuracies(record)
        for length, epochs in enumerate(record["epochs"]):
            means = [statistics.mean(row.values()) for (_, n), row in known.items() if n == epochs]
            for name in ROWS:
                row = known.get((name, epochs), {})
                if row:
                    cell = Cell(path.stem, epochs, length)
                    found[name][cell] = {seed: max(means) - one for seed, one in row.items()}
    return {name: cells for name, cells in found.items() if cells}


def mean(cells: Mapping[Cell, Mapping[int, float]]) -> float:
    """Over cells; of one, over seeds."""
    return statistics.mean(statistics.mean(row.values()) for row in cells.values())


def worst(cells: Mapping[Cell, Mapping[int, float]]) -> float:
    """The mean over seeds of the worst cell."""
    return max(statistics.mean(row.values()) for row in cells.values())


def deviation(cells: Mapping[Cell, Mapping[int, float]]) -> float | None:
    """Between seeds, of the mean over the cells that have several; None if there are none."""
    rows = [row for row in cells.values() if len(row) > 1]
    seeds = set.intersection(*(set(row) for row in rows)) if rows else set()
    if len(seeds) < 2:
        return None
    return statistics.stdev(statistics.mean(row[seed] for row in rows) for seed in seeds)
