"""Bytes that an optimizer holds per binary weight, and the peak memory of training steps.

    python benchmarks/memory.py

Each optimizer trains a binary dense network in a process of its own. What it holds is the sum over
the binary kernels and the optimizer's variables. The peak is the most memory that the process ever
used, less what it used before the network was made: gradients, activations and some 100 MB of
compilers are in it, so it tells something of large networks only.
"""

import argparse
import json
import subprocess
import sys
from typing import Any

import larq_filters as lqf

import larq as lq
import matplotlib
import numpy as np
import tensorflow as tf
from support import machine

FilteredFlip = lqf.optimizers.FilteredFlip
keras = tf.keras.optimizers
OPTIMIZERS = {
    "EMA": lambda: FilteredFlip(1e-3, None),
    "EMA bfloat16": lambda: FilteredFlip(1e-3, None, state_dtype="bfloat16"),
    "CascadedEMA": lambda: FilteredFlip(1e-3, 0.1),
    "CascadedEMA bfloat16": lambda: FilteredFlip(1e-3, 0.1, state_dtype="bfloat16"),
    "larq Bop": lambda: lq.optimizers.Bop(),
    "latent, Adam": lambda: keras.Adam(1e-2),
    "latent, SGD, momentum": lambda: keras.SGD(0.1, momentum=0.9),
}


def held_and_peak(name: str, width: int, layers: int) -> dict[str, float]:
    """In this process, which must have done nothing before."""
    import resource

    def used() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    tf.ones(()).numpy()
    before = used()
    quantizer = "ste_sign" if name.startswith("latent") else lq.quantizers.NoOp(precision=1)
    model = tf.keras.Sequential(
        [
            lq.layers.QuantDense(
                width, kernel_quantizer=quantizer, use_bias=False, input_shape=(width,)
            )
            for _ in range(layers)
        ]
    )
    optimizer = OPTIMIZERS[name]()
    model.compile(optimizer, "mse")
    x = np.zeros((16, width), "float32")
    model.fit(x, x, batch_size=8, verbose=0)
    own: Any = optimizer.variables  # a method of Keras' legacy class, as larq's Bop is
    variables = [*model.trainable_variables, *(own() if callable(own) else own)]
    held = sum(int(np.prod(v.shape)) * v.dtype.size for v in variables)
    weights = layers * width * width
    return {"held": held / weights, "peak": (used() - before) / weights}


def picture(rows: dict[str, dict], path: str) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
    names = list(rows)[::-1]
    bars = ax.barh(names, [rows[name]["held"] for name in names])
    ax.bar_label(bars, fmt="%.3g", padding=3)
    ax.set(xlabel="bytes held per binary weight", xlim=(0, 14))
    ax.set_title("Memory of weight and state while training", fontsize="medium")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=2048, help="width of the dense layers")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--optimizers", choices=OPTIMIZERS, nargs="+", default=list(OPTIMIZERS))
    parser.add_argument("--one", choices=OPTIMIZERS, help="print one as JSON, and no more")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(held_and_peak(args.one, args.width, args.layers)))
        return

    rows: dict[str, dict] = {}
    print(f"{'bytes per binary weight':24}{'held':>8}{'peak':>8}")
    for name in args.optimizers:
        sizes = ["--width", str(args.width), "--layers", str(args.layers)]
        command = [sys.executable, __file__, "--one", name, *sizes]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows[name] = json.loads(done.stdout.splitlines()[-1])
        print(f"{name:24}{rows[name]['held']:8.2f}{rows[name]['peak']:8.2f}", flush=True)
    record = {"width": args.width, "layers": args.layers, "bytes_per_binary_weight": rows}
    path = machine.write("memory", record)
    picture(rows, str(path.with_suffix(".png")))
    print(f"in {path.name} and {path.with_suffix('.png').name}")


if __name__ == "__main__":
    main()
