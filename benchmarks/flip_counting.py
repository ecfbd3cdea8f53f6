"""What FlipRatio adds to a training step: BiRealNet-20 on CIFAR-10-sized images, with and without.

    python benchmarks/flip_counting.py

The two take turns (A B A B), so that a change of the machine's speed meets both.
"""

import argparse

import larq_filters as lqf

import numpy as np
import tensorflow as tf
from support import machine
from support.timing import in_turns


def make_step(count_flips: bool, images: tf.Tensor, labels: tf.Tensor):
    model = lqf.models.BiRealNet20()
    optimizer = lqf.optimizers.FilteredFlip()
    optimizer.count_flips = count_flips
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)
    train = tf.function(model.train_step)

    return lambda: tf.nest.map_structure(lambda x: x.numpy(), train((images, labels)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=100)
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    images = tf.constant(rng.normal(size=(args.batch_size, 32, 32, 3)), tf.float32)
    labels = tf.constant(rng.integers(10, size=args.batch_size))
    steps = {counts: make_step(counts, images, labels) for counts in (False, True)}
    plain, counting = in_turns(steps, args.rounds).values()
    record = {
        "batch_size": args.batch_size,
        "step_seconds": machine.summary(plain),
        "step_seconds_counting": machine.summary(counting),
        "ratio": machine.summary([b / a for a, b in zip(plain, counting, strict=True)]),
    }
    path = machine.write("flip_counting", record)
    print(
        f"counting / plain: median {record['ratio']['median']:.4f}, "
        f"quartiles {record['ratio']['quartiles']}; {path.name}"
    )


if __name__ == "__main__":
    main()
