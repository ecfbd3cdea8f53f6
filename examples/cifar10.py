"""Trains BiRealNet-20 on CIFAR-10 by filtering gradients, or by a latent-weight recipe.

    python examples/cifar10.py --epochs 6 --alpha 1e-2 --gamma 0.1
    python examples/cifar10.py --real --optimizer sgd --epochs 20 --save teacher.keras
    python examples/cifar10.py --teacher teacher.keras

Images are cropped and flipped at random; all learning rates decay linearly to 0, and alpha as the
square of that. The history is written as JSON after every epoch. With --backup FOLDER, a training
that was stopped goes on when it is run again. --real trains ResNet-20, which can be the teacher of
another training.
"""

import argparse
import functools
import pathlib

import larq_filters as lqf  # before TensorFlow's Keras is touched: selects Keras 2

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from common import options, teachers, training
from common.data import Data, batches_of_worker

normalize = lqf.models.preprocess_cifar10


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=16, help="channels of the first stage")
    parser.add_argument(
        "--real",
        action="store_true",
        help="train ResNet-20 instead, whose weights and activations are real, by adam or sgd",
    )
    options.add_arguments(parser, epochs=6, batch_size=128)
    args = options.parse(parser, arguments)
    if args.real and (args.optimizer not in ("adam", "sgd") or args.trial or args.two_step):
        parser.error(
            "--real has no binary weights: give --optimizer adam or sgd, and no --trial or "
            f"--two-step. Received: --optimizer {args.optimizer}"
        )
    args.output = args.output or pathlib.Path("cifar10.json")
    return args


def read(data_dir: str | None) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
    """Images and labels of CIFAR-10's splits, or an exit that says how to get them."""
    builder = tfds.builder("cifar10", data_dir=data_dir)
    if not builder.is_prepared():
        folder = f" --data_dir {data_dir}" if data_dir else ""
        raise SystemExit(
            f"CIFAR-10 is not prepared in {builder.data_path.parent.parent}. With internet "
            f"access, run\n\n    tfds build cifar10{folder}\n\nonce, or name the folder that has "
            "it with --data-dir."
        )
    arrays = {}
    for split in ("train", "test"):
        examples = builder.as_dataset(split=split, as_supervised=True, batch_size=-1)
        arrays[split] = tuple(map(tf.constant, tfds.as_numpy(examples)))
    return arrays


def load(args: argparse.Namespace) -> Data:
    """CIFAR-10 in memory."""
    arrays = read(args.data_dir)
    test, plain = (as_they_are(arrays[split]) for split in ("test", "train"))
    data = Data(
        train=lambda start, stop: tf.data.Dataset.range(0),
        test=test.batch(500).prefetch(tf.data.AUTOTUNE),
        plain=plain,
        images=len(arrays["train"][0]),
        steps_per_epoch=len(arrays["train"][0]) // args.batch_size,
        num_classes=10,
        mean=lqf.models.birealnet.CIFAR10_MEAN,
        std=lqf.models.birealnet.CIFAR10_STD,
    )
    logits = teachers.teacher_logits(args, data) if args.teacher_logits else None
    data.train = functools.partial(train_batches, args, arrays["train"], logits)
    return data


def as_they_are(arrays: tuple[tf.Tensor, tf.Tensor]) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(arrays).map(lambda x, y: (normalize(x), y))


def train_batches(
    args: argparse.Namespace,
    arrays: tuple[tf.Tensor, ...],
    logits: np.ndarray | None,
    start: int,
    stop: int,
    context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """The batches of some steps: each depends on the seed and its step only."""
    tensors = arrays if logits is None else (*arrays, tf.constant(logits))
    total = len(arrays[0])
    per_epoch = total - total % args.batch_size

    def example(i: tf.Tensor) -> tuple[tf.Tensor, ...]:
        epoch, position = i // per_epoch, i % per_epoch
        order = tf.stack([tf.constant(args.seed, tf.int64), epoch])
        index = tf.random.experimental.index_shuffle(position, order, total - 1)
        image, *targets = (tf.gather(tensor, index) for tensor in tensors)
        seed = tf.stack([tf.constant(args.seed, tf.int64), i])
        return augment(normalize(image), seed), *targets

    numbers = tf.data.Dataset.range(start * args.batch_size, stop * args.batch_size)
    return batches_of_worker(numbers, example, args.batch_size, context)


def augment(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Pads by 4 pixels, crops back at random, and flips every second image."""
    image = tf.pad(image, [[4, 4], [4, 4], [0, 0]])
    image = tf.image.stateless_random_crop(image, [32, 32, 3], seed)
    return tf.image.stateless_random_flip_left_right(image, seed + 1)


def main() -> None:
    args = parse_arguments()
    training.run(
        args,
        load=functools.partial(load, args),
        build=functools.partial(lqf.models.BiRealNet20, width=args.width)
        if not args.real
        else lambda **quantizers: teachers.resnet20(args.width, num_classes=10),
    )


if __name__ == "__main__":
    main()
