"""Variables of bfloat16 of which XLA can write blocks on CPUs."""

from typing import Any

import numpy as np
import tensorflow as tf
from typing_extensions import override

_VALUE = "VARIABLE_VALUE"  # what TensorFlow calls the value of its own variables in checkpoints


class Bfloat16Variable(tf.__internal__.tracking.Trackable):
    """A variable of bfloat16 that is kept as the uint16 with the same bits.

    XLA on CPUs converts a whole array of bfloat16 to write a block of it, but none of uint16. From
    outside, also in checkpoints and files, it is a variable of bfloat16.

    Args:
        bits: The variable of uint16.
    """

    dtype = tf.bfloat16

    def __init__(self, bits: tf.Variable) -> None:
        self.bits = bits

    @property
    def shape(self) -> tf.TensorShape:
        """As of any variable."""
        return self.bits.shape

    @property
    def name(self) -> str:
        """As of any variable."""
        return self.bits.name

    @property
    def device(self) -> str:
        """As of any variable."""
        return self.bits.device

    def __repr__(self) -> str:
        return f"<Bfloat16Variable {self.name!r} shape={self.shape}>"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.numpy().astype(dtype or self.dtype.as_numpy_dtype)

    def numpy(self) -> np.ndarray:
        """The value, as of any variable."""
        return self.bits.numpy().view(self.dtype.as_numpy_dtype)

    def read_value(self) -> tf.Tensor:
        """The value, as of any variable."""
        return tf.bitcast(tf.convert_to_tensor(self.bits), self.dtype)

    def assign(self, value: Any, read_value: bool = True) -> "Bfloat16Variable | None":
        """Sets the value, as of any variable."""
        bits = tf.bitcast(tf.convert_to_tensor(value, self.dtype), tf.uint16)
        self.bits.assign(bits, read_value=read_value)
        return self if read_value else None

    @override
    def _serialize_to_tensors(self) -> dict[str, tf.Tensor]:
        return {_VALUE: self.read_value()}

    @override
    def _restore_from_tensors(self, restored_tensors: dict[str, tf.Tensor]) -> Any:
        return self.assign(restored_tensors[_VALUE])


def bits_of(variable: Any) -> Any:
    """The variable that keeps the value of one: that of uint16, or itself."""
    return variable.bits if isinstance(variable, Bfloat16Variable) else variable


def of_bits(variable: Any) -> Any:
    """The inverse of `bits_of`."""
    return Bfloat16Variable(variable) if variable.dtype == tf.uint16 else variable


def _to_tensor(
    variable: Bfloat16Variable, dtype: Any = None, name: str | None = None, as_ref: bool = False
) -> Any:
    if dtype not in (None, tf.bfloat16):  # as any variable: TensorFlow would take a constant
        raise ValueError(
            f"{variable.name} is of bfloat16: cast it with tf.cast. Received: dtype={dtype.name}"
        )
    return variable.read_value()


tf.register_tensor_conversion_function(Bfloat16Variable, _to_tensor)
