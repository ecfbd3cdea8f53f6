"""Imports larq_filters without TensorFlow's lines that look like errors and are none."""

import time

from larq_filters_command import importing_quietly

start = time.perf_counter()
with importing_quietly():
    import larq_filters  # noqa: F401  (before TensorFlow's Keras is touched: selects Keras 2)
seconds = time.perf_counter() - start
"""That it took."""
