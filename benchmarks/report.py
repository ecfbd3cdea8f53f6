"""Writes the tables of docs/results.md from the JSON in results/.

python benchmarks/report.py
"""

import dataclasses
import json
import pathlib
import statistics
from typing import Any

RESULTS = pathlib.Path(__file__).parent / "results"
README = RESULTS.parent.parent / "docs" / "results.md"
BEGIN, END = "<!-- {} by benchmarks/report.py -->", "<!-- end -->"
ROWS = {  # in optimizer_step.json: what to call it, its name in memory.json
    "CascadedEMA": ("`FilteredFlip`, `CascadedEMA`", "CascadedEMA"),
    "EMA": ("`FilteredFlip`, `EMA`", "EMA"),
    "CascadedEMA bfloat16": ('`CascadedEMA`, `state_dtype="bfloat16"`', "CascadedEMA bfloat16"),
    "larq Bop": ("larq's `Bop`", "larq Bop"),
    "Adam": ("Keras' Adam, latent weights", "latent, Adam"),
    "SGD, momentum": ("Keras' SGD with momentum, latent weights", "latent, SGD, momentum"),
}
REAL_RATE = 1e-2  # of the Adam that trains real weights, where a recipe does not say
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

SEARCHED = {  # what to call it: in filter_search/, with Adam 1e-2 and 3e-2 on real weights
    "`CascadedEMA`, α = 0.01, γ = 0.1": ("cascaded_ema_squared", "cascaded_ema_squared_real_3e-2"),
    "the same, α decays linearly": ("cascaded_ema", None),
    "`CascadedEMA`, inertia 0.1": ("cascaded_ema_squared_inertia_0.1", None),
    "`CascadedEMA`, inertia 1": ("cascaded_ema_squared_inertia_1", None),
    "`CascadedEMA`, α = 0.03": ("cascaded_ema_squared_alpha_3e-2", None),
    "`CascadedEMA`, α = 0.003": ("cascaded_ema_squared_alpha_3e-3", None),
    "`CascadedEMA`, γ = 0.3": ("cascaded_ema_squared_gamma_0.3", None),
    "`CascadedEMA`, γ = 0.03": ("cascaded_ema_squared_gamma_0.03", None),
    "`CascadedEMA`, α = γ = 0.03": ("cascaded_ema_squared_alpha_gamma_0.03", None),
    "`CascadedEMA` of normalized gradients, τ = 0.02": ("hysteresis_0.02", None),
    "`EMA`, α = 5e-4": ("ema", None),
    "`recipes.bop(1e-8, γ)`, γ from 1e-3, linearly": ("bop", None),
    "Diode, β₁ = 0.9, 1 − β₂ from 0.01": ("decayed_diode", None),
    "normalized gradients in a saturating `Integrator`, τ = 0.9": ("cusum", "cusum_real_3e-2"),
    "the same, τ = 0.5": ("cusum_threshold_0.5", None),
    "signs of gradients in it, τ = 0.9": ("cusum_sign", None),
    "`EMA` in it, as of clipped SGD with rate 30, τ = 0": ("saturating", None),
    "latent SGD, 30": ("latent_sgd_30", None),
    "latent Adam, 0.01": ("latent_adam", "latent_adam_real_3e-2"),
    "latent Adam, 0.03": (None, "latent_adam_3e-2"),
}
STATES = ("cascaded_ema_squared", "bfloat16", "bfloat16_nearest")  # in filter_search/, by α
ROUNDED = {"1e-2": STATES} | {
    alpha: tuple(f"{name}_alpha_{alpha}" for name in STATES) for alpha in ("1e-3", "1e-4")
}


def read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


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


def mean(values: list[float]) -> str:
    """With the standard deviation of single values, if there are several."""
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def others(one: Standing) -> str:
    values = list(one.accuracies.items())[1:]
    return ", ".join(f"{variant:g}: {mean(row)}" for variant, row in values)


def accuracy() -> str:
    lines = [
        "| binary weights | real weights | test accuracy, % | seeds | other values |",
        "|---|---|---|---|---|",
    ]
    for one in standings(RESULTS / "accuracy_cifar10"):
        label, symbol = FAMILIES[one.family]
        row = one.accuracies[one.best]
        real = "the same" if one.real_rate is None else f"Adam {one.real_rate:g}"
        lines.append(
            f"| {label}, {symbol} = {one.best:g} | {real} | {mean(row)} | {len(row)} "
            f"| {others(one)} |"
        )
    return "\n".join(lines)


def searched(folder: pathlib.Path) -> dict[str, list[dict[str, Any]]]:
    """What benchmarks/filter_search.py found: the runs of each candidate."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text("utf-8"))
        found.setdefault(record["candidate"], []).append(record)
    return found


def search() -> str:
    """The candidates on a smaller network, and what becomes of state in bfloat16 there."""
    found = searched(RESULTS / "filter_search")

    def result(name: str | None) -> str:
        runs = found.get(name or "", [])
        value = mean([100 * run["test_accuracy"] for run in runs]) if runs else ""
        return f"{value} ({len(runs)})" if len(runs) > 1 else value

    rows = [(label, *map(result, pair)) for label, pair in SEARCHED.items()]
    rounded = [(alpha, *map(result, three)) for alpha, three in ROUNDED.items()]
    return "\n".join(
        [
            "| binary weights | real weights: Adam 0.01 | Adam 0.03 |",
            "|---|---|---|",
            *(f"| {' | '.join(row)} |" for row in rows if any(row[1:])),
            "",
            "| α of `CascadedEMA` | float32 | bfloat16 | bfloat16, rounded to the nearest |",
            "|---|---|---|---|",
            *(f"| {' | '.join(row)} |" for row in rounded),
        ]
    )


def speed() -> str:
    steps, memory, training = map(read, ("optimizer_step", "memory", "training_throughput"))
    parts, held = steps["in_parts"], memory["bytes_per_binary_weight"]
    one = steps["sizes"][str(parts["weights"])]
    lines = [
        f"| {parts['weights'] / 1e6:.1f} M binary weights | ms a step in {parts['variables']} "
        "variables (quartiles) | of a copy's bandwidth | in one variable | bytes per weight |",
        "|---|---|---|---|---|",
    ]
    for name, (label, in_memory) in ROWS.items():
        row = parts["rows"][name]
        low, high = (1e3 * second for second in row["step_seconds"]["quartiles"])
        lines.append(
            f"| {label} | {1e3 * row['step_seconds']['median']:.1f} ({low:.1f} to {high:.1f}) "
            f"| {row['of_copy']['median']:.2f} | {1e3 * one[name]['step_seconds']['median']:.1f} "
            f"| {held[in_memory]['held']:.0f} |"
        )
    rates = training["images_per_second"]
    ratio = training["filtered_over_latent_adam"]
    low, high = ratio["quartiles"]
    machine = steps["machine"]
    lines += [
        "",
        f"Training BiRealNet-20 on images of CIFAR-10's size, batch {training['batch_size']}: "
        f"{rates['filtered']['median']:.0f} images a second, {ratio['median']:.2f} times "
        f"(quartiles {low:.2f} to {high:.2f}) those of latent Adam; the optimizer takes "
        f"{training['optimizer_share']['median']:.1%} of a step. On {machine['processor']}, "
        f"{machine['cores']} cores, TensorFlow {machine['tensorflow']}.",
        "",
        *mixed_precision(training),
        "",
        epoch(),
    ]
    return "\n".join(lines)


def mixed_precision(training: dict[str, Any]) -> list[str]:
    """What a processor with instructions for bfloat16 gains by them."""
    faster = training["bfloat16_over_float32"]
    low, high = faster["quartiles"]
    return [
        f"Under Keras' policy mixed_bfloat16 it trains {faster['median']:.2f} times "
        f"(quartiles {low:.2f} to {high:.2f}) as many images a second. This processor has "
        f"{'' if training['bfloat16_instructions'] else 'no '}instructions for bfloat16 "
        "(AVX512-BF16).",
    ]


def epoch() -> str:
    """Where the time of an epoch goes, in a sentence."""
    spent = read("epoch_profile")["seconds_of_an_epoch"]
    total = sum(seconds for seconds in spent.values() if seconds > 0)
    parts = sorted(spent.items(), key=lambda item: -item[1])
    shares = ", ".join(
        f"{name} {seconds / total:.1%}" if seconds > 0 else f"{name} too little to measure"
        for name, seconds in parts  # a difference of two medians may be negative
    )
    return f"On another day, an epoch of `examples/cifar10.py` took {total:.0f} s: {shares}."


TABLES = {"accuracy": accuracy, "search": search, "speed": speed}


def main() -> None:
    text = README.read_text("utf-8")
    for name, table in TABLES.items():
        before, rest = text.split(BEGIN.format(name))
        after = rest.split(END, 1)[1]
        text = f"{before}{BEGIN.format(name)}\n{table()}\n{END}{after}"
    README.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
