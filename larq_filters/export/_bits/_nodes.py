"""A model's frozen graph as nodes: what depends on the inputs, with all constants worked out."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from larq_filters.export import _graph
from larq_filters.export._bits._operations import (
    RESHAPES,
    check_batch,
    convolution,
    dilated,
    fixed_shape,
    is_same,
    layer,
    plane,
    refusal,
    same_padding,
)
from larq_filters.export._frozen import Kernel
from larq_filters.export._trace import Trace

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

ELEMENTWISE = {
    "Add": "add",
    "AddV2": "add",
    "BiasAdd": "add",
    "Sub": "sub",
    "Mul": "mul",
    "RealDiv": "div",
    "Maximum": "max",
    "Minimum": "min",
    "Neg": "neg",
    "Abs": "abs",
    "Square": "square",
    "Relu": "relu",
    "Relu6": "relu6",
    "Sign": "sign",
}
LINES = {*ELEMENTWISE.values(), "leaky"}  # of a step's code
_PASS_ON = ("Identity", "StopGradient", "PreventGradient", "Snapshot")


@dataclasses.dataclass(eq=False)
class Node:
    """An operation on values of one sample.

    Args:
        kind: 'input', 'conv', 'pool', 'concat', 'reshape', 'pad', 'binarize', or one of the
            operations of a step's code.
        name: Path of the layer.
        inputs: What it works on: nodes, and constants.
        shape: Of its output, with the batch axis.
        tensor: The graph's tensor that it stands for.
        attributes: What else there is to know.
    """

    kind: str
    name: str
    inputs: tuple[Any, ...]
    shape: tuple[int, ...]
    tensor: Any
    attributes: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def nodes(self) -> list["Node"]:
        """The inputs that are no constants."""
        return [i for i in self.inputs if isinstance(i, Node)]


class Graph:
    """The graph of a traced model, and what it takes to run parts of it."""

    def __init__(self, traced: Trace, kernels: Sequence[Kernel]) -> None:
        self._frozen = convert_variables_to_constants_v2(traced.function)
        self.names = (traced.inputs, traced.outputs)
        self._binary = [k for k in kernels if k.precision == 1]
        self._constants: dict[str, np.ndarray] = {}
        self._nodes: dict[str, Node] = {}
        self._dynamic = self._find_dynamic()
        found = dict(zip(sorted(traced.outputs), self._frozen.outputs, strict=True))
        self._outputs = [found[name] for name in traced.outputs]

    def run(self, feed: Any, fetch: Any) -> Callable[[Any], Any]:
        """What TensorFlow computes between two tensors of the graph."""
        return (lambda x: x) if feed is fetch else self._frozen.prune(feed, fetch)

    def outputs(self) -> list[Node]:
        """The model's outputs, from which all nodes are reached."""
        by_name = {t.op.name: t for t in self._frozen.inputs}
        for name in self.names[0]:
            tensor = by_name.get(name)
            if tensor is not None:
                if tensor.dtype != tf.float32:
                    raise refusal(tensor.op, f"its type is {tensor.dtype.name}", "take floats")
                self._nodes[tensor.name] = Node("input", name, (), fixed_shape(tensor), tensor)
        self.inputs = [self._nodes[by_name[n].name] for n in self.names[0] if n in by_name]
        return [self._node(tensor) for tensor in self._outputs]

    def _find_dynamic(self) -> set[str]:
        """The tensors that depend on the inputs."""
        dynamic: set[str] = set()
        pending = list(self._frozen.graph.get_operations())
        for op in pending:  # in the order in which they were added, inputs first
            if op.type == "Placeholder" or any(t.name in dynamic for t in op.inputs):
                dynamic.update(t.name for t in op.outputs)
        return dynamic

    def _constant(self, tensor: Any) -> np.ndarray:
        if tensor.name not in self._constants:
            static = tf.get_static_value(tensor)
            if static is None:
                static = self._frozen.prune([], tensor)().numpy()
            self._constants[tensor.name] = np.asarray(static)
        return self._constants[tensor.name]

    def _node(self, tensor: Any) -> Any:
        """The node of a tensor, or an array if it is constant."""
        stack = [tensor]
        while stack:  # deep networks are deeper than Python's recursion
            last = stack[-1]
            if last.name not in self._dynamic or last.name in self._nodes:
                stack.pop()
                continue
            missing = [t for t in self._sources(last) if self._is_missing(t)]
            if missing:
                stack.extend(missing)
                continue
            self._nodes[last.name] = self._make(last)
            stack.pop()
        return self._value(tensor)

    def _is_missing(self, tensor: Any) -> bool:
        return tensor.name in self._dynamic and tensor.name not in self._nodes

    def _value(self, tensor: Any) -> Any:
        known = self._nodes.get(tensor.name)
        return self._constant(tensor) if known is None else known

    def _sources(self, tensor: Any) -> list[Any]:
        """The tensors that a node is made of."""
        op = tensor.op
        if op.type == "IdentityN":
            return [op.inputs[tensor.value_index]]
        if _graph.is_binary_sign(op):
            terms = [t.op for t in op.inputs[0].op.inputs]
            return [next(t for t in terms if t.type == "Sign").inputs[0]]
        if op.type in RESHAPES:
            return [op.inputs[0]]
        if op.type == "BatchToSpaceND":
            return [dilated(op).inputs[0], convolution(op).inputs[1]]
        return list(op.inputs)

    def _make(self, tensor: Any) -> Node:
        op, sources = tensor.op, self._sources(tensor)
        values = tuple(self._value(t) for t in sources)
        name, shape = layer(op), fixed_shape(tensor)
        if op.type in _PASS_ON or op.type == "IdentityN":
            return values[0]
        if _graph.is_binary_sign(op):
            return Node("binarize", name, values[:1], shape, sources[0])
        if op.type in RESHAPES:
            return Node("reshape", name, values, shape, tensor)
        if op.type in ELEMENTWISE:
            return Node(ELEMENTWISE[op.type], name, values, shape, tensor)
        if op.type == "AddN":
            return self._add_all(name, values, shape, tensor)
        if op.type == "LeakyRelu":
            slope = np.float32(op.get_attr("alpha"))
            return Node("leaky", name, (values[0], slope), shape, tensor)
        if op.type == "FusedBatchNormV3":
            return self._batch_norm(op, name, values, shape, tensor)
        if op.type in ("Pad", "PadV2"):
            value = 0.0 if op.type == "Pad" else float(values[2])
            known = {"pads": np.asarray(values[1]).tolist(), "value": value}
            return Node("pad", name, values[:1], shape, tensor, known)
        if op.type == "ConcatV2":
            if int(values[-1]) % len(shape) != len(shape) - 1:
                raise refusal(op, "it concatenates along positions", "concatenate channels")
            return Node("concat", name, values[:-1], shape, tensor)
        if op.type in ("MaxPool", "AvgPool", "Mean", "Max"):
            return self._pool(op, name, values, shape, tensor)
        if op.type in ("Conv2D", "DepthwiseConv2dNative", "MatMul", "BatchToSpaceND"):
            return self._conv(op, name, values, shape, tensor)
        if op.type == "PartitionedCall":
            raise refusal(op, "its channels are in groups", "use groups=1")
        raise refusal(op, f"there is no operation {op.type} in the C program", "leave it out")

    def _add_all(self, name: str, values: Sequence[Any], shape: Any, tensor: Any) -> Node:
        total = values[0]
        for value in values[1:]:
            total = Node("add", name, (total, value), shape, tensor)
        return total

    def _batch_norm(self, op: Any, name: str, values: Any, shape: Any, tensor: Any) -> Node:
        x, gamma, beta, mean, variance = values
        if op.get_attr("is_training") or op.get_attr("data_format") != b"NHWC":
            raise refusal(
                op,
                "it is no batch norm over the last axis with fixed averages",
                "use BatchNormalization(axis=-1), and no LayerNormalization",
            )
        epsilon = np.float32(op.get_attr("epsilon"))
        scale = (gamma / np.sqrt(variance + epsilon)).astype(np.float32)
        shifted = Node("sub", name, (x, mean), shape, tensor)
        scaled = Node("mul", name, (shifted, scale), shape, tensor)
        return Node("add", name, (scaled, beta), shape, tensor)

    def _pool(self, op: Any, name: str, values: Any, shape: Any, tensor: Any) -> Node:
        kind = "max" if op.type in ("MaxPool", "Max") else "average"
        before = values[0].shape
        check_batch(op, before)
        known: dict[str, Any]
        if op.type in ("Mean", "Max"):
            axes = sorted(int(a) % len(before) for a in np.ravel(values[1]))
            if axes != list(range(1, len(before) - 1)):
                raise refusal(op, "it pools over other axes than positions", "pool positions")
            size = (math.prod(before[1:-2]), before[-2])
            known = {"in": size, "size": size, "strides": (1, 1), "before": (0, 0), "out": (1, 1)}
        else:
            if op.get_attr("data_format") != b"NHWC":
                raise refusal(op, "its channels come first", "use channels_last")
            size, strides = (tuple(op.get_attr(a)[1:3]) for a in ("ksize", "strides"))
            pads = same_padding(before, shape, size, strides, (1, 1)) if is_same(op) else (0, 0)
            known = {"in": plane(before), "size": size, "strides": strides, "before": pads}
            known["out"] = shape[1:3]
        return Node("pool", name, values[:1], shape, tensor, {"mode": kind, **known})

    def _conv(self, op: Any, name: str, values: Any, shape: Any, tensor: Any) -> Node:
        x, weights = values[:2]
        if isinstance(weights, Node) or not isinstance(x, Node):
            raise refusal(op, "its kernel depends on the inputs", "use a layer with weights")
        conv, dilations, before = op, (1, 1), (0, 0)
        if op.type == "MatMul":
            if op.get_attr("transpose_a"):
                raise refusal(op, "its input is transposed", "use Dense")
            weights = (weights.T if op.get_attr("transpose_b") else weights)[None, None]
            size = (x.shape[0], 1)  # a dense layer: each row is a position
            known: dict[str, Any] = {"in": size, "out": size, "strides": (1, 1)}
        else:
            check_batch(op, x.shape)
            if op.type == "BatchToSpaceND":
                conv = convolution(op)
                dilations, before = self._space(dilated(op))
                name = layer(conv)
            if conv.get_attr("data_format") != b"NHWC":
                raise refusal(op, "its channels come first", "use channels_last")
            strides = tuple(conv.get_attr("strides")[1:3])
            if conv is op:
                dilations = tuple(conv.get_attr("dilations")[1:3])
                if is_same(conv):
                    before = same_padding(x.shape, shape, weights.shape[:2], strides, dilations)
                elif conv.get_attr("padding") == b"EXPLICIT":
                    pads = conv.get_attr("explicit_paddings")
                    before = (pads[2], pads[4])
            known = {"in": plane(x.shape), "out": plane(shape), "strides": strides}
        if conv.type == "DepthwiseConv2dNative":
            weights = weights.reshape(*weights.shape[:2], 1, -1)
        kernel = self._kernel(weights)
        scale = None if kernel is None else np.abs(weights[0, 0, 0])
        if scale is not None and (scale == 1.0).all():
            scale = None
        known |= {"weights": weights, "dilations": dilations, "before": before}
        known |= {"kernel": kernel, "scale": scale}
        sums = Node("conv", name, (x,), shape, tensor, known)
        return sums if scale is None else Node("mul", name, (sums, scale), shape, tensor)

    def _space(self, op: Any) -> tuple[Any, Any]:
        """The dilations, and the padding above and to the left, of SpaceToBatchND."""
        block, pads = (self._constant(t) for t in op.inputs[1:])
        dilations = (1, *block.tolist())[-2:]
        return dilations, (0, *(int(p[0]) for p in pads))[-2:]

    def _kernel(self, weights: np.ndarray) -> Kernel | None:
        """The binary kernel that some weights are, if they are one."""
        for kernel in self._binary:
            same = kernel.values.size == weights.size
            if same and np.array_equal(kernel.values.ravel(), weights.ravel()):
                return kernel
        return None
