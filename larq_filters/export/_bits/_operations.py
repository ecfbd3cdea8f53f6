"""Operations of a frozen graph: the layer of one, its shapes and padding, and what is refused."""

from collections.abc import Sequence
from typing import Any

from larq_filters.export._trace import path

RESHAPES = ("Reshape", "Squeeze", "ExpandDims")


def layer(op: Any) -> str:
    """The path of the layer that an operation belongs to."""
    scope = path(op.name)
    return scope.rsplit("/", 1)[0] if "/" in scope else scope


def refusal(op: Any, reason: str, way_out: str) -> ValueError:
    """What is raised for a layer that the program has no code for."""
    return ValueError(
        f"layer '{layer(op)}' cannot be written as bits, as {reason}: {way_out}, or use "
        f"export.convert. Received: operation '{op.name}' of type {op.type}"
    )


def fixed_shape(tensor: Any) -> tuple[int, ...]:
    """The shape of a tensor, none of whose axes may be open."""
    if tensor.shape.rank is None or None in tuple(tensor.shape):
        raise refusal(tensor.op, "its shape is not fixed", "give it one")
    return tuple(tensor.shape)


def check_batch(op: Any, shape: Sequence[int]) -> None:
    """Refuses what works on more than one sample: the program has one."""
    if shape[0] != 1:
        raise refusal(
            op, "an axis is folded into the batch", "export a model of one slice along this axis"
        )


def is_same(op: Any) -> bool:
    """Whether a convolution or pooling has padding 'same'."""
    return op.get_attr("padding") == b"SAME"


def plane(shape: Sequence[int]) -> tuple[int, int]:
    """Height and width of a shape with batch and channels; the height is 1 where there is none."""
    return (1, *shape[1:-1])[-2:]  # type: ignore[return-value]


def same_padding(
    before: Any, after: Any, size: Any, strides: Any, dilations: Any
) -> tuple[int, int]:
    """The rows above and the columns to the left that padding 'same' adds."""
    pads = []
    for i, (one, two) in enumerate(zip(plane(before), plane(after), strict=True)):
        reach = (two - 1) * strides[i] + (size[i] - 1) * dilations[i] + 1
        pads.append(max(0, reach - one) // 2)
    return pads[0], pads[1]


def convolution(op: Any) -> Any:
    """The convolution between SpaceToBatchND and BatchToSpaceND."""
    op = op.inputs[0].op
    while op.type in RESHAPES:
        op = op.inputs[0].op
    if op.type not in ("Conv2D", "DepthwiseConv2dNative"):
        raise refusal(op, "it is no dilated convolution", "use Conv2D")
    return op


def dilated(op: Any) -> Any:
    """The SpaceToBatchND before such a convolution."""
    op = convolution(op).inputs[0].op
    while op.type in RESHAPES:
        op = op.inputs[0].op
    return op
