"""Trainings without tuning and without an end, and what was tried beside the default."""

import statistics
from typing import Any

from reports._text import epochs, table

from support import regret, results

LENGTHS = ("short", "medium", "long")  # of trainings in untuned.py
DEEPEST = "cifar10_small"  # of the tasks with rows of averages as `fit` leaves them
LEFT = (  # what a table calls it, its name in the results, and which of its accuracies
    # Averages do not change the training: its weights are those of a training without them.
    ("`FilteredFlip()`", "FilteredFlip(average=16)", "as_it_is"),
    ("the same with `RecalibrateBatchNorm`", "FilteredFlip()", "accuracy"),
    ("`FilteredFlip(average=16)`", "FilteredFlip(average=16)", "averages"),
    ("the same with `SwapAverages`", "FilteredFlip(average=16)", "accuracy"),
    ("`FilteredFlip(decay_steps=...)`", "FilteredFlip(decay_steps)", "as_it_is"),
)


def _records() -> dict[str, dict[str, Any]]:
    """The files of untuned.py, by task."""
    paths = sorted((results.RESULTS / regret.NAME).glob("*.json"))
    return {path.stem: results.read(f"{regret.NAME}/{path.stem}") for path in paths}


def untuned() -> str:
    """How far optimizers at their own settings are below the best, over several tasks."""
    rows = []
    for name, cells in regret.regrets(results.RESULTS).items():
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


def left_by_fit() -> str:
    """What is in the model when `fit` ends, with and without averages and callbacks."""
    records = {
        task: record for task, record in _records().items() if regret.accuracies(record, "averages")
    }
    columns = [(length, [*records]) for length in range(len(LENGTHS))]
    heads = [*LENGTHS]
    if DEEPEST in records:
        columns.append((len(LENGTHS) - 1, [DEEPEST]))
        heads.append("the deepest network alone, long")
    rows = []
    for what, name, kind in LEFT if records else ():
        cells = []
        for length, tasks in columns:
            values = [
                regret.accuracies(records[task], kind)[name, records[task]["epochs"][length]]
                for task in tasks
            ]
            seeds = sorted(set.intersection(*map(set, values)))
            means = [statistics.mean(by_seed[seed] for by_seed in values) for seed in seeds]
            cells.append(results.mean(means))
        rows.append([what, *cells])
    return table(["test accuracy when `fit` ends, %", *heads], rows)


def untuned_tasks() -> str:
    """Test accuracies behind these, also of the small grid: a table for each task."""
    tables = []
    for record in _records().values():
        known = regret.accuracies(record)
        lengths = sorted({epochs for _, epochs in known})
        rows = []
        grid = {name for name, _ in known} - set(regret.ROWS)
        for name in [*regret.ROWS, *sorted(grid, key=str.casefold)]:
            values = [[*known.get((name, epochs), {}).values()] for epochs in lengths]
            if any(values):
                cells = [results.mean(row) if row else "" for row in values]
                rows.append([regret.ROWS.get(name, name), *cells])
        heads = ["test accuracy, %, after", *map(epochs, lengths)]
        tables.append(f"{record['what']}:\n\n{table(heads, rows)}")
    return "\n\n".join(tables)


def without_end() -> str:
    """What was tried beside the default of a training without an end: a table for each task."""
    tables = []
    for task, variants in results.read("without_end")["runs"].items():
        lengths = list(next(iter(next(iter(variants.values())).values())))
        rows = []
        for name, by_seed in variants.items():
            cells = [
                " / ".join(
                    results.mean([run[n][key] for run in by_seed.values()])
                    for key in ("accuracy", "averaged")
                )
                for n in lengths
            ]
            rows.append([name, *cells, str(len(by_seed))])
        heads = ["test accuracy, % / of averages, after", *map(epochs, lengths), "seeds"]
        tables.append(f"{task}:\n\n{table(heads, rows)}")
    return "\n\n".join(tables)


def ideas() -> str:
    """What was tried on a small task beside the default."""
    found = results.read("quick_search")
    known = regret.accuracies(found)
    lengths = sorted({epochs for _, epochs in known})
    rows = []
    for name, what in found["what"].items():
        values = [[*known.get((name, n), {}).values()] for n in lengths]
        if any(values):
            cells = [results.mean(row) if row else "" for row in values]
            rows.append([what, *cells, str(max(map(len, values)))])
    heads = ["test accuracy, %, after", *map(epochs, lengths), "seeds"]
    return table(heads, rows)
