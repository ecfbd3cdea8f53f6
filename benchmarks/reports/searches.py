"""Searches: filters on a smaller network, and what random searches found."""

import statistics

from reports._text import percent, table

from support import results

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


def search() -> str:
    """The candidates on a smaller network, and what becomes of state in bfloat16 there."""
    found = results.searched(results.RESULTS / "filter_search")

    def result(name: str | None) -> str:
        runs = found.get(name or "", [])
        value = results.mean([100 * run["test_accuracy"] for run in runs]) if runs else ""
        return f"{value} ({len(runs)})" if len(runs) > 1 else value

    rows = [[label, *map(result, pair)] for label, pair in SEARCHED.items()]
    rounded = [[alpha, *map(result, three)] for alpha, three in ROUNDED.items()]
    heads = ["binary weights", "real weights: Adam 0.01", "Adam 0.03"]
    narrow = ["α of `CascadedEMA`", "float32", "bfloat16", "bfloat16, rounded to the nearest"]
    found_rows = [row for row in rows if any(row[1:])]
    return f"{table(heads, found_rows)}\n\n{table(narrow, rounded)}"


def by_steps() -> str:
    """The default filter in trainings of several lengths, and other α."""
    tuned = results.read("fine_tuning")
    small = results.searched(results.RESULTS / "filter_search")
    cifar = {
        one.family: one
        for one in reversed(results.standings(results.RESULTS / "accuracy_cifar10"))
        if one.real_rate in (None, results.REAL_RATE)
    }
    default = tuned["from_random"]["0.0"]
    rows = [["380", "digits", "default", percent(default), str(len(default))]]
    for alpha, name in (
        ("0.03", "cascaded_ema_squared_alpha_3e-2"),
        ("0.01, the default", "cascaded_ema_squared"),
        ("0.003", "cascaded_ema_squared_alpha_3e-3"),
        ("0.001", "cascaded_ema_squared_alpha_1e-3"),
        ("0.0001", "cascaded_ema_squared_alpha_1e-4"),
    ):
        runs = [run["test_accuracy"] for run in small[name]]
        rows.append(
            ["3,900", "CIFAR-10, 16×16, width 8", f"α = {alpha}", percent(runs), str(len(runs))]
        )
    best = [value / 100 for value in cifar["cascaded_ema_squared"].accuracies[0.01]]
    rows.append(["3,900", "CIFAR-10, width 16", "default", percent(best), str(len(best))])
    return table(
        ["steps", "data and network", "`CascadedEMA`, γ = 0.1", "test accuracy, %", "seeds"], rows
    )


def decays() -> str:
    """Trials of a random search by the decay that they drew."""
    found: dict[str, list[float]] = {}
    for trial in results.read("search_budget")["spaces"]["filtered"]["trials"]:
        found.setdefault(trial["values"]["alpha_decay"], []).append(trial["held_out_accuracy"])
    rows = [
        [
            name,
            str(len(values)),
            f"{100 * statistics.median(values):.1f}",
            f"{100 * max(values):.1f}",
        ]
        for name, values in sorted(found.items(), key=lambda item: -statistics.median(item[1]))
    ]
    return table(["decay of α", "trials", "median accuracy, %", "best, %"], rows)


def budget() -> str:
    """Random searches over three and over seven hyperparameters."""
    rows = []
    names = {"filtered": "`filtered_flip`, 3", "latent": "`latent_sgd`, 7"}
    for space, name in names.items():
        record = results.read("search_budget")["spaces"][space]
        values = [trial["held_out_accuracy"] for trial in record["trials"]]
        again = record["repeats"]["test_accuracies"]
        rows.append(
            [
                name,
                f"{100 * max(values):.1f} %",
                f"{100 * results.expected_best(values)[5]:.1f} %",
                f"{100 * statistics.median(values):.1f} %",
                f"{percent(again)} % ({len(again)} seeds)",
            ]
        )
    best = f"best of {len(values)}"
    heads = ["space, hyperparameters", best, "best of 6, on average", "median trial"]
    return table([*heads, "best again, other seeds, test images"], rows)
