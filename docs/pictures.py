"""Trains a small network and draws README's picture: one bit with its filter, flips and accuracy.

    python docs/pictures.py          # trains for a minute, writes pictures/one_bit.json, and draws
    python docs/pictures.py --draw   # draws pictures/one_bit.png from the JSON that is there

The network and the digits are those of benchmarks/support/digits.py.
"""

import argparse
import json
import pathlib
import sys
from typing import Any

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "benchmarks")]

import larq_filters as lqf  # before TensorFlow's Keras is touched: selects Keras 2

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from support import digits, machine

EPOCHS, FLIPS = 10, 5  # the bit that is shown is the middle one of all that flip so often
OUTPUT, WEIGHT, FLIP, ACCURACY = "#0072b2", "#555555", "#d55e00", "#009e73"


class Record(tf.keras.callbacks.Callback):
    """y and θ of all weights of a layer, after every step."""

    def __init__(self, layer: str) -> None:
        super().__init__()
        self.layer, self.outputs, self.weights = layer, [], []

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes them."""
        kernel = self.model.get_layer(self.layer).kernel
        self.outputs.append(self.model.optimizer.output(kernel).numpy().ravel())
        self.weights.append(kernel.numpy().ravel())


def train() -> dict[str, Any]:
    """What the picture shows, of a network from random weights."""
    train, test = digits.data()
    model = digits.network(1)
    steps = EPOCHS * -(-len(train[0]) // digits.BATCH)
    optimizer = lqf.optimizers.FilteredFlip(decay_steps=steps)
    digits.compile(model, optimizer)
    record, flips = Record("dense"), lqf.callbacks.FlipRatio(per_layer=False)
    recalibrate = lqf.callbacks.RecalibrateBatchNorm([train[0][:600], train[0][600:]], batches=2)
    history = model.fit(
        *train,
        digits.BATCH,
        epochs=EPOCHS,
        validation_data=test,
        verbose=0,
        callbacks=[flips, record, recalibrate],
    ).history
    outputs, weights = np.array(record.outputs), np.array(record.weights)
    counts = (weights[1:] != weights[:-1]).sum(axis=0)
    bits = np.flatnonzero(counts == FLIPS)
    bit = int(bits[len(bits) // 2])
    return {
        "machine": machine.describe(),
        "steps": steps,
        "binary_weights": int(digits.bits(model).size),
        "bit": bit,
        "y": [float(f"{y:.3g}") for y in outputs[:, bit]],
        "theta": weights[:, bit].astype(int).tolist(),
        "flip_ratio": [float(f"{r:.3g}") for r in history["flip_ratio"]],
        "accuracy": [round(a, 4) for a in history["val_accuracy"]],
    }


def draw(record: dict[str, Any], path: pathlib.Path) -> None:
    """The picture: one bit on the left, all of them on the right."""
    y, theta = np.array(record["y"]), np.array(record["theta"])
    figure = Figure(figsize=(9.6, 3.7), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    steps = np.arange(1, len(y) + 1)
    y = 0.8 * y / np.abs(y).max()
    left.axhline(0, color="0.7", linewidth=0.8)
    left.step(steps, theta, where="post", color=WEIGHT, linewidth=1.2)
    left.plot(steps, y, color=OUTPUT, linewidth=1.4)
    flips = np.flatnonzero(theta[1:] != theta[:-1]) + 1
    left.plot(steps[flips], y[flips], "o", color=FLIP, markersize=6, zorder=3)
    left.set_title(f"One bit: it flips when y gets the sign of θ ({len(flips)} flips)", fontsize=11)
    left.set(
        xlabel="training step",
        ylabel="weight θ (y scaled to fit)",
        ylim=(-1.5, 1.5),
        xlim=(0, len(y) * 1.02),
    )
    left.set_yticks([-1, 0, 1], ["−1", "0", "+1"])
    for x, text, color in ((0.02, "weight θ", WEIGHT), (0.3, "filtered gradient y", OUTPUT)):
        left.text(x, 0.93, text, color=color, transform=left.transAxes, weight="bold")
    left.text(0.74, 0.93, "● flip", color=FLIP, transform=left.transAxes, weight="bold")

    epochs = np.arange(1, len(record["accuracy"]) + 1)
    right.plot(epochs, 100 * np.array(record["accuracy"]), "o-", color=ACCURACY)
    right.set_ylabel("test accuracy (%)", color=ACCURACY)
    right.set(xlabel="epoch", ylim=(60, 100), xticks=epochs)
    other = right.twinx()
    other.plot(epochs, 100 * np.array(record["flip_ratio"]), "s--", color=FLIP)
    other.set_ylabel("flips per weight and step (%)", color=FLIP)
    other.set_ylim(bottom=0)
    weights = f"{record['binary_weights']:,}"
    right.set_title(f"All {weights} bits: fewer flips, more accuracy", fontsize=11)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Trains, unless told not to, and draws."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draw", action="store_true", help="do not train")
    args = parser.parse_args()
    path = HERE / "pictures" / "one_bit.json"
    if not args.draw:
        path.write_text(f"{json.dumps(train())}\n", "utf-8")
    draw(json.loads(path.read_text("utf-8")), path.with_suffix(".png"))


if __name__ == "__main__":
    main()
