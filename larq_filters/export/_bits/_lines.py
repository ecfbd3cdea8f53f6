"""The code of a step: what is worked out of a sum, one operation a line."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from larq_filters.export._bits._nodes import LINES, Node
from larq_filters.export._bits._operations import refusal

import numpy as np


def code(
    node: Node,
    producer: Node | None,
    members: Sequence[Node],
    add_array: Callable[[str, Any], str],
    tensor: Callable[[Node], str],
) -> tuple[tuple[str, ...], ...]:
    """The lines of a node that is kept.

    Args:
        node: The node.
        producer: The convolution or pooling whose sums they work on, if there is one.
        members: What is worked out with the node, each behind its inputs.
        add_array: What keeps a constant, by its role, and gives its name.
        tensor: The name of a kept node's tensor.
    """
    lines: dict[int, int] = {}
    made: list[tuple[str, ...]] = []

    def operand(value: Any, role: str = "copied") -> str:
        if not isinstance(value, Node):
            return add_array(role, _constant(value, node.shape))
        if value is producer:
            return "sum"
        if id(value) in lines:
            return f"v{lines[id(value)]}"
        _check_shape(value, node)
        return tensor(value)

    for member in members:
        if member.kind in LINES:
            roles = (f"c{len(made)}a", f"c{len(made)}")
            made.append((member.kind, *map(operand, member.inputs, roles)))
            lines[id(member)] = len(made) - 1
    if not made and producer is None:
        made.append(("copy", operand(node.inputs[0])))
    return tuple(made)


def _check_shape(value: Node, node: Node) -> None:
    positions = math.prod(value.shape[:-1])
    if positions not in (1, math.prod(node.shape[:-1])) or (
        value.shape[-1] not in (1, node.shape[-1])
    ):
        raise refusal(node.tensor.op, "its operands have other shapes", "use equal shapes")


def _constant(value: Any, shape: Sequence[int]) -> np.ndarray:
    """A constant as a number, one for each channel, or one for each element."""
    array = np.asarray(value, np.float32)
    if array.size == 1:
        return array.reshape(())
    if array.size == array.shape[-1] == shape[-1]:
        return array.reshape(-1)
    return np.broadcast_to(array, shape).reshape(-1, shape[-1])
