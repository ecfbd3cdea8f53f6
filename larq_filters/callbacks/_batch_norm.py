"""Batch norm's averages, estimated anew."""

import itertools
from collections.abc import Iterable
from typing import Any

from larq_filters._numbers import whole_number
from larq_filters._warnings import warn

import numpy as np
import tensorflow as tf
from typing_extensions import override


class RecalibrateBatchNorm(tf.keras.callbacks.Callback):
    r"""Re-estimates the averages of batch norm from some batches, before every validation.

    While weights still flip, the moving averages of batch norm lag behind the network that they
    belong to, and validation in the middle of training looks worse than the network is. This
    replaces them by the plain average, over `batches` batches, of each batch's mean and variance.
    Nothing else changes: training goes on as it would have, but for the averages themselves.

    Args:
        data: A `tf.data.Dataset` or another iterable of batches: inputs, or tuples that begin with
            inputs, as for `fit`. Of its own: going through the dataset that `fit` trains on would
            move its shuffling along, and so change the order of what training sees.
        batches: How many batches to take, from 1 on.

    Raises:
        TypeError: `data` is an array or an iterator.
        ValueError: `batches` is below 1, or `data` has none.

    Warns:
        UserWarning: When training ends and there was no validation.

    Example:
        >>> model = tf.keras.Sequential([tf.keras.layers.BatchNormalization(input_shape=(1,))])
        >>> recalibrate = lqf.callbacks.RecalibrateBatchNorm([np.array([[1.0], [3.0]])], batches=1)
        >>> recalibrate(model)  # without training, for instance before export
        >>> model.layers[0].moving_mean.numpy().tolist()
        [2.0]
    """

    def __init__(self, data: Iterable[Any], batches: int = 20) -> None:
        super().__init__()
        if isinstance(data, np.ndarray | tf.Tensor | tuple | dict):
            raise TypeError(
                "data is an iterable of batches, such as tf.data.Dataset.from_tensor_slices(x)"
                f".batch(128) or [x[:128], x[128:256]]. Received: {type(data).__name__}"
            )
        if iter(data) is data:
            raise TypeError(
                "data is gone through before every validation, and an iterator only once: give a "
                f"tf.data.Dataset or a list of batches. Received: {type(data).__name__}"
            )
        self.data, self.batches = data, whole_number("batches", batches, least=1)
        self._was_called = False

    @override
    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Notes that `fit` has not validated yet."""
        self._was_called = False

    @override
    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Warns if it never was."""
        if not self._was_called:
            warn(
                "RecalibrateBatchNorm did nothing, as fit had nothing to validate with: give "
                "validation_data, or call recalibrate(model) after training. Received: no "
                "validation",
            )

    @override
    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Re-estimates before `fit` or `evaluate` validates."""
        self(self.model)

    def __call__(self, model: tf.keras.Model) -> None:
        """Re-estimates now; frozen batch norm layers are left alone."""
        self._was_called = True
        layers = [
            layer
            for layer in model._flatten_layers()
            if isinstance(layer, tf.keras.layers.BatchNormalization) and layer.trainable
        ]
        momenta = [layer.momentum for layer in layers]
        count = 0
        try:
            for layer in layers:
                layer.call = _in_training(layer.call)
            for batch in itertools.islice(self.data, self.batches):
                for layer in layers:
                    layer.momentum = count / (count + 1)  # a plain average of all so far
                x, *_ = tf.keras.utils.unpack_x_y_sample_weight(batch)
                model.distribute_strategy.run(model, args=(x,), kwargs={"training": False})
                count += 1
        finally:
            for layer, momentum in zip(layers, momenta, strict=True):
                layer.momentum = momentum
                del layer.call
        if not count:
            raise ValueError("data has no batch to estimate from. Received: an empty iterable")


def _in_training(call: Any) -> Any:
    # Batch norm alone: dropout would draw random numbers, which training would then miss.
    return lambda inputs, *args, **kwargs: call(inputs, training=True)
