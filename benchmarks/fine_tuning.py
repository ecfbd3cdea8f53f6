"""What a new optimizer leaves of a network that was trained already, and what inertia costs.

    python benchmarks/fine_tuning.py [--seeds 6] [--epochs 10]

A small network is trained on scikit-learn's digits from random weights, with each inertia; one of
them goes on with a new optimizer of a small rate. It measures the accuracy on held-out digits of
the first, and of the second, after 114 and 418 steps, the share of binary weights that are as they
were and the change of accuracy. Writes results/fine_tuning.json; 6 minutes on 2 cores.
"""

import argparse
from typing import Any

import larq_filters as lqf

import numpy as np
import tensorflow as tf
from support import digits, machine

AFTER = (3, 11)  # epochs of the second training
INERTIAS = (0.0, 0.1, 1.0)
Adam = tf.keras.optimizers.Adam


def fit(model: tf.keras.Model, train: Any, test: Any, epochs: int, begun: int = 0) -> float:
    """The accuracy on held-out digits after so many epochs, some of which are done."""
    model.fit(*train, digits.BATCH, epochs=epochs, initial_epoch=begun, verbose=0)
    return float(model.evaluate(*test, verbose=0)[1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=10, help="epochs of the first training")
    args = parser.parse_args()

    train, test = digits.data()
    steps = -(-len(train[0]) // digits.BATCH)
    from_random: dict[str, list[float]] = {str(inertia): [] for inertia in INERTIAS}
    before: list[float] = []
    looks = [str(epochs * steps) for epochs in AFTER]
    rows: dict[str, dict[str, dict[str, list[float]]]] = {
        str(inertia): {key: {look: [] for look in looks} for key in ("kept", "after")}
        for inertia in INERTIAS
    }
    for seed in range(args.seeds):
        for inertia in reversed(INERTIAS):  # the last one, of 0, is what goes on
            model = digits.network(seed)
            first = lqf.optimizers.FilteredFlip(
                decay_steps=args.epochs * steps, inertia=inertia, real_optimizer=Adam(1e-2)
            )
            digits.compile(model, first)
            from_random[str(inertia)].append(fit(model, train, test, args.epochs))
        before.append(from_random[str(INERTIAS[0])][-1])
        trained, weights = digits.bits(model), model.get_weights()
        for inertia in INERTIAS:
            model.set_weights(weights)
            digits.compile(model, lqf.optimizers.FilteredFlip(1e-3, inertia=inertia))
            row, begun = rows[str(inertia)], 0
            for epochs, look in zip(AFTER, looks, strict=True):
                row["after"][look].append(fit(model, train, test, epochs, begun))
                row["kept"][look].append(float((digits.bits(model) == trained).mean()))
                begun = epochs
    record = {"before": before, "from_random": from_random, "rows": rows}
    machine.write("fine_tuning", record)
    print(f"{'inertia':10}{'steps':>6}{'bits kept':>20}{'accuracy':>22}   ({args.seeds} seeds)")
    for inertia, row in rows.items():
        for look in looks:
            kept = shown(100 * np.array(row["kept"][look]), ".1f")
            change = shown(100 * np.subtract(row["after"][look], before), "+.1f")
            print(f"{inertia:10}{look:>6}{f'{kept} %':>20}{f'{change} points':>22}")


def shown(values: np.ndarray, form: str) -> str:
    """The mean, and the deviation of a sample if there are several."""
    more = f" ± {values.std(ddof=1):.1f}" if values.size > 1 else ""
    return f"{values.mean():{form}}{more}"


if __name__ == "__main__":
    main()
