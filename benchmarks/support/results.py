"""What benchmarks left in results/."""

import dataclasses
import json
import math
import os
import pathlib
import statistics
from typing import Any

RESULTS = pathlib.Path(
    os.environ.get("BENCHMARK_RESULTS", pathlib.Path(__file__).parents[1] / "results")
)
REAL_RATE = 1e-2  # of the Adam that trains real weights, where a recipe does not say


def read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


def runs(name: str) -> dict[str, Any]:
    """The runs, by name, of a benchmark that trains only what has no result yet."""
    return read(name)["runs"] if (RESULTS / f"{name}.json").exists() else {}


@dataclasses.dataclass
class Standing:
    """Final test accuracies in percent, of all seeds, by variant, the best one first."""

    family: str
    real_rate: float | None
    accuracies: dict[float, list[float]]

    @property
    def best(self) -> float:
        return next(iter(self.accuracies))


def standings(folder: pathlib.Path) -> list[Standing]:
    """What benchmarks/accuracy_cifar10.py found, the best family first."""
    found: dict[tuple[str, float | None], dict[float, list[float]]] = {}
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text("utf-8"))
        recipe = record["recipe"]
        # latent Adam has one rate for all weights
        real = None if recipe["family"] == "latent_adam" else recipe.get("real_rate", REAL_RATE)
        row = found.setdefault((recipe["family"], real), {})
        row.setdefault(recipe["variant"], []).append(100 * record["history"]["val_accuracy"][-1])
    ranked = [
        Standing(*key, dict(sorted(row.items(), key=lambda item: -statistics.mean(item[1]))))
        for key, row in found.items()
    ]
    return sorted(ranked, key=lambda one: -statistics.mean(one.accuracies[one.best]))


def searched(folder: pathlib.Path) -> dict[str, list[dict[str, Any]]]:
    """What benchmarks/filter_search.py found: the runs of each candidate."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text("utf-8"))
        found.setdefault(record["candidate"], []).append(record)
    return found


def mean(values: list[float]) -> str:
    """With the standard deviation of single values, if there are several."""
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def expected_best(scores: list[float]) -> list[float]:
    """The best of n trials, averaged over all orders in which they could have come."""
    ranked, total = sorted(scores), len(scores)
    return [
        sum(
            score * math.comb(rank, n - 1) / math.comb(total, n)  # all others of n are lower
            for rank, score in enumerate(ranked)
        )
        for n in range(1, total + 1)
    ]
