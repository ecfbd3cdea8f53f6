"""Trains the quickstart network and packs it into a file for an edge device, with proof.

    python examples/export_edge.py

Writes digits.tflite, which Larq Compute Engine runs, and the same as a C array in digits.h, for
firmware that has no files. The file is compared with the model on every image held out; where a
sum is next to 0, rounding may give it another sign on another processor, so 1 % may differ.
"""

import argparse
import pathlib
import textwrap
import time

from common import quiet  # imports larq_filters; what TensorFlow writes of GPUs is left out

# isort: split
import larq_filters as lqf  # before TensorFlow's Keras is touched: selects Keras 2

import quickstart


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
    exported.save(args.output / "digits.tflite")
    (args.output / "digits.h").write_text(c_header(exported.data, "digits_tflite"))
    print(f"\nwrote               {args.output}/digits.tflite and digits.h")
    packing = time.perf_counter() - trained
    print(
        f"time                import {quiet.seconds:.0f} s, training {trained - start:.0f} s, "
        f"packing and comparing {packing:.0f} s"
    )


if __name__ == "__main__":
    main()
