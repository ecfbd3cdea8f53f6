"""Pictures of filters and of how a network trains with them, with matplotlib.

Every function draws into the axes it is given, or into new ones, and returns them. Output scales
have no meaning to binary weights, so responses are drawn relative to their largest value.
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
