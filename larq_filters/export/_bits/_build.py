"""From a graph's nodes to a network: which of them make a step together, and what it is."""

from collections.abc import Sequence
from typing import Any

from larq_filters.export._bits import _fold, _lines, _rewrite
from larq_filters.export._bits._network import (
    WORD,
    Network,
    Step,
    Tensor,
    Window,
    check_finite,
    pack,
)
from larq_filters.export._bits._nodes import LINES, Graph, Node
from larq_filters.export._bits._operations import plane, refusal
from larq_filters.export._bits._padding import is_pad, unpadded
from larq_filters.export._bits._regions import Regions

import numpy as np


def build(graph: Graph) -> Network:
    """The network of a model's graph."""
    outputs = graph.outputs()
    return _Builder(graph, outputs, _rewrite.rewrite(outputs)).build()


class _Builder:
    def __init__(self, graph: Graph, outputs: Sequence[Node], order: Sequence[Node]) -> None:
        self._graph, self._outputs = graph, outputs
        self._regions = Regions(order, outputs)
        self._order = order
        self._tensors: list[Tensor] = []
        self._steps: list[Step] = []
        self._arrays: dict[str, np.ndarray] = {}
        self._made: dict[int, int] = {}  # tensors, by the id of their node
        self._sums: dict[int, tuple[int, int]] = {}  # of integer tensors: the largest, and the step
        self._floats: dict[int, int] = {}  # copies of bits as floats

    def build(self) -> Network:
        for node in self._graph.inputs:
            self._made[id(node)] = self._add_tensor("float", node.shape)
        for node in self._order:
            if not is_pad(node) and node.kind != "input" and self._regions.is_root(node):
                self._made[id(node)] = self._make(node)
        outputs: list[int] = []
        for node, name in zip(self._outputs, self._graph.names[1], strict=True):
            number = self._number(node)
            taken = [self._root(n) for n in range(len(self._graph.inputs))]
            taken += [self._root(n) for n in outputs]
            if self._tensors[number].kind != "float" or self._root(number) in taken:
                number = self._add_copy(number, name)
            outputs.append(number)
        inputs = range(len(self._graph.inputs))
        return Network(
            tuple(zip(self._graph.names[0], inputs, strict=False)),
            tuple(zip(self._graph.names[1], outputs, strict=True)),
            tuple(self._tensors),
            tuple(self._steps),
            self._arrays,
        )

    def _make(self, node: Node) -> int:
        """The tensor of a node that is kept, and the step that makes it."""
        if node.kind == "reshape":
            return self._reshape(node)
        if node.kind == "concat":
            return self._concat(node)
        producer = self._regions.producer(node)
        if node is producer and node.kind == "pool" and _is_max(node):
            if self._tensors[self._number(node.inputs[0])].kind == "bits":
                return self._add_step(node, node, self._pool(node, of_bits=True), "bits")
        fields = {} if producer is None else self._produce(producer)
        if node.kind != "binarize":
            is_int = node is producer and self._is_int(fields) and self._may_be_int(node)
            if is_int:
                number = self._add_step(node, producer, fields, "int")
                self._sums[number] = self._reach(fields)
                return number
            return self._add_step(node, producer, fields, "float", self._code(node, producer))
        code = self._code(node, producer)
        folded, note = self._fold(node, producer, fields, code)
        return self._add_step(node, producer, fields, "bits", () if folded else code, folded, note)

    # Steps and tensors

    def _number(self, node: Node) -> int:
        """The tensor of a node's values."""
        if id(node) not in self._made:
            raise refusal(
                node.tensor.op,
                "only convolutions pad here",
                "put the padding before one, and before each one of its own",
            )
        return self._made[id(node)]

    def _add_tensor(self, kind: str, shape: Sequence[int], alias: int = -1) -> int:
        self._tensors.append(Tensor(kind, tuple(int(n) for n in shape), alias))
        return len(self._tensors) - 1

    def _add_array(self, role: str, values: Any) -> str:
        name = f"s{len(self._steps)}.{role}"
        self._arrays[name] = np.array(values, order="C")  # a copy, also of a single number
        return name

    def _add_step(
        self,
        node: Node,
        producer: Node | None,
        fields: dict[str, Any],
        kind: str,
        code: Sequence[tuple[str, ...]] = (),
        folded: _fold.Folded | None = None,
        note: str = "",
    ) -> int:
        output = self._add_tensor(kind, node.shape)
        known = {"kind": "map", "inputs": (), **fields}
        if folded is not None:
            known["thresholds"] = self._add_array("thresholds", folded.thresholds)
            known["flips"] = self._add_array("flips", pack(np.where(folded.flips, 1, -1)))
            known["edges"] = folded.edges
            if producer is None:
                known["inputs"] = (self._made[id(self._regions.leaves(node)[0])],)
        name = (node if producer is None else producer).name
        self._steps.append(Step(name=name, output=output, code=tuple(code), note=note, **known))
        return output

    def _add_copy(self, number: int, name: str) -> int:
        """A tensor of the same values as floats, in memory of its own."""
        output = self._add_tensor("float", self._tensors[number].shape)
        code = (("copy", f"t{number}"),)
        self._steps.append(Step(kind="map", name=name, inputs=(), output=output, code=code))
        return output

    def _root(self, number: int) -> int:
        alias = self._tensors[number].alias
        return number if alias < 0 else self._root(alias)

    def _reshape(self, node: Node) -> int:
        return self._in_shape(self._number(node.inputs[0]), node.shape, node.name)

    def _in_shape(self, number: int, shape: Sequence[int], name: str) -> int:
        before = self._tensors[number]
        aligned = before.channels % WORD == 0 == shape[-1] % WORD
        if before.kind != "bits" or before.channels == shape[-1] or aligned:
            output = self._add_tensor(before.kind, shape, number)
            if number in self._sums:
                self._sums[output] = self._sums[number]
            return output
        output = self._add_tensor("bits", shape)
        self._steps.append(Step(kind="copy", name=name, inputs=(number,), output=output))
        return output

    def _concat(self, node: Node) -> int:
        numbers = [self._number(i) for i in node.nodes]
        if len(numbers) != len(node.inputs):
            raise refusal(node.tensor.op, "it concatenates a constant", "leave it out")
        kinds = {self._tensors[n].kind for n in numbers}
        if kinds != {"bits"}:
            numbers = [self._as_floats(n, node.name) for n in numbers]
        output = self._add_tensor("bits" if kinds == {"bits"} else "float", node.shape)
        step = Step(kind="concat", name=node.name, inputs=tuple(numbers), output=output)
        self._steps.append(step)
        return output

    def _as_floats(self, number: int, name: str) -> int:
        if self._tensors[number].kind == "float":
            return number
        if number not in self._floats:
            self._floats[number] = self._add_copy(number, name)
        return self._floats[number]

    # What sums come from

    def _produce(self, node: Node) -> dict[str, Any]:
        return self._pool(node) if node.kind == "pool" else self._conv(node)

    def _pool(self, node: Node, of_bits: bool = False) -> dict[str, Any]:
        known, source = node.attributes, node.inputs[0]
        number = self._number(source)
        is_bits = self._tensors[number].kind == "bits" and not of_bits
        if is_bits or not _is_max(node):
            number = self._as_floats(number, node.name)
        ends = known["in"], known["out"]
        sizes = (1, source.shape[-1], node.shape[-1], *known["size"])
        window = _window(*ends, sizes, known["strides"], (1, 1), known["before"], 0)
        return {"kind": known["mode"], "inputs": (number,), "window": window}

    def _conv(self, node: Node) -> dict[str, Any]:
        known, source = node.attributes, node.inputs[0]
        weights, kernel, before, pad = known["weights"], known["kernel"], known["before"], 0
        size = known["in"]
        if is_pad(source):
            source, before, pad = unpadded(node, source)
            size = plane(source.shape)
        number = self._number(source)
        rows, columns, channels, filters = weights.shape
        groups = source.shape[-1] // channels
        bits = self._tensors[number].kind == "bits" and kernel is not None
        if bits and groups > 1:
            number = self._in_shape(number, (*source.shape[:-1], groups, channels), node.name)
        if not bits:
            number = self._as_floats(number, node.name)
            if pad:
                raise refusal(node.tensor.op, f"it pads floats with {pad}", "pad with 0")
        sizes = (channels, groups, filters, rows, columns)
        window = _window(
            size, known["out"], sizes, known["strides"], known["dilations"], before, pad
        )
        if kernel is None:
            name = self._add_array("kernel", weights.astype(np.float32))
            return {"kind": "real", "inputs": (number,), "window": window, "weights": name}
        if window.taps >= 2**24:
            raise refusal(node.tensor.op, "a sum has 2²⁴ terms or more", "use a smaller kernel")
        name = self._add_array("kernel", pack(np.moveaxis(weights, -1, 0)))
        kind = "binary" if bits else "signs"
        return {"kind": kind, "inputs": (number,), "window": window, "weights": name}

    # Integers, and what is folded

    def _is_int(self, fields: dict[str, Any]) -> bool:
        if fields["kind"] == "max":
            return self._tensors[fields["inputs"][0]].kind == "int"
        return fields["kind"] == "binary"

    def _may_be_int(self, node: Node) -> bool:
        """Whether all that use a node can read integers."""
        if any(node is output for output in self._outputs):
            return False
        for user in self._regions.users(node):
            if user.kind == "reshape" or (user.kind == "pool" and _is_max(user)):
                if not self._may_be_int(user):
                    return False
            elif user.kind != "binarize" and user.kind not in LINES:
                return False
        return True

    def _reach(self, fields: dict[str, Any]) -> tuple[int, int]:
        """The largest sum, and the distance of a sum from the next."""
        window: Window = fields["window"]
        if fields["kind"] == "max":
            return self._sums[fields["inputs"][0]]
        return window.taps, 1 if window.is_padded and window.pad == 0 else 2

    def _fold(
        self, node: Node, producer: Node | None, fields: dict[str, Any], code: Any
    ) -> tuple[_fold.Folded | None, str]:
        """Thresholds of a sign, or why there are none."""
        leaves = self._regions.leaves(node)
        source = producer
        if producer is None and len(leaves) == 1:
            source = leaves[0]
        if source is None or len(leaves) > (producer is None):
            return None, "several values are added"
        if producer is not None and not self._is_int(fields):
            return None, "its sums are of floats"
        if producer is None and self._made[id(source)] not in self._sums:
            return None, "its argument is a float"
        largest, step = self._reach(fields) if producer else self._sums[self._made[id(source)]]
        names = {a for line in code for a in line[1:] if a in self._arrays}
        constants = {name: self._arrays[name] for name in names}
        if any(values.ndim > 1 for values in constants.values()):
            return None, "a constant varies over positions"
        if producer is None:  # lines read the tensor, which is the sum here
            mine = f"t{self._made[id(source)]}"
            code = [tuple("sum" if a == mine else a for a in line) for line in code]
        check_finite(source.name if producer is None else producer.name, constants.values())
        run = self._graph.run(source.tensor, node.inputs[0].tensor)
        scale = source.attributes.get("scale")
        folded = _fold.fold(run, source.shape, scale, largest, step, code, constants)
        if folded is None:
            return None, "the sign turns more than once"
        for name in names:
            del self._arrays[name]
        return folded, ""

    def _code(self, node: Node, producer: Node | None) -> tuple[tuple[str, ...], ...]:
        """What becomes of a sum, for a node that is kept."""

        def tensor(value: Node) -> str:
            return f"t{self._number(value)}"

        members = self._regions.members(node)
        return _lines.code(node, producer, members, self._add_array, tensor)


def _is_max(node: Node) -> bool:
    return node.attributes["mode"] == "max"


def _window(
    size: tuple[int, int],
    out: tuple[int, int],
    sizes: Sequence[int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    before: tuple[int, int],
    pad: int,
) -> Window:
    channels, groups, filters, rows, columns = map(int, sizes)
    return Window(
        height=int(size[0]),
        width=int(size[1]),
        channels=channels,
        groups=groups,
        out_height=int(out[0]),
        out_width=int(out[1]),
        filters=filters,
        rows=rows,
        columns=columns,
        strides=(int(strides[0]), int(strides[1])),
        dilations=(int(dilations[0]), int(dilations[1])),
        top=int(before[0]),
        left=int(before[1]),
        pad=pad,
    )
