"""Padding that a convolution does on the way: a layer's before it becomes a part of its window."""

from larq_filters.export._bits._nodes import Node
from larq_filters.export._bits._operations import plane, refusal


def is_pad(node: Node) -> bool:
    """Whether a node pads; its values are not kept, as a convolution does it on the way."""
    return node.kind == "pad" or (node.kind == "reshape" and is_pad(node.inputs[0]))


def unpadded(node: Node, padded: Node) -> tuple[Node, tuple[int, int], int]:
    """What a convolution reads without its padding, the rows and columns before it, their value.

    Args:
        node: The convolution.
        padded: What it reads, of which `is_pad` is true.

    Raises:
        ValueError: It reads other positions than those that are padded, or the padding has no place
            in a window.
    """
    source = padded
    while source.kind == "reshape":
        source = source.inputs[0]
    pads, value = source.attributes["pads"], source.attributes["value"]
    known, op = node.attributes, source.tensor.op
    if any(map(any, (pads[0], pads[-1]))):
        raise refusal(op, "it pads other axes than positions", "pad positions")
    if plane(source.shape) != tuple(known["in"]) or source.shape[-1] != padded.shape[-1]:
        raise refusal(
            op, "what is padded is reshaped, or read by a dense layer", "pad before a convolution"
        )
    reach = [
        (out - 1) * stride + (size - 1) * dilation + 1
        for out, stride, size, dilation in zip(
            known["out"],
            known["strides"],
            known["weights"].shape[:2],
            known["dilations"],
            strict=True,
        )
    ]
    is_over = value != 0.0 and any(r > n for r, n in zip(reach, known["in"], strict=True))
    if known["before"] != (0, 0) or is_over or is_pad(source.inputs[0]):
        raise refusal(op, "its convolution is padded twice", "pad it once")
    if value not in (-1.0, 0.0, 1.0):
        raise refusal(op, f"it pads with {value:g}", "pad with 1, 0 or -1")
    above = [int(p[0]) for p in ([[0, 0]] + pads[1:-1])[-2:]]
    return source.inputs[0], (above[0], above[1]), int(value)
