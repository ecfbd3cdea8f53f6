"""A packed network: saved, written as C, and compared with its model."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from larq_filters import _files
from larq_filters.export import _model
from larq_filters.export._bits import _c, _header, _int8, _make, _names, _npz, _proof, _run
from larq_filters.export._bits._network import Network
from larq_filters.export._bits._proof import BitsVerification
from larq_filters.export._bits._report import BitsReport, make_report

import numpy as np
import tensorflow as tf


class Bits:
    """A network as packed bits, integer thresholds and the numbers of its real layers.

    Made by `bits`, or read from a file by `load_bits`.

    **Bits.** A bit 1 is +1, a bit 0 is −1. Channels are packed into words of 32: channel c is bit
    c % 32, from the lowest, of word c // 32; bits beyond the last channel are 0. A binary kernel
    has the axes (outputs, rows, columns, words), of a dense layer (outputs, 1, 1, words); a real
    one Keras' axes (rows, columns, inputs, outputs). The sum of a window of n products is
    n − 2·popcount(input XOR kernel). Filter f is of the group f // (filters / groups). A layer that
    is called n times has n copies of its kernel.

    **Sums** of real layers, and of reals times ±1, start at 0 in float32 and add row after row,
    column after column, channel after channel. In another order their last digits differ.

    **Thresholds.** sign(f(s)) of a sum s, where f is batch norm and what else the model has before
    the sign, is s ≥ threshold, and where the channel's bit in `flips` is 1, s < threshold. A
    constant sign has the threshold −(largest sum), which every sum passes. TensorFlow works out f
    in float32 for every sum there can be. Where f is not of one sum, or its sign turns more than
    once, it stays in floats, and the report says so.

    **The .npz file** has an array for each entry of `arrays`, named 's', the number of the step, a
    dot and what it is: 'kernel', 'thresholds', 'flips', 'scale' (the factor of what becomes int8),
    'scales' (of int8 sums), or 'c' and the number of the line of code that uses it. A constant is
    one number, one for each channel, or of shape (positions, channels). The array 'network' is JSON
    in UTF-8:

    - 'version': 1. 'sha256': of all the rest. 'accuracy': that of the report.
    - 'inputs', 'outputs': name and number of the tensor, in the order of the model.
    - 'tensors': the 'kind' ('float', 'bits', 'int' for sums of ±1, 'int8'), the 'shape' with a
      batch axis of 1, and the 'alias': the number of the tensor that it is in another shape, or −1.
    - 'steps', in the order in which they run: the 'kind', the 'name' of the layer, the tensors
      'inputs' and 'output', and as far as they apply 'window', the arrays 'weights', 'thresholds'
      and 'flips', 'code', and, for the report, 'note' and 'edges'. Kinds are 'binary' (±1 by ±1),
      'signs' (reals times ±1), 'real' and 'int8' convolutions and dense layers; 'max' and 'average'
      over the positions inside of the input; 'map' (code only), 'copy' (bits in another shape),
      'concat' (of channels), and 'quantize' (times the scale in 'weights', then the
      integer part of x + 0.5 in float32, or of x − 0.5 below 0, within ±127).
    - A 'window' has the 'height' and 'width' of the input, its 'channels' in each of the 'groups',
      'out_height' and 'out_width', its own 'rows' and 'columns', 'strides' and 'dilations' (both
      for rows and columns), 'top' and 'left' (the padding there), 'filters' (channels of the
      output) and 'pad': what bits are padded with, 1, −1 or 0 for nothing. Reals are with 0.
    - A line of 'code' is an operation and its operands in float32: 'sum' (what the step has before
      its code), 'v' and the number of a line, 't' and the number of a tensor, or an array; of one
      position or one channel, it is the same for all. The
      output is the last line, as a sign (+1 where it is ≥ 0) if the tensor is of bits. Operations
      are add, sub, mul, div, max, min, neg, abs, square, relu, relu6, sign, copy, and leaky (its
      first operand, times the second where it is not above 0).

    Attributes:
        arrays: All arrays, by name.
        report: What became of each layer.

    Example:
        >>> binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
        >>> model = tf.keras.Sequential([
        ...     lq.layers.QuantConv2D(8, 3, input_shape=(8, 8, 32), **binary),
        ... ])
        >>> bits = lqf.export.bits(model)
        >>> bits.arrays["s1.kernel"].shape, bits.arrays["s1.kernel"].dtype
        ((8, 3, 3, 1), dtype('uint32'))
        >>> x = np.random.normal(size=(10, 8, 8, 32))
        >>> bits.verify(x, model).outputs[0].absolute
        0.0
        >>> bits.predict(x).shape
        (10, 6, 6, 8)
    """

    def __init__(self, network: Network, accuracy: Mapping[str, float]) -> None:
        self._network, self._accuracy = network, dict(accuracy)
        self.report: BitsReport = make_report(network, accuracy)

    def __repr__(self) -> str:
        return f"<Bits of {len(self._network.steps)} steps, {self.report.constant_bytes:,} bytes>"

    @property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """All arrays by name (kernels, thresholds, flips, constants)."""
        return self._network.arrays

    def predict(self, inputs: Any) -> Any:
        """The outputs, computed in NumPy with the roundings of the C program.

        Args:
            inputs: As for `verify`.

        Returns:
            An array, or a list of them if the model has several outputs.
        """
        outputs, _ = _run.run(self._network, _proof.arrange(self._network, inputs))
        return outputs[0] if len(outputs) == 1 else outputs

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the .npz file; at `path` there is never a part of it.

        Args:
            path: Where to. A file that is there is replaced.

        Raises:
            OSError: It cannot be written.
        """
        _files.write(path, _npz.to_bytes(self._network, {"accuracy": self._accuracy}))

    def to_header(self, path: str | os.PathLike[str], *, function: str = "predict") -> None:
        """Writes a C header: the sizes, the declaration of the function, and all arrays.

        Args:
            path: Where to; the arrays' names begin with the file's: `digits_s1_kernel` in digits.h.
            function: Name of the C function.

        Raises:
            ValueError: A name is none in C.
            OSError: It cannot be written.
        """
        name = _names.check(pathlib.Path(path).stem, function)
        _files.write(path, _header.header(self._network, name, function).encode())

    def to_c(self, path: str | os.PathLike[str], *, function: str = "predict") -> None:
        """Writes a C99 program, and the header that it includes beside it.

        It has `int predict(const float *x, float *y)`: x is an input (several one after another, in
        the order of the model), y becomes the output (or outputs), and the index of the largest
        value of the first output is returned. It needs no library and allocates nothing.

        Args:
            path: Where to: digits.c, beside which digits.h is written.
            function: Name of the C function.

        Raises:
            ValueError: A name is none in C, or the path does not end in .c.
            OSError: It cannot be written.
        """
        path = pathlib.Path(path)
        if path.suffix != ".c":
            raise ValueError(f"a C program's file ends in .c: name it so. Received: '{path}'")
        name = _names.check(path.stem, function)
        text = _c.program(self._network, name, function)
        with _files.replaced(path) as c, _files.replaced(path.with_suffix(".h")) as h:
            c.write_bytes(text.encode())
            h.write_bytes(_header.header(self._network, name, function).encode())

    def verify(
        self,
        inputs: Any,
        model: tf.keras.Model,
        *,
        tolerance: float | None = None,
        allowed: float = 0.0,
        compiler: str | None = None,
    ) -> BitsVerification:
        """Compares the network with its model, in NumPy and, where there is a compiler, in C.

        Signs that integers decide are exact. A sign of floats may turn where its argument is within
        rounding of 0, as Keras adds in an order of its own; samples with such a sign are counted,
        and may differ.

        Args:
            inputs: Samples, an array of shape (samples, ...) for each input of the model: a list, a
                tuple or a dict by name where there are several.
            model: The Keras model that the bits were made of.
            tolerance: The largest difference that counts as equal, in units of the model's largest
                absolute output; by default 1e-3, and 0.1 with 8-bit real layers.
            allowed: Share of samples, in [0, 1), that may differ by more without such a sign.
            compiler: What compiles the C program: by default $CC, with arguments if need be, or cc
                if there is one; '' for nothing.

        Returns:
            The differences, for each output.

        Raises:
            Mismatch: More samples than allowed differ by more than the tolerance, or the C program
                differs from NumPy in any bit.
            ValueError: `inputs` do not fit the model, or there is no such compiler, or what it
                makes does not run here.
        """
        _model.check(model)
        return _proof.verify(
            self._network, model, inputs, tolerance=tolerance, allowed=allowed, compiler=compiler
        )


def bits(model: tf.keras.Model, *, representative: Any = None, labels: Any = None) -> Bits:
    """A larq model as packed bits, for devices that Larq Compute Engine does not run on.

    Binary layers become XNOR and popcount on packed bits. Where only a sum of ±1 is between a
    binary layer and the next sign, batch norm and what else there is become one integer comparison
    for each channel. Real layers stay floats, or become 8 bits.

    Args:
        model: A Keras 2 model with fixed input shapes, trained with latent weights or without,
            compiled or not. It is left as it was.
        representative: Inputs as the device will see them, from which 8-bit real layers get the
            scales of their inputs; a few hundred samples do. By default real layers stay floats.
        labels: The right class of each of these, for the report to have accuracies: the index of
            the output, or for a single output 1 where it should be above 0. Without real layers,
            nothing becomes 8 bits and the report has no accuracies.

    Returns:
        The network, which can be saved, written as C, and compared with the model.

    Raises:
        TypeError: `model` is not a Keras 2 model.
        ValueError: What cannot be written, by the layer's name and with the reason.

    Example:
        >>> binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
        >>> model = tf.keras.Sequential([
        ...     lq.layers.QuantDense(64, input_shape=(128,), **binary),
        ...     tf.keras.layers.BatchNormalization(),
        ...     lq.layers.QuantDense(10, **binary),
        ... ])
        >>> packed = lqf.export.bits(model)
        >>> packed.report.layers[1].sign
        'thresholds'
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     packed.to_c(os.path.join(folder, "network.c"))
        ...     sorted(os.listdir(folder))
        ['network.c', 'network.h']
    """
    network = _make.network(model)
    if representative is None:
        if labels is not None:
            raise ValueError(
                "labels are of representative inputs: give both. Received: representative=None"
            )
        return Bits(network, {})
    arrays = _proof.arrange(network, _model.in_order(model, representative))
    labels = None if labels is None else np.atleast_1d(labels)
    quantized = _int8.quantize(network, arrays)
    return Bits(quantized, _int8.accuracy(network, quantized, arrays, labels))


def load_bits(path: str | os.PathLike[str]) -> Bits:
    """Reads what `Bits.save` wrote.

    Args:
        path: The .npz file.

    Returns:
        The same network.

    Raises:
        ValueError: It is no such file, or some of it is missing or changed.
        OSError: It cannot be read.

    Example:
        >>> binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
        >>> layer = lq.layers.QuantDense(8, name="dense", input_shape=(32,), **binary)
        >>> packed = lqf.export.bits(tf.keras.Sequential([layer]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "dense.npz")
        ...     packed.save(path)
        ...     lqf.export.load_bits(path).report == packed.report
        True
    """
    network, head = _npz.load(path)
    return Bits(network, head["accuracy"])
