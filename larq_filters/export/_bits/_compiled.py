"""The C program of a network, compiled on this machine."""

import contextlib
import ctypes
import math
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence

from larq_filters.export._bits import _c, _header
from larq_filters.export._bits._network import Network

import numpy as np

Predict = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


def compiler() -> str | None:
    """What compiles C here: the environment variable CC, or else cc."""
    return shutil.which(os.environ.get("CC") or "cc")


@contextlib.contextmanager
def compiled(network: Network, compiler: str) -> Iterator[Predict]:
    """What runs the program on samples: one array for each input, one for each output.

    Raises:
        RuntimeError: The compiler fails.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "bits.h").write_text(_header.header(network, "bits", "predict", ""), "utf-8")
        (folder / "bits.c").write_text(_c.program(network, "bits", "predict"), "utf-8")
        command = [compiler, "-std=c99", "-O2", "-ffp-contract=off", "-shared", "-fPIC"]
        command += [str(folder / "bits.c"), "-o", str(folder / "bits.so")]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{compiler} fails: {done.stderr.strip()[:500]}")
        function = ctypes.CDLL(str(folder / "bits.so")).predict
        yield lambda inputs: _run(network, function, inputs)


def _run(
    network: Network, function: Callable[..., int], inputs: Sequence[np.ndarray]
) -> list[np.ndarray]:
    shapes = [network.tensors[number].shape[1:] for _, number in network.outputs]
    sizes = [math.prod(shape) for shape in shapes]
    rows = []
    for sample in zip(*inputs, strict=True):
        x = np.concatenate([value.ravel() for value in sample]).astype(np.float32)
        y = np.zeros(sum(sizes), np.float32)
        function(x.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p))
        rows.append(y)
    parts = np.split(np.stack(rows), np.cumsum(sizes)[:-1], axis=1)
    return [part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]
