"""Binary networks from the literature, in the manner of `tf.keras.applications`, of larq layers."""

from larq_filters.models.birealnet import BiRealNet20

__all__ = ["BiRealNet20"]
