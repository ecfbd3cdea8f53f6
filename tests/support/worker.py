"""A process of a training on several: examples/cifar10.py with a small network, noting every step.

    python worker.py NOTES --epochs 1 ...

NOTES.txt gets a line for every step, with a fingerprint of the binary weights on this worker;
NOTES.npz, at the end, all weights and all that the optimizer keeps; NOTES.first.npz what the first
steps of the training left of trainable variables and filters. While there is a file NOTES.hold,
the training waits after the step whose number is in it.
"""

import hashlib
import pathlib
import sys
import time
from typing import ClassVar

import larq_filters as lqf

import larq as lq
import numpy as np
import tensorflow as tf

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))

import cifar10
from common import surviving

FIRST = 5


def small_network(width, **quantizers):
    """With batch norm, whose averages are spread over the workers.

    Smooth in its real numbers, so that rounding stays rounding: the sign of an activation would
    make more of it.
    """
    binary = {"kernel_quantizer": lq.quantizers.NoOp(precision=1), "activation": "tanh"}
    layers = [
        tf.keras.layers.Conv2D(width, 3, 2, use_bias=False, input_shape=(32, 32, 3)),
        tf.keras.layers.BatchNormalization(),
        lq.layers.QuantConv2D(2 * width, 3, 2, use_bias=False, **binary),
        tf.keras.layers.BatchNormalization(),
        lq.layers.QuantConv2D(2 * width, 3, use_bias=False, **binary),
        tf.keras.layers.BatchNormalization(),
        tf.keras.layers.GlobalAveragePooling2D(),
        tf.keras.layers.Dense(10),
    ]
    return tf.keras.Sequential(layers)


class Notes(surviving.History):
    """What the examples' own callback does, and the notes."""

    first: ClassVar[dict] = {}

    def on_train_batch_end(self, batch, logs=None):
        model, digest = self.model, hashlib.sha256()
        step = int(model.optimizer.iterations.numpy())
        for i, variable in enumerate(model.trainable_variables):
            slots = model.optimizer.slots(variable)
            value = getattr(variable, "latent_variable", variable).numpy()
            if slots:
                digest.update(value.tobytes())
            if step <= FIRST:
                kept = {"": value, **{slot: v.numpy() for slot, v in slots.items()}}
                self.first |= {f"{step}/{i}/{slot}": v for slot, v in kept.items()}
        with path.with_suffix(".txt").open("a") as file:
            file.write(f"{step} {digest.hexdigest()}\n")
        hold = path.with_suffix(".hold")
        if hold.exists() and step == int(hold.read_text()):
            while hold.exists():
                time.sleep(0.05)

    def on_train_end(self, logs=None):
        state = self.model.get_weights()  # of all workers at once
        state += [variable.numpy() for variable in self.model.optimizer.variables]
        np.savez(path.with_suffix(".npz"), *state)
        np.savez(path.with_suffix(".first.npz"), **self.first)


path = pathlib.Path(sys.argv.pop(1))
surviving.History = Notes
lqf.models.BiRealNet20 = small_network
cifar10.main()
