"""What became of each layer in a packed network."""

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from larq_filters._text import WIDTH, html_table, table
from larq_filters.export._bits import _memory
from larq_filters.export._bits._network import Network, Step
from larq_filters.export._report import NotPacked

_KINDS = {"binary": "1 bit", "signs": "1 bit, real input", "real": "float", "int8": "int8"}


@dataclasses.dataclass(frozen=True)
class BitsRecord:
    """A layer with a kernel or with a sign, and what became of it.

    Args:
        name: Path of the layer in the model, and of a part of it where the layer has several:
            `dense/Tensordot` on inputs of more axes than two, `dense/ste_sign` for the sign of its
            inputs, `conv/separable_conv2d` and `conv` for the two kernels of a separable one.
        kind: 'binary' (XNOR and popcount), 'signs' (real inputs, binary weights), 'real', 'int8',
            or 'map' where there is a sign and no kernel.
        weights: Number of weights.
        bytes: Bytes of the kernel.
        sign: How the sign of its outputs is decided: 'thresholds' (of integers), 'floats', or
            empty where its outputs are no signs.
        edges: Channels in which Keras' rounding of floats decides a threshold: there, a sum is so
            near to it that another processor may round it to the other side.
        reason: Why the sign is of floats.

    Example:
        >>> binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
        >>> model = tf.keras.Sequential([
        ...     lq.layers.QuantDense(8, name="one", input_shape=(32,), **binary),
        ...     tf.keras.layers.BatchNormalization(),
        ...     lq.layers.QuantDense(4, name="two", **binary),
        ... ])
        >>> record = lqf.export.bits(model).report.layers[1]
        >>> record.name, record.weights, record.bytes, record.sign
        ('one', 256, 32, 'thresholds')
    """

    name: str
    kind: str
    weights: int
    bytes: int
    sign: str
    edges: int
    reason: str


@dataclasses.dataclass(frozen=True)
class BitsReport:
    """What a packed network holds, layer by layer and in total; prints as a table.

    Args:
        layers: One record for each layer with a kernel or a sign, in the order of computation.
        constant_bytes: Bytes of all arrays, for read-only memory; code comes on top.
        buffer_bytes: Bytes of the C program's static buffers.
        binary_macs: Multiplications with their additions on single bits, per sample.
        other_macs: All others, per sample.
        accuracy: With 8-bit real layers, what the representative inputs gave: 'samples',
            'agreement' (share of equal arg max in 8 bits and in floats), and with labels 'floats'
            and 'int8' (shares that are right). Otherwise empty.

    Example:
        >>> binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
        >>> layer = lq.layers.QuantDense(8, name="dense", input_shape=(32,), **binary)
        >>> report = lqf.export.bits(tf.keras.Sequential([layer])).report
        >>> print(report)
        layer                         weights               bytes  sign         edges
        dense/ste_sign...             no weights                0  floats
        dense                         1 bit                    32
        ...
        >>> report.constant_bytes, report.buffer_bytes
        (64, 4)
    """

    layers: tuple[BitsRecord, ...]
    constant_bytes: int
    buffer_bytes: int
    binary_macs: int
    other_macs: int
    accuracy: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """All of it, of types that JSON has."""
        return {**dataclasses.asdict(self), "layers": [dataclasses.asdict(r) for r in self.layers]}

    def check_packed(self) -> None:
        """Refuses a network without 1-bit weights.

        Raises:
            NotPacked: No layer has any.
        """
        if not any(r.kind in ("binary", "signs") for r in self.layers):
            raise NotPacked(
                "strict export is for models with 1-bit weights, and no layer asks for any: set a "
                "kernel quantizer such as 'ste_sign', or export without strict. Received: "
                f"{sum(r.weights > 0 for r in self.layers)} layers with weights"
            )

    def __str__(self) -> str:
        return "\n".join([*table(*self._table()), "", *self._totals()])

    def _repr_html_(self) -> str:
        return html_table(*self._table(), below="\n".join(self._totals()))

    def _table(self) -> tuple[list[Sequence[str]], Sequence[int]]:
        rows: list[Sequence[str]] = [("layer", "", "weights", "bytes", "", "sign", "edges")]
        for r in self.layers:
            kind = _KINDS.get(r.kind, "no weights")
            edges = str(r.edges) if r.sign == "thresholds" else ""
            rows.append((r.name, "", kind, f"{r.bytes:,}", "", r.sign, edges))
        return rows, (28, 2, 18, -9, 2, 12, -6)

    def _totals(self) -> list[str]:
        signs = [r for r in self.layers if r.sign]
        folded = sum(r.sign == "thresholds" for r in signs)
        lines = [
            f"signs               {folded} of {len(signs)} by integer thresholds, the others in "
            "floats",
            f"constants           {self.constant_bytes:,} bytes, for read-only memory",
            f"buffers             {self.buffer_bytes:,} bytes",
            f"multiply-adds       {self.binary_macs:,} binary, {self.other_macs:,} others",
        ]
        if self.accuracy:
            lines += _accuracy_lines(self.accuracy)
        reasons: dict[str, list[str]] = {}
        for r in signs:
            if r.reason:
                reasons.setdefault(r.reason, []).append(r.name)
        for reason, names in reasons.items():
            more = f" and {len(names) - 2} more" if len(names) > 3 else ""
            named = ", ".join(names[: 2 if more else 3])
            lines += ["", *textwrap.wrap(f"signs in floats because {reason}: {named}{more}", WIDTH)]
        return lines


def _accuracy_lines(accuracy: Mapping[str, float]) -> list[str]:
    samples = int(accuracy["samples"])
    lines = [
        f"8-bit real layers   same arg max as in floats in {accuracy['agreement']:.2%} of "
        f"{samples:,} samples"
    ]
    if "int8" in accuracy:
        lines.append(
            f"accuracy            {accuracy['int8']:.2%} in 8 bits, {accuracy['floats']:.2%} in "
            "floats"
        )
    return lines


def make_report(network: Network, accuracy: Mapping[str, float]) -> BitsReport:
    """The report on a network."""
    records, macs = [], {True: 0, False: 0}
    for step in network.steps:
        window = step.window
        if step.kind in _KINDS and window is not None:
            macs[step.kind == "binary"] += window.macs
        if step.kind in _KINDS or _sign(network, step):
            records.append(_record(network, step))
    return BitsReport(
        layers=tuple(records),
        constant_bytes=sum(array.nbytes for array in network.arrays.values()),
        buffer_bytes=_memory.plan(network).size,
        binary_macs=macs[True],
        other_macs=macs[False],
        accuracy=dict(accuracy),
    )


def _sign(network: Network, step: Step) -> str:
    if step.thresholds:
        return "thresholds"
    is_bits = network.tensors[step.output].kind == "bits"
    return "floats" if is_bits and not network.moves_bits(step) else ""


def _record(network: Network, step: Step) -> BitsRecord:
    kernel = network.arrays.get(step.weights)
    taps = 0 if step.window is None or kernel is None else step.window.taps * step.window.filters
    return BitsRecord(
        name=step.name,
        kind=step.kind,
        weights=taps,
        bytes=0 if kernel is None else kernel.nbytes,
        sign=_sign(network, step),
        edges=len(step.edges),
        reason=step.note,
    )
