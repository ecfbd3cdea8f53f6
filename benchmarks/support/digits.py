"""A small binary network on scikit-learn's digits, for measurements that take seconds."""

from typing import Any

import larq_filters as lqf  # noqa: F401  (selects Keras 2)

import larq as lq
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

BATCH = 32
KERNEL = {"kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}
Arrays = tuple[np.ndarray, np.ndarray]


def data() -> tuple[Arrays, Arrays]:
    """1,200 images to train on and 597 to test with, with their labels."""
    digits = load_digits()
    x, y = (digits.images[..., None] / 8.0 - 1.0).astype("float32"), digits.target
    return (x[:1200], y[:1200]), (x[1200:], y[1200:])


def network(seed: int, **kernel: Any) -> tf.keras.Model:
    tf.keras.utils.set_random_seed(seed)
    binary = {"input_quantizer": "ste_sign", "use_bias": False, **(kernel or KERNEL)}
    return tf.keras.Sequential(
        [
            lq.layers.QuantConv2D(8, 3, use_bias=False, input_shape=(8, 8, 1), name="first"),
            tf.keras.layers.BatchNormalization(),
            lq.layers.QuantConv2D(16, 3, name="conv", **binary),
            tf.keras.layers.BatchNormalization(),
            tf.keras.layers.Flatten(),
            lq.layers.QuantDense(16, name="dense", **binary),
            tf.keras.layers.BatchNormalization(),
            tf.keras.layers.Dense(10, name="head"),
        ]
    )


def bits(model: tf.keras.Model) -> np.ndarray:
    """The signs of all binary kernels."""
    kernels = [model.get_layer(name).get_weights()[0] for name in ("conv", "dense")]
    return np.concatenate([np.where(kernel < 0, -1, 1).ravel() for kernel in kernels])


def compile(model: tf.keras.Model, optimizer: Any, **options: Any) -> tf.keras.Model:
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], **options)
    return model
