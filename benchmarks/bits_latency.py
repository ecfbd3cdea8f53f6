"""How long the plain C program of `export.bits` takes for one image, beside Larq Compute Engine.

    python benchmarks/bits_latency.py

The program, compiled by cc for any machine and for this one, and Larq Compute Engine's default and
indirect kernels take turns, on one thread. On anything but 64-bit Arm, Larq Compute Engine runs
reference kernels.
"""

import argparse
import ctypes
import functools
import pathlib
import subprocess
import tempfile
from collections.abc import Callable
from typing import Any

import larq_filters as lqf

import export_latency
import larq_compute_engine as lce
import numpy as np
import tensorflow as tf
from support import machine
from support.timing import in_turns

NETWORKS = {  # the first two of export_latency.py, and the examples' network on digits
    **dict(list(export_latency.NETWORKS.items())[:2]),
    "digits, 8×8": lambda: lqf.models.DigitsNet(**export_latency.BINARY),
}
FLAGS = {"C, -O2": ["-O2"], "C, native": ["-O3", "-march=native"]}
KERNELS = {"LCE, default": False, "LCE, indirect": True}


def program(packed: lqf.export.Bits, x: np.ndarray, flags: list[str]) -> Callable[[], Any]:
    """What runs the C program once on a sample."""
    outputs = np.zeros(packed.predict(x).size, np.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        packed.to_c(folder / "network.c")
        command = ["cc", "-std=c99", *flags, "-shared", "-fPIC", folder / "network.c"]
        subprocess.run([*command, "-o", folder / "network.so"], check=True)
        predict = ctypes.CDLL(str(folder / "network.so")).predict
    pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (x, outputs)]

    def run(arrays: Any = (x, outputs)) -> None:  # the pointers point to them
        predict(*pointers)

    return run


def measure(model: tf.keras.Model, runs: int) -> dict[str, dict[str, float]]:
    """Milliseconds, by what ran: the median and the quartiles."""
    packed, exported = lqf.export.bits(model), lqf.export.convert(model)
    x = np.random.default_rng(0).normal(size=(1, *model.input_shape[1:])).astype(np.float32)
    candidates = {name: program(packed, x, flags) for name, flags in FLAGS.items()}
    for name, indirect in KERNELS.items():
        interpreter = lce.testing.Interpreter(
            exported.data, num_threads=1, use_indirect_bgemm=indirect
        )
        candidates[name] = functools.partial(interpreter.predict, x)
    return {
        name: dict(
            zip(("lower", "median", "upper"), 1e3 * np.percentile(s, [25, 50, 75]), strict=True)
        )
        for name, s in in_turns(candidates, runs).items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--networks", type=int, default=len(NETWORKS), help="only the first ones")
    args = parser.parse_args()
    compiler = subprocess.run(["cc", "--version"], capture_output=True, text=True, check=True)
    record: dict = {
        "runs": args.runs,
        "compiler": compiler.stdout.splitlines()[0],
        "flags": FLAGS,
        "milliseconds": {},
    }
    names = [*FLAGS, *KERNELS]
    print(f"{'ms per image, median':<28} " + " ".join(f"{n:>8}" for n in names))
    for name, make in list(NETWORKS.items())[: args.networks]:
        rows = record["milliseconds"][name] = measure(make(), args.runs)
        print(
            f"{name:<28} " + " ".join(f"{rows[n]['median']:>{max(8, len(n))}.2f}" for n in names),
            flush=True,
        )
        machine.write("bits_latency", record)


if __name__ == "__main__":
    main()
