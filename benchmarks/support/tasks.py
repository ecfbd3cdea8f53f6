"""Small tasks of several kinds, on real data, for optimizers at their own settings."""

import dataclasses
import functools
import gzip
import json
import pathlib
import unicodedata
from collections.abc import Callable
from typing import Any

import larq_filters as lqf
from support import digits
from support.examples import cifar10

import larq as lq
import numpy as np
import spellchecker
import tensorflow as tf
import tensorflow_datasets as tfds
from sklearn.datasets import load_breast_cancer

layers = tf.keras.layers
Arrays = tuple[np.ndarray, np.ndarray]
LANGUAGES = ("de", "en", "es", "fr", "it", "nl", "pt")
LETTERS = 16  # of a word, at most


@dataclasses.dataclass(frozen=True)
class Task:
    """What is learned.

    Attributes:
        what: In the words of a table.
        data: From a seed to the training and the test samples, with their labels.
        network: From a seed and options of the binary kernels to a new network.
        epochs: A short, a medium and a long training.
        batch: Samples of a step.
    """

    what: str
    data: Callable[[int], tuple[Arrays, Arrays]]
    network: Callable[..., tf.keras.Model]
    epochs: tuple[int, int, int]
    batch: int


@functools.cache
def _mnist() -> tuple[Arrays, Arrays]:
    builder = tfds.builder("mnist")
    if not builder.is_prepared():
        raise SystemExit("MNIST is not prepared. With internet access, run: tfds build mnist")
    splits = []
    for split in ("train", "test"):
        read = builder.as_dataset(split=split, as_supervised=True, batch_size=-1)
        x, y = tfds.as_numpy(read)
        splits.append(((x / 127.5 - 1.0).astype("float32"), y))
    return splits[0], splits[1]


def _tutorial(seed: int, **kernel: Any) -> tf.keras.Model:
    """The convolutional network of larq's tutorial on MNIST."""
    tf.keras.utils.set_random_seed(seed)
    inner = {"use_bias": False, "input_quantizer": "ste_sign", **kernel}
    norm = functools.partial(layers.BatchNormalization, scale=False)
    return tf.keras.Sequential(
        [
            lq.layers.QuantConv2D(32, 3, use_bias=False, **kernel, input_shape=(28, 28, 1)),
            *(layers.MaxPooling2D(), norm()),
            lq.layers.QuantConv2D(64, 3, **inner),
            *(layers.MaxPooling2D(), norm()),
            lq.layers.QuantConv2D(64, 3, **inner),
            *(norm(), layers.Flatten()),
            *(lq.layers.QuantDense(64, **inner), norm()),
            *(lq.layers.QuantDense(10, **inner), norm()),
        ]
    )


def _cells(seed: int) -> tuple[Arrays, Arrays]:
    """Breast cancer of Wisconsin: 30 numbers of a cell's nucleus, another split for each seed."""
    x, y = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x))
    train, test = order[:400], order[400:]
    x = ((x - x[train].mean(0)) / x[train].std(0)).astype("float32")
    return (x[train], y[train]), (x[test], y[test])


def _dense(seed: int, **kernel: Any) -> tf.keras.Model:
    tf.keras.utils.set_random_seed(seed)
    inner = {"use_bias": False, "input_quantizer": "ste_sign", **kernel}
    return tf.keras.Sequential(
        [
            *(layers.Dense(64, use_bias=False, input_shape=(30,)), layers.BatchNormalization()),
            *(lq.layers.QuantDense(64, **inner), layers.BatchNormalization()),
            *(lq.layers.QuantDense(64, **inner), layers.BatchNormalization()),
            layers.Dense(2),
        ]
    )


@functools.cache
def _words() -> tuple[Arrays, Arrays]:
    """Words in plain letters, each of one language only: 2,500 of each to train on, 500 to test."""
    folder = pathlib.Path(spellchecker.__file__).parent / "resources"
    words = {}
    for language in LANGUAGES:
        dictionary = json.loads(gzip.decompress((folder / f"{language}.json.gz").read_bytes()))
        words[language] = {plain for word in dictionary if (plain := _plain(word))}
    spelled: list[list[int]] = []
    labels: list[int] = []
    for label, language in enumerate(LANGUAGES):
        others = set().union(*(words[other] for other in LANGUAGES if other != language))
        own = sorted(words[language] - others)
        for i in np.random.default_rng(label).choice(len(own), 3_000, replace=False):
            spelled.append([ord(letter) - 96 for letter in own[i].ljust(LETTERS, "`")])
            labels.append(label)
    x, y = np.eye(27, dtype="float32")[spelled], np.array(labels)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[len(x) // 6 :], order[: len(x) // 6]
    return (x[train], y[train]), (x[test], y[test])


def _plain(word: str) -> str:
    """A word of 3 to 16 letters without their accents; anything else is nothing."""
    parts = unicodedata.normalize("NFKD", word)
    letters = "".join(part for part in parts if not unicodedata.combining(part))
    fits = letters.isascii() and letters.isalpha() and letters.islower()
    return letters if fits and 3 <= len(letters) <= LETTERS else ""


def _spelling(seed: int, **kernel: Any) -> tf.keras.Model:
    tf.keras.utils.set_random_seed(seed)
    inner = {"use_bias": False, "input_quantizer": "ste_sign", **kernel}
    return tf.keras.Sequential(
        [
            layers.Conv1D(64, 3, use_bias=False, input_shape=(LETTERS, 27)),
            layers.BatchNormalization(),
            *(lq.layers.QuantConv1D(64, 3, **inner), layers.BatchNormalization()),
            *(lq.layers.QuantConv1D(128, 3, strides=2, **inner), layers.BatchNormalization()),
            layers.Flatten(),
            layers.Dense(len(LANGUAGES)),
        ]
    )


@functools.cache
def _cifar10(size: int) -> tuple[Arrays, Arrays]:
    """All images, normalized, in `size`×`size` pixels; they are not augmented."""
    splits = []
    arrays = cifar10.read(None)
    for split in ("train", "test"):
        x, y = arrays[split]
        parts = [lqf.models.preprocess_cifar10(part) for part in tf.split(x, 10)]
        factor = 32 // size
        parts = [tf.nn.avg_pool2d(part, factor, factor, "VALID") for part in parts]
        splits.append((np.concatenate([part.numpy() for part in parts]), np.array(y)))
    return splits[0], splits[1]


def _birealnet(width: int, size: int) -> Callable[..., tf.keras.Model]:
    def network(seed: int, **kernel: Any) -> tf.keras.Model:
        tf.keras.utils.set_random_seed(seed)
        return lqf.models.BiRealNet20(width=width, input_shape=(size, size, 3), **kernel)

    return network


TASKS = {
    "digits": Task(
        "scikit-learn's digits, small network",
        lambda seed: digits.data(),
        digits.network,
        (2, 10, 100),
        digits.BATCH,
    ),
    "cells": Task("30 numbers of a cell: breast cancer, dense", _cells, _dense, (2, 10, 100), 32),
    "words": Task("language of a word, of 7", lambda seed: _words(), _spelling, (1, 5, 25), 64),
    "mnist": Task("MNIST, larq's tutorial", lambda seed: _mnist(), _tutorial, (1, 3, 10), 64),
    "cifar10_small": Task(
        "CIFAR-10 in 16×16, BiRealNet-20 of width 8",
        lambda seed: _cifar10(16),
        _birealnet(8, 16),
        (1, 3, 10),
        128,
    ),
    "cifar10": Task(
        "CIFAR-10, BiRealNet-20 of width 16",
        lambda seed: _cifar10(32),
        _birealnet(16, 32),
        (1, 3, 10),
        128,
    ),
}
