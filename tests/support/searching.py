"""A process of a search on real digits, noting what it does.

    python searching.py FOLDER --trials 3

FOLDER/ID.txt gets a line for every trial that this process starts or ends.
"""

import argparse
import os
import pathlib

import larq_filters as lqf

import larq as lq
import tensorflow as tf
from sklearn.datasets import load_digits

STEPS = 5 * 21  # of 64 images each


def load():
    data = load_digits()
    x, y = (data.images[..., None] / 8.0 - 1.0).astype("float32"), data.target
    return (x[:1344], y[:1344]), (x[1344:], y[1344:])


def network(kernel):
    binary = {"input_quantizer": "ste_sign", "use_bias": False, **kernel}
    return tf.keras.Sequential(
        [
            tf.keras.layers.Conv2D(16, 3, use_bias=False, input_shape=(8, 8, 1)),
            tf.keras.layers.BatchNormalization(momentum=0.9),
            lq.layers.QuantConv2D(32, 3, **binary),
            tf.keras.layers.BatchNormalization(momentum=0.9),
            tf.keras.layers.Flatten(),
            tf.keras.layers.Dense(10),
        ]
    )


def build(hp):
    tf.keras.utils.set_random_seed(1)
    model = network({"kernel_quantizer": lq.quantizers.NoOp(precision=1)})
    optimizer = lqf.tuning.filtered_flip(
        hp, steps=STEPS, real_optimizer=tf.keras.optimizers.Adam(1e-2)
    )
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--trials", type=int, default=3)
    args = parser.parse_args()
    notes = args.folder / f"{os.environ.get('KERASTUNER_TUNER_ID', 'alone')}.txt"

    def note(line):
        with notes.open("a") as file:
            file.write(line + "\n")

    class Noted(lqf.tuning.RandomSearch):
        def run_trial(self, trial, *arguments, **options):
            note(f"start {trial.trial_id}")
            results = super().run_trial(trial, *arguments, **options)
            note(f"end {trial.trial_id}")
            return results

    tuner = Noted(
        build,
        "val_accuracy",
        max_trials=args.trials,
        seed=1,
        directory=args.folder,
        project_name="search",
    )
    train, test = load()
    tuner.search(*train, validation_data=test, epochs=5, batch_size=64, verbose=2)


if __name__ == "__main__":
    main()
