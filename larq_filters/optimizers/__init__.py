"""FilteredFlip: binary weights by filtering gradients, all others by a Keras optimizer."""

from larq_filters._numbers import Scaled
from larq_filters.optimizers import _loss_scaling as _loss_scaling  # passes alpha on
from larq_filters.optimizers._filtered_flip import FilteredFlip
from larq_filters.optimizers._latent_sgd import LatentSGD
from larq_filters.optimizers._schedules import InverseSquareRootDecay

__all__ = ["FilteredFlip", "InverseSquareRootDecay", "LatentSGD", "Scaled"]
