"""Exact rewrites of a graph's nodes, after which more of them work on bits."""

import collections
from collections.abc import Sequence

from larq_filters.export._bits._nodes import Node


def rewrite(outputs: Sequence[Node]) -> list[Node]:
    """Rewrites nodes in place; returns all of them, each behind its inputs.

    - One sign for all that take the sign of the same values.
    - The sign of a maximum is the maximum of the signs, as it rises with its argument. So it goes
      before maxima, and before reshapes, concatenations and paddings, which then move bits.
    """
    order = in_order(outputs)
    _merge_signs(order)
    order = in_order(outputs)
    users = collections.Counter(id(i) for node in order for i in node.nodes)
    users.update(id(node) for node in outputs)
    pending = [node for node in order if node.kind == "binarize"]
    while pending:
        sign = pending.pop()
        source = sign.inputs[0]
        if not isinstance(source, Node) or users[id(source)] != 1 or not _moves(source):
            continue
        before = [Node("binarize", sign.name, (i,), i.shape, i.tensor) for i in source.nodes]
        sign.kind, sign.inputs, sign.attributes = source.kind, tuple(before), source.attributes
        if sign.kind == "pad":
            value = 1.0 if source.attributes["value"] >= 0.0 else -1.0
            sign.attributes = {**source.attributes, "value": value}
        pending += before
    return in_order(outputs)


def _moves(node: Node) -> bool:
    if node.kind == "pool":
        return node.attributes["mode"] == "max"
    return node.kind in ("reshape", "concat", "pad") and len(node.nodes) == len(node.inputs)


def _merge_signs(order: Sequence[Node]) -> None:
    first: dict[int, Node] = {}
    for node in order:
        node.inputs = tuple(
            first[id(i.inputs[0])] if isinstance(i, Node) and i.kind == "binarize" else i
            for i in node.inputs
        )
        if node.kind == "binarize":
            first.setdefault(id(node.inputs[0]), node)


def in_order(outputs: Sequence[Node]) -> list[Node]:
    """The nodes that outputs are made of, each behind its inputs."""
    order: dict[int, Node] = {}
    stack = list(reversed(outputs))
    while stack:
        node = stack[-1]
        missing = [i for i in node.nodes if id(i) not in order]
        if not missing:
            order.setdefault(id(node), stack.pop())
        else:
            stack.extend(reversed(missing))
    return list(order.values())
