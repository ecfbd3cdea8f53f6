"""What a .tflite file holds of each layer, read from the file."""

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import Any

from larq_filters._text import WIDTH, html_table, table
from larq_filters._warnings import warn
from larq_filters.export import _packing, _rewrite
from larq_filters.export._flatbuffer import File, Operator
from larq_filters.export._frozen import Kernel
from larq_filters.export._trace import Call, Trace, path


class NotPacked(ValueError):
    """A layer that asks for 1 bit was not packed. `convert(strict=True)` raises it.

    Example:
        >>> issubclass(lqf.export.NotPacked, ValueError)
        True
    """


@dataclasses.dataclass(frozen=True)
class LayerRecord:
    """A kernel of the model, and its form in the file.

    Args:
        name: Path of the layer in the model; of layers with several kernels, with the kernel's
            name.
        layer: Class of the layer.
        weight_bits: Bits per weight that the kernel's quantizer asks for, 32 without one.
        input_bits: Bits per input that the layer computes with, 32 without input quantizer.
        operator: What the file computes the layer with; several joined by " + ".
        weights: Number of weights.
        bytes: Bytes of the weights in the file.
        packed: Whether the file holds it as 1-bit weights.
        reason: Why not, where 1 bit was asked for; otherwise empty.
        suggestion: What to change; empty like `reason`.

    Example:
        >>> binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
        >>> layer = lq.layers.QuantDense(8, name="dense", input_shape=(32,), **binary)
        >>> exported = lqf.export.convert(tf.keras.Sequential([layer]))
        >>> record = exported.report.layers[0]
        >>> record.operator, record.weights, record.bytes
        ('LceBconv2d', 256, 32)
    """

    name: str
    layer: str
    weight_bits: int
    input_bits: int
    operator: str
    weights: int
    bytes: int
    packed: bool
    reason: str = ""
    suggestion: str = ""


@dataclasses.dataclass(frozen=True)
class Report:
    """The contents of a .tflite file, by layer and in total. Prints as a table.

    Args:
        layers: One record for each kernel, in the order in which the layers are called.
        file_bytes: Size of the file, in bytes.
        binary_operators: Number of Larq Compute Engine's operators in the file.
        float_operators: Number of all others, in floats or int8.
        binary_macs: Multiplications with their additions that are done on single bits, per sample.
        float_macs: All others, per sample.
        engines: Which of Larq Compute Engine's implementations can run the file: 'default',
            'indirect', 'reference'.

    Example:
        >>> binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
        >>> model = tf.keras.Sequential([
        ...     lq.layers.QuantConv2D(32, 3, name="conv", input_shape=(8, 8, 32), **binary),
        ... ])
        >>> report = lqf.export.convert(model).report
        >>> print(report)
        layer                         bits  operator                  bytes  packed
        conv                           1/1  LceBconv2d                1,152     yes
        ...
        >>> report.to_dict()["totals"]["binary_weight_bytes_as_floats"]
        36864
    """

    layers: tuple[LayerRecord, ...]
    file_bytes: int
    binary_operators: int
    float_operators: int
    binary_macs: int
    float_macs: int
    engines: tuple[str, ...]

    @property
    def kernels(self) -> tuple[str, ...]:
        """The old name of `engines`."""
        warn(
            "Report.kernels is deprecated, and the next version will not have it. Use "
            "Report.engines.",
            DeprecationWarning,
        )
        return self.engines

    @property
    def unpacked(self) -> tuple[LayerRecord, ...]:
        """The layers that asked for 1 bit and were not packed."""
        return tuple(r for r in self.layers if r.weight_bits == 1 and not r.packed)

    @property
    def binary_weight_bytes(self) -> int:
        """Bytes in the file of the weights that asked for 1 bit."""
        return sum(r.bytes for r in self.layers if r.weight_bits == 1)

    @property
    def binary_weight_bytes_as_floats(self) -> int:
        """Bytes that the same weights would take as 4-byte floats."""
        return sum(4 * r.weights for r in self.layers if r.weight_bits == 1)

    def to_dict(self) -> dict[str, Any]:
        """All of the report, of types that JSON has."""
        return {
            "layers": [dataclasses.asdict(record) for record in self.layers],
            "totals": {
                "file_bytes": self.file_bytes,
                "binary_weight_bytes": self.binary_weight_bytes,
                "binary_weight_bytes_as_floats": self.binary_weight_bytes_as_floats,
                "binary_operators": self.binary_operators,
                "float_operators": self.float_operators,
                "binary_macs": self.binary_macs,
                "float_macs": self.float_macs,
            },
            "engines": list(self.engines),
            "kernels": list(self.engines),  # the old name, for one version
        }

    def __str__(self) -> str:
        return "\n".join([*table(*self._table()), "", *self._totals()])

    def _repr_html_(self) -> str:
        return html_table(*self._table(), below="\n".join(self._totals()))

    def _table(self) -> tuple[list[Sequence[str]], Sequence[int]]:
        rows: list[Sequence[str]] = [("layer", "bits", "", "operator", "bytes", "packed")]
        for r in self.layers:
            packed = "yes" if r.packed else "NO" if r.weight_bits == 1 else "-"
            bits = f"{r.weight_bits}/{r.input_bits}"
            rows.append((r.name, bits, "", r.operator, f"{r.bytes:,}", packed))
        return rows, (28, -6, 2, 20, -11, -8)

    def _totals(self) -> list[str]:
        asked = [r for r in self.layers if r.weight_bits == 1]
        lines = [
            f"packed              {sum(r.packed for r in asked)} of {len(asked)} layers that ask "
            "for 1-bit weights",
            f"file                {self.file_bytes:,} bytes",
            f"binary weights      {self.binary_weight_bytes:,} bytes, "
            f"{self.binary_weight_bytes_as_floats:,} as floats",
            f"operators           {self.binary_operators} binary, {self.float_operators} others",
            f"multiply-adds       {self.binary_macs:,} binary, {self.float_macs:,} others",
        ]
        if "default" not in self.engines:
            lines.append(f"runs with           {' and '.join(self.engines) or 'no'} engines only")
        for r in self.unpacked:
            text = f"not packed: {r.name}, because {r.reason}: {r.suggestion}"
            lines += ["", *textwrap.wrap(text, WIDTH)]
        return lines

    def check_packed(self) -> None:
        """Refuses a file in which a layer that asks for 1 bit is not packed.

        Raises:
            NotPacked: There is one.
        """
        if not any(r.weight_bits == 1 for r in self.layers):
            raise NotPacked(
                "strict export is for models with 1-bit weights, and no layer asks for any. Set a "
                "kernel quantizer such as 'ste_sign', or export without strict. Received: "
                f"{len(self.layers)} layers"
            )
        if not self.unpacked:
            return
        reasons = "; ".join(
            f"layer '{r.name}' is not packed, as {r.reason} ({r.suggestion})" for r in self.unpacked
        )
        raise NotPacked(
            f"strict export needs every layer that asks for 1 bit to be packed: {reasons}. "
            f"Received: {len(self.unpacked)} of {len(self.layers)} layers not packed, computed by "
            f"{[r.operator for r in self.unpacked]}"
        )


def make_report(
    file: File, kernels: list[Kernel], traced: Trace, *, pack_dense: bool, target: str
) -> Report:
    """The report on a file, of the kernels that its model calls."""
    order = list(traced.calls)
    kernels = sorted(
        kernels, key=lambda k: order.index(id(k.layer)) if id(k.layer) in order else len(order)
    )
    records = []
    for kernel, operators in zip(kernels, _packing.match(file, kernels, traced.calls), strict=True):
        call = traced.calls.get(id(kernel.layer))
        if call is None:  # in a tf.function that keeps its trace; or not used at all
            if not operators:
                continue
            call = Call([], _rewrite.is_binarized(kernel.layer, None))
        packed = bool(operators) and all(op.name == "LceBconv2d" for op in operators)
        why = suggestion = ""
        if kernel.precision == 1 and not packed:
            why, suggestion = _packing.reason(
                kernel, call, operators, pack_dense=pack_dense, target=target
            )
        operators = operators or _packing.unmatched(file, call)
        several = sum(k.layer is kernel.layer for k in kernels) > 1
        records.append(
            LayerRecord(
                name=(path(call.scopes[0]) if call.scopes else kernel.layer.name)
                + (f"/{kernel.attribute}" if several else ""),
                layer=type(kernel.layer).__name__,
                weight_bits=kernel.precision,
                input_bits=_input_bits(kernel, call.binarized),
                operator=_names(operators),
                weights=kernel.values.size,
                bytes=_bytes(operators),
                packed=packed,
                reason=why,
                suggestion=suggestion,
            )
        )
    binary = [op for op in file.operators if op.is_binary]
    others = [op for op in file.operators if not op.is_binary]
    return Report(
        layers=tuple(records),
        file_bytes=file.size,
        binary_operators=len(binary),
        float_operators=len(others),
        binary_macs=sum(op.macs for op in binary),
        float_macs=sum(op.macs for op in others),
        engines=file.engines,
    )


def _input_bits(kernel: Kernel, binarized: bool) -> int:
    if kernel.attribute == "pointwise_kernel":
        return 32  # its input is what the depthwise kernel made
    quantizer = getattr(kernel.layer, "input_quantizer", None)
    return getattr(quantizer, "precision", None) or (1 if binarized else 32)


def _names(operators: list[Operator]) -> str:
    counts: dict[str, int] = {}
    for op in operators:
        counts[op.name] = counts.get(op.name, 0) + 1
    return " + ".join(n if c == 1 else f"{c} {n}" for n, c in counts.items()) or "not found"


def _bytes(operators: list[Operator]) -> int:
    buffers = {op.weights.buffer: op.weights.data for op in operators if op.weights is not None}
    return sum(data.nbytes for data in buffers.values() if data is not None)
