"""How many weights flip, in the logs of training."""

import inspect
import itertools
import math
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from larq_filters import _layers
from larq_filters._warnings import warn
from larq_filters.callbacks._around import callbacks_of
from larq_filters.optimizers import FilteredFlip

import tensorflow as tf
from typing_extensions import override

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
        _layers.warn_of_regularizers(model)
        self._optimizer = optimizer
        if not optimizer.count_flips:
            optimizer.count_flips = True
            model.train_function = None  # traced without counting

    @override
    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Looks at the callbacks that come before it, and opens the folder for TensorBoard."""
        callbacks = callbacks_of(inspect.currentframe())
        before = list(itertools.takewhile(lambda c: c is not self, callbacks))
        blind = [type(c).__name__ for c in before if _reads(c)]
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
        """Adds the ratios to the logs, and writes what TensorBoard shows.

        Warns:
            UserWarning: α had decayed to 0 before.
        """
        self._optimizer.warn_if_ended()
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


class _Count(NamedTuple):
    """Steps so far and, by layer, flips so far and binary weights."""

    steps: int
    flips: dict[str, int]
    sizes: dict[str, int]


def _reads(callback: tf.keras.callbacks.Callback) -> bool:
    """Whether a callback logs what is in the logs: Keras', W&B's or MLflow's."""
    makers = {kind.__module__.partition(".")[0] for kind in type(callback).__mro__}
    return isinstance(callback, _READERS) or bool(makers & {"wandb", "mlflow"})
