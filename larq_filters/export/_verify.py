"""Whether a .tflite file computes what the model computes."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf


class Mismatch(ValueError):
    """The file computes something else than the model."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """How one output of the file differs from the model's, over all samples.

    Args:
        name: Name of the output.
        absolute: Largest absolute difference, in the unit of the output.
        relative: The same, in units of the model's largest absolute output.
        agreement: Share of rows, along the last axis, whose arg max is the same; 1 for outputs of
            one element.
        beyond: Share of samples whose relative difference is above the tolerance.

    Example:
        >>> lqf.export.Difference("logits", 1e-6, 1e-7, 1.0, 0.0).agreement
        1.0
    """

    name: str
    absolute: float
    relative: float
    agreement: float
    beyond: float


@dataclasses.dataclass(frozen=True)
class Verification:
    """How all outputs of the file differ from the model's; prints as a table.

    Args:
        outputs: One `Difference` for each output, in the order of the model.
        samples: Number of samples.
        tolerance: The largest relative difference that counts as equal.

    Example:
        >>> difference = lqf.export.Difference("logits", 1e-6, 1e-7, 1.0, 0.0)
        >>> print(lqf.export.Verification((difference,), 100, 1e-3))
        output                    absolute   relative   same arg max   beyond 0.001
        logits                     1.0e-06    1.0e-07        100.00%          0.00%
    """

    outputs: tuple[Difference, ...]
    samples: int
    tolerance: float

    def to_dict(self) -> dict[str, Any]:
        """All of it, of types that JSON has."""
        return {
            **dataclasses.asdict(self),
            "outputs": [dataclasses.asdict(o) for o in self.outputs],
        }

    def __str__(self) -> str:
        head = f"beyond {self.tolerance:g}"
        lines = [f"{'output':22}{'absolute':>12}{'relative':>11}{'same arg max':>15}{head:>15}"]
        lines += [
            f"{o.name[:22]:22}{o.absolute:12.1e}{o.relative:11.1e}{o.agreement:15.2%}"
            f"{o.beyond:15.2%}"
            for o in self.outputs
        ]
        return "\n".join(lines)


def arrange(inputs: Any, names: Sequence[str], specs: Sequence[tf.TensorSpec]) -> list[np.ndarray]:
    """Samples as a list of arrays, in the order of the model's inputs.

    Raises:
        ValueError: They do not fit the model, or are not finite.
    """
    if isinstance(inputs, dict) and set(inputs) == set(names):
        inputs = [inputs[name] for name in names]
    arrays = [np.asarray(values) for values in tf.nest.flatten(inputs)]
    expected = [tuple(spec.shape[1:]) for spec in specs]
    counts = {len(a) if a.ndim else 0 for a in arrays}
    if [a.shape[1:] for a in arrays] != expected or len(counts) != 1 or 0 in counts:
        raise ValueError(
            "verify takes samples for every input of the model, as many for each: arrays of shape "
            f"{[('samples', *shape) for shape in expected]}. "
            f"Received: shapes {[a.shape for a in arrays]}"
        )
    arrays = [a.astype(s.dtype.as_numpy_dtype) for a, s in zip(arrays, specs, strict=True)]
    for name, array in zip(names, arrays, strict=True):
        if not np.isfinite(array).all():
            raise ValueError(
                "verify takes finite samples: the sign of NaN is NaN in Keras and +1 in the file. "
                f"Received: input '{name}' with {int((~np.isfinite(array)).sum())} values that "
                "are not"
            )
    return arrays


def compare(
    names: Sequence[str],
    got: Sequence[np.ndarray],
    expected: Sequence[np.ndarray],
    tolerance: float,
) -> Verification:
    """The differences between the outputs of the file and of the model."""
    differences = []
    for name, one, two in zip(names, got, expected, strict=True):
        one, two = one.astype(np.float64), two.astype(np.float64)
        distance = np.abs(one - two).reshape(len(two), -1)
        distance[~np.isfinite(distance)] = np.inf
        scale = float(np.abs(two).max()) or 1.0
        agreement = 1.0
        if two.ndim > 1 and two.shape[-1] > 1:
            agreement = float((one.argmax(-1) == two.argmax(-1)).mean())
        largest = float(distance.max())
        beyond = float((distance.max(1) > tolerance * scale).mean())
        differences.append(Difference(name, largest, largest / scale, agreement, beyond))
    return Verification(tuple(differences), len(expected[0]), tolerance)
