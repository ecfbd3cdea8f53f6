"""SGD for the latent weights of binary kernels, and another optimizer for all else."""

from collections.abc import Mapping, Sequence
from typing import Any

from larq_filters import _layers
from larq_filters._numbers import Coefficient
from larq_filters._saving import register
from larq_filters.optimizers import _arguments

import tensorflow as tf
from typing_extensions import override


@register
class LatentSGD(tf.keras.optimizers.SGD):
    """Keras' SGD on the variables that larq marks as 1-bit, `real_optimizer` on all others.

    So a latent recipe is compared with a `FilteredFlip` that has the same real optimizer, and what
    differs is how binary weights are trained.

    Args:
        learning_rate: As of Keras' SGD, and so are all others.
        real_optimizer: A Keras optimizer, its name or its config.
        **kwargs: Momentum, weight decay and so on.
    """

    def __init__(
        self,
        learning_rate: Coefficient = 0.1,
        *,
        real_optimizer: tf.keras.optimizers.Optimizer | str | Mapping[str, Any] = "adam",
        name: str = "LatentSGD",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, name=name, **kwargs)
        self._real_optimizer = _arguments.real_optimizer(real_optimizer, refused=LatentSGD)

    @property
    def real_optimizer(self) -> tf.keras.optimizers.Optimizer:
        """The optimizer of all variables that are not binary."""
        return self._real_optimizer

    @override
    def build(self, var_list: Sequence[tf.Variable]) -> None:
        """Creates the state of all variables."""
        if getattr(self, "_built", False):
            return
        real = [v for v in var_list if not _layers.is_binary(v)]
        super().build([v for v in var_list if _layers.is_binary(v)])
        self._real_optimizer.build(real)
        self._variables.extend(self._real_optimizer.variables)

    @override
    def apply_gradients(
        self,
        grads_and_vars: Any,
        name: str | None = None,
        skip_gradients_aggregation: bool = False,
        **kwargs: Any,
    ) -> tf.Variable:
        """One step of all variables."""
        pairs = list(grads_and_vars)
        with tf.init_scope():
            self.build([variable for _, variable in pairs])
        binary = [(g, v) for g, v in pairs if _layers.is_binary(v)]
        real = [(g, v) for g, v in pairs if not _layers.is_binary(v)]
        if real:
            self._real_optimizer.apply_gradients(real, name, skip_gradients_aggregation, **kwargs)
        return super().apply_gradients(binary, name, skip_gradients_aggregation, **kwargs)

    @override
    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        real = tf.keras.optimizers.serialize(self._real_optimizer, use_legacy_format=True)
        return {**super().get_config(), "real_optimizer": real}
