r"""Filters over gradient sequences.

Each class is a frozen description: its difference equation, its coefficients, and, where it is
linear, its responses in the terms of `scipy.signal`. Frequencies are in rad/sample and time
constants in steps, where a sample is one training step. A coefficient is a number or a Keras
`LearningRateSchedule`. State starts at zero, or as the optimizer's `inertia` says.

Source of the view of optimizers as filters: Quist, Li, van Gemert, "Understanding weight-magnitude
hyperparameters in training binary networks", ICLR 2023 (arXiv 2303.02452).
"""

from larq_filters.filters import _elementary
from larq_filters.filters._base import Filter
from larq_filters.filters._cascade import Cascade
from larq_filters.filters._coupled_sgd import CoupledSGD
from larq_filters.filters._elementary import *  # noqa: F403
from larq_filters.filters._iir import IIR

__all__ = ["IIR", "Cascade", "CoupledSGD", "Filter"]
__all__ += _elementary.__all__
