"""What training reads."""

import dataclasses
from collections.abc import Callable, Sequence

import larq_filters  # noqa: F401  # before TensorFlow's Keras is touched: selects Keras 2

import tensorflow as tf


@dataclasses.dataclass
class Data:
    """Images, scaled for the network, and labels, in a fixed order."""

    train: Callable[[int, int], tf.data.Dataset]
    """From a step to another, over all epochs; with teacher logits if there are any."""
    test: tf.data.Dataset
    plain: tf.data.Dataset
    """Training images without augmentation, in the order of the files."""
    images: int
    """The number of training images."""
    steps_per_epoch: int
    num_classes: int
    mean: Sequence[float]
    std: Sequence[float]
    """The scale of the images: (value − mean) / std of values in [0, 255]."""
