"""What several benchmarks share. After this, the examples can be imported."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
