"""How long exported networks take for one image on this machine, packed and in floats.

    python benchmarks/export_latency.py

Larq Compute Engine's default and indirect kernels and LiteRT with floats take turns. On anything
but 64-bit Arm, Larq Compute Engine runs reference kernels.
"""

import argparse

import larq_filters as lqf

import larq as lq
import tensorflow as tf
from support import machine

BINARY = {"kernel_quantizer": "ste_sign"}  # as nothing is trained here


def one_layer() -> tf.keras.Model:
    layer = lq.layers.QuantConv2D(
        256, 3, padding="same", pad_values=1.0, input_quantizer="ste_sign", **BINARY
    )
    return tf.keras.Sequential([tf.keras.Input((28, 28, 256)), layer])


NETWORKS = {
    "3×3 convolution, 28×28×256": one_layer,
    "BiRealNet20, 32×32": lambda: lqf.models.BiRealNet20(**BINARY),
    "BiRealNet18, 224×224": lambda: lqf.models.BiRealNet18(**BINARY),
    "ReActNetA, 224×224": lambda: lqf.models.ReActNetA(**BINARY),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--networks", type=int, default=len(NETWORKS), help="only the first ones")
    args = parser.parse_args()
    record: dict = {"threads": args.threads, "networks": {}}
    print(f"{'ms per image, median':<28} {'default':>10} {'indirect':>10} {'floats':>10}  file")
    for name, make in list(NETWORKS.items())[: args.networks]:
        exported = lqf.export.convert(make(), strict=True)
        result = lqf.export.benchmark(exported, runs=args.runs, threads=args.threads).to_dict()
        size = len(exported.data)
        record["networks"][name] = {**result, "bytes": size}
        median = {t["name"]: t["median"] for t in result["latencies"]}
        cells = (median.get(k) for k in ("default", "indirect", "float, LiteRT"))
        row = " ".join(f"{c:>10.2f}" if c else f"{'-':>10}" for c in cells)
        print(f"{name:<28} {row}  {size / 1e3:,.0f} kB", flush=True)
        machine.write("export_latency", record)


if __name__ == "__main__":
    main()
