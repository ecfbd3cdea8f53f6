"""What a new optimizer leaves of a network that was trained already, and what inertia costs.

    python benchmarks/fine_tuning.py [--seeds 6] [--epochs 10]

A small network is trained on scikit-learn's digits from random weights, with each inertia; one of
them goes on for 114 steps with a new optimizer of a small rate. It measures the accuracy on
held-out digits of the first, and of the second the share of binary weights that are then as they
were and the change of accuracy. Writes results/fine_tuning.json; 4 minutes on 2 cores.
"""

import argparse
from typing import Any

import larq_filters as lqf

import numpy as np
import tensorflow as tf
from support import digits, machine

AFTER = 3  # epochs of the second training
INERTIAS = (0.0, 0.1, 1.0)
Adam = tf.keras.optimizers.Adam


def fit(model: tf.keras.Model, optimizer: Any, train: Any, test: Any, epochs: int) -> float:
    """The accuracy on held-out digits after some epochs."""
    digits.compile(model, optimizer)
    model.fit(*train, digits.BATCH, epochs=epochs, verbose=0)
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
    rows: dict[str, dict[str, list[float]]] = {
        str(inertia): {"kept": [], "before": [], "after": []} for inertia in INERTIAS
    }
    for seed in range(args.seeds):
        for inertia in reversed(INERTIAS):  # the last one, of 0, is what goes on
            model = digits.network(seed)
            first = lqf.optimizers.FilteredFlip(
                decay_steps=args.epochs * steps, inertia=inertia, real_optimizer=Adam(1e-2)
            )
            before = fit(model, first, train, test, args.epochs)
            from_random[str(inertia)].append(before)
        trained, weights = digits.bits(model), model.get_weights()
        for inertia in INERTIAS:
            model.set_weights(weights)
            second = lqf.optimizers.FilteredFlip(1e-3, inertia=inertia)
            after = fit(model, second, train, test, AFTER)
            kept = float((digits.bits(model) == trained).mean())
            for key, value in {"kept": kept, "before": before, "after": after}.items():
                rows[str(inertia)][key].append(value)
    machine.write("fine_tuning", {"steps": AFTER * steps, "from_random": from_random, "rows": rows})
    print(f"{args.seeds} seeds     {'from random weights':>22}{'bits kept':>18}{'accuracy':>21}")
    for inertia, row in rows.items():
        kept, change = 100 * np.array(row["kept"]), 100 * np.subtract(row["after"], row["before"])
        start = 100 * np.array(from_random[inertia])
        print(
            f"inertia {inertia:4}{f'{start.mean():.1f} ± {start.std():.1f} %':>22}"
            f"{f'{kept.mean():.1f} ± {kept.std():.1f} %':>18}"
            f"{f'{change.mean():+.1f} ± {change.std():.1f} points':>21}"
        )


if __name__ == "__main__":
    main()
