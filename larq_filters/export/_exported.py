"""A .tflite file, and how it compares with the model that it was made of."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

from larq_filters import _files
from larq_filters.export import _flatbuffer, _lce, _trace, _verify
from larq_filters.export._report import Report
from larq_filters.export._verify import Verification

import numpy as np
import tensorflow as tf

_BATCH = 64  # samples that Keras computes at once


class Interface(NamedTuple):
    """The inputs and outputs of a model, and their positions in its file."""

    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    specs: tuple[tf.TensorSpec, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    int8: bool

    @classmethod
    def of(cls, file: _flatbuffer.File, traced: _trace.Trace) -> "Interface":
        """Of a file, and of the traced model that it was made of."""
        return cls(
            traced.inputs,
            traced.outputs,
            traced.specs,
            tuple(file.inputs[name] for name in traced.inputs),
            tuple(file.outputs[name] for name in traced.outputs),
            any(t.dtype == "INT8" for op in file.operators for t in op.outputs),
        )


class Exported:
    """A .tflite file, its report, and what it takes to compare it with its model.

    Made by `convert`.

    Attributes:
        model: The bytes of the file.
        report: What the file holds of each layer.

    Example:
        >>> binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
        >>> model = tf.keras.Sequential([
        ...     lq.layers.QuantConv2D(8, 3, input_shape=(8, 8, 32), **binary),
        ... ])
        >>> exported = lqf.export.convert(model)
        >>> verification = exported.verify(np.random.normal(size=(10, 8, 8, 32)), model)
        >>> verification.outputs[0].relative < 1e-5
        True
    """

    def __init__(
        self, model: bytes, report: Report, interface: Interface, plain: Callable[[], bytes]
    ) -> None:
        self.model = model
        self.report = report
        self._interface = interface
        self._plain = plain

    def __repr__(self) -> str:
        return f"<Exported model of {len(self.model):,} bytes>"

    def save(self, path: str | os.PathLike) -> None:
        """Writes the file; at `path` there is never a part of it.

        Args:
            path: Where to, usually ending in .tflite. A file that is there is replaced.

        Raises:
            OSError: It cannot be written.
        """
        _files.write(path, self.model)

    def verify(
        self,
        inputs: Any,
        model: tf.keras.Model,
        *,
        tolerance: float | None = None,
        allowed: float = 0.0,
        kernel: str | None = None,
    ) -> Verification:
        """Runs the file in Larq Compute Engine's interpreter, and compares it with the model.

        Args:
            inputs: Samples, an array of shape (samples, ...) for each input of the model: a list, a
                tuple or a dict by name where there are several.
            model: The Keras model that the file was made of.
            tolerance: The largest difference that counts as equal, in units of the model's largest
                absolute output; by default 1e-3, and 0.1 where the file computes in int8.
            allowed: Share of samples, in [0, 1), that may differ by more. In a deep network the
                rounding of a real layer, to int8 above all, may turn a sign that is next to 0, and
                others after it.
            kernel: Larq Compute Engine's kernels to use, one of `report.kernels`; by default the
                first of them.

        Returns:
            The differences, for each output.

        Raises:
            ValueError: More samples than allowed differ by more than the tolerance, or `inputs` do
                not fit the model.
        """
        interface = self._interface
        arrays = _verify.arrange(inputs, interface.input_names, interface.specs)
        if tolerance is None:
            tolerance = 0.1 if interface.int8 else 1e-3
        if not (tolerance >= 0.0 and 0.0 <= allowed < 1.0):
            raise ValueError(
                "tolerance is 0 or more and allowed is in [0, 1). "
                f"Received: tolerance={tolerance}, allowed={allowed}"
            )
        interpreter = self._interpreter(kernel)
        known = tf.nest.flatten(_trace.input_structure(model))
        _check_shapes(
            "inputs", [k.shape[1:] for k in known], [s.shape[1:] for s in interface.specs]
        )
        outputs = [
            interpreter.predict([a[i : i + 1] for a in arrays]) for i in range(len(arrays[0]))
        ]
        got = [np.concatenate(parts) for parts in zip(*outputs, strict=True)]
        expected = _predict(model, arrays)
        _check_shapes("outputs", [e.shape for e in expected], [g.shape for g in got])
        result = _verify.compare(interface.output_names, got, expected, tolerance)
        worst = max(result.outputs, key=lambda output: (output.beyond, output.relative))
        if worst.beyond > allowed:
            raise _verify.Mismatch(
                f"the file computes something else than the model: output '{worst.name}' differs "
                f"by up to {worst.absolute:.3g}, which is {worst.relative:.3g} of its largest "
                f"value, in {worst.beyond:.2%} of {result.samples} samples by more than the "
                f"tolerance of {tolerance:g}, and its arg max agrees in {worst.agreement:.2%}. "
                "Where only a few differ, rounding turned signs next to 0: `allowed` takes a share "
                "of such samples. "
                f"Received: tolerance={tolerance:g}, allowed={allowed:g}"
            )
        return result

    def _interpreter(self, kernel: str | None = None, threads: int = 1) -> _lce.Interpreter:
        kernels = self.report.kernels
        if kernel is None and kernels:
            kernel = kernels[0]
        if kernel not in kernels:
            raise ValueError(
                f"Larq Compute Engine can run this file with these kernels only: {list(kernels)}. "
                f"Received: kernel={kernel!r}"
            )
        interface = self._interface
        return _lce.Interpreter(self.model, interface.inputs, interface.outputs, kernel, threads)


def _predict(model: tf.keras.Model, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """The model's outputs; not by `predict`, which would leave a function in the model."""
    structure = _trace.input_structure(model)
    batches = []
    for start in range(0, len(arrays[0]), _BATCH):
        batch = [tf.constant(array[start : start + _BATCH]) for array in arrays]
        outputs = model(tf.nest.pack_sequence_as(structure, batch), training=False)
        batches.append([output.numpy() for output in tf.nest.flatten(outputs)])
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def _check_shapes(kind: str, model: list[Any], file: list[Any]) -> None:
    if [tuple(shape) for shape in model] != [tuple(shape) for shape in file]:
        raise ValueError(
            f"the model has other {kind} than the file: give the model that the file was made of. "
            f"Received: shapes {[tuple(shape) for shape in model]}, and "
            f"{[tuple(shape) for shape in file]} in the file"
        )
