"""One step of an optimizer, beside a plain copy of memory: weights per second and GB per second.

    python benchmarks/optimizer_step.py
    python benchmarks/optimizer_step.py --sizes 1e4 1e6 --rounds 50

All take turns (A B C A B C), so that a change of the machine's speed meets all. GB/s counts the
words that a step has to move at least, each once: gradient, weight and states read, weight and
states written. The copy, by NumPy, reads and writes as many bytes as CascadedEMA does. Sizes whose
variables do not fit into the memory that is free are left out: 1e8 weights take 12 GB.
"""

import argparse
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import larq_filters as lqf

import larq as lq
import matplotlib
import numpy as np
import tensorflow as tf
from support import machine
from support.timing import in_turns

FilteredFlip = lqf.optimizers.FilteredFlip
keras = tf.keras.optimizers
OPTIMIZERS = {  # name: optimizer, states per weight
    "CascadedEMA": (lambda: FilteredFlip(1e-3, 0.1), 2),
    "EMA": (lambda: FilteredFlip(1e-3, None), 1),
    "IIR": (lambda: FilteredFlip(filter=lqf.filters.IIR([0.01], [1, -1.9, 0.91])), 2),
    "CascadedEMA bfloat16": (lambda: FilteredFlip(1e-3, 0.1, state_dtype="bfloat16"), 1),
    "larq Bop": (lambda: lq.optimizers.Bop(), 1),
    "Adam": (lambda: keras.Adam(1e-2), 2),
    "SGD, momentum": (lambda: keras.SGD(0.1, momentum=0.9), 1),
}


def make_gradients(sizes: list[int]) -> list[tf.Tensor]:
    rng = np.random.default_rng(0)
    return [tf.constant(rng.standard_normal(n, "f")) for n in sizes]


def make_step(name: str, gradients: list[tf.Tensor]) -> Callable[[], Any]:
    """A function that takes a step of variables with these gradients."""
    optimizer = OPTIMIZERS[name][0]()
    rng = np.random.default_rng(1)
    sizes = [gradient.shape.num_elements() for gradient in gradients]
    variables = [tf.Variable(rng.integers(0, 2, n, "int8").astype("f") * 2 - 1) for n in sizes]
    for variable in variables:
        variable.precision = 1
    pairs = list(zip(gradients, variables, strict=True))

    @tf.function
    def step() -> None:
        optimizer.apply_gradients(pairs)

    def run() -> None:
        step()
        variables[-1][:1].numpy()  # waits for a GPU

    return run


def make_copy(weights: int) -> Callable[[], Any]:
    words = weights * 7 // 2
    if tf.config.list_physical_devices("GPU"):
        source = tf.Variable(tf.ones(words))
        copy = tf.function(lambda: source.assign(-source.read_value()), jit_compile=True)

        def run() -> None:
            copy()
            source[:1].numpy()

        return run
    source, target = np.ones(words, "f"), np.ones(words, "f")
    return functools.partial(np.copyto, target, source)


def of_one_size(size: int, names: list[str], rounds: int, variables: int = 1) -> dict[str, dict]:
    gradients = make_gradients([size // variables] * variables)
    steps = {"copy": make_copy(size)} | {name: make_step(name, gradients) for name in names}
    first = in_turns(steps, 1, warm_up=0)
    seconds = in_turns(steps, rounds, warm_up=1)
    copy = np.array(seconds["copy"])
    rows = {}
    for name, times in seconds.items():
        words = 7 if name == "copy" else 3 + 2 * OPTIMIZERS[name][1]
        median = float(np.median(times))
        rows[name] = {
            "first_call_seconds": first[name][0],
            "step_seconds": machine.summary(times),
            "weights_per_second": size / median,
            "gigabytes_per_second": size * words * 4 / median / 1e9,
            "of_copy": machine.summary(list(words / 7 * copy / np.array(times))),
        }
    return rows


def needed(size: int, names: list[str]) -> int:
    """Bytes of all variables of a size, the copy, and what making them takes for a while."""
    return 4 * size * (7 + 1 + sum(1 + OPTIMIZERS[name][1] for name in names) + 4)


def free() -> int:
    """Bytes of memory that nobody uses."""
    text = pathlib.Path("/proc/meminfo").read_text("ascii")
    kilobytes = next(line.split()[1] for line in text.splitlines() if "MemAvailable" in line)
    return 1024 * int(kilobytes)


def table(title: str, rows: dict[str, dict]) -> str:
    lines = [title, f"{'':22}{'ms':>9}{'Gweights/s':>12}{'GB/s':>8}{'of copy':>9}"]
    lines[1] += f"{'first call, s':>15}"
    for name, row in rows.items():
        lines.append(
            f"{name:22}{row['step_seconds']['median'] * 1e3:9.3f}"
            f"{row['weights_per_second'] / 1e9:12.3f}{row['gigabytes_per_second']:8.1f}"
            f"{row['of_copy']['median']:9.2f}{row['first_call_seconds']:15.2f}"
        )
    return "\n".join(lines)


def picture(record: dict, path: str) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    for name in ["copy", *record["optimizers"]]:
        rows = [(int(size), rows[name]) for size, rows in record["sizes"].items()]
        speeds = [row["gigabytes_per_second"] for _, row in rows]
        ax.plot([n for n, _ in rows], speeds, "k--" if name == "copy" else "o-", label=name)
    ax.set(xscale="log", xlabel="binary weights in one variable", ylabel="GB/s", ylim=(0, None))
    ax.set_title("Memory traffic that a step needs, over its time", fontsize="medium")
    ax.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=lambda text: int(float(text)), nargs="+")
    parser.add_argument("--optimizers", choices=OPTIMIZERS, nargs="+", default=list(OPTIMIZERS))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument(
        "--parts", type=int, default=16, help="variables, of --split weights in all"
    )
    parser.add_argument("--split", type=lambda text: int(float(text)), default=2**24)
    parser.add_argument("--variables", type=int, default=60, help="how many small ones")
    parser.add_argument("--variable-size", type=int, default=10_000)
    args = parser.parse_args()

    sizes = sorted({*(args.sizes or [10_000, 100_000, 1_000_000, 10**7, 10**8]), args.split})
    record: dict = {"optimizers": args.optimizers, "sizes": {}}
    for size in sizes:
        if needed(size, args.optimizers) > free():
            print(f"{size:,} weights do not fit into the memory that is free: left out")
            continue
        record["sizes"][size] = of_one_size(size, args.optimizers, args.rounds)
        print(table(f"{size:,} weights in one variable", record["sizes"][size]), flush=True)
    rows = of_one_size(args.split, args.optimizers, args.rounds, args.parts)
    record["in_parts"] = {"variables": args.parts, "weights": args.split, "rows": rows}
    print(table(f"{args.split:,} weights in {args.parts} variables", rows), flush=True)
    name, many = args.optimizers[0], [args.variable_size] * args.variables
    steps = {
        "many": make_step(name, make_gradients(many)),
        "one": make_step(name, make_gradients([sum(many)])),
    }
    first = in_turns(steps, 1, warm_up=0)["many"][0]
    many_seconds, one_seconds = in_turns(steps, args.rounds, warm_up=1).values()
    ratios = [a / b for a, b in zip(many_seconds, one_seconds, strict=True)]
    record["many_variables"] = {
        "optimizer": name,
        "variables": args.variables,
        "weights_of_each": args.variable_size,
        "first_call_seconds": first,
        "step_seconds": machine.summary(many_seconds),
        "step_seconds_of_one": machine.summary(one_seconds),
        "ratio": machine.summary(ratios),
    }
    print(
        f"{args.variables} variables of {args.variable_size:,} against one, {name}: "
        f"{np.median(many_seconds) * 1e3:.2f} ms, {np.median(one_seconds) * 1e3:.2f} ms, "
        f"ratio {np.median(ratios):.2f}"
    )
    path = machine.write("optimizer_step", record)
    picture(record, str(path.with_suffix(".png")))
    print(f"in {path.name} and {path.with_suffix('.png').name}")


if __name__ == "__main__":
    main()
