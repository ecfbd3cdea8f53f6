"""Trains ReActNet-A on ImageNet by filtering gradients, or by a latent-weight recipe.

    python examples/imagenet.py --strategy mirrored --backup backup --save reactnet_a.keras

The images come from tensorflow-datasets' imagenet2012, which has to be prepared from ImageNet's own
archives once. Training images are cropped at random (8 to 100 % of the area) and flipped; for
validation, the short side is scaled to 8/7 of the size and the middle cropped. With --backup
FOLDER, a training that was stopped goes on when it is run again.

The paper's authors train for 256 epochs, let alpha decay linearly, train real weights by Adam at
1e-3, and let a ResNet-34 teach: --epochs 256 --alpha-power 1 --learning-rate 1e-3 --teacher FILE.
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

MEAN, STD = (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)  # of ImageNet's images, per channel
NETWORKS = {
    "reactnet_a": lqf.models.ReActNetA,
    "birealnet18": lqf.models.BiRealNet18,
    "birealnet34": lqf.models.BiRealNet34,
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--network", choices=NETWORKS, default="reactnet_a")
    add("--width", type=int, help="channels of the first layer (default: the published ones)")
    add("--size", type=int, default=224, help="height and width of the images")
    add("--shuffle-buffer", type=int, default=10_000, help="images to shuffle among, compressed")
    options.add_arguments(parser, epochs=120, batch_size=512)
    args = options.parse(parser, None)
    args.output = args.output or pathlib.Path("imagenet.json")
    return args


def load(args: argparse.Namespace) -> Data:
    """ImageNet on disk, or an exit that says how to prepare it."""
    builder = tfds.builder("imagenet2012", data_dir=args.data_dir)
    if not builder.is_prepared():
        folder = f" --data_dir {args.data_dir}" if args.data_dir else ""
        raise SystemExit(
            f"ImageNet is not prepared in {builder.data_path.parent.parent}. Put the archives "
            "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from image-net.org into its "
            f"folder downloads/manual, and run\n\n    tfds build imagenet2012{folder}\n\nonce, or "
            "name the folder that has it with --data-dir."
        )
    splits = {name: builder.info.splits[name] for name in ("train", "validation")}
    files = {name: list(map(str, split.filepaths)) for name, split in splits.items()}
    decode = functools.partial(decode_record, builder.info.features)

    def whole(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        jpeg, label = decode(record)
        return center_crop(jpeg, args.size), label

    def images(name: str) -> tf.data.Dataset:
        return records(files[name]).map(
            whole, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )

    total = splits["train"].num_examples
    data = Data(
        train=lambda start, stop: tf.data.Dataset.range(0),
        test=images("validation").batch(args.batch_size).prefetch(tf.data.AUTOTUNE),
        plain=images("train"),
        images=total,
        steps_per_epoch=total // args.batch_size,
        num_classes=builder.info.features["label"].num_classes,
        mean=MEAN,
        std=STD,
    )
    logits = teachers.teacher_logits(args, data) if args.teacher_logits else None
    data.train = functools.partial(
        train_batches, args, decode, files["train"], data.steps_per_epoch * args.batch_size, logits
    )
    return data


def train_batches(
    args: argparse.Namespace,
    decode: functools.partial,
    files: list[str],
    per_epoch: int,
    logits: np.ndarray | None,
    start: int,
    stop: int,
    context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """The batches of some steps: the order of each epoch depends on the seed and its number only.

    Files are shuffled, and then images among `--shuffle-buffer` others. What comes before `start`
    in its epoch is read, but not decoded. Logits are in the order of the files, so with them the
    files keep theirs.
    """

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        tf.random.set_seed(1)  # of this function: with 0, TensorFlow asks whether `seed` is 0, too
        seed = tf.constant(args.seed, tf.int64) * 1_000_003 + number
        names = tf.constant(files)
        if logits is None:
            order = tf.random.experimental.index_shuffle(
                tf.range(len(files)), tf.stack([seed, 0]), len(files) - 1
            )
            names = tf.gather(names, order)
        examples = records(names)
        if logits is not None:
            rows = tf.data.Dataset.from_generator(
                lambda: iter(logits), output_signature=tf.TensorSpec(logits.shape[1:], logits.dtype)
            )
            examples = tf.data.Dataset.zip(examples, rows)
        return examples.shuffle(args.shuffle_buffer, seed=seed).take(per_epoch)

    def example(i: tf.Tensor, record: tf.Tensor, *targets: tf.Tensor) -> tuple[tf.Tensor, ...]:
        jpeg, label = decode(record)
        seed = tf.stack([tf.constant(args.seed, tf.int64), i])
        return random_crop(jpeg, args.size, seed), label, *targets

    first, skipped = divmod(start * args.batch_size, per_epoch)
    last = -(-stop * args.batch_size // per_epoch)
    order = tf.data.Dataset.range(first, last).flat_map(epoch).skip(skipped)
    numbers = tf.data.Dataset.range(start * args.batch_size, stop * args.batch_size)
    if logits is None:
        examples = tf.data.Dataset.zip(numbers, order)
    else:
        examples = tf.data.Dataset.zip(numbers, order).map(lambda i, pair: (i, *pair))
    return batches_of_worker(examples, example, args.batch_size, context)


def records(files: list[str] | tf.Tensor) -> tf.data.Dataset:
    """The examples of some files, 16 of them at a time, always in the same order."""
    return tf.data.Dataset.from_tensor_slices(files).interleave(
        tf.data.TFRecordDataset,
        cycle_length=16,
        block_length=16,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def decode_record(
    features: tfds.features.FeaturesDict, record: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The JPEG file of an example, still compressed, and its label."""
    decoders = {"image": tfds.decode.SkipDecoding()}
    example = features.deserialize_example(record, decoders=decoders)
    return example["image"], example["label"]


def random_crop(jpeg: tf.Tensor, size: int, seed: tf.Tensor) -> tf.Tensor:
    """A random part of the image, of 8 to 100 % of its area, flipped every second time."""
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.image.extract_jpeg_shape(jpeg),
        tf.zeros([1, 1, 4]) + [0.0, 0.0, 1.0, 1.0],
        seed,
        area_range=(0.08, 1.0),
        aspect_ratio_range=(3 / 4, 4 / 3),
        min_object_covered=0.0,
        use_image_if_no_bounding_boxes=True,
    )
    window = tf.concat([begin[:2], extent[:2]], axis=0)
    image = tf.image.decode_and_crop_jpeg(jpeg, window, channels=3)
    image = tf.image.resize(image, [size, size], antialias=True)
    return normalize(tf.image.stateless_random_flip_left_right(image, seed + 1), size)


def center_crop(jpeg: tf.Tensor, size: int) -> tf.Tensor:
    """The middle of the image, 7/8 of its short side."""
    shape = tf.image.extract_jpeg_shape(jpeg)
    side = tf.cast(tf.math.round(tf.reduce_min(shape[:2]) * 7 / 8), tf.int32)
    window = tf.concat([(shape[:2] - side) // 2, [side, side]], axis=0)
    image = tf.image.decode_and_crop_jpeg(jpeg, window, channels=3)
    return normalize(tf.image.resize(image, [size, size], antialias=True), size)


def normalize(image: tf.Tensor, size: int) -> tf.Tensor:
    return tf.ensure_shape((image - MEAN) / STD, [size, size, 3])


def main() -> None:
    args = parse_arguments()
    width = {"width": args.width} if args.width else {}
    build = functools.partial(NETWORKS[args.network], (args.size, args.size, 3), 1000, **width)
    training.run(args, load=functools.partial(load, args), build=build)


if __name__ == "__main__":
    main()
