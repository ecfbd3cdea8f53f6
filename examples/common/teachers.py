"""Networks that learn what other networks say, instead of labels."""

import argparse
import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any

import larq_filters  # noqa: F401  # before TensorFlow's Keras is touched: selects Keras 2
from common.data import Data
from common.files import write

import numpy as np
import tensorflow as tf


class DistributionLoss(tf.keras.losses.Loss):
    """Cross-entropy to labels, smoothed if asked, or the KL divergence to a teacher's logits."""

    def __init__(self, label_smoothing: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.label_smoothing = label_smoothing

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        y_true, y_pred = tf.convert_to_tensor(y_true), tf.cast(y_pred, tf.float32)
        classes = y_pred.shape[-1]
        if y_true.shape.rank == 2 and y_true.shape[-1] == classes:  # a teacher's logits
            teacher = tf.nn.log_softmax(tf.cast(y_true, tf.float32))
            p = tf.exp(teacher)
            return tf.reduce_sum(p * (teacher - tf.nn.log_softmax(y_pred)), axis=-1)
        labels = tf.one_hot(tf.reshape(tf.cast(y_true, tf.int32), [-1]), classes)
        labels = labels * (1.0 - self.label_smoothing) + self.label_smoothing / classes
        return tf.nn.softmax_cross_entropy_with_logits(labels, y_pred)


class Student(tf.keras.Model):
    """A network that learns a teacher's distributions where there is a teacher, else labels."""

    def teach(self, teacher: Callable[[tf.Tensor], tf.Tensor] | None) -> None:
        self._teacher = teacher

    def train_step(self, data: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        x, y, *logits = data
        target = logits[0] if logits else y if self._teacher is None else self._teacher(x)
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, target, y_pred)
        self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
        return self.compute_metrics(x, y, y_pred, None)


def resnet20(width: int, num_classes: int) -> tf.keras.Model:
    """A network of real weights as large as BiRealNet-20, for 32×32 pixels, that gives logits."""
    layers = tf.keras.layers

    def convolution(x: tf.Tensor, filters: int, size: int = 3, strides: int = 1) -> tf.Tensor:
        x = layers.Conv2D(filters, size, strides, "same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    images = tf.keras.Input((32, 32, 3))
    x = layers.ReLU()(convolution(images, width))
    for block in range(9):
        filters = width * 2 ** (block // 3)
        strides = 1 if x.shape[-1] == filters else 2
        shortcut = x if strides == 1 else convolution(x, filters, 1, strides)
        x = convolution(layers.ReLU()(convolution(x, filters, strides=strides)), filters)
        x = layers.ReLU()(layers.add([x, shortcut]))
    x = layers.GlobalAveragePooling2D()(x)
    return tf.keras.Model(images, layers.Dense(num_classes, dtype="float32")(x), name="resnet20")


def make_teacher(args: argparse.Namespace, data: Data) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from the network's images to a teacher's logits."""
    preprocess, size = None, None
    if pathlib.Path(args.teacher).exists():
        teacher = tf.keras.models.load_model(args.teacher, compile=False)
    else:
        teacher, preprocess = pretrained(args.teacher, args.teacher_weights)
        size = teacher.input_shape[1:3]
    if teacher.output_shape[-1] != data.num_classes:
        raise SystemExit(
            f"--teacher: {args.teacher} knows {teacher.output_shape[-1]} classes, and the data "
            f"have {data.num_classes}"
        )
    call = tf.function(lambda x: teacher(x, training=False))  # hides its weights from Keras

    def logits(x: tf.Tensor) -> tf.Tensor:
        if preprocess is not None:
            x = tf.cast(x, tf.float32) * data.std + data.mean
            x = preprocess(tf.image.resize(x, size))
        y = tf.stop_gradient(tf.cast(call(x), tf.float32))
        rest = tf.abs(tf.reduce_sum(y, axis=-1) - 1.0)
        are_probabilities = tf.reduce_all(y >= 0.0) & tf.reduce_all(rest < 1e-2)
        return tf.where(are_probabilities, tf.math.log(tf.abs(y) + 1e-9), y)

    return logits


def pretrained(name: str, weights: str) -> tuple[tf.keras.Model, Callable[[Any], Any]]:
    """A network of tf.keras.applications that gives logits, and its preprocessing."""
    applications = tf.keras.applications
    make = getattr(applications, name, None)
    if not callable(make):
        raise SystemExit(
            f"--teacher: {name} is neither a saved model nor a network of tf.keras.applications"
        )
    module = getattr(applications, make.__module__.rpartition(".")[2])
    try:
        network = make(weights=weights, classifier_activation=None)
    except Exception as error:
        raise SystemExit(
            f"--teacher: {name} cannot be made with the weights '{weights}': give a file of them "
            f"with --teacher-weights ({' '.join(str(error).split())[:200]})"
        ) from error
    return network, module.preprocess_input


def teacher_logits(args: argparse.Namespace, data: Data) -> np.ndarray:
    """The teacher's logits of all training images as they are in the files, from disk if there."""
    if args.teacher_logits.exists():
        if args.teacher:
            print(
                f"Reads {args.teacher_logits}: --teacher {args.teacher} is not asked.", flush=True
            )
    else:
        if not args.teacher:
            raise SystemExit(
                f"--teacher-logits: there is no {args.teacher_logits}; give a --teacher, too, and "
                "it is made"
            )
        if args.strategy == "multi_worker":
            raise SystemExit(
                f"--teacher-logits: there is no {args.teacher_logits}, and every worker would make "
                "it; make it first, in a short training without --strategy multi_worker"
            )
        try:
            write(args.teacher_logits, functools.partial(_save_logits, args, data))
        except OSError as error:
            raise SystemExit(
                f"--teacher-logits: cannot write {args.teacher_logits} ({error.strerror}); make "
                "room, or name another file"
            ) from error
    try:
        logits = np.load(args.teacher_logits, mmap_mode="r")
    except (ValueError, EOFError):
        logits = None
    if not isinstance(logits, np.ndarray):
        raise SystemExit(f"--teacher-logits: {args.teacher_logits} is no .npy file")
    shape = (data.images, data.num_classes)
    if logits.shape != shape:
        raise SystemExit(
            f"--teacher-logits: {args.teacher_logits} is of other images or classes: {shape} is "
            f"needed, a row for each training image. Received: {logits.shape}"
        )
    return logits


def _save_logits(args: argparse.Namespace, data: Data, path: pathlib.Path) -> None:
    teacher, done = make_teacher(args, data), 0
    shape = (data.images, data.num_classes)
    logits = np.lib.format.open_memmap(path, "w+", np.float32, shape)  # larger than the memory
    with path.open("r+b") as file:  # writing to a map ends the process where a disk is full
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    for x in data.plain.map(lambda x, y: x).batch(args.batch_size):
        logits[done : done + len(x)] = teacher(x).numpy()
        done += len(x)
    logits.flush()
