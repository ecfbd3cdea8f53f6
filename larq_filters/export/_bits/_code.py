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
UNIT = float(np.finfo(np.float32).eps) / 2.0  # the largest relative error of a rounding
Pair = tuple[Any, Any]


def evaluate(code: Sequence[tuple[str, ...]], operand: Callable[[str], Pair]) -> Pair:
    """The result of the last line, and a bound of what float32 rounds, in another order as well.

    Args:
        code: Lines of operation and operands, at least one.
        operand: What an operand is that is no line, and a bound of its error.
    """
    lines: list[Pair] = []
    for name, *names in code:
        pairs = [lines[int(a[1:])] if is_line(a) else operand(a) for a in names]
        values, errors = zip(*pairs, strict=True)
        result = OPERATIONS[name](*values)
        lines.append((result, _error(name, values, errors, result)))
    return lines[-1]


def constant(values: np.ndarray) -> Pair:
    """A constant: TensorFlow may work it out with an error of two units in the last place."""
    return values, 4.0 * UNIT * np.abs(values)


def is_exact(scale: np.ndarray) -> bool:
    """Whether sums of ± a scale are exact, as powers of two are."""
    return bool((np.frexp(scale)[0] == 0.5).all())


def _error(name: str, values: Sequence[Any], errors: Sequence[Any], result: Any) -> Any:
    rounded = UNIT * np.abs(result)
    if name in ("add", "sub"):
        return errors[0] + errors[1] + rounded
    if name in ("mul", "leaky", "square"):
        one, two = (values[0], values[-1]), (errors[0], errors[-1])
        product = np.abs(one[0]) * two[1] + np.abs(one[1]) * two[0] + two[0] * two[1] + rounded
        return np.maximum(product, errors[0]) if name == "leaky" else product
    if name == "div":
        return (errors[0] + np.abs(result) * errors[1]) / np.abs(values[1]) + rounded
    if name in ("relu", "relu6"):  # none where it is constant
        bent = values[0] > -errors[0]
        if name == "relu6":
            bent &= values[0] < 6.0 + errors[0]
        return np.where(bent, errors[0], 0.0)
    if name in ("max", "min"):
        return np.maximum(errors[0], errors[1])
    if name == "sign":
        return np.where((np.abs(values[0]) <= errors[0]) & (errors[0] > 0.0), 2.0, 0.0)
    return errors[0]
