"""Packed models for edge devices: larq models as .tflite files, or as bits and C, with proof."""

from larq_filters.export._benchmark import Benchmark, Latency
from larq_filters.export._bits._bits import Bits, bits, load_bits
from larq_filters.export._bits._proof import BitsVerification
from larq_filters.export._bits._report import BitsRecord, BitsReport
from larq_filters.export._convert import TARGETS as TARGETS
from larq_filters.export._convert import convert
from larq_filters.export._exported import Exported, benchmark
from larq_filters.export._report import LayerRecord, NotPacked, Report
from larq_filters.export._verify import Difference, Mismatch, Verification

__all__ = [
    "Benchmark",
    "Bits",
    "BitsRecord",
    "BitsReport",
    "BitsVerification",
    "Difference",
    "Exported",
    "Latency",
    "LayerRecord",
    "Mismatch",
    "NotPacked",
    "Report",
    "Verification",
    "benchmark",
    "bits",
    "convert",
    "load_bits",
]
