"""Optimizers at the settings of their own documentation, on several tasks and lengths of training.

    python benchmarks/untuned.py                          # what has no result yet
    python benchmarks/untuned.py digits words --seeds 3
    python benchmarks/untuned.py mnist --optimizers Diode "larq's Bop"
    python benchmarks/untuned.py --report                 # of what there is

Regret is how many points of test accuracy an optimizer is below the best of all for a task and a
length. Among all are optimizers of a small grid that knew their end, the marks (`--marks`). What
needs no end is trained once and looked at after each length. All are looked at with batch norm
recalibrated. Results go to results/untuned/TASK.json as they come, and a finished run is not done
again.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import larq_filters as lqf
from larq_filters import recipes

import tensorflow as tf
from matplotlib import pyplot
from support import machine, regret, results
from support.candidates import LATENT_KERNEL, latent_sgd
from support.tasks import TASKS, Task

Optimizer = tf.keras.optimizers.Optimizer
Adam, SGD = tf.keras.optimizers.Adam, tf.keras.optimizers.SGD
FilteredFlip = lqf.optimizers.FilteredFlip


@dataclasses.dataclass(frozen=True)
class Entry:
    """An optimizer.

    Attributes:
        make: From the number of steps of the training.
        knows_end: Whether it uses that number, so that every length is a training of its own.
        is_mark: Whether it is of the small grid.
    """

    make: Callable[[int], Optimizer]
    knows_end: bool = False
    is_mark: bool = False


def linear(rate: float, steps: int) -> tf.keras.optimizers.schedules.LearningRateSchedule:
    return tf.keras.optimizers.schedules.PolynomialDecay(rate, steps, 0.0)


def flip(alpha: float) -> Entry:
    def make(steps: int) -> Optimizer:
        real = Adam(linear(1e-2, steps))
        return FilteredFlip(alpha, decay_steps=steps, real_optimizer=real)

    return Entry(make, True, True)


def adam(rate: float) -> Entry:
    return Entry(lambda steps: Adam(linear(rate, steps)), True, True)


def sgd(rate: float) -> Entry:
    def make(steps: int) -> Optimizer:
        return latent_sgd(linear(rate, steps), linear(1e-2, steps))

    return Entry(make, True, True)


def bop(gamma: float) -> Entry:
    def make(steps: int) -> Optimizer:
        real = Adam(linear(1e-2, steps))
        return recipes.bop(1e-8, linear(gamma, steps), real_optimizer=real)

    return Entry(make, True, True)


ENTRIES = {
    "FilteredFlip(average=16)": Entry(lambda steps: FilteredFlip(average=16)),
    "FilteredFlip()": Entry(lambda steps: FilteredFlip()),
    "FilteredFlip(decay_steps)": Entry(lambda steps: FilteredFlip(decay_steps=steps), True),
    "latent Adam, 1e-3": Entry(lambda steps: Adam(1e-3)),
    "latent SGD, 0.1": Entry(lambda steps: SGD(0.1, momentum=0.9)),
    "larq's Bop": Entry(lambda steps: recipes.bop(real_optimizer=Adam(1e-2))),
    "Bop2ndOrder": Entry(lambda steps: recipes.bop2ndorder(real_optimizer=Adam(1e-2))),
    # Its own rate for real weights, 1e-4, is for longer trainings.
    "Diode": Entry(lambda steps: recipes.diode(real_optimizer=Adam(1e-3))),
    # Between these is 1e-2, that of `decay_steps` alone.
    **{f"alpha {alpha:g}, to its end": flip(alpha) for alpha in (3e-3, 3e-2)},
    **{f"latent Adam {rate:g}, to its end": adam(rate) for rate in (1e-3, 1e-2, 3e-2)},
    **{f"latent SGD {rate:g}, to its end": sgd(rate) for rate in (3.0, 30.0)},
    **{f"Bop {gamma:g}, to its end": bop(gamma) for gamma in (1e-4, 1e-3)},
}


class Look(tf.keras.callbacks.Callback):
    """Test accuracy after some epochs: as it is, and as "accuracy" with batch norm recalibrated.

    If the optimizer keeps averages, the latter is theirs, and "averages" is as `fit` leaves them.
    """

    def __init__(self, epochs: tuple[int, ...], train: Any, test: Any) -> None:
        super().__init__()
        self.epochs, self.test = epochs, test
        x, batch = train[0], max(32, len(train[0]) // 20)
        some = [x[i : i + batch] for i in range(0, min(len(x), 20 * batch), batch)][:20]
        some = [part for part in some if len(part) == batch]
        self.recalibrate = lqf.callbacks.RecalibrateBatchNorm(some, batches=len(some))
        self.seen: dict[int, dict[str, float]] = {}

    def accuracy(self) -> float:
        seen = self.model.evaluate(*self.test, 500, verbose=0, return_dict=True)
        return 100 * float(seen["accuracy"])

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if epoch + 1 not in self.epochs:
            return
        kept = [tf.identity(weight) for weight in self.model.weights]
        row = {"as_it_is": self.accuracy()}
        optimizer = FilteredFlip.of(self.model)
        if optimizer is not None and optimizer.has_averages:
            optimizer.put_averages(self.model.trainable_variables)
            row["averages"] = self.accuracy()
        self.recalibrate(self.model)
        row["accuracy"] = self.accuracy()
        for weight, value in zip(self.model.weights, kept, strict=True):
            weight.assign(value)
        self.seen[epoch + 1] = row


def train(task: Task, entry: Entry, seed: int, epochs: tuple[int, ...]) -> dict[str, Any]:
    """What was seen after some numbers of epochs, in one training."""
    tf.keras.backend.clear_session()
    train, test = task.data(seed)
    steps = max(epochs) * -(-len(train[0]) // task.batch)
    model = task.network(seed, **LATENT_KERNEL)
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(entry.make(steps), loss, metrics=["accuracy"])
    look, start = Look(epochs, train, test), time.monotonic()
    model.fit(*train, task.batch, epochs=max(epochs), verbose=0, callbacks=[look])
    return {
        "machine": machine.describe(),
        "seconds": round(time.monotonic() - start),
        "seen": look.seen,
    }


def trainings(task: Task, entry: Entry) -> Iterator[tuple[int, ...]]:
    yield from [(n,) for n in task.epochs] if entry.knows_end else [task.epochs]


def report() -> None:
    """Tables, and a picture of the regrets."""
    for name, task in TASKS.items():
        known = regret.accuracies({"runs": results.runs(f"{regret.NAME}/{name}")})
        lengths = [n for n in task.epochs if any(epochs == n for _, epochs in known)]
        if lengths:
            print(f"\n{name}: {task.what}")
            heads = "".join(f"{n:>14}" for n in lengths)
            print(f"{'test accuracy, %, after epochs':38}{heads}")
        for entry in ENTRIES:
            values = [[*known.get((entry, n), {}).values()] for n in lengths]
            if any(values):
                cells = [results.mean(row) if row else "" for row in values]
                print(f"{entry:38}" + "".join(f"{cell:>14}" for cell in cells))
    found = regret.regrets(results.RESULTS)
    print(f"\n{'regret, points':38}{'mean':>8}{'worst':>8}{'cells':>8}")
    for name, cells in found.items():
        print(f"{name:38}{regret.mean(cells):>8.1f}{regret.worst(cells):>8.1f}{len(cells):>8}")
    if found:
        draw(found)


def draw(found: dict[str, dict[regret.Cell, dict[int, float]]]) -> None:
    figure, axes = pyplot.subplots(figsize=(8.5, 4), layout="constrained")
    for row, cells in enumerate(found.values()):
        for length, color in enumerate(("#9ecae1", "#4292c6", "#08306b")):
            values = [
                statistics.mean(seeds.values())
                for cell, seeds in cells.items()
                if cell.length == length
            ]
            label = f"{('short', 'medium', 'long')[length]} training" if row == 0 else None
            axes.plot(values, [row] * len(values), "o", color=color, alpha=0.8, label=label)
        axes.plot(regret.mean(cells), row, "|", color="C3", ms=22, mew=3)
    names = [regret.ROWS[name].replace("`", "") for name in found]
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("test accuracy: points below the best, tuned ones included; red: mean")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize="small")
    axes.set_title("Optimizers as they come, on several tasks", fontsize="medium")
    figure.savefig(results.RESULTS / f"{regret.NAME}.png", dpi=120)
    pyplot.close(figure)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"of {', '.join(TASKS)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--marks", action="store_true", help="also the small grid")
    parser.add_argument("--optimizers", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--epochs", type=int, nargs="+", help="instead of a task's own lengths")
    parser.add_argument("--report", action="store_true", help="train nothing")
    args = parser.parse_args()
    for task in args.tasks:
        if task not in TASKS:
            parser.error(f"there is no task {task}: choose from {', '.join(TASKS)}")
    for name in args.optimizers or ():
        if name not in ENTRIES:
            parser.error(f"there is no optimizer {name!r}: choose from {'; '.join(ENTRIES)}")
    return args


def chosen(args: argparse.Namespace) -> dict[str, Entry]:
    if args.optimizers:
        return {name: ENTRIES[name] for name in args.optimizers}
    return {name: entry for name, entry in ENTRIES.items() if args.marks or not entry.is_mark}


def main() -> None:
    args = parse_arguments()
    for seed in range(args.seeds if not args.report else 0):
        for name in args.tasks or TASKS:
            task, path = TASKS[name], f"{regret.NAME}/{name}"
            if args.epochs:
                task = dataclasses.replace(task, epochs=tuple(args.epochs))
            for key, entry in chosen(args).items():
                for epochs in trainings(task, entry):
                    run = f"{key} | {'_'.join(map(str, epochs))} epochs | seed {seed}"
                    if run not in results.runs(path):
                        print(name, run, flush=True)
                        result = train(task, entry, seed, epochs)
                        runs = {**results.runs(path), run: result}  # another process may add some
                        record = {"what": task.what, "epochs": TASKS[name].epochs, "runs": runs}
                        machine.write(path, record)
    report()


if __name__ == "__main__":
    main()
