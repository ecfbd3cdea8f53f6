"""What all networks here have in common."""

from typing import Any, NamedTuple

import larq as lq
import tensorflow as tf


class Quantizers(NamedTuple):
    """The arguments by which a network is binary."""

    input: Any
    kernel: Any
    initializer: Any
    constraint: Any

    def conv(
        self, filters: int, size: int, strides: int = 1, name: str | None = None
    ) -> lq.layers.QuantConv2D:
        """A binary convolution without bias, padded with 1 at the borders.

        Ones and not zeros, as a packed ±1 input has no zeros.
        """
        return lq.layers.QuantConv2D(
            filters,
            size,
            strides=strides,
            padding="same",
            pad_values=1.0,
            use_bias=False,
            input_quantizer=self.input,
            kernel_quantizer=self.kernel or lq.quantizers.NoOp(precision=1),
            kernel_initializer=self.initializer,
            kernel_constraint=self.constraint,
            name=name,
        )


def batch_norm(x: Any) -> Any:
    """Batch norm whose averages follow weights that flip."""
    return tf.keras.layers.BatchNormalization(momentum=0.9)(x)


def classifier(inputs: Any, x: Any, num_classes: int, name: str) -> tf.keras.Model:
    """The network that ends in an average over the image and a real dense layer."""
    x = tf.keras.layers.GlobalAveragePooling2D()(x)
    # The logits are as exact as any real weight, also under mixed precision.
    dtype = tf.keras.mixed_precision.global_policy().variable_dtype
    return tf.keras.Model(inputs, tf.keras.layers.Dense(num_classes, dtype=dtype)(x), name=name)
