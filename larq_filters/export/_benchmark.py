"""How long a .tflite file takes on this machine, beside the same network in floats."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

from larq_filters.export import _lce
from larq_filters.export._exported import Exported

import numpy as np

CAVEAT = (
    "Larq Compute Engine is made for 64-bit Arm. Elsewhere, x86 included, it runs\n"
    "reference kernels: right outputs, but no measure of how fast a device is."
)


@dataclasses.dataclass(frozen=True)
class Latency:
    """Time for one sample, in milliseconds.

    Args:
        name: What ran.
        median: Half of the runs were faster.
        lower: A quarter of the runs were faster.
        upper: A quarter of the runs were slower.

    Example:
        >>> lqf.export.Latency("indirect", 5.2, 5.1, 5.4).median
        5.2
    """

    name: str
    median: float
    lower: float
    upper: float


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Latencies of a file and of its network in floats; prints as a table, with the caveat.

    Args:
        latencies: One for each kernel choice, and one for LiteRT.
        runs: Timed runs of each, taken in turns.
        threads: Number of threads.

    Example:
        >>> latency = lqf.export.Latency("default", 26.0, 25.5, 26.5)
        >>> print(lqf.export.Benchmark((latency,), runs=50, threads=1))
        ms per sample, 50 runs each, 1 thread     median    quartiles
        default                                    26.00    25.50 to 26.50
        ...
    """

    latencies: tuple[Latency, ...]
    runs: int
    threads: int

    def to_dict(self) -> dict[str, Any]:
        """All of it, of types that JSON has."""
        return {
            **dataclasses.asdict(self),
            "latencies": [dataclasses.asdict(latency) for latency in self.latencies],
            "caveat": CAVEAT.replace("\n", " "),
        }

    def __str__(self) -> str:
        plural = "" if self.threads == 1 else "s"
        head = f"ms per sample, {self.runs} runs each, {self.threads} thread{plural}"
        lines = [f"{head:38}{'median':>10}    quartiles"]
        lines += [
            f"{t.name:38}{t.median:10.2f}    {t.lower:.2f} to {t.upper:.2f}" for t in self.latencies
        ]
        return "\n".join([*lines, CAVEAT])


def benchmark(
    exported: Exported, runs: int = 50, threads: int = 1, indirect: bool | None = None
) -> Benchmark:
    """Measures how long a file takes for one sample on this machine, beside floats in LiteRT.

    The float file is of the same network, converted by plain TensorFlow Lite, and runs in LiteRT
    with its delegate XNNPACK. All take turns. On x86, Larq Compute Engine runs reference kernels.

    Args:
        exported: What `convert` made.
        runs: Timed runs of each.
        threads: Number of threads.
        indirect: Whether to use Larq Compute Engine's indirect kernels (`use_indirect_bgemm`), its
            default ones, or with None both, each where the file can run with them.

    Returns:
        Medians and quartiles in milliseconds.

    Raises:
        ValueError: `runs` or `threads` below 1, or kernels that cannot run the file.

    Example:
        >>> binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
        >>> model = tf.keras.Sequential([
        ...     lq.layers.QuantConv2D(8, 3, input_shape=(8, 8, 32), **binary),
        ... ])
        >>> result = lqf.export.benchmark(lqf.export.convert(model), runs=3)
        >>> [latency.name for latency in result.latencies]
        ['default', 'indirect', 'float, LiteRT']
    """
    for name, value in (("runs", runs), ("threads", threads)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is a whole number from 1 on. Received: {name}={value!r}")
    if indirect is None:
        kernels = [k for k in exported.report.kernels if k != "reference"]
        kernels = kernels or list(exported.report.kernels)
    else:
        kernels = ["indirect" if indirect else "default"]
    samples = [
        np.random.default_rng(0).normal(size=spec.shape).astype(spec.dtype.as_numpy_dtype)
        for spec in exported._interface.specs
    ]
    candidates: dict[str, Callable[[], Any]] = {}
    for kernel in kernels:
        interpreter = exported._interpreter(kernel, threads)
        candidates[kernel] = functools.partial(interpreter.invoke, interpreter.prepare(samples))
    candidates["float, LiteRT"] = litert(
        exported._plain(), dict(zip(exported._interface.input_names, samples, strict=True)), threads
    )
    return measure(candidates, runs, threads)


def litert(model: bytes, samples: dict[str, np.ndarray], threads: int) -> Callable[[], None]:
    """What runs a plain .tflite file once, with LiteRT and its delegate XNNPACK.

    Args:
        model: The file, of one signature.
        samples: A sample for each input, by name.
        threads: Number of threads.
    """
    interpreter = _lce.load("ai_edge_litert.interpreter").Interpreter(
        model_content=model, num_threads=threads
    )
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()
    runner(**samples)
    return interpreter.invoke


def measure(candidates: dict[str, Callable[[], Any]], runs: int, threads: int) -> Benchmark:
    """Times candidates in turns, so that what else the machine does meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for run in range(-2, runs):  # two to warm up
        for name, candidate in candidates.items():
            start = time.perf_counter()
            candidate()
            if run >= 0:
                times[name].append(1e3 * (time.perf_counter() - start))
    latencies = []
    for name, values in times.items():
        lower, median, upper = np.percentile(values, [25, 50, 75])
        latencies.append(Latency(name, float(median), float(lower), float(upper)))
    return Benchmark(tuple(latencies), runs, threads)
