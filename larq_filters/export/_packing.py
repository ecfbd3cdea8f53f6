"""Matches the operators of a file with kernels, and says why a kernel is not packed."""

from collections.abc import Mapping

from larq_filters.export import _lce
from larq_filters.export._flatbuffer import File, Operator
from larq_filters.export._frozen import Kernel
from larq_filters.export._rewrite import KINDS, is_own
from larq_filters.export._trace import Call

import larq as lq
import numpy as np
import tensorflow as tf

_SMALLEST_SCALE = float(np.finfo(np.float32).eps)  # of a kernel that the converter packs
_NO_KERNEL = {  # larq's layers that Larq Compute Engine has no binary operator for
    "QuantDepthwiseConv2D": (
        "depthwise convolution",
        "use QuantConv2D, or leave its kernel real",
    ),
    "QuantSeparableConv1D": (
        "separable convolution",
        "use QuantConv1D with an input quantizer",
    ),
    "QuantSeparableConv2D": (
        "separable convolution",
        "use QuantConv2D with an input quantizer",
    ),
    "QuantConv2DTranspose": (
        "transposed convolution",
        "use UpSampling2D and then QuantConv2D",
    ),
    "QuantConv3D": ("3D convolution", "use QuantConv2D on slices, or leave its kernel real"),
    "QuantConv3DTranspose": ("3D convolution", "use QuantConv2D, or leave its kernel real"),
    "QuantLocallyConnected1D": ("locally connected layer", "use QuantConv1D"),
    "QuantLocallyConnected2D": ("locally connected layer", "use QuantConv2D"),
}


def match(file: File, kernels: list[Kernel], calls: Mapping[int, Call]) -> list[list[Operator]]:
    """The operators that compute with each kernel, found by its weights.

    Names alone do not do: where layers merge, the converter keeps the name of any of them. Batch
    norm after a layer may scale the weights of an output channel, and so turn their signs; batch
    norm before it, those of an input channel.
    """
    free = [op for op in file.operators if op.weights is not None]
    found = []
    for kernel in kernels:
        call = calls.get(id(kernel.layer), Call())
        parts = _parts(kernel)
        candidates = [op for op in free if any(_same(part, op.rows) for part in parts)]
        if not candidates and kernel.precision > 1:
            candidates = [op for op in free if any(_scaled(part, op.rows) for part in parts)]
        candidates.sort(key=lambda op: not any(f"{s}/" in op.names for s in call.scopes))  # stable
        matches = candidates[: len(parts) * max(1, len(call.scopes))]
        free = [op for op in free if op not in matches]
        found.append(matches)
    return found


def reason(
    kernel: Kernel, call: Call, operators: list[Operator], *, pack_dense: bool, target: str
) -> tuple[str, str]:
    """Why a kernel that asks for 1 bit was not packed, and what to change."""
    layer = kernel.layer
    for kind in type(layer).__mro__:
        if kind.__name__ in _NO_KERNEL and kind.__module__.startswith("larq."):
            name, way_out = _NO_KERNEL[kind.__name__]
            return f"Larq Compute Engine has no binary {name}", way_out
    if isinstance(layer, lq.layers.QuantDense) and not pack_dense:
        return "Larq Compute Engine has no binary dense layer", "convert with pack_dense=True"
    if not call.binarized:
        quantizer = getattr(layer, "input_quantizer", None)
        if quantizer is None:
            why = "its input is not binarized"
        elif getattr(quantizer, "precision", None) == 1:
            why = "its input is 0 or 1, not ±1"
        else:
            why = f"its input has {getattr(quantizer, 'precision', 'unknown')} bits"
        return why, "set input_quantizer='ste_sign', or leave its kernel real"
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return "its channels come first", "use data_format='channels_last'"
    if getattr(layer, "padding", "valid") == "causal":
        return (
            "causal padding adds zeros, and binary inputs have none",
            "use ZeroPadding1D before the layer and padding='valid'",
        )
    if getattr(layer, "padding", "valid") == "same":
        pad = float(tf.keras.backend.get_value(layer.pad_values))
        if pad not in (0.0, 1.0):
            return f"it pads with {pad:g}, which no binary operator does", "use pad_values=1.0"
        if pad == 0.0 and target != "arm":
            return f"the target '{target}' pads with 1 only", "use pad_values=1.0"
    if (np.abs(kernel.values) <= _SMALLEST_SCALE).any():
        return (
            f"its scale is below {_SMALLEST_SCALE:.1e}, which the converter treats as zero",
            "scale its latent weights up",
        )
    if isinstance(layer, KINDS) and not any(is_own(layer, kind) for kind in KINDS):
        return (
            "its class computes something else than larq's",
            "use larq's own layer, and another layer for the rest",
        )
    emitted = operators[0].name if operators else "another operator"
    return (
        f"the converter made {emitted} of it",
        "let its input quantizer act right before the convolution",
    )


def _parts(kernel: Kernel) -> list[np.ndarray]:
    """The matrices (outputs, weights of an output) that a kernel may be in the file."""
    values, layer = kernel.values, kernel.layer
    if "LocallyConnected" in type(layer).__name__:
        return [part.T for part in values] if values.ndim == 3 else []
    if kernel.attribute == "depthwise_kernel":
        values = np.moveaxis(values, (-2, -1), (0, 1))
        return [values.reshape(values.shape[0] * values.shape[1], -1)]
    if isinstance(layer, tf.keras.layers.Conv2DTranspose):
        values = np.moveaxis(values, -2, 0)
        return [values.reshape(values.shape[0], -1)]
    rows = np.moveaxis(values, -1, 0).reshape(values.shape[-1], -1)
    groups = getattr(layer, "groups", 1)
    split = groups > 1 and values.shape[-2] % _lce.WORD
    return np.split(rows, groups) if split else [rows]


def _same(one: np.ndarray, two: np.ndarray | None) -> bool:
    """Whether the rows of two matrices are multiples of one another, up to int8's rounding."""
    if two is None or one.shape != two.shape:
        return False
    product = np.abs((one * two.astype(np.float64)).sum(1))
    norms = np.linalg.norm(one.astype(np.float64), axis=1) * np.linalg.norm(
        two.astype(np.float64), axis=1
    )
    return bool((product >= (1.0 - 1e-3) * norms).all())


def _scaled(one: np.ndarray, two: np.ndarray | None) -> bool:
    """Whether a matrix is another one with factors for its rows and for its columns."""
    if two is None or one.shape != two.shape or one.size < 4 * sum(one.shape):
        return False  # of a small one, this would be no evidence
    one, two = one.astype(np.float64), two.astype(np.float64)
    first = np.linalg.norm(two, axis=1).argmax()
    columns = np.divide(two[first], one[first], where=one[first] != 0.0, out=np.zeros(one.shape[1]))
    columns = columns[None]
    for _ in range(3):  # alternating least squares
        part = one * columns
        rows = (part * two).sum(1, keepdims=True) / np.maximum((part**2).sum(1), 1e-30)[:, None]
        part = one * rows
        columns = (part * two).sum(0, keepdims=True) / np.maximum((part**2).sum(0), 1e-30)
    return bool(np.linalg.norm(two - one * rows * columns) <= 1e-3 * np.linalg.norm(two))


def unmatched(file: File, call: Call) -> list[Operator]:
    """Operators that carry a layer's name, where none carries its weights as they are."""
    named = [op for op in file.operators if any(f"{s}/" in op.names for s in call.scopes)]
    return [op for op in named if op.weights is not None] or named[-1:]
