"""SGD for the latent weights of binary kernels, and another optimizer for all else."""

from collections.abc import Mapping, Sequence
from typing import Any

from larq_filters import _layers
from larq_filters._numbers import Coefficient
from larq_filters._serialization import register
from larq_filters.optimizers import _arguments

import tensorflow as tf
from typing_extensions import override


@register
class LatentSGD(tf.keras.optimizers.SGD):
    """Keras' SGD on the variables that larq marks as 1-bit, `real_optimizer` on all others.

    It compares a latent recipe with a `FilteredFlip` that has the same real optimizer. The two
    differ only in how they train binary weights.

    With learning rate η, momentum β and decoupled weight decay λ: m_t = βm_{t−1} − ηg_t;
    w_t = (1 − ηλ)w_{t−1} + m_t; θ_t = sign(w_t). Constraints such as `weight_clip` hold, as with
    any Keras optimizer.

    Args:
        learning_rate: η > 0, a number or a schedule. The default is usual for images. Only its
            ratio to the initial weights matters, because only signs are used.
        real_optimizer: A Keras optimizer, its name or its config, for all variables that are not
            binary.
        name: Name of the optimizer.
        **kwargs: Other arguments of `tf.keras.optimizers.SGD`: `momentum`, `nesterov`,
            `weight_decay`, clipping.

    Raises:
        TypeError: `real_optimizer` is of the wrong kind.

    Example:
        >>> model = tf.keras.Sequential([
        ...     lq.layers.QuantDense(8, kernel_quantizer="ste_sign", input_shape=(4,)),
        ...     tf.keras.layers.Dense(2),
        ... ])
        >>> optimizer = lqf.optimizers.LatentSGD(0.1, momentum=0.9, real_optimizer="adam")
        >>> model.compile(optimizer, loss="mse")
        >>> history = model.fit(np.ones((32, 4)), np.zeros((32, 2)), verbose=0)
        >>> optimizer.real_optimizer.name
        'Adam'

    Source:
        Courbariaux et al., "BinaryConnect: Training Deep Neural Networks with binary weights during
        propagations", NeurIPS 2015 (arXiv 1511.00363).
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
        self._real_optimizer = _arguments.real_optimizer(real_optimizer)

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
        # Its counter by another name than this optimizer's: .h5 files have each name once.
        counter = self._real_optimizer.iterations
        counter = tf.Variable(counter, dtype=counter.dtype, name="real_iteration", trainable=False)
        self._real_optimizer.iterations = counter
        self._real_optimizer.build(real)
        self._variables.extend([counter, *self._real_optimizer.variables[1:]])

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
        if real and all(gradient is None for gradient, _ in binary):
            return self.iterations.assign_add(1)
        return super().apply_gradients(binary, name, skip_gradients_aggregation, **kwargs)

    @override
    def exclude_from_weight_decay(
        self, var_list: Sequence[tf.Variable] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """Excludes variables from the weight decay of both optimizers, as in Keras."""
        super().exclude_from_weight_decay(var_list, var_names)
        self._real_optimizer.exclude_from_weight_decay(var_list, var_names)

    @override
    def finalize_variable_values(self, var_list: Sequence[tf.Variable]) -> None:
        """At the end of training: each optimizer with `use_ema` puts its averages in place."""
        super().finalize_variable_values([v for v in var_list if _layers.is_binary(v)])
        real = [v for v in var_list if not _layers.is_binary(v)]
        self._real_optimizer.finalize_variable_values(real)

    @override
    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        real = tf.keras.optimizers.serialize(self._real_optimizer, use_legacy_format=True)
        return {**super().get_config(), "real_optimizer": real}
