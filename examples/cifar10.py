"""Trains BiRealNet-20 on CIFAR-10 by filtering gradients, or by a latent-weight recipe.

    python examples/cifar10.py --epochs 6 --alpha 1e-2 --gamma 0.1

Images are cropped and flipped at random; alpha and all learning rates decay linearly to 0. The
history is written as JSON after every epoch.
"""

import argparse
import json
import os
import pathlib
import platform
import time

import larq_filters as lqf  # before TensorFlow's Keras is touched: selects Keras 2

import larq as lq
import tensorflow as tf
import tensorflow_datasets as tfds

MEAN, STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)  # of CIFAR-10's training images, per channel


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--epochs", type=int, default=6)
    add("--batch-size", type=int, default=128)
    add("--alpha", type=float, default=1e-2, help="of the filter; decays linearly to 0")
    add("--gamma", type=float, default=0.1, help="of the filter")
    add("--optimizer", choices=["filtered", "adam", "sgd", "bop"], default="filtered")
    add("--learning-rate", type=float, help="of Adam (default 1e-2) or of sgd (default 0.1)")
    add(
        "--recalibrate",
        type=int,
        default=0,
        metavar="BATCHES",
        help="re-estimate batch norm from so many batches before every validation",
    )
    add("--seed", type=int, default=1)
    add(
        "--data-dir",
        help="where tensorflow-datasets keeps its data (default ~/tensorflow_datasets)",
    )
    add("--output", type=pathlib.Path, default=pathlib.Path("cifar10.json"), help="history, JSON")
    return parser.parse_args()


def load(split: str, data_dir: str | None) -> tf.data.Dataset:
    """The images and labels of a split, or an exit that says how to get them."""
    builder = tfds.builder("cifar10", data_dir=data_dir)
    if not builder.is_prepared():
        folder = f" --data_dir {data_dir}" if data_dir else ""
        raise SystemExit(
            f"CIFAR-10 is not prepared in {builder.data_path.parent.parent}. With internet "
            f"access, run\n\n    tfds build cifar10{folder}\n\nonce, or name the folder that has "
            "it with --data-dir."
        )
    return builder.as_dataset(split=split, as_supervised=True)


def normalize(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return (tf.cast(image, tf.float32) - MEAN) / STD, label


def augment(image: tf.Tensor, label: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Pads by 4 pixels, crops back at random, and flips every second image."""
    image = tf.pad(image, [[4, 4], [4, 4], [0, 0]])
    image = tf.image.stateless_random_crop(image, [32, 32, 3], seed)
    return tf.image.stateless_random_flip_left_right(image, seed + 1), label


def datasets(args: argparse.Namespace) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    train, test = (load(split, args.data_dir).map(normalize).cache() for split in ("train", "test"))
    train = train.shuffle(50_000, seed=args.seed)
    random = tf.data.Dataset.random(seed=args.seed, rerandomize_each_iteration=True).batch(2)
    train = tf.data.Dataset.zip(train, random).map(
        lambda example, seed: augment(*example, seed), num_parallel_calls=tf.data.AUTOTUNE
    )
    train = train.batch(args.batch_size, drop_remainder=True)
    return train.prefetch(tf.data.AUTOTUNE), test.batch(500).prefetch(tf.data.AUTOTUNE)


def linear_decay(value: float, steps: int) -> tf.keras.optimizers.schedules.PolynomialDecay:
    return tf.keras.optimizers.schedules.PolynomialDecay(value, steps, end_learning_rate=0.0)


def build_model(args: argparse.Namespace, steps: int) -> tf.keras.Model:
    """The network and optimizer of a recipe; latent-free for 'filtered' and 'bop'."""
    latent = {"kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}
    rate = args.learning_rate or (0.1 if args.optimizer == "sgd" else 1e-2)
    adam, schedule = tf.keras.optimizers.Adam, linear_decay(rate, steps)
    if args.optimizer == "filtered":
        model = lqf.models.BiRealNet20()
        optimizer = lqf.optimizers.FilteredFlip(
            alpha=linear_decay(args.alpha, steps), gamma=args.gamma, real_optimizer=adam(schedule)
        )
    elif args.optimizer == "bop":
        model = lqf.conversion.to_latent_free(lqf.models.BiRealNet20(**latent))
        optimizer = lq.optimizers.CaseOptimizer(
            (lq.optimizers.Bop.is_binary_variable, lq.optimizers.Bop()),
            default_optimizer=tf.keras.optimizers.legacy.Adam(schedule),
        )
    else:
        model = lqf.models.BiRealNet20(**latent)
        optimizer = (
            adam(schedule)
            if args.optimizer == "adam"
            else tf.keras.optimizers.SGD(schedule, momentum=0.9, weight_decay=1e-4)
        )
    model.compile(
        optimizer=optimizer,
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


class WriteHistory(tf.keras.callbacks.Callback):
    """Writes arguments, machine and history as JSON after every epoch, never half a file."""

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__()
        self.path = args.output
        self.record = {
            "arguments": {
                name: value
                for name, value in vars(args).items()
                if name not in ("output", "data_dir")
            },
            "versions": {
                "larq_filters": lqf.__version__,
                "tensorflow": tf.__version__,
                "larq": lq.__version__,
            },
            "machine": {
                "processor": platform.machine(),
                "cores": os.cpu_count(),
                "gpus": len(tf.config.list_physical_devices("GPU")),
            },
            "history": {},
        }
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        for name, value in (logs or {}).items():
            self.record["history"].setdefault(name, []).append(float(value))
        self.record["seconds"] = round(time.perf_counter() - self.start, 1)
        new = self.path.with_suffix(".part")
        new.write_text(json.dumps(self.record, indent=1) + "\n", "utf-8")
        new.replace(self.path)


def main() -> None:
    args = parse_arguments()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    tf.keras.utils.set_random_seed(args.seed)
    train, test = datasets(args)
    model = build_model(args, steps=args.epochs * int(train.cardinality()))
    callbacks = [lqf.callbacks.FlipRatio()] if args.optimizer == "filtered" else []
    if args.recalibrate:
        plain = load("train", args.data_dir).map(normalize).batch(args.batch_size)
        callbacks.append(lqf.callbacks.RecalibrateBatchNorm(plain, args.recalibrate))
    callbacks.append(WriteHistory(args))
    history = model.fit(train, epochs=args.epochs, validation_data=test, callbacks=callbacks)
    print(f"test accuracy {history.history['val_accuracy'][-1]:.2%}; history in {args.output}")


if __name__ == "__main__":
    main()
