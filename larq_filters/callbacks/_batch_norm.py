"""Batch norm's averages, estimated anew."""

import collections
import contextlib
import copy
import inspect
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from larq_filters import _layers
from larq_filters._numbers import whole_number
from larq_filters._warnings import warn

import numpy as np
import tensorflow as tf
from typing_extensions import override


class RecalibrateBatchNorm(tf.keras.callbacks.Callback):
    r"""Re-estimates the averages of batch norm from some batches, before every validation.

    While many weights still flip, the moving averages of batch norm lag, and validation accuracy
    looks too low. This callback replaces them by the plain average of the mean and the variance of
    `batches` batches. Nothing else in training changes: a batch norm layer that is frozen, or that
    the model calls with `training=False`, keeps its averages, which it trains with.

    Args:
        data: A `tf.data.Dataset` or another iterable of batches: inputs, or tuples that begin with
            inputs, as for `fit`. Give it a dataset of its own: reading the dataset of `fit` would
            change the order of the training samples.
        batches: Number of batches, 1 or more. More batches are more exact and take longer.

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
                "data is read before every validation, and an iterator can be read only once. Give "
                f"a tf.data.Dataset or a list of batches. Received: {type(data).__name__}"
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
                "RecalibrateBatchNorm did nothing, because fit did not validate. Give "
                "validation_data, or call recalibrate(model) after training. Received: no "
                "validation",
            )

    @override
    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Re-estimates before `fit` or `evaluate` validates."""
        self(self.model)

    def __call__(self, model: tf.keras.Model) -> None:
        """Re-estimates now, except in batch norm that does not train its averages."""
        self._was_called = True
        layers = [
            layer
            for layer in model._flatten_layers()
            if isinstance(layer, _layers.BATCH_NORMS) and layer.trainable
        ]
        is_empty = True
        inference = tf.constant(False)  # a layer that gets a plain False has it from the model
        with contextlib.ExitStack() as stack:
            for layer in layers:
                stack.enter_context(_in_training(layer))
            for batch in itertools.islice(self.data, self.batches):
                x, *_ = tf.keras.utils.unpack_x_y_sample_weight(batch)
                with _eagerly():
                    model.distribute_strategy.run(model, args=(x,), kwargs={"training": inference})
                is_empty = False
        if is_empty:
            raise ValueError("data has no batch to estimate from. Received: an empty iterable")

    def __deepcopy__(self, memo: dict[int, Any]) -> "RecalibrateBatchNorm":
        """KerasTuner copies callbacks for each trial; a dataset cannot be copied, and is shared."""
        return copy.copy(self)


@contextlib.contextmanager
def _in_training(layer: Any) -> Iterator[None]:
    """Calls of a batch norm layer move its averages to the plain average of all calls in here.

    Batch norm alone: dropout would draw random numbers, which training would then miss.
    """
    call, momentum = layer.call, layer.momentum
    signature = inspect.signature(call)
    counts: collections.Counter[int] = collections.Counter()  # of calls, in each replica

    @tf.autograph.experimental.do_not_convert
    def estimate(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        if given.arguments.get("training") is False:  # by the model itself, in training, too
            return call(*args, **kwargs)
        replica = int(tf.distribute.get_replica_context().replica_id_in_sync_group)
        if not counts[replica]:
            for average in (layer.moving_mean, layer.moving_variance):
                average.assign(tf.zeros_like(average))  # it may not be finite
        layer.momentum = counts[replica] / (counts[replica] + 1)
        counts[replica] += 1
        given.arguments["training"] = True
        return call(*given.args, **given.kwargs)

    layer.call = estimate
    try:
        yield
    finally:
        layer.momentum = momentum
        del layer.call


@contextlib.contextmanager
def _eagerly() -> Iterator[None]:
    """Traces that a `tf.function` inside the model keeps are neither used nor made."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)
