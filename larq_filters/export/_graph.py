"""Traced graphs that Larq Compute Engine's converter would misinterpret.

The converter recognises binary layers by patterns of operators, and two of its patterns also match
graphs that compute something else. It then gives a file with other outputs, and says nothing.
"""

from typing import Any

import tensorflow as tf

_PASS_ON = ("Identity", "Reshape", "Squeeze", "ExpandDims")
_MERGED = ("Identity", "BiasAdd", "FusedBatchNormV3", "Relu", "Relu6", "Maximum", "Minimum")
_ELEMENTWISE = ("Add", "AddV2", "Sub", "Mul", "RealDiv")


def source(tensor: Any) -> Any:
    """The tensor behind operators that pass values on as they are."""
    while tensor.op.type in _PASS_ON or tensor.op.type == "IdentityN":
        tensor = tensor.op.inputs[tensor.value_index if tensor.op.type == "IdentityN" else 0]
    return tensor


def is_binary_sign(operation: Any) -> bool:
    """Whether an operation is larq's sign(sign(x) + c) with 0 < c < 1, which is never 0."""
    if not _is_sign_of_sum(operation):
        return False
    values = [tf.get_static_value(t) for t in operation.inputs[0].op.inputs]
    return any(value is not None and value.ndim == 0 and 0 < value < 1 for value in values)


def check(graph: Any, binary: dict[str, str]) -> None:
    """Refuses a graph that the converter would misinterpret.

    Args:
        graph: A traced function's graph.
        binary: Names of layers with binary kernels, by their name scopes.

    Raises:
        ValueError: A sum of signs whose sign is not binary, or right behind a binary convolution a
            constant that varies over positions, or a factor of more than one dimension.
    """
    for operation in graph.get_operations():
        if _is_sign_of_sum(operation) and not is_binary_sign(operation):
            raise ValueError(
                "Larq Compute Engine would treat sign(sign(a) + b) as binary, but it can be 0 "
                "here. Use 'ste_sign', or larq.quantizers.SteTern as a layer's input quantizer. "
                f"Received: operation '{operation.name}'"
            )
        if operation.type in _ELEMENTWISE:
            layer = _convolution_before(operation, binary)
            if layer is not None:
                raise ValueError(
                    f"Larq Compute Engine would merge a constant into the binary convolution "
                    f"'{layer}' incorrectly. Give the constant the shape (channels,), or put a "
                    "layer such as PReLU between the two. "
                    f"Received: operation '{operation.name}'"
                )


def _is_sign_of_sum(operation: Any) -> bool:
    """The converter's pattern: sign(sign(x) + anything)."""
    if operation.type != "Sign" or operation.inputs[0].op.type not in ("Add", "AddV2"):
        return False
    terms = [term.op.type for term in operation.inputs[0].op.inputs]
    return "Sign" in terms


def _convolution_before(operation: Any, binary: dict[str, str]) -> str | None:
    """The binary layer that a constant of this operation would be merged into in a wrong way."""
    pairs = [tuple(operation.inputs)]
    if operation.type not in ("Sub", "RealDiv"):
        pairs.append((pairs[0][1], pairs[0][0]))
    for value, other in pairs:
        shape, is_sum = other.shape, operation.type in ("Add", "AddV2", "Sub")
        if shape.rank is not None and (
            shape.rank <= 1 or (is_sum and all(n == 1 for n in shape[:-1]))
        ):
            continue
        if not _is_constant(other):
            continue
        behind = value
        while True:
            kind = behind.op.type
            if kind == "Conv2D":
                scope = behind.op.name
                return next((n for s, n in binary.items() if scope.startswith(f"{s}/")), None)
            if kind in _ELEMENTWISE:
                constant = [_is_constant(t) for t in behind.op.inputs]
                if not any(constant):
                    break
                behind = behind.op.inputs[1 if constant[0] else 0]
            elif kind in _MERGED:
                behind = behind.op.inputs[0]
            else:
                break
    return None


def _is_constant(tensor: Any) -> bool:
    """Whether a tensor depends on the weights only, not on the inputs."""
    seen, todo = set(), [tensor.op]
    while todo:
        operation = todo.pop()
        if operation.type == "Placeholder":
            if operation.outputs[0].dtype != tf.resource:
                return False
        elif operation.name not in seen:
            seen.add(operation.name)
            todo.extend(t.op for t in operation.inputs)
    return True
