"""What the optimizers that accuracy_cifar10.py and filter_search.py compare are made of."""

from collections.abc import Callable
from typing import Any

import larq_filters as lqf
from larq_filters import filters
from larq_filters.optimizers import LatentSGD

import tensorflow as tf

Schedule = tf.keras.optimizers.schedules.LearningRateSchedule
Decay = Callable[..., Schedule]  # from a rate, and the power of its decay to 0
Adam = tf.keras.optimizers.Adam
LATENT_KERNEL = {"kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}


def flip(filter: filters.Filter, real: Schedule, **kwargs: Any) -> lqf.optimizers.FilteredFlip:
    """`FilteredFlip` whose real weights are trained by Adam."""
    return lqf.optimizers.FilteredFlip(filter=filter, real_optimizer=Adam(real), **kwargs)


def latent_sgd(rate: Schedule, real: Schedule) -> tf.keras.optimizers.Optimizer:
    """SGD with momentum and weight decay for the latent weights, Adam for the real ones."""
    return LatentSGD(rate, momentum=0.9, weight_decay=1e-4, real_optimizer=Adam(real))
