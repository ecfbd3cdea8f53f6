"""Trained weights that come with the package: bits as bits, all others as float32."""

import os
import pathlib
from typing import Any

from larq_filters import _files, _layers

import numpy as np
import tensorflow as tf

__all__ = ["packed_file"]

_WAYS = {"num_classes": ", take include_top=False and add a layer of your own"}
FOLDER = pathlib.Path(__file__).parent / "weights"


def check(weights: Any, dataset: str, needs: dict[str, tuple[Any, Any]]) -> None:
    """Refuses weights that are unknown, or that were trained for another network.

    Args:
        weights: As the caller gave them.
        dataset: The name of those that come with the package.
        needs: By argument, what the caller gave, and what those weights were trained for.
    """
    if weights is None or (weights != dataset and _is_file(weights)):
        return
    if (
        isinstance(weights, os.PathLike)
        or pathlib.Path(str(weights)).suffix
        or os.sep in str(weights)
    ):
        raise ValueError(
            "there is no such file: weights is the path of one that `model.save_weights` wrote, "
            f"'{dataset}' for those that come with the package, or None. "
            f"Received: weights={str(weights)!r}"
        )
    if weights != dataset:
        raise ValueError(
            f"weights is None for random ones, '{dataset}' for those that come with the package, "
            f"or the path of a file that `model.save_weights` wrote. Received: weights={weights!r}"
        )
    for name, (value, trained) in needs.items():
        if value != trained:
            raise ValueError(
                f"the weights '{dataset}' are of a network with {name}={trained!r}. Leave it at "
                f"that{_WAYS.get(name, '')}, or take weights=None. Received: {name}={value!r}"
            )


def load(model: tf.keras.Model, weights: Any, network: str, dataset: str) -> tf.keras.Model:
    """Gives a model, or the first layers of one, its weights, and returns it."""
    if weights is None:
        return model
    if weights != dataset:
        model.load_weights(weights)
        return model
    values = []
    with np.load(FOLDER / f"{network}_{dataset}.npz") as arrays:
        for i, variable in enumerate(model.weights):
            value = arrays[f"{i:03d}"]
            if value.dtype == np.uint8:
                signs = np.unpackbits(value, count=variable.shape.num_elements())
                value = signs.reshape(variable.shape).astype("float32") * 2.0 - 1.0
            values.append(value)
    model.set_weights(values)
    return model


def save(model: tf.keras.Model, path: str | os.PathLike[str]) -> None:
    """Writes a model's weights as `load` reads them.

    An array for each of `model.weights`, named by its index: the signs of a binary kernel (1 for
    +1) by `numpy.packbits`, and float32 for the others.
    """
    arrays = {}
    for i, variable in enumerate(model.weights):
        value = np.asarray(variable, "float32")
        arrays[f"{i:03d}"] = np.packbits(value > 0) if _layers.is_binary(variable) else value
    with _files.replaced(path) as beside, beside.open("wb") as file:
        np.savez_compressed(file, **arrays)


def packed_file(network: str, weights: str) -> pathlib.Path:
    """The packed .tflite file of trained weights that come with the package.

    `larq_filters.export.convert` made it of the network, so it runs in Larq Compute Engine.

    Args:
        network: The network's function, 'BiRealNet20' or 'DigitsNet'.
        weights: The weights' name, 'cifar10' or 'digits'.

    Returns:
        Its path.

    Raises:
        ValueError: There are no such weights.

    Example:
        >>> lqf.models.packed_file("BiRealNet20", "cifar10").name
        'birealnet20_cifar10.tflite'
    """
    path = FOLDER / f"{network}_{weights}.tflite".lower()
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.tflite")))
        raise ValueError(
            f"packed files come with the package for {known}. "
            f"Received: network={network!r}, weights={weights!r}"
        )
    return path


def _is_file(weights: Any) -> bool:
    if not isinstance(weights, str | os.PathLike):
        return False
    path = os.fspath(weights)
    return any(pathlib.Path(name).is_file() for name in (path, f"{path}.index"))  # a checkpoint
