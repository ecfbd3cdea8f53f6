"""Test accuracy of BiRealNet-20 on CIFAR-10 after equal epochs by many optimizers.

    python benchmarks/accuracy_cifar10.py                        # all recipes, one seed
    python benchmarks/accuracy_cifar10.py cascaded_ema bop --seeds 1 2 3
    python benchmarks/accuracy_cifar10.py ema --real-rate 3e-2
    python benchmarks/accuracy_cifar10.py latent_sgd --epochs 60 --variants 1 --recalibrate 20 \
        --mixed-precision mixed_bfloat16 --save networks
    python benchmarks/accuracy_cifar10.py --report               # of what there is

All see the same images in the same order. Rates of binary weights decay to 0 where a recipe has
one, linearly unless it says otherwise; real weights are trained by the same Adam, whose rate does,
too. A finished run is a JSON in results/ and is not done again; one that was stopped goes on from
its last backup.
"""

import argparse
import functools
import itertools
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import larq_filters as lqf
from larq_filters import filters, recipes

import tensorflow as tf
from matplotlib import pyplot
from support import machine, results
from support.candidates import LATENT_KERNEL, Adam, Decay, Schedule, flip, latent_sgd
from support.examples import cifar10, surviving, training

NAME = "accuracy_cifar10"  # of a folder and a picture in results/
DEFAULTS = {"epochs": 10, "width": 16, "recalibrate": 0, "mixed_precision": None}


def cascaded(alpha: Schedule, real: Schedule, **kwargs: Any) -> tf.keras.optimizers.Optimizer:
    return flip(filters.CascadedEMA(alpha, 0.1), real, **kwargs)


# By family, then by variant, the likeliest first: from decay, variant and the rate of real weights.
Make = Callable[[Decay, float, Schedule], tf.keras.optimizers.Optimizer]
FILTERS: dict[str, tuple[Make, tuple[float, ...]]] = {
    "cascaded_ema": (lambda decay, a, real: cascaded(decay(a), real), (1e-2, 3e-2, 3e-3)),
    "cascaded_ema_squared": (
        lambda decay, a, real: cascaded(decay(a, power=2.0), real),
        (1e-2,),
    ),
    "cascaded_ema_squared_bfloat16": (
        lambda decay, a, real: cascaded(decay(a, power=2.0), real, state_dtype="bfloat16"),
        (1e-2,),
    ),
    "ema": (lambda decay, a, real: flip(filters.EMA(decay(a)), real), (1e-3, 5e-4)),
    "bop": (
        lambda decay, g, real: recipes.bop(1e-8, decay(g), real_optimizer=Adam(real)),
        (1e-3, 1e-4),
    ),
    "bop2ndorder": (
        lambda decay, g, real: recipes.bop2ndorder(1e-6, decay(g), 1e-3, real_optimizer=Adam(real)),
        (1e-3, 1e-4),
    ),
    "diode": (
        lambda decay, beta, real: recipes.diode(0.9, beta, real_optimizer=Adam(real)),
        (0.998, 0.99),
    ),
}
# Optimizers of latent weights, clipped at ±1: `latent_adam` is one Adam for all weights.
LATENT: dict[str, tuple[Make, tuple[float, ...]]] = {
    "latent_adam": (lambda decay, rate, real: Adam(decay(rate)), (1e-2, 3e-2, 1e-3)),
    "latent_sgd": (
        lambda decay, rate, real: latent_sgd(decay(rate), real),
        (30.0, 10.0, 100.0, 3.0, 1.0),
    ),
}
ALL = FILTERS | LATENT


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"of {', '.join(ALL)}")
    parser.add_argument("--variants", type=int, default=3, help="runs of each family, at most")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--epochs", type=int, default=DEFAULTS["epochs"])
    parser.add_argument("--width", type=int, default=DEFAULTS["width"])
    parser.add_argument(
        "--real-rate", type=float, default=results.REAL_RATE, help="learning rate of Adam"
    )
    parser.add_argument("--recalibrate", type=int, metavar="BATCHES", default=0)
    parser.add_argument("--mixed-precision", choices=["mixed_float16", "mixed_bfloat16"])
    parser.add_argument("--save", type=pathlib.Path, metavar="FOLDER", help="for the networks")
    parser.add_argument("--data-dir")
    parser.add_argument("--backup", type=pathlib.Path, default=pathlib.Path("accuracy_cifar10"))
    parser.add_argument("--report", action="store_true", help="train nothing")
    args = parser.parse_args()
    for family in args.families:
        if family not in ALL:
            parser.error(f"there is no {family}: choose from {', '.join(ALL)}")
    if args.real_rate != results.REAL_RATE and "latent_adam" in (args.families or ALL):
        parser.error("latent_adam has one rate for all weights: choose other families")
    return args


def name(args: argparse.Namespace) -> str:
    """Of the folder in results/: these settings are the same for all runs in it."""
    changed = {k: getattr(args, k) for k in DEFAULTS if getattr(args, k) != DEFAULTS[k]}
    parts = [value if isinstance(value, str) else f"{k}{value}" for k, value in changed.items()]
    return "_".join([NAME, *parts])


def runs(args: argparse.Namespace) -> Iterator[tuple[str, float, int, str]]:
    """Family, variant, seed and name of every run: the likeliest of all families first."""
    real = "" if args.real_rate == results.REAL_RATE else f"_real{args.real_rate:g}"
    chosen = args.families or ALL
    for seed in args.seeds:
        for number in range(args.variants):
            for family in chosen:
                for variant in ALL[family][1][number : number + 1]:
                    yield family, variant, seed, f"{family}_{variant:g}{real}_seed{seed}"


def train(args: argparse.Namespace, family: str, variant: float, seed: int, run: str) -> None:
    folder = args.backup / name(args) / run
    given = {key: getattr(args, key) for key in DEFAULTS if getattr(args, key) is not None}
    given |= {"seed": seed, "backup": folder, "output": folder / "history.json"}
    if args.data_dir:
        given["data-dir"] = args.data_dir
    options = cifar10.parse_arguments(
        [f"--{key.replace('_', '-')}={value}" for key, value in given.items()]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tf.keras.backend.clear_session()
    tf.keras.mixed_precision.set_global_policy(args.mixed_precision or "float32")
    data = cifar10.load(options)
    decay = functools.partial(training.decay, steps=args.epochs * data.steps_per_epoch)
    tf.keras.utils.set_random_seed(seed)
    latent = LATENT_KERNEL if family in LATENT else {}
    model = lqf.models.BiRealNet20(width=args.width, **latent)
    optimizer = ALL[family][0](decay, variant, decay(args.real_rate))
    model = training.compiled(options, data, model, optimizer)
    record = surviving.begin(options)
    training.fit(options, model, data, args.epochs, "training", record)
    recipe = {"family": family, "variant": variant, "seed": seed}
    if args.real_rate != results.REAL_RATE:
        recipe["real_rate"] = args.real_rate
    record = {
        "recipe": recipe,
        "settings": {key: getattr(options, key) for key in (*DEFAULTS, "batch_size")},
        **{key: record[key] for key in ("seconds", "history")},
    }
    if args.save:
        args.save.mkdir(parents=True, exist_ok=True)
        plain = tf.keras.Model(model.inputs, model.outputs, name=model.name)
        plain.save(network(args, run))
    machine.write(f"{name(args)}/{run}", record)
    shutil.rmtree(folder)


def network(args: argparse.Namespace, run: str) -> pathlib.Path:
    """Where --save puts the trained network of a run."""
    return args.save / f"{name(args)}_{run}.keras"


def show(name: str) -> None:
    """A table, and a picture of the same name in results/."""
    standings = results.standings(results.RESULTS / name)
    real = [
        f", real {one.real_rate:g}" if one.real_rate not in (None, results.REAL_RATE) else ""
        for one in standings
    ]
    print(f"{'family':<32} {'value':>6} {'test accuracy, %':>16} {'seeds':>5}")
    for more, one in zip(real, standings, strict=True):
        labels = itertools.chain([one.family + more], itertools.repeat(""))
        for label, (variant, row) in zip(labels, one.accuracies.items(), strict=False):
            print(f"{label:<32} {variant:>6g} {results.mean(row):>16} {len(row):>5}")
    size = (7, 0.4 * len(standings) + 1.2)
    figure, axes = pyplot.subplots(figsize=size, layout="constrained")
    for row, one in enumerate(standings):
        for variant, values in one.accuracies.items():
            color = "C0" if variant == one.best else "lightgray"
            axes.plot(values, [row] * len(values), "o", color=color)
    ticks = [f"{one.family} {one.best:g}{more}" for more, one in zip(real, standings, strict=True)]
    axes.set_yticks(range(len(ticks)), ticks)
    axes.invert_yaxis()
    axes.set_xlabel("test accuracy (%); gray: other variants")
    axes.grid(axis="x", alpha=0.3)
    axes.set_title("CIFAR-10: best value of each recipe, every seed", fontsize="medium")
    figure.savefig(results.RESULTS / f"{name}.png", dpi=120)
    pyplot.close(figure)


def main() -> None:
    args = parse_arguments()
    for family, variant, seed, run in [] if args.report else runs(args):
        path = results.RESULTS / name(args) / f"{run}.json"
        if not path.exists():
            print(run, flush=True)
            train(args, family, variant, seed, run)
        elif args.save and not network(args, run).exists():
            print(f"{run} is done and its network was not kept: remove {path} to train it again")
    show(name(args))


if __name__ == "__main__":
    main()
