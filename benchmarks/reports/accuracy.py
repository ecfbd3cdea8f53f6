"""Recipes and filters on CIFAR-10, and trained networks."""

from typing import Any

from reports._text import table

from support import results

FRONT = {  # in accuracy_cifar10/: what README calls it
    "latent_sgd": "latent weights, SGD with momentum, learning rate {:g}",
    "cascaded_ema_squared": "`FilteredFlip(decay_steps=...)`, α = {:g}, γ = 0.1",
    "bop": "`recipes.bop`, γ = {:g} decaying",
    "latent_adam": "latent weights, Adam, learning rate {:g}",
    "ema": "`EMA`, α = {:g} decaying",
}
FAMILIES = {  # in accuracy_cifar10/: what to call it, and what its variants are
    "cascaded_ema_squared": ("`FilteredFlip(alpha, decay_steps=...)`: `CascadedEMA`", "α"),
    "cascaded_ema": ("`CascadedEMA`, α decays linearly", "α"),
    "cascaded_ema_squared_bfloat16": (
        '`FilteredFlip(alpha, decay_steps=..., state_dtype="bfloat16")`',
        "α",
    ),
    "ema": ("`EMA`, α decays linearly", "α"),
    "bop": ("`recipes.bop`, τ = 1e-8, γ decays linearly", "γ"),
    "bop2ndorder": ("`recipes.bop2ndorder`, τ = 1e-6, σ = 1e-3, γ decays linearly", "γ"),
    "diode": ("`recipes.diode`, β₁ = 0.9", "β₂"),
    "latent_adam": ("latent, Adam, clipped", "rate"),
    "latent_sgd": ("latent, SGD, momentum 0.9, weight decay 1e-4, clipped", "rate"),
}
LONG = "accuracy_cifar10_epochs60_recalibrate20_mixed_bfloat16"  # the folder of long trainings


def front() -> str:
    """Five recipes on CIFAR-10, for README."""
    found: dict[str, Any] = {}
    for one in results.standings(results.RESULTS / "accuracy_cifar10"):
        if one.family in FRONT:
            found.setdefault(one.family, one)  # the best rate of the real weights
    rows = []
    for family, one in found.items():
        accuracies = one.accuracies[one.best]
        name = FRONT[family].format(one.best)
        rows.append([name, results.mean(accuracies), str(len(accuracies))])
    return table(["binary weights are trained by", "test accuracy, %", "seeds"], rows)


def accuracy() -> str:
    """All recipes, each at its best rate."""
    rows = []
    for one in results.standings(results.RESULTS / "accuracy_cifar10"):
        label, symbol = FAMILIES[one.family]
        row = one.accuracies[one.best]
        real = "the same" if one.real_rate is None else f"Adam {one.real_rate:g}"
        best = f"{label}, {symbol} = {one.best:g}"
        rows.append([best, real, results.mean(row), str(len(row)), others(one)])
    heads = ["binary weights", "real weights", "test accuracy, %", "seeds", "other values"]
    return table(heads, rows)


def others(one: results.Standing) -> str:
    values = list(one.accuracies.items())[1:]
    return ", ".join(f"{variant:g}: {results.mean(row)}" for variant, row in values)


def long_trainings() -> str:
    """Trainings of 60 epochs on CIFAR-10, and how they came there."""
    found = {
        FRONT[record["recipe"]["family"]].format(record["recipe"]["variant"]): record
        for path in sorted((results.RESULTS / LONG).glob("*.json"))
        for record in [results.read(f"{LONG}/{path.stem}")]
    }
    seen = (10, 20, 30, 40, 50, 60)
    rows = []
    for name, record in found.items():
        accuracies = record["history"]["val_accuracy"]
        rows.append([name, *(f"{100 * accuracies[n - 1]:.1f}" for n in seen)])
    teacher = 100 * results.read("cifar10_teacher")["history"]["val_accuracy"][-1]
    accuracies = results.read("cifar10_distilled")["history"]["val_accuracy"]
    name = f"the default of `FilteredFlip`, taught by a ResNet-20 of {teacher:.1f} %"
    rows.append([name, *(f"{100 * accuracies[n - 1]:.1f}" for n in seen)])
    rows.sort(key=lambda row: -float(row[-1]))
    return table(["test accuracy, %, after epoch", *map(str, seen)], rows)


def pretrained() -> str:
    """The trained networks that come with the package."""
    rows = []
    for path in sorted((results.RESULTS / "pretrained").glob("*.json")):
        one = results.read(f"pretrained/{path.stem}")
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
