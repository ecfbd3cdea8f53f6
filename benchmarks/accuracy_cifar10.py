"""Test accuracy of BiRealNet-20 on CIFAR-10 after equal epochs by many optimizers.

    python benchmarks/accuracy_cifar10.py                        # all recipes, one seed
    python benchmarks/accuracy_cifar10.py cascaded_ema bop --seeds 1 2 3
    python benchmarks/accuracy_cifar10.py --report               # of what there is

All see the same images in the same order. Rates of binary weights decay linearly to 0 where a
recipe has one; real weights are trained by the same Adam, whose rate does, too. A finished run is a
JSON in results/ and is not done again; one that was stopped goes on from its last backup.
"""

import argparse
import functools
import json
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any

import larq_filters as lqf
from larq_filters import filters, recipes
from larq_filters._latent_sgd import LatentSGD

import machine
import numpy as np
import tensorflow as tf
from matplotlib import pyplot

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "examples"))
import cifar10
import training

NAME = "accuracy_cifar10"  # of a folder and a picture in results/
Decay = Callable[[float], tf.keras.optimizers.schedules.LearningRateSchedule]


def flip(filter: filters.Filter) -> Callable[..., Any]:
    return functools.partial(lqf.optimizers.FilteredFlip, filter=filter)


def diode(decay: Decay, alpha: float) -> Callable[..., Any]:
    """Diode with a decay, which its recipe has not."""
    return flip(filters.Cascade(filters.EMA(0.1), filters.Sign(), filters.EMA(decay(alpha))))


def normalized(last: filters.Filter) -> Callable[..., Any]:
    first = filters.NormalizedEMA(0.1, 1e-3, bias_correction=True)
    return flip(filters.Cascade(first, last))


# By family, then by variant: optimizers to be called with `real_optimizer`.
FILTERS: dict[str, tuple[Callable[[Decay, float], Callable[..., Any]], tuple[float, ...]]] = {
    "cascaded_ema": (lambda decay, a: flip(filters.CascadedEMA(decay(a), 0.1)), (3e-3, 1e-2, 3e-2)),
    "ema": (lambda decay, a: flip(filters.EMA(decay(a))), (3e-3, 1e-2)),
    "bop": (lambda decay, g: functools.partial(recipes.bop, 1e-8, decay(g)), (1e-4, 1e-3)),
    "bop2ndorder": (
        lambda decay, g: functools.partial(recipes.bop2ndorder, 1e-6, decay(g)),
        (1e-4, 1e-3),
    ),
    "diode": (lambda decay, beta: functools.partial(recipes.diode, 0.9, beta), (0.99, 0.998)),
    "decayed_diode": (diode, (1e-2,)),
    "normalized_ema": (lambda decay, a: normalized(filters.EMA(decay(a))), (1e-2,)),
    "saturating": (
        lambda decay, rate: normalized(filters.Integrator(decay(rate), limit=1.0)),
        (1e-2, 3e-2),
    ),
}
# Optimizers of latent weights, clipped at ±1. The Adam that trains real weights is this one.
LATENT: dict[str, tuple[Callable[[Decay, float], Any], tuple[float, ...]]] = {
    "latent_adam": (lambda decay, rate: tf.keras.optimizers.Adam(decay(rate)), (1e-3, 1e-2)),
    "latent_sgd": (
        lambda decay, rate: LatentSGD(
            decay(rate),
            momentum=0.9,
            weight_decay=1e-4,
            real_optimizer=tf.keras.optimizers.Adam(decay(1e-2)),
        ),
        (0.1, 1.0),
    ),
}
ALL = FILTERS | LATENT


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"of {', '.join(ALL)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--data-dir")
    parser.add_argument("--backup", type=pathlib.Path, default=pathlib.Path("accuracy_cifar10"))
    parser.add_argument("--report", action="store_true", help="train nothing")
    args = parser.parse_args()
    for family in args.families:
        if family not in ALL:
            parser.error(f"there is no {family}: choose from {', '.join(ALL)}")
    return args


def runs(args: argparse.Namespace) -> Iterator[tuple[str, float, int, pathlib.Path]]:
    """Family, variant, seed and the file of every run, all of the first seed first."""
    for seed in args.seeds:
        for family in args.families or ALL:
            for variant in ALL[family][1]:
                path = machine.RESULTS / NAME / f"{family}_{variant:g}_seed{seed}.json"
                yield family, variant, seed, path


def train(args: argparse.Namespace, family: str, variant: float, seed: int, path: pathlib.Path):
    folder = args.backup / path.stem
    given = {"epochs": args.epochs, "width": args.width, "seed": seed, "backup": folder}
    given["output"] = folder / "history.json"
    if args.data_dir:
        given["data-dir"] = args.data_dir
    options = cifar10.parse_arguments([f"--{name}={value}" for name, value in given.items()])
    folder.mkdir(parents=True, exist_ok=True)
    tf.keras.backend.clear_session()
    data = cifar10.load(options)
    decay = functools.partial(training.linear_decay, steps=args.epochs * data.steps_per_epoch)
    tf.keras.utils.set_random_seed(seed)
    make = ALL[family][0](decay, variant)
    if family in LATENT:
        latent = {"kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}
        model, optimizer = lqf.models.BiRealNet20(width=args.width, **latent), make
    else:
        model = lqf.models.BiRealNet20(width=args.width)
        optimizer = make(real_optimizer=tf.keras.optimizers.Adam(decay(1e-2)))
    training.fit(
        options,
        training.compiled(options, data, model, optimizer),
        data,
        args.epochs,
        "training",
    )
    record = json.loads(options.output.read_text("utf-8"))
    settings = {"epochs": args.epochs, "width": args.width, "batch_size": options.batch_size}
    record = {
        "recipe": {"family": family, "variant": variant, "seed": seed},
        "settings": settings,
        **{key: record[key] for key in ("seconds", "history")},
    }
    machine.write(f"{NAME}/{path.stem}", record)
    shutil.rmtree(folder)


def accuracies() -> dict[str, dict[float, list[float]]]:
    """Final test accuracies in percent, of all seeds, by family and variant."""
    found: dict[str, dict[float, list[float]]] = {}
    for path in sorted((machine.RESULTS / NAME).glob("*.json")):
        record = json.loads(path.read_text("utf-8"))
        recipe = record["recipe"]
        row = found.setdefault(recipe["family"], {}).setdefault(recipe["variant"], [])
        row.append(100 * record["history"]["val_accuracy"][-1])
    return found


def report() -> None:
    found = accuracies()
    best = {
        family: max(variants, key=lambda v: np.mean(variants[v]))
        for family, variants in found.items()
    }
    order = sorted(found, key=lambda family: -np.mean(found[family][best[family]]))
    print(f"{'family':<16} {'best variant':>12} {'seeds':>5} {'test accuracy %':>18}  others")
    for family in order:
        values = found[family][best[family]]
        spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
        others = ", ".join(
            f"{variant:g}: {np.mean(row):.1f}"
            for variant, row in found[family].items()
            if variant != best[family]
        )
        mean = f"{np.mean(values):.2f}{spread}"
        print(f"{family:<16} {best[family]:>12g} {len(values):>5} {mean:>18}  {others}")
    figure, axes = pyplot.subplots(figsize=(7, 0.4 * len(order) + 1.2), layout="constrained")
    for row, family in enumerate(order):
        for variant, values in found[family].items():
            color = "C0" if variant == best[family] else "lightgray"
            axes.plot(values, [row] * len(values), "o", color=color)
    axes.set_yticks(range(len(order)), [f"{f} {best[f]:g}" for f in order])
    axes.invert_yaxis()
    axes.set_xlabel("test accuracy (%); gray: other variants")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(machine.RESULTS / f"{NAME}.png", dpi=120)
    pyplot.close(figure)


def main() -> None:
    args = parse_arguments()
    for family, variant, seed, path in [] if args.report else runs(args):
        if not path.exists():
            print(f"{family} {variant:g}, seed {seed}", flush=True)
            train(args, family, variant, seed, path)
    report()


if __name__ == "__main__":
    main()
