"""Binary networks from the literature, in the manner of `tf.keras.applications`, of larq layers."""

from larq_filters.models.birealnet import BiRealNet18, BiRealNet20, BiRealNet34
from larq_filters.models.reactnet import LearnableShift, ReActNetA

__all__ = ["BiRealNet18", "BiRealNet20", "BiRealNet34", "LearnableShift", "ReActNetA"]
