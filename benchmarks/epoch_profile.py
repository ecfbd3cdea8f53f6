"""Where an epoch of examples/cifar10.py spends its time.

    python benchmarks/epoch_profile.py

Its own network, data, loss and callbacks go through `fit`, with clocks between the callbacks. They
take turns with a batch that is ready in memory: what the two differ by is the input pipeline. The
parts of a step are timed in turns, too, and what `fit` takes beyond them is named as such.
"""

import argparse
import pathlib
import tempfile
import time

import larq_filters as lqf

import numpy as np
import tensorflow as tf
import training_throughput
from support import machine
from support.examples import cifar10, surviving, training
from support.timing import in_turns

HOOKS = ("on_epoch_begin", "on_train_batch_begin", "on_train_batch_end", "on_epoch_end")


class Clock(tf.keras.callbacks.Callback):
    """Notes when it is called, and by which hook; Keras calls callbacks in order."""

    def __init__(self, name: str, notes: list[tuple[str, str, float]]) -> None:
        super().__init__()
        for hook in HOOKS:
            setattr(
                self, hook, lambda *_, hook=hook: notes.append((name, hook, time.perf_counter()))
            )


def spent(notes: list[tuple[str, str, float]], scale: float) -> tuple[dict[str, float], list]:
    """Seconds in the callback before each clock, those of steps times `scale`, and of each step."""
    inside: dict[str, float] = {}
    steps = []
    for (_, hook, start), (name, next_hook, end) in zip(notes, notes[1:], strict=False):
        if hook == next_hook:
            factor = scale if "batch" in hook else 1.0
            inside[name] = inside.get(name, 0.0) + factor * (end - start)
        elif next_hook == "on_train_batch_end":
            steps.append(end - start)
    return inside, steps


def epoch(
    args: argparse.Namespace,
    model: tf.keras.Model,
    data: tf.data.Dataset,
    folder: pathlib.Path,
    steps_per_epoch: int,
) -> tuple[dict[str, float], list[float]]:
    """Seconds of an epoch inside each callback, and of each step."""
    notes: list[tuple[str, str, float]] = []
    options = cifar10.parse_arguments([f"--output={folder / 'history.json'}"])
    callbacks = {
        "FlipRatio": lqf.callbacks.FlipRatio(),
        "Backup": lqf.callbacks.Backup(folder, save_freq="epoch"),
        "History": surviving.History(options, {}, "training", 0, steps_per_epoch, is_chief=True),
    }
    clocked: list[tf.keras.callbacks.Callback] = [Clock("first", notes)]
    for name, callback in callbacks.items():
        clocked += [callback, Clock(name, notes)]
    model.fit(data, epochs=1, steps_per_epoch=args.steps, callbacks=clocked, verbose=0)
    return spent(notes, steps_per_epoch / args.steps)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--steps", type=int, default=60, help="steps of each epoch that is timed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data-dir")
    args = parser.parse_args()

    given = {"batch-size": args.batch_size, "width": args.width}
    given |= {"data-dir": args.data_dir} if args.data_dir else {}
    options = cifar10.parse_arguments([f"--{name}={value}" for name, value in given.items()])
    data = cifar10.load(options)
    model = training.compile_model(
        options, data, lambda **kwargs: lqf.models.BiRealNet20(width=args.width, **kwargs)
    )
    images, labels = next(iter(data.train(0, 1)))
    ready = tf.data.Dataset.from_tensors((images, labels)).repeat()
    parts = training_throughput.parts(model, images, labels)
    parts = {name: training_throughput.waiting(part) for name, part in parts.items()}

    seconds: dict[str, list[float]] = {}
    callbacks: dict[str, list[float]] = {}
    steps: dict[str, list[float]] = {
        "with the input pipeline": [],
        "with a batch that is ready": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        model.fit(ready, epochs=1, steps_per_epoch=1, verbose=0)
        first = time.perf_counter() - start
        for number in range(args.rounds):
            batches = data.train(number * args.steps, (number + 1) * args.steps)
            for name, source in zip(steps, (batches, ready), strict=True):
                new = pathlib.Path(tempfile.mkdtemp(dir=folder))
                inside, each = epoch(args, model, source, new, data.steps_per_epoch)
                steps[name] += each
                for callback, value in inside.items():
                    callbacks.setdefault(callback, []).append(value)
            for name, values in in_turns(parts, 10).items():
                seconds.setdefault(name, []).extend(values)
    model.evaluate(data.test, steps=1, verbose=0)
    start = time.perf_counter()
    model.evaluate(data.test, verbose=0)
    validation = time.perf_counter() - start

    forward, both, step, optimizer = (np.median(seconds[p]) for p in training_throughput.PARTS)
    with_input, without = map(np.median, steps.values())
    steps_per_epoch = data.steps_per_epoch
    rows = {  # seconds of an epoch
        "input pipeline": steps_per_epoch * (with_input - without),
        "forward": steps_per_epoch * forward,
        "backward": steps_per_epoch * (both - forward),
        "optimizer": steps_per_epoch * optimizer,
        "metrics": steps_per_epoch * (step - both - optimizer),
        "fit around the step": steps_per_epoch * (without - step),
        "callbacks": sum(np.median(values) for values in callbacks.values()),
        "validation": validation,
    }
    record = {
        "batch_size": args.batch_size,
        "width": args.width,
        "steps_per_epoch": steps_per_epoch,
        "seconds_of_an_epoch": {name: float(value) for name, value in rows.items()},
        "seconds_of_a_step": {
            name: machine.summary(values) for name, values in (seconds | steps).items()
        },
        "seconds_of_callbacks": {name: machine.summary(v) for name, v in callbacks.items()},
        "seconds_of_the_first_step": first,
    }
    machine.write("epoch_profile", record)
    total = sum(rows.values())
    print(f"{'an epoch of examples/cifar10.py':<32} {'seconds':>8} {'share':>7}")
    for name, value in rows.items():
        print(f"{name:<32} {value:>8.2f} {value / total:>7.1%}")
    print(f"{'in all':<32} {total:>8.2f} {1:>7.1%}")
    print(f"\nThe first step takes {first:.1f} s: tracing, and compiling the update.")


if __name__ == "__main__":
    main()
