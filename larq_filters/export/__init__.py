"""Packed models for edge devices: trained larq models as .tflite files, with proof."""

from larq_filters.export._benchmark import Benchmark, Latency, benchmark
from larq_filters.export._convert import convert
from larq_filters.export._exported import Exported
from larq_filters.export._report import LayerRecord, Report
from larq_filters.export._verify import Difference, Verification

__all__ = [
    "Benchmark",
    "Difference",
    "Exported",
    "Latency",
    "LayerRecord",
    "Report",
    "Verification",
    "benchmark",
    "convert",
]
