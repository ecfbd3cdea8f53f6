"""What training reads."""

import dataclasses
from collections.abc import Callable, Sequence

import larq_filters  # noqa: F401  # before TensorFlow's Keras is touched: selects Keras 2

import tensorflow as tf


@dataclasses.dataclass
class Data:
    """Images, scaled for the network, and labels, in a fixed order."""

    train: Callable[..., tf.data.Dataset]
    """From a step to another, over all epochs; with teacher logits if there are any. With an
    InputContext of tf.distribute as third, what one worker needs of it."""
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


def batches_of_worker(
    examples: tf.data.Dataset,
    example: Callable[..., tuple[tf.Tensor, ...]],
    batch_size: int,
    context: tf.distribute.InputContext | None,
) -> tf.data.Dataset:
    """The batches of one device after the other, of examples that begin with their number.

    A worker gets its part of each batch of all workers. It makes no example of another's part.
    """
    context = context or tf.distribute.InputContext()
    part = batch_size // context.num_input_pipelines

    def is_own(i: tf.Tensor, *rest: tf.Tensor) -> tf.Tensor:
        return i % batch_size // part == context.input_pipeline_id

    if context.num_input_pipelines > 1:
        examples = examples.filter(is_own)
    examples = examples.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    size = batch_size // context.num_replicas_in_sync
    return examples.batch(size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
