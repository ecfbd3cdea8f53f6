"""What accuracy_cifar10.py and filter_search.py have in common: filters, and latent layers."""

import contextlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import larq_filters as lqf
from larq_filters import _rounding, filters

import tensorflow as tf

Schedule = tf.keras.optimizers.schedules.LearningRateSchedule
Decay = Callable[..., Schedule]  # from a rate, and the power of its decay to 0
Adam = tf.keras.optimizers.Adam
LATENT_KERNEL = {"kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}


def flip(filter: filters.Filter, real: Schedule, **kwargs: Any) -> lqf.optimizers.FilteredFlip:
    """`FilteredFlip` whose real weights are trained by Adam."""
    return lqf.optimizers.FilteredFlip(filter=filter, real_optimizer=Adam(real), **kwargs)


def normalized(gamma: float, sigma: float) -> filters.Filter:
    return filters.NormalizedEMA(gamma, sigma, bias_correction=True)


def cusum(rate: Schedule, first: filters.Filter | None = None) -> filters.Filter:
    """Gradients in units of their own root mean square, summed between two limits."""
    summed = filters.Integrator(rate, limit=1.0)
    return filters.Cascade(first or normalized(1.0, 1e-2), summed)


def rounding(name: str) -> contextlib.AbstractContextManager[Any]:
    """Where a candidate's name says so, state is rounded to the nearest instead of by chance."""
    if "_nearest" not in name:
        return contextlib.nullcontext()
    return mock.patch.object(_rounding, "stochastic", lambda value, drawn: value)
