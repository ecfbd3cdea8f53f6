"""Binary networks from the literature, made of larq layers, like `tf.keras.applications`."""

from larq_filters.models.birealnet import BiRealNet18, BiRealNet20, BiRealNet34
from larq_filters.models.reactnet import LearnableShift, ReActNetA

__all__ = ["BiRealNet18", "BiRealNet20", "BiRealNet34", "LearnableShift", "ReActNetA"]
