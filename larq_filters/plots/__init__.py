"""Plots of filters and of the training of a network, with matplotlib.

Every function draws into the given axes, or into new ones, and returns them. The scale of a
filter's output has no effect on binary weights, so responses are relative to their largest value.
"""

from larq_filters.plots._filters import (
    frequency_response,
    impulse_response,
    pole_zero,
    responses,
)
from larq_filters.plots._training import flip_ratio, state_histogram

__all__ = [
    "flip_ratio",
    "frequency_response",
    "impulse_response",
    "pole_zero",
    "responses",
    "state_histogram",
]
