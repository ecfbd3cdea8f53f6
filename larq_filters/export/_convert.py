"""From a Keras model to a .tflite file."""

from typing import Any

from larq_filters._numbers import real
from larq_filters.export import _flatbuffer, _frozen, _graph, _lce, _model, _rewrite, _trace
from larq_filters.export._exported import Exported
from larq_filters.export._program import Interface
from larq_filters.export._report import make_report

import numpy as np
import tensorflow as tf

TARGETS = ("arm", "xcore")


def convert(
    model: tf.keras.Model,
    *,
    strict: bool = False,
    pack_dense: bool = True,
    target: str = "arm",
    inference_input_type: tf.DType | str = tf.float32,
    inference_output_type: tf.DType | str = tf.float32,
    experimental_default_int8_range: tuple[float, float] | None = None,
) -> Exported:
    """Converts a larq model to a .tflite file, with binary layers packed to 1 bit per weight.

    It works on an uncompiled clone with quantized kernels. In the clone, exact equivalents that
    Larq Compute Engine can pack replace some layers: `QuantDense`, `QuantConv1D`, and `QuantConv2D`
    in groups whose channel count is not a multiple of 32. Batch norm moves before the max pooling
    that it follows, if its γ ≥ 0.

    Args:
        model: A Keras 2 model with fixed input shapes, trained with latent weights or without,
            compiled or not. It does not change.
        strict: Whether to refuse a model in which a layer that asks for 1-bit weights is not
            packed.
        pack_dense: Whether to convert `QuantDense` layers with binarized inputs to packed 1×1
            convolutions. Otherwise they stay in floats.
        target: 'arm', or 'xcore', which pads with ones only.
        inference_input_type: float32, or int8 for a model with fake quantization.
        inference_output_type: Likewise; int8 for a model that ends with a real layer.
        experimental_default_int8_range: Range (low, high) of all values without fake quantization,
            to measure the latency, not the outputs, of an int8 file.

    Returns:
        The file, and a report on each of its layers.

    Raises:
        TypeError: `model` is not a Keras 2 model.
        ValueError: The model cannot be exported: it is not built or cannot be cloned, uses mixed
            precision, has a shape that is not fixed, a binary kernel that is not ± one scale per
            output channel, or a quantizer of activations that computes with the whole batch; or its
            file cannot have such a type. With `strict`, a layer was not packed.
        ImportError: The extra `export` is not installed.

    Example:
        >>> binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
        >>> model = tf.keras.Sequential([
        ...     lq.layers.QuantDense(64, input_shape=(128,), **binary),
        ...     tf.keras.layers.Dense(10),
        ... ])
        >>> exported = lqf.export.convert(model, strict=True)
        >>> exported.report.binary_weight_bytes, exported.report.binary_weight_bytes_as_floats
        (1024, 32768)

    Source:
        Bannink et al., "Larq Compute Engine: Design, Benchmark, and Deploy State-of-the-Art
        Binarized Neural Networks", MLSys 2021 (arXiv 2011.09398).
    """
    if target not in TARGETS:
        raise ValueError(f"target is one of {TARGETS}. Received: target={target!r}")
    wanted = {
        name: _dtype(name, value)
        for name, value in (
            ("inference_input_type", inference_input_type),
            ("inference_output_type", inference_output_type),
        )
    }
    if experimental_default_int8_range is not None:
        _check_range(experimental_default_int8_range)
    _model.check(model)
    _model.check_quantizers(model)
    _model.check_lstm(model)
    _lce.load("larq_compute_engine")
    structure = _model.input_structure(model)
    clone, kernels = _frozen.freeze(model)
    _frozen.check_clone(model, clone, structure)
    restore = _rewrite.rewrite(clone, pack_dense=pack_dense)
    traced = _trace.trace(clone, kernels, structure)
    _graph.check(traced.function.graph, traced.binary)
    data = _lce.convert(
        traced.function,
        traced.module,
        dtypes=tuple(wanted.values()),
        target=target,
        experimental_default_int8_range=experimental_default_int8_range,
    )
    file = _flatbuffer.read(data)
    _check_types(_check_runs(data, file), wanted)
    report = make_report(file, kernels, traced, pack_dense=pack_dense, target=target)
    if strict:
        report.check_packed()

    def plain() -> bytes:  # whatever it computes, TensorFlow Lite has an operator for it
        restore()
        again = _trace.trace(clone, kernels, structure)
        return _lce.convert_float(again.function, again.module)

    return Exported(data, report, Interface.of(file, traced), plain)


def _dtype(name: str, value: Any) -> tf.DType:
    try:
        dtype = tf.as_dtype(value)
    except TypeError:
        dtype = None
    if dtype not in (tf.float32, tf.int8):
        raise ValueError(f"{name} is float32 or int8. Received: {name}={value!r}")
    return dtype


def _check_range(given: Any) -> None:
    """Refuses a range that would end the process in the converter."""
    try:
        low, high = (real("experimental_default_int8_range", value) for value in given)
        good = -np.inf < low < high < np.inf
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(
            "experimental_default_int8_range is a pair of finite numbers, the first below the "
            f"second. Received: experimental_default_int8_range={given!r}"
        )


def _check_runs(data: bytes, file: _flatbuffer.File) -> _lce.Interpreter:
    """Refuses a file that no interpreter of Larq Compute Engine takes; one that does."""
    if not file.engines:
        raise ValueError(
            "Larq Compute Engine has no engine for this file. Zero padding needs float outputs, or "
            "an even number of channels. Use pad_values=1.0. Received: "
            f"{sorted({op.name for op in file.operators if not op.engines})}"
        )
    try:
        return _lce.Interpreter(data, (), (), file.engines[0])
    except RuntimeError as error:
        others = sorted({op.name for op in file.operators if not op.is_binary})
        raise ValueError(
            "Larq Compute Engine converted the model, but cannot run it. Replace operators that "
            "TensorFlow Lite does not have, and give constants that are added to a binary "
            f"convolution the shape (channels,). Received: operators {others}"
        ) from error


def _check_types(interpreter: _lce.Interpreter, wanted: dict[str, tf.DType]) -> None:
    """Refuses a file that has floats where integers were asked for."""
    for (name, dtype), types in zip(wanted.items(), interpreter.types, strict=True):
        if dtype == tf.int8 and np.float32 in types:
            raise ValueError(
                f"{name} cannot be int8, because a binary layer reads or gives these values as "
                f"floats. Begin and end with real layers, or leave it out. Received: {name}=int8"
            )
