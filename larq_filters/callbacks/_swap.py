"""The network of averages in the place of the one that trains."""

import inspect
import weakref
from collections.abc import Iterable, MutableMapping
from typing import Any, NamedTuple

from larq_filters import _layers
from larq_filters._warnings import warn
from larq_filters.callbacks._around import callbacks_of
from larq_filters.callbacks._batch_norm import RecalibrateBatchNorm
from larq_filters.callbacks._flip_ratio import FlipRatio
from larq_filters.optimizers import FilteredFlip

import numpy as np
import tensorflow as tf
from typing_extensions import override

_Values = list[tuple[tf.Variable, tf.Tensor]]


class _Aside(NamedTuple):
    """What trains, while averages are in its place or on their way."""

    trained: _Values
    averaged: _Values
    """None yet while they are put in."""
    steps: int
    """That were done then."""


# By optimizer: another callback may find averages that one left there when `fit` was interrupted.
_ASIDE: MutableMapping[FilteredFlip, _Aside] = weakref.WeakKeyDictionary()
_BACKUP = tf.keras.callbacks.BackupAndRestore


class SwapAverages(tf.keras.callbacks.Callback):
    r"""Puts the averages of `FilteredFlip(average=...)` in place while `fit` validates.

    Before every validation each variable gets its average, a binary one the sign of it, and batch
    norm is recalibrated for this network. After it all are put back bit for bit, and training goes
    on as it would have. When training ends, the averages stay.

    While bits flip, some are wrong by chance at any moment. Averaging removes this noise. So the
    averaged network can be used at any time, and the training needs no planned end.

    If `fit` is interrupted while the averages are in place, they stay. The next `fit` with this
    callback begins by putting back what trains.

    Args:
        data: As for `RecalibrateBatchNorm`: an iterable of batches.
        batches: How many batches to take, from 1 on.
        swap_on_epoch: Whether the averages are also in place for the callbacks that come after this
            one when an epoch ends, such as `ModelCheckpoint` and
            `EarlyStopping(restore_best_weights=True)`, so that these keep the averages. `Backup`
            saves the training, and so comes before it, as does `FlipRatio(log_dir=...)`.

    Raises:
        ValueError: When training starts with another optimizer than `FilteredFlip(average=...)`, or
            a callback after this one would save or show the averages instead of the training.

    Example:
        >>> model = tf.keras.Sequential([lq.layers.QuantDense(2, kernel_quantizer="ste_sign")])
        >>> model.compile(lqf.optimizers.FilteredFlip(average=16), loss="mse")
        >>> x, y = np.ones((32, 4)), np.zeros((32, 2))
        >>> swap = lqf.callbacks.SwapAverages([x], batches=1)
        >>> _ = model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=[swap])
        >>> sorted(set(abs(model.layers[0].get_weights()[0].ravel())))
        [1.0]
    """

    def __init__(self, data: Iterable[Any], batches: int = 20, swap_on_epoch: bool = False) -> None:
        super().__init__()
        self.swap_on_epoch = swap_on_epoch
        self._recalibrate = RecalibrateBatchNorm(data, batches)
        self._ready: tuple[FilteredFlip, _Aside] | None = None  # what was in place, and of whom

    @override
    def set_model(self, model: tf.keras.Model) -> None:
        """Looks whether the optimizer keeps averages, and forgets those of another model."""
        if model is not self.model:
            self._ready = None
        super().set_model(model)
        optimizer = FilteredFlip.of(model)
        if optimizer is None or not optimizer.has_averages:
            raise ValueError(
                "SwapAverages needs an optimizer that keeps averages: compile with "
                f"FilteredFlip(average=16). Received: optimizer={optimizer or model.optimizer!r}"
            )
        _layers.warn_of_regularizers(model)
        self._optimizer = optimizer

    def put_in(self) -> None:
        """Puts the averages in place and recalibrates batch norm, until `take_out`."""
        left = self._left()
        if left and left.averaged and _equal(left.averaged):
            return
        self.take_out()  # of a mixture of both
        aside = _Aside(self._values(), [], self._steps())
        self._put_aside(aside)
        try:
            ready = self._was_ready(aside.steps)
            if ready:
                _assign(ready)
            else:
                with self.model.distribute_strategy.scope():
                    self._optimizer.put_averages(self.model.trainable_variables)
                self._recalibrate(self.model)
            aside = _Aside(aside.trained, self._values(), aside.steps)
            self._put_aside(aside)
        except BaseException:  # such as a KeyboardInterrupt
            self.take_out()
            raise
        self._ready = self._optimizer, aside

    def take_out(self) -> None:
        """Puts all weights back, bit for bit as they were before `put_in`."""
        if self._optimizer in _ASIDE:
            _assign(_ASIDE[self._optimizer].trained)
        self._forget()  # not before: what is interrupted in between is finished by the next `fit`

    def _was_ready(self, steps: int) -> _Values:
        """The averages of this very network, if they were in place before."""
        if self._ready is None:
            return []
        optimizer, ready = self._ready
        same = optimizer is self._optimizer and ready.steps == steps
        return ready.averaged if same and _equal(ready.trained) else []

    def _left(self) -> _Aside | None:
        """What was put aside, if averages are in place, or some; what is of others is forgotten."""
        aside = _ASIDE.get(self._optimizer)
        if aside and aside.steps == self._steps():
            pairs = zip(aside.trained, aside.averaged, strict=False)  # averages may be to come
            if all(_equal([one]) or _equal([other]) for one, other in pairs):
                return aside
        self._forget()
        return None

    def _put_aside(self, aside: _Aside) -> None:
        _ASIDE[self._optimizer] = aside
        self._optimizer.averages_in_at = aside.steps

    def _forget(self) -> _Aside | None:
        self._optimizer.averages_in_at = None
        return _ASIDE.pop(self._optimizer, None)

    def _steps(self) -> int:
        return int(tf.keras.backend.get_value(self._optimizer.iterations))

    def _values(self) -> _Values:
        local = self.model.distribute_strategy.experimental_local_results
        replicas = [replica for variable in self.model.weights for replica in local(variable)]
        return [(replica, tf.identity(replica)) for replica in replicas]

    @override
    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Looks at the other callbacks: at those that would save the wrong one of two networks."""
        callbacks = callbacks_of(inspect.currentframe())
        after = callbacks[callbacks.index(self) + 1 :] if self in callbacks else []
        if self.swap_on_epoch and any(isinstance(c, _BACKUP) for c in after):
            raise ValueError(
                "a backup must save the weights in training, but SwapAverages(swap_on_epoch=True) "
                "puts the averages in place for all callbacks after it. Put the backup before it. "
                f"Received: {_names(callbacks)}"
            )
        if self.swap_on_epoch and any(isinstance(c, FlipRatio) and c.log_dir for c in after):
            raise ValueError(
                "FlipRatio(log_dir=...) writes how far the weights in training are from flipping, "
                "but SwapAverages(swap_on_epoch=True) puts the averages in place for all callbacks "
                f"after it. Put FlipRatio before it. Received: {_names(callbacks)}"
            )
        seeing = after if self.swap_on_epoch else []
        blind = [type(c).__name__ for c in callbacks if _saves(c) and c not in seeing]
        if blind:
            warn(
                "callbacks that keep weights at the end of an epoch get those in training, not the "
                "averages. Put them after SwapAverages(swap_on_epoch=True). Received: "
                f"{', '.join(blind)} beside SwapAverages(swap_on_epoch={self.swap_on_epoch})",
            )
        if self._left():
            self.take_out()

    @override
    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Puts back what trains, if the averages were left in place."""
        self.take_out()
        self._ready = None

    @override
    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Puts the averages in place for the callbacks that follow, if asked to."""
        self._optimizer.warn_if_ended()
        self._optimizer.recalibrates_at = self._steps()
        if self.swap_on_epoch:
            self.put_in()

    @override
    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Puts the averages in place."""
        self.put_in()

    @override
    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Puts back what trains."""
        self.take_out()

    @override
    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Leaves the averages in place, with batch norm recalibrated for them.

        Or what a callback has restored after them, such as the averages of the best epoch.
        """
        if self._forget() is None:  # else at the last epoch's end
            self._recalibrate(self.model)
        self._ready = None


def _saves(callback: tf.keras.callbacks.Callback) -> bool:
    """Whether a callback keeps weights as they are when an epoch ends, for later use."""
    return isinstance(callback, tf.keras.callbacks.ModelCheckpoint) or bool(
        getattr(callback, "restore_best_weights", False)
    )


def _names(callbacks: list[tf.keras.callbacks.Callback]) -> str:
    return ", ".join(type(callback).__name__ for callback in callbacks)


def _equal(values: _Values) -> bool:
    """Whether variables have these values, bit for bit."""
    return all(
        np.array_equal(variable.numpy(), value.numpy(), equal_nan=True)
        for variable, value in values
    )


def _assign(values: _Values) -> None:
    for variable, value in values:
        variable.assign(value)
