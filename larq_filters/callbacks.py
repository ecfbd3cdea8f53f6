"""Keras callbacks for binary weights."""

import inspect
import itertools
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from larq_filters import _layers
from larq_filters._numbers import whole_number
from larq_filters._warnings import warn
from larq_filters.optimizers import FilteredFlip

import numpy as np
import tensorflow as tf
from typing_extensions import override

__all__ = ["Backup", "FlipRatio", "RecalibrateBatchNorm"]


_READERS = (
    tf.keras.callbacks.CSVLogger,
    tf.keras.callbacks.TensorBoard,
    tf.keras.callbacks.RemoteMonitor,
)
_WHAT = "a coefficient of the filter, or the threshold, at the end of the epoch"
_MARGIN = (
    "θ·y of each weight, in units of the root mean square of y: far below 0, the gradients support "
    "the weight; beyond the threshold it flips"
)


class FlipRatio(tf.keras.callbacks.Callback):
    r"""Logs the flip ratio: the share of binary weights that flip per step, over an epoch.

    flip_ratio = flips / (binary weights · steps), in [0, 1] per step. A weight that flips and flips
    back counts twice. Adds `flip_ratio`, over all layers, and `flip_ratio/<layer>` for each layer
    with binary weights to the epoch's logs. Put callbacks that read logs, such as `CSVLogger` and
    `TensorBoard`, after it in the list. `History` always sees it.

    The optimizer counts inside its update, so every step counts, also with `steps_per_execution`.

    Args:
        per_layer: Whether to add the ratio of each layer. Without them, the progress bar of a deep
            network stays short.
        log_dir: A folder for TensorBoard, or None. After every epoch it gets the flip ratios, the
            filter's coefficients and the threshold by their names, and for each binary kernel a
            histogram of θ·y in units of the root mean square of the filter's output y: a weight
            flips where that exceeds the threshold.

    Raises:
        TypeError: When training starts with another optimizer than `FilteredFlip`.

    Warns:
        UserWarning: A callback that reads logs comes before it, and sees no flip ratio.

    Example:
        >>> dense = lq.layers.QuantDense(2, kernel_quantizer="ste_sign", name="dense")
        >>> model = tf.keras.Sequential([dense])
        >>> model.compile(optimizer=lqf.optimizers.FilteredFlip(), loss="mse")
        >>> x, y = np.ones((32, 4)), np.zeros((32, 2))
        >>> history = model.fit(x, y, verbose=0, callbacks=[lqf.callbacks.FlipRatio()])
        >>> sorted(history.history)
        ['flip_ratio', 'flip_ratio/dense', 'loss']
    """

    def __init__(
        self, per_layer: bool = True, log_dir: str | os.PathLike[str] | None = None
    ) -> None:
        super().__init__()
        self.per_layer, self.log_dir = per_layer, log_dir
        self._writer: Any = None

    @override
    def set_model(self, model: tf.keras.Model) -> None:
        """Asks the optimizer to count."""
        super().set_model(model)
        optimizer = FilteredFlip.of(model)
        if optimizer is None:
            raise TypeError(
                "FlipRatio reads the flips that FilteredFlip counts. For latent weights, make the "
                "model within "
                'larq.context.metrics_scope(["flip_ratio"]). '
                f"Received: optimizer={type(model.optimizer).__name__}"
            )
        self._optimizer = optimizer
        if not optimizer.count_flips:
            optimizer.count_flips = True
            model.train_function = None  # traced without counting

    @override
    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Looks at the callbacks that come before it, and opens the folder for TensorBoard."""
        frame = inspect.currentframe()
        caller = frame.f_back.f_locals.get("self") if frame and frame.f_back else None
        before = list(
            itertools.takewhile(lambda c: c is not self, getattr(caller, "callbacks", []))
        )
        blind = [type(c).__name__ for c in before if isinstance(c, _READERS)]
        if blind:
            warn(
                "callbacks that come before FlipRatio see no flip ratio. Put FlipRatio first in "
                f"the list. Received: {', '.join(blind)} before FlipRatio",
            )
        if self.log_dir is not None and self.model.distribute_strategy.extended.should_checkpoint:
            self._writer = tf.summary.create_file_writer(os.fspath(self.log_dir))

    @override
    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes the folder for TensorBoard."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    @override
    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes where the counters stand."""
        self._start = self._count()

    @override
    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the ratios to the logs, and writes what TensorBoard shows."""
        logs = {} if logs is None else logs
        start, now = self._start, self._count()
        steps = max(now.steps - start.steps, 1)
        flips = {name: count - start.flips.get(name, 0) for name, count in now.flips.items()}
        logs["flip_ratio"] = sum(flips.values()) / (max(sum(now.sizes.values()), 1) * steps)
        for name, size in now.sizes.items() if self.per_layer else ():
            logs[f"flip_ratio/{name}"] = flips[name] / (size * steps)
        if self._writer is not None:
            self._write(epoch, {k: v for k, v in logs.items() if k.startswith("flip_ratio")})

    def _write(self, epoch: int, ratios: Mapping[str, float]) -> None:
        with self._writer.as_default(step=epoch):
            for name, ratio in ratios.items():
                tf.summary.scalar(
                    name, ratio, description="share of binary weights that flip a step"
                )
            for name, value in self._optimizer.coefficients.items():
                tf.summary.scalar(
                    f"filter/{name}", tf.keras.backend.get_value(value), description=_WHAT
                )
            for (layer, kernel), (margin, scale) in _layers.margins(
                self.model, self._optimizer
            ).items():
                tf.summary.histogram(
                    f"theta_y/{layer}/{kernel}", margin / scale, description=_MARGIN
                )
        self._writer.flush()

    def _count(self) -> "_Count":
        read = tf.keras.backend.get_value
        count = _Count(int(read(self._optimizer.iterations)), {}, {})
        for variable, name in _layers.layer_names(self.model):
            flips = self._optimizer.flips(variable)
            if flips is not None:
                count.flips[name] = count.flips.get(name, 0) + int(read(flips))
                count.sizes[name] = count.sizes.get(name, 0) + math.prod(variable.shape)
        return count


class RecalibrateBatchNorm(tf.keras.callbacks.Callback):
    r"""Re-estimates the averages of batch norm from some batches, before every validation.

    While many weights still flip, the moving averages of batch norm lag, and validation accuracy
    looks too low. This callback replaces them by the plain average of the mean and the variance of
    `batches` batches. Nothing else in training changes.

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
        """Re-estimates now, except in frozen batch norm layers."""
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


class Backup(tf.keras.callbacks.BackupAndRestore):
    r"""Keras' `BackupAndRestore` with bit-identical resuming under every strategy.

    Under `MirroredStrategy` and `MultiWorkerMirroredStrategy` each replica has its own moving
    averages of batch norm. A checkpoint holds their mean, and restoring gives that mean to every
    replica. This callback also gives it to every replica when a checkpoint is saved, so a training
    that was never stopped and one that was restored have the same numbers.

    Args:
        backup_dir: Folder of the checkpoints. Another training needs another folder.
        save_freq: "epoch", or a number of steps after which to save. A number loses less work; each
            checkpoint takes the time of writing all weights and optimizer variables.
        delete_checkpoint: Whether to delete the checkpoints when the training has ended.
        **kwargs: Other arguments of `tf.keras.callbacks.BackupAndRestore`.

    Example:
        >>> model = tf.keras.Sequential([lq.layers.QuantDense(2, kernel_quantizer="ste_sign")])
        >>> model.compile(optimizer=lqf.optimizers.FilteredFlip(), loss="mse")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     backup = lqf.callbacks.Backup(folder, delete_checkpoint=False)
        ...     _ = model.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0, callbacks=[backup])
        ...     "chief" in os.listdir(folder)
        True
    """

    def __init__(
        self,
        backup_dir: str | os.PathLike[str],
        save_freq: int | str = "epoch",
        delete_checkpoint: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            os.fspath(backup_dir),
            save_freq=save_freq,
            delete_checkpoint=delete_checkpoint,
            **kwargs,
        )

    @override
    def _backup(self, epoch: int, batch: int = 0) -> None:
        super()._backup(epoch, batch)
        for variable in self.model.non_trainable_weights:
            if variable.synchronization is tf.VariableSynchronization.ON_READ:
                variable.assign(variable.read_value())


def _in_training(call: Any) -> Any:
    # Batch norm alone: dropout would draw random numbers, which training would then miss.
    return lambda inputs, *args, **kwargs: call(inputs, training=True)


class _Count(NamedTuple):
    """Steps so far and, by layer, flips so far and binary weights."""

    steps: int
    flips: dict[str, int]
    sizes: dict[str, int]
