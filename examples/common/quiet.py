"""Imports TensorFlow without the lines that look like errors and are none.

TensorFlow's libraries write them to stderr while they are loaded and look for devices, before any
setting counts: that there is no GPU, and which instructions the processor has. All other lines are
shown.
"""

import os
import re
import sys
import tempfile
import time

HARMLESS = re.compile(
    rb"All log messages before absl::InitializeLog|Could not find cuda drivers|cpu_feature_guard|"
    rb"oneDNN custom operations|To enable the following instructions|Unable to register cu|"
    rb"failed call to cuInit.*UNKNOWN ERROR \(303\)"  # no driver
)


def import_larq_filters() -> float:
    """Imports it, and with it TensorFlow; returns the seconds that it took."""
    start = time.perf_counter()
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            import larq_filters  # noqa: F401  (before TensorFlow's Keras is touched: Keras 2)

            import tensorflow as tf

            tf.config.list_physical_devices()  # which is when GPUs are looked for
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            written.seek(0)
            for line in written:
                if not HARMLESS.search(line):
                    sys.stderr.write(line.decode(errors="replace"))
    return time.perf_counter() - start


seconds = import_larq_filters()
