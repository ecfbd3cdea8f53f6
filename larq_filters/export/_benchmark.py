"""How long a .tflite file takes on this machine, beside the same network in floats."""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

from larq_filters._numbers import whole_number
from larq_filters._text import html_table, table
from larq_filters.export import _lce
from larq_filters.export._program import Program

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
        latencies: One for each engine, and one for LiteRT.
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
        return "\n".join([*table(*self._table()), CAVEAT])

    def _repr_html_(self) -> str:
        return html_table(*self._table(), below=CAVEAT)

    def _table(self) -> tuple[list[Sequence[str]], Sequence[int]]:
        plural = "" if self.threads == 1 else "s"
        head = f"ms per sample, {self.runs} runs each, {self.threads} thread{plural}"
        rows: list[Sequence[str]] = [(head, "median", "    quartiles")]
        rows += [
            (t.name, f"{t.median:.2f}", f"    {t.lower:.2f} to {t.upper:.2f}")
            for t in self.latencies
        ]
        return rows, (38, -10, 28)


def benchmark(
    program: Program,
    plain: Callable[[], bytes],
    runs: int,
    threads: int,
    indirect: bool | None,
) -> Benchmark:
    """Times a file with its engines, and the file of floats that `plain` makes."""
    whole_number("runs", runs, least=1)
    whole_number("threads", threads, least=1)
    if indirect is not None and not isinstance(indirect, bool | np.bool_):
        raise TypeError(f"indirect is True, False or None. Received: indirect={indirect!r}")
    if indirect is None:
        engines = [e for e in program.engines if e != "reference"] or list(program.engines)
    else:
        engines = ["indirect" if indirect else "default"]
    interface = program.interface
    samples = [
        np.random.default_rng(0).normal(size=spec.shape).astype(spec.dtype.as_numpy_dtype)
        for spec in interface.specs
    ]
    candidates: dict[str, Callable[[], Any]] = {}
    for engine in engines:
        interpreter = program.interpreter(engine, threads)
        candidates[engine] = functools.partial(interpreter.invoke, interpreter.prepare(samples))
    candidates["float, LiteRT"] = litert(
        plain(), dict(zip(interface.input_names, samples, strict=True)), threads
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
