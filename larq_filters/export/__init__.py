"""Packed models for edge devices: trained larq models as .tflite files, with proof."""

from larq_filters.export._benchmark import Benchmark, Latency
from larq_filters.export._convert import TARGETS as TARGETS
from larq_filters.export._convert import convert
from larq_filters.export._exported import Exported, benchmark
from larq_filters.export._report import LayerRecord, NotPacked, Report
from larq_filters.export._verify import Difference, Mismatch, Verification

__all__ = [
    "Benchmark",
    "Difference",
    "Exported",
    "Latency",
    "LayerRecord",
    "Mismatch",
    "NotPacked",
    "Report",
    "Verification",
    "benchmark",
    "convert",
]
