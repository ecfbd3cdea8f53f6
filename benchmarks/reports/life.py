"""Events in the life of a model, batch norm and flips."""

import statistics

from reports._text import percent, table

from support import results

EVENTS = {  # in life_events.json: in words
    "resume": "a `.keras` file is loaded, training goes on",
    "restore_best": "`EarlyStopping` restores the best weights",
    "swap_and_back": "weights are swapped for an evaluation, and back",
    "recompile": "`compile` with a new optimizer, α = 1e-3",
    "fine_tune": "`compile` with a new optimizer, α = 1e-4",
    "new_head": "a new last layer",
    "unfreeze": "a frozen layer is trained again",
    "two_step": "real weights from a first step without binary weights, `inertia=0.1`",
    "to_latent_free": "`to_latent_free` of a trained model",
    "load_weights_h5": "`load_weights` of a `.h5` file into a new model",
    "load_weights_v3": "`load_weights` of a `.weights.h5` file",
    "load_weights_checkpoint": "`load_weights` of a checkpoint, with filters",
}
OPTIMIZERS = {  # of events in a model's life, and what they are called in the table
    **{name: name for name in ("latent Adam", "CascadedEMA", "EMA", "IIR", "NormalizedEMA")},
    "Diode": "Diode's filter",
    "Bop": "Bop, `inertia=None`",
}


def inertia() -> str:
    """What a new optimizer leaves of trained bits."""
    record = results.read("fine_tuning")
    rows = []
    for value, row in record["rows"].items():
        cells = []
        for look, kept in row["kept"].items():
            pairs = zip(record["before"], row["after"][look], strict=True)
            changes = [100 * (after - before) for before, after in pairs]
            change = f"{statistics.mean(changes):+.1f} ± {statistics.stdev(changes):.1f} points"
            cells += [f"{percent(kept)} %", change]
        rows.append([f"{float(value):g}", *cells, f"{percent(record['from_random'][value])} %"])
    looks = record["rows"]["0.0"]["kept"]
    heads = [head for n in looks for head in (f"bits kept after {n} steps", "change of accuracy")]
    return table(["`inertia`", *heads, "accuracy of a training from random weights"], rows)


def events() -> str:
    """What the events in a model's life leave of its bits."""
    lost = results.read("life_events")["lost"]["compiled"]
    rows = [
        [name, *(f"{100 * lost[optimizer][event]:.2f}" for optimizer in OPTIMIZERS)]
        for event, name in EVENTS.items()
    ]
    return table(["bits that the next step changes, %", *OPTIMIZERS.values()], rows)


def recalibrated() -> str:
    """Validation accuracy by epoch, with and without new averages."""
    rows = []
    for label, name in (
        ("as it is", "cifar10_filtered"),
        ("with `RecalibrateBatchNorm`", "cifar10_filtered_recalibrated"),
    ):
        history = results.read(name)["history"]["val_accuracy"]
        rows.append([label, *(f"{100 * value:.1f} %" for value in history)])
    return table(["epoch", *map(str, range(1, len(rows[0])))], rows)


def flips() -> str:
    """Flip ratios of a training that went well."""
    run = results.searched(results.RESULTS / "filter_search")["cascaded_ema_squared"][0]
    epochs = [str(i + 1) for i in range(len(run["flip_ratio"]))]
    ratios = [f"{100 * ratio:.2f}" for ratio in run["flip_ratio"]]
    return table(["epoch", *epochs], [["flips, %", *ratios]])
