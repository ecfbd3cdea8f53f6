"""Where a training step of BiRealNet-20 on CIFAR-10 spends its time, and images per second.

    python benchmarks/training_throughput.py

FilteredFlip, the same under mixed_bfloat16, and larq's latent weights with Adam take turns, so that
a change of the machine's speed meets all; so do the parts of a step. The input pipeline is timed
alone. Whether bfloat16 is quicker depends on the processor: this one's flags tell (AVX512-BF16).
"""

import argparse
import pathlib
import time
from collections.abc import Callable
from typing import Any

import larq_filters as lqf

import numpy as np
import tensorflow as tf
from support import machine
from support.examples import cifar10
from support.timing import in_turns

LATENT = {"kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}

PARTS = ("forward", "forward and backward", "whole step", "optimizer")


def make(width: int, latent: bool = False, policy: str = "float32") -> tf.keras.Model:
    tf.keras.mixed_precision.set_global_policy(policy)
    model = lqf.models.BiRealNet20(width=width, **(LATENT if latent else {}))
    adam = tf.keras.optimizers.Adam(1e-2)
    optimizer = adam if latent else lqf.optimizers.FilteredFlip(1e-2, real_optimizer=adam)
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    tf.keras.mixed_precision.set_global_policy("float32")
    return model


def parts(model: tf.keras.Model, images: tf.Tensor, labels: tf.Tensor) -> dict[str, Callable]:
    """Functions that do a part of a training step; each contains the ones before it."""
    variables = model.trainable_variables

    @tf.function
    def forward():
        return model.compute_loss(images, labels, model(images, training=True))

    def backward():
        with tf.GradientTape() as tape:
            loss = forward.python_function()
        return tape.gradient(loss, variables)

    step = tf.function(lambda: model.train_step((images, labels)))
    gradients = [tf.constant(g) for g in tf.function(backward)()]
    update = tf.function(
        lambda: model.optimizer.apply_gradients(zip(gradients, variables, strict=True))
    )
    return dict(zip(PARTS, (forward, tf.function(backward), step, update), strict=True))


def waiting(function: Callable[[], Any]) -> Callable[[], Any]:
    """The same, done when the numbers that it returns are there."""
    return lambda: tf.nest.map_structure(
        lambda x: x.numpy() if x.shape.rank == 0 else x, function()
    )


def input_pipeline(args: argparse.Namespace) -> float:
    """Images per second that cifar10.py's pipeline gives when nothing else runs."""
    options = cifar10.parse_arguments(
        [
            f"--batch-size={args.batch_size}",
            *([f"--data-dir={args.data_dir}"] * bool(args.data_dir)),
        ]
    )
    batches = iter(cifar10.load(options).train(0, 110))
    for _ in range(10):
        next(batches)
    start = time.perf_counter()
    number = sum(len(labels) for _, labels in batches)
    return number / (time.perf_counter() - start)


def bfloat16_instructions() -> bool | None:
    """Whether this processor multiplies bfloat16 itself; None where nothing tells."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    return "_bf16" in cpuinfo.read_text("utf-8") if cpuinfo.exists() else None


def traces(model: tf.keras.Model, images: tf.Tensor, labels: tf.Tensor) -> int:
    """How often two epochs of fit traced the step, with the last batch as long as the others."""
    data = tf.data.Dataset.from_tensors((images, labels)).repeat(2)
    model.fit(data, epochs=2, verbose=0, callbacks=[lqf.callbacks.FlipRatio()])
    return model.train_function.experimental_get_tracing_count()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--data-dir")
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    images = tf.constant(rng.normal(size=(args.batch_size, 32, 32, 3)), tf.float32)
    labels = tf.constant(rng.integers(10, size=args.batch_size))
    models = {
        "filtered": make(args.width),
        "filtered_bfloat16": make(args.width, policy="mixed_bfloat16"),
        "latent_adam": make(args.width, latent=True),
    }
    functions = {
        (name, part): waiting(function)
        for name, model in models.items()
        for part, function in parts(model, images, labels).items()
    }
    seconds = in_turns(functions, args.rounds)
    steps = {name: np.array(seconds[name, "whole step"]) for name in models}
    record = {
        "batch_size": args.batch_size,
        "width": args.width,
        "seconds": {
            name: {part: machine.summary(seconds[name, part]) for part in PARTS} for name in models
        },
        "images_per_second": {
            name: machine.summary(list(args.batch_size / step)) for name, step in steps.items()
        },
        "filtered_over_latent_adam": machine.summary(
            list(steps["latent_adam"] / steps["filtered"])
        ),
        "bfloat16_over_float32": machine.summary(
            list(steps["filtered"] / steps["filtered_bfloat16"])
        ),
        "bfloat16_instructions": bfloat16_instructions(),
        "optimizer_share": machine.summary(
            list(np.array(seconds["filtered", "optimizer"]) / steps["filtered"])
        ),
        "input_images_per_second": input_pipeline(args),
        "traces": traces(models["filtered"], images, labels),
    }
    machine.write("training_throughput", record)
    heads = "FilteredFlip", "bfloat16", "latent Adam"
    print(f"{'milliseconds, median':<24}", *(f"{head:>14}" for head in heads))
    for part in PARTS:
        row = [1e3 * record["seconds"][name][part]["median"] for name in models]
        print(f"{part:<24}", *(f"{value:>14.1f}" for value in row))
    rates = [record["images_per_second"][name]["median"] for name in models]
    print(f"{'images per second':<24}", *(f"{value:>14.0f}" for value in rates))
    ratio, share = record["filtered_over_latent_adam"], record["optimizer_share"]
    print(
        f"\nFilteredFlip / latent Adam: {ratio['median']:.3f} of its images per second, quartiles "
        f"{ratio['quartiles'][0]:.3f} to {ratio['quartiles'][1]:.3f}\n"
        f"optimizer: {share['median']:.1%} of the step; input pipeline alone: "
        f"{record['input_images_per_second']:.0f} images per second; traces: {record['traces']}"
    )


if __name__ == "__main__":
    main()
