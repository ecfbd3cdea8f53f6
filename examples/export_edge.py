"""Trains the quickstart network and packs it for an edge device: a file, bits, C, with proof.

    python examples/export_edge.py

Writes digits.tflite, which Larq Compute Engine runs, and the same as a C array in digits.h, for
firmware that has no files. The file is compared with the model on every image held out; where a
sum is next to 0, rounding may give it another sign on another processor, so 1 % may differ.

For a device that Larq Compute Engine does not run on, it writes the same network as a plain C
program, digits_bits.c with digits_bits.h, and as NumPy arrays, digits_bits.npz.
"""

import argparse
import pathlib
import shutil
import subprocess
import tempfile
import textwrap
import time

from common import quiet  # imports larq_filters; what TensorFlow writes of GPUs is left out

# isort: split
import larq_filters as lqf  # before TensorFlow's Keras is touched: selects Keras 2

import numpy as np
import quickstart
import tensorflow as tf


def c_header(data: bytes, name: str) -> str:
    """A C (and C++) header that holds bytes as an array, aligned as TensorFlow Lite wants it."""
    numbers = textwrap.fill(", ".join(f"0x{byte:02x}" for byte in data), 94)
    return f"""// Made by larq_filters {lqf.__version__}.
#pragma once
#ifdef __cplusplus
alignas(16)
#else
_Alignas(16)
#endif
static const unsigned char {name}[{len(data)}] = {{
{textwrap.indent(numbers, "    ")}
}};
static const unsigned int {name}_len = {len(data)};
"""


def flash_and_ram(program: pathlib.Path) -> tuple[int, int] | None:
    """Bytes of a compiled C program: code and constants, and its variables. None without cc."""
    if not (shutil.which("cc") and shutil.which("size")):
        return None
    with tempfile.TemporaryDirectory() as folder:
        compiled = f"{folder}/program.o"
        subprocess.run(["cc", "-std=c99", "-Os", "-c", program, "-o", compiled], check=True)
        printed = subprocess.run(["size", compiled], check=True, capture_output=True, text=True)
    text, data, bss, *_ = printed.stdout.splitlines()[1].split()
    return int(text) + int(data), int(data) + int(bss)


def export_bits(
    model: tf.keras.Model, images: np.ndarray, labels: np.ndarray, folder: pathlib.Path
) -> None:
    """Writes the network as arrays and as C, and says what a microcontroller needs for it."""
    bits = lqf.export.bits(model)
    print(f"\n{bits.report}\n")
    print(f"the bits against the model, on {len(images)} images held out")
    print(bits.verify(images, model))
    bits.save(folder / "digits_bits.npz")
    bits.to_c(folder / "digits_bits.c")
    sizes = flash_and_ram(folder / "digits_bits.c")
    if sizes is not None:
        print(f"flash               {sizes[0]:,} bytes of code and constants, by cc -Os here")
        print(f"RAM                 {sizes[1]:,} bytes of static buffers")
    report = lqf.export.bits(model, representative=images, labels=labels).report
    print(
        f"with 8-bit layers   {report.constant_bytes:,} bytes of constants, the same class for "
        f"{report.accuracy['agreement']:.1%}\n"
        f"test accuracy       {report.accuracy['floats']:.1%} in floats, "
        f"{report.accuracy['int8']:.1%} with 8-bit layers"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=pathlib.Path, default="build/digits", help="a folder")
    parser.add_argument("--benchmark", action="store_true", help="measure latencies, too")
    args = parser.parse_args()

    start = time.perf_counter()
    model, images = quickstart.train(args.epochs, args.seed)
    trained = time.perf_counter()
    exported = lqf.export.convert(model, strict=True)
    print(f"\n{exported.report}\n")
    print(f"the file against the model, on {len(images)} images held out")
    print(exported.verify(images, model, allowed=0.01))
    if args.benchmark:
        print(f"\n{lqf.export.benchmark(exported)}")

    args.output.mkdir(parents=True, exist_ok=True)
    _, _, _, labels = quickstart.data(args.seed)
    export_bits(model, images, labels, args.output)
    exported.save(args.output / "digits.tflite")
    (args.output / "digits.h").write_text(c_header(exported.data, "digits_tflite"))
    print(f"\nwrote               {args.output}/digits.tflite and digits.h")
    print(f"and                 {args.output}/digits_bits.c, digits_bits.h, digits_bits.npz")
    packing = time.perf_counter() - trained
    print(
        f"time                import {quiet.seconds:.0f} s, training {trained - start:.0f} s, "
        f"packing and comparing {packing:.0f} s"
    )


if __name__ == "__main__":
    main()
