"""What a new optimizer leaves of a network that was trained already.

    python benchmarks/fine_tuning.py [--seeds 6] [--epochs 10]

A small network is trained on scikit-learn's digits, and goes on for 114 steps with a new optimizer
of a small rate. Measured are the share of binary weights that are then as they were, and the
accuracy on held-out digits before and after. Writes results/fine_tuning.json; 2 minutes on 2 cores.
"""

import argparse
from typing import Any

import larq_filters as lqf

import larq as lq
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from support import machine

BATCH, AFTER = 32, 3  # epochs of the second training
Adam = tf.keras.optimizers.Adam
OPTIMIZERS = {
    "FilteredFlip, inertia 0": lambda: lqf.optimizers.FilteredFlip(1e-3),
    "FilteredFlip, inertia 0.1": lambda: lqf.optimizers.FilteredFlip(1e-3, inertia=0.1),
}


def network(seed: int) -> tf.keras.Model:
    tf.keras.utils.set_random_seed(seed)
    binary = {
        "input_quantizer": "ste_sign",
        "kernel_quantizer": "ste_sign",
        "kernel_constraint": "weight_clip",
        "use_bias": False,
    }
    return tf.keras.Sequential(
        [
            lq.layers.QuantConv2D(8, 3, use_bias=False, input_shape=(8, 8, 1)),
            tf.keras.layers.BatchNormalization(),
            lq.layers.QuantConv2D(16, 3, **binary),
            tf.keras.layers.BatchNormalization(),
            tf.keras.layers.Flatten(),
            lq.layers.QuantDense(16, **binary),
            tf.keras.layers.BatchNormalization(),
            tf.keras.layers.Dense(10),
        ]
    )


def fit(model: tf.keras.Model, optimizer: Any, train: Any, test: Any, epochs: int) -> float:
    """The accuracy on held-out digits after some epochs."""
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    model.fit(*train, BATCH, epochs=epochs, verbose=0)
    return float(model.evaluate(*test, verbose=0)[1])


def bits(model: tf.keras.Model) -> np.ndarray:
    kernels = [v for v in model.trainable_variables if getattr(v, "precision", None) == 1]
    return np.concatenate([np.sign(tf.convert_to_tensor(v)).ravel() for v in kernels])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=10, help="of the first training")
    args = parser.parse_args()

    data = load_digits()
    x, y = (data.images[..., None] / 8.0 - 1.0).astype("float32"), data.target
    train, test = (x[:1200], y[:1200]), (x[1200:], y[1200:])
    steps = -(-len(train[0]) // BATCH)
    rows: dict[str, dict[str, list[float]]] = {
        name: {"kept": [], "before": [], "after": []} for name in OPTIMIZERS
    }
    for seed in range(args.seeds):
        model = network(seed)
        first = lqf.optimizers.FilteredFlip(
            decay_steps=args.epochs * steps, real_optimizer=Adam(1e-2)
        )
        before = fit(model, first, train, test, args.epochs)
        trained, weights = bits(model), model.get_weights()
        for name, make in OPTIMIZERS.items():
            model.set_weights(weights)
            after = fit(model, make(), train, test, AFTER)
            values = {"kept": float((bits(model) == trained).mean()), "before": before}
            for key, value in {**values, "after": after}.items():
                rows[name][key].append(value)
    machine.write("fine_tuning", {"steps": AFTER * steps, "rows": rows})
    print(
        f"{f'after {AFTER * steps} steps, {args.seeds} seeds':28}{'bits kept':>16}{'accuracy':>20}"
    )
    for name, row in rows.items():
        kept, change = 100 * np.array(row["kept"]), 100 * np.subtract(row["after"], row["before"])
        print(
            f"{name:28}{f'{kept.mean():.1f} ± {kept.std():.1f} %':>16}"
            f"{f'{change.mean():+.1f} ± {change.std():.1f} points':>20}"
        )


if __name__ == "__main__":
    main()
