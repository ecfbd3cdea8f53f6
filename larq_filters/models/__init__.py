"""Binary networks from the literature, made of larq layers, like `tf.keras.applications`."""

from larq_filters.models.birealnet import (
    BiRealNet18,
    BiRealNet20,
    BiRealNet34,
    preprocess_cifar10,
)
from larq_filters.models.digits import DigitsNet
from larq_filters.models.pretrained import packed_file
from larq_filters.models.reactnet import LearnableShift, ReActNetA

__all__ = [
    "BiRealNet18",
    "BiRealNet20",
    "BiRealNet34",
    "DigitsNet",
    "LearnableShift",
    "ReActNetA",
    "packed_file",
    "preprocess_cifar10",
]
