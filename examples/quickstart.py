"""Trains a small binary network on real handwritten digits, offline, and shows that it worked.

    python examples/quickstart.py

The images are scikit-learn's 1,797 digits of 8×8 pixels; a third is held out. The two inner
convolutions have binary weights, trained without latent weights by larq_filters.
"""

import argparse
import time

from common import quiet  # imports larq_filters; what TensorFlow writes of GPUs is left out

# isort: split
import larq_filters as lqf  # before TensorFlow's Keras is touched: selects Keras 2

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm


class Progress(tf.keras.callbacks.Callback):
    """A line and a progress bar for each epoch."""

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        name = f"epoch {epoch + 1:2}/{self.params['epochs']}"
        self.bar = tqdm(total=self.params["steps"], desc=name, leave=False, ncols=80)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.bar.update()

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        self.bar.close()
        tqdm.write(
            f"{self.bar.desc}  loss {logs['loss']:.3f}  accuracy {logs['accuracy']:6.1%}  "
            f"flips per step {logs['flip_ratio']:7.3%}"
        )


def data(seed: int) -> tuple[np.ndarray, ...]:
    """Images to train on and images held out, then their labels."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype("float32") / 8 - 1
    return train_test_split(images, labels, test_size=1 / 3, random_state=seed, stratify=labels)


def train(epochs: int, seed: int) -> tuple[tf.keras.Model, np.ndarray]:
    """The trained network, and the images that it never saw."""
    tf.keras.utils.set_random_seed(seed)
    x, x_test, y, y_test = data(seed)
    model = lqf.models.DigitsNet(kernel_quantizer="ste_sign", kernel_constraint="weight_clip")
    steps = epochs * -(-len(x) // 32)
    model.compile(
        optimizer=lqf.optimizers.FilteredFlip(decay_steps=steps),
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    print(f"training on {len(x)} digits, {len(x_test)} held out")
    callbacks = [lqf.callbacks.FlipRatio(), Progress()]
    model.fit(x, y, batch_size=32, epochs=epochs, verbose=0, callbacks=callbacks)

    kernels = [model.get_layer(name).get_weights()[0] for name in ("binary_1", "binary_2")]
    values = np.unique(np.concatenate([kernel.ravel() for kernel in kernels]))
    weights = sum(kernel.size for kernel in kernels)
    _, accuracy = model.evaluate(x_test, y_test, verbose=0)
    print(f"\nbinary weights      {weights:,}, with values {values.tolist()}")
    print(f"their memory        {weights / 8000:.1f} kB packed, {weights / 250:.1f} kB as floats")
    print(f"test accuracy       {accuracy:.1%} of {len(x_test)} digits never trained on")
    return model, x_test


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    start = time.perf_counter()
    train(args.epochs, args.seed)
    training = time.perf_counter() - start
    print(f"time                import {quiet.seconds:.0f} s, training {training:.0f} s")


if __name__ == "__main__":
    main()
