"""What becomes of a sum: the operations of a step's code, in NumPy."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from larq_filters.export._bits._network import is_line

import numpy as np

OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
    "neg": np.negative,
    "abs": np.abs,
    "square": np.square,
    "relu": lambda a: np.maximum(a, a.dtype.type(0)),
    "relu6": lambda a: np.clip(a, a.dtype.type(0), a.dtype.type(6)),
    "leaky": lambda a, slope: np.where(a > 0, a, a * slope),
    "sign": np.sign,
    "copy": lambda a: a,
}
_UNIT = float(np.finfo(np.float32).eps) / 2.0


def evaluate(code: Sequence[tuple[str, ...]], operand: Callable[[str], Any]) -> list[Any]:
    """The result of each line.

    Args:
        code: Lines of operation and operands.
        operand: What an operand is that is no line.
    """
    lines: list[Any] = []
    for name, *operands in code:
        values = [lines[int(a[1:])] if is_line(a) else operand(a) for a in operands]
        lines.append(OPERATIONS[name](*values))
    return lines


def with_error(
    code: Sequence[tuple[str, ...]],
    constants: Mapping[str, np.ndarray],
    sums: np.ndarray,
    error: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The result in float64, and a bound of what float32 rounds in whichever order it multiplies.

    Args:
        code: Lines of operation and operands.
        constants: By name; each may be two units in the last place off.
        sums: The exact sums.
        error: Of the sums.
    """
    lines: list[tuple[Any, Any]] = []

    def operand(name: str) -> tuple[Any, Any]:
        if name == "sum":
            return sums, error
        if is_line(name):
            return lines[int(name[1:])]
        value = constants[name].astype(np.float64)
        return value, 4.0 * _UNIT * np.abs(value)

    for name, *names in code:
        values, errors = zip(*map(operand, names), strict=True)
        result = OPERATIONS[name](*values)
        lines.append((result, _error(name, values, errors, result)))
    return lines[-1] if lines else (sums, error)


def _error(name: str, values: Sequence[Any], errors: Sequence[Any], result: Any) -> Any:
    rounded = _UNIT * np.abs(result)
    if name in ("add", "sub"):
        return errors[0] + errors[1] + rounded
    if name in ("mul", "leaky", "square"):
        one, two = (values[0], values[-1]), (errors[0], errors[-1])
        product = np.abs(one[0]) * two[1] + np.abs(one[1]) * two[0] + two[0] * two[1] + rounded
        return np.maximum(product, errors[0]) if name == "leaky" else product
    if name == "div":
        return (errors[0] + np.abs(result) * errors[1]) / np.abs(values[1]) + rounded
    if name in ("max", "min"):
        return np.maximum(errors[0], errors[1])
    if name == "sign":
        return np.where((np.abs(values[0]) <= errors[0]) & (errors[0] > 0.0), 2.0, 0.0)
    return errors[0]
