"""Runs a script with networks of the same kind, but of a few layers: tracing them is quick.

    python tests/support/shallow.py examples/cifar10.py --epochs 1

For tests that do not ask how deep a network is: of a short training, most is the tracing.
"""

import importlib
import pathlib
import runpy
import sys


def make_shallow():
    """BiRealNet-20 with one convolution in each stage, ReActNet-A with the first three blocks."""
    birealnet, reactnet = (
        importlib.import_module(f"larq_filters.models.{name}") for name in ("birealnet", "reactnet")
    )
    deep = birealnet._stages
    birealnet._stages = lambda x, stages, *rest: deep(x, (1,) * len(stages), *rest)
    reactnet._STAGES = reactnet._STAGES[:3]


if __name__ == "__main__":
    script = pathlib.Path(sys.argv[1]).resolve()
    sys.argv, sys.path[0] = sys.argv[1:], str(script.parent)
    make_shallow()
    runpy.run_path(str(script), run_name="__main__")
