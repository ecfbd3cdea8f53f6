"""Small real datasets in the files that tensorflow-datasets expects of large ones."""

import io

import larq_filters  # noqa: F401  (before TensorFlow's Keras is touched: selects Keras 2)

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images


def write_cifar10(folder):
    """scikit-learn's digits, enlarged to 32×32 in colour: 512 to train with, 197 to test."""
    digits = load_digits()
    images = np.kron((digits.images * 15.9)[..., None], np.ones((1, 4, 4, 3))).astype("uint8")

    def examples(some):
        for i in some:
            yield i, {"id": f"{i}", "image": images[i], "label": int(digits.target[i])}

    _store("cifar10", folder, {"train": examples(range(512)), "test": examples(range(1600, 1797))})


def write_imagenet(folder, train=96, validation=32, shards=3):
    """Parts of scikit-learn's two photographs as JPEGs of many sizes, in 1000 classes."""
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    random = np.random.default_rng(0)

    def examples(some):
        for i in some:
            photograph, file = photographs[i % 2], io.BytesIO()
            width, height = random.integers(60, 200, 2)
            left = random.integers(0, photograph.width - width)
            top = random.integers(0, photograph.height - height)
            photograph.crop((left, top, left + width, top + height)).save(file, "JPEG")
            file.seek(0)
            yield i, {"file_name": f"{i}.JPEG", "image": file, "label": int(37 * i % 1000)}

    splits = {
        "train": examples(range(train)),
        "validation": examples(range(1000, 1000 + validation)),
    }
    config = tfds.download.DownloadConfig(num_shards=shards)
    _store("imagenet2012", folder, splits, disable_shuffling=False, download_config=config)


def _store(name, folder, splits, disable_shuffling=True, **kwargs):
    builder = tfds.builder(name, data_dir=folder)
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version=str(builder.version),
        features=builder.info.features,
        split_datasets=splits,
        data_dir=folder,
        disable_shuffling=disable_shuffling,
        **kwargs,
    )
