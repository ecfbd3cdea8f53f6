"""A .tflite file with its report: saved, compared with its model, and timed."""

import os
from collections.abc import Callable
from typing import Any

from larq_filters import _files
from larq_filters._warnings import warn
from larq_filters.export import _benchmark, _model, _verify
from larq_filters.export._benchmark import Benchmark
from larq_filters.export._program import Interface, Program
from larq_filters.export._report import Report
from larq_filters.export._verify import Verification

import tensorflow as tf


class Exported:
    """A .tflite file, its report, and what it takes to compare it with its model.

    Made by `convert`.

    Attributes:
        data: The bytes of the file.
        report: What the file holds of each layer.

    Example:
        >>> binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
        >>> model = tf.keras.Sequential([
        ...     lq.layers.QuantConv2D(8, 3, input_shape=(8, 8, 32), **binary),
        ... ])
        >>> exported = lqf.export.convert(model)
        >>> verification = exported.verify(np.random.normal(size=(10, 8, 8, 32)), model)
        >>> verification.outputs[0].relative < 1e-5
        True
    """

    def __init__(
        self, data: bytes, report: Report, interface: Interface, plain: Callable[[], bytes]
    ) -> None:
        self.data = data
        self.report = report
        self._interface = interface
        self._plain = plain

    def __repr__(self) -> str:
        return f"<Exported model of {len(self.data):,} bytes>"

    @property
    def model(self) -> bytes:
        """The old name of `data`."""
        _warn_of_old_name("Exported.model", "Exported.data")
        return self.data

    def save(self, path: str | os.PathLike) -> None:
        """Writes the file atomically: `path` never holds a part of it.

        Args:
            path: Path of the file, usually ending in .tflite. An existing file is replaced.

        Raises:
            OSError: The file cannot be written.
        """
        _files.write(path, self.data)

    def verify(
        self,
        inputs: Any,
        model: tf.keras.Model,
        *,
        tolerance: float | None = None,
        allowed: float = 0.0,
        engine: str | None = None,
        kernel: str | None = None,
    ) -> Verification:
        """Runs the file in Larq Compute Engine's interpreter, and compares it with the model.

        Args:
            inputs: Samples: an array of shape (samples, ...) for each input of the model. Several
                inputs come as a list, a tuple or a dict by name.
            model: The Keras model of the file.
            tolerance: The largest difference that counts as equal, in units of the model's largest
                absolute output. The default is 1e-3, because float32 rounding stays far below it,
                and 0.1 for int8 files.
            allowed: Share of samples, in [0, 1), that may differ by more. In a deep network, the
                rounding of a real layer, above all to int8, may change the sign of a value next to
                0, and so later signs.
            engine: The implementation of Larq Compute Engine that runs the file, one of
                `report.engines`. By default all of them run: the first on all samples against the
                model, the others on 16 samples against the first.
            kernel: The old name of `engine`.

        Returns:
            The differences, for each output, with the first engine.

        Raises:
            Mismatch: More samples than allowed differ by more than the tolerance.
            TypeError: `model` is not a Keras 2 model.
            ValueError: `inputs` do not fit the model.
        """
        if kernel is not None:
            _warn_of_old_name("verify(kernel=)", "verify(engine=)")
            engine = kernel
        _model.check(model)
        return _verify.verify(
            self._program,
            model,
            inputs,
            tolerance=tolerance,
            allowed=allowed,
            engine=engine,
        )

    def benchmark(
        self, runs: int = 50, threads: int = 1, indirect: bool | None = None
    ) -> Benchmark:
        """Measures its latency beside the float network; see `larq_filters.export.benchmark`."""
        return _benchmark.benchmark(self._program, self._plain, runs, threads, indirect)

    @property
    def _program(self) -> Program:
        return Program(self.data, self.report.engines, self._interface)


def benchmark(
    exported: Exported, runs: int = 50, threads: int = 1, indirect: bool | None = None
) -> Benchmark:
    """Measures how long a file takes for one sample on this machine, beside floats in LiteRT.

    The float file is of the same network, converted by plain TensorFlow Lite, and runs in LiteRT
    with its delegate XNNPACK. All take turns. On x86, Larq Compute Engine runs reference kernels.

    Args:
        exported: What `convert` made.
        runs: Timed runs of each. The default takes seconds and gives quartiles.
        threads: Number of threads.
        indirect: Whether to use Larq Compute Engine's indirect engine (`use_indirect_bgemm`), its
            default one, or with None both, each where it can run the file.

    Returns:
        Medians and quartiles in milliseconds.

    Raises:
        TypeError: `indirect` is not True, False or None.
        ValueError: `runs` or `threads` below 1, or an engine that cannot run the file.

    Example:
        >>> binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
        >>> model = tf.keras.Sequential([
        ...     lq.layers.QuantConv2D(8, 3, input_shape=(8, 8, 32), **binary),
        ... ])
        >>> result = lqf.export.benchmark(lqf.export.convert(model), runs=3)
        >>> [latency.name for latency in result.latencies]
        ['default', 'indirect', 'float, LiteRT']
    """
    return exported.benchmark(runs, threads, indirect)


def _warn_of_old_name(old: str, new: str) -> None:
    warn(
        f"{old} is deprecated, and the next version will not have it. Use {new}.",
        DeprecationWarning,
    )
