"""Keras callbacks for binary weights."""

from larq_filters.callbacks._backup import Backup
from larq_filters.callbacks._batch_norm import RecalibrateBatchNorm
from larq_filters.callbacks._flip_ratio import FlipRatio

__all__ = ["Backup", "FlipRatio", "RecalibrateBatchNorm"]
