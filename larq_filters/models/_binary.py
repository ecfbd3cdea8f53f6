"""What the binary convolutions of all networks here have in common."""

from typing import Any, NamedTuple

import larq as lq


class Quantizers(NamedTuple):
    """The arguments by which a network is binary."""

    input: Any
    kernel: Any
    constraint: Any

    def conv(self, filters: int, size: int, strides: int = 1) -> lq.layers.QuantConv2D:
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
            kernel_constraint=self.constraint,
        )
