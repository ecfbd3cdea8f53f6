"""Backups after which training goes on bit for bit."""

import os
from typing import Any

import tensorflow as tf
from typing_extensions import override


class Backup(tf.keras.callbacks.BackupAndRestore):
    r"""Keras' `BackupAndRestore` with bit-identical resuming of epochs under every strategy.

    Under `MirroredStrategy` and `MultiWorkerMirroredStrategy` each replica has its own moving
    averages of batch norm. A checkpoint holds their mean, and restoring gives that mean to every
    replica. This callback also gives it to every replica when a checkpoint is saved, so a training
    that was never stopped and one that was restored have the same numbers.

    Args:
        backup_dir: Folder of the checkpoints. Another training needs another folder.
        save_freq: "epoch", or a number of steps after which to save. A number loses less work, but
            `fit` then goes on at the step with the data of the epoch's beginning: for the same bits
            your dataset must skip what was seen. Each checkpoint takes the time of writing all
            weights and optimizer variables.
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
