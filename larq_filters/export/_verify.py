"""Compares the outputs of a .tflite file with those of its model."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from larq_filters._text import html_table, table
from larq_filters.export import _model
from larq_filters.export._program import Program
from larq_filters.export._trace import clean

import numpy as np
import tensorflow as tf

_BATCH = 64  # samples that Keras computes at once
_FEW = 16  # samples for all engines but the first, as some are slow
_ROUNDED = 0.1  # a larger share of samples is not turned by rounding


class Mismatch(ValueError):
    """The outputs of the file and the model differ. `Exported.verify` raises it.

    Example:
        >>> issubclass(lqf.export.Mismatch, ValueError)
        True
    """


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
        return "\n".join(table(*self._table()))

    def _repr_html_(self) -> str:
        return html_table(*self._table(), below=f"{self.samples:,} samples")

    def _table(self) -> tuple[list[Sequence[str]], Sequence[int]]:
        rows: list[Sequence[str]] = [
            ("output", "absolute", "relative", "same arg max", f"beyond {self.tolerance:g}")
        ]
        rows += [
            (
                o.name,
                f"{o.absolute:.1e}",
                f"{o.relative:.1e}",
                f"{o.agreement:.2%}",
                f"{o.beyond:.2%}",
            )
            for o in self.outputs
        ]
        return rows, (22, -12, -11, -15, -15)


def verify(
    program: Program,
    model: tf.keras.Model,
    inputs: Any,
    *,
    tolerance: float | None,
    allowed: float,
    engine: str | None,
) -> Verification:
    """Runs a file and its model on the same samples, and compares; see `Exported.verify`."""
    interface = program.interface
    arrays = arrange(_model.in_order(model, inputs), interface.input_names, interface.specs)
    if tolerance is None:
        tolerance = 0.1 if interface.int8 else 1e-3
    if not (tolerance >= 0.0 and 0.0 <= allowed < 1.0):
        raise ValueError(
            "tolerance is 0 or more and allowed is in [0, 1). "
            f"Received: tolerance={tolerance}, allowed={allowed}"
        )
    engines = program.engines if engine is None else (engine,)
    interpreters = [(name, program.interpreter(name)) for name in engines]
    known = tf.nest.flatten(_model.input_structure(model))
    check_shapes("inputs", [k.shape[1:] for k in known], [s.shape[1:] for s in interface.specs])
    expected = predict(model, arrays)
    check_finite(interface.output_names, expected)
    first, *others = interpreters
    got = _run(first[1], arrays)
    check_shapes("outputs", [e.shape for e in expected], [g.shape for g in got])
    result = compare(interface.output_names, got, expected, tolerance)
    _check(result, allowed, "the model", first[0])
    # Others with the first: what rounding turned there, it turned for all of them.
    few, got = [array[:_FEW] for array in arrays], [values[:_FEW] for values in got]
    for name, interpreter in others:
        again = compare(interface.output_names, _run(interpreter, few), got, tolerance)
        _check(again, 0.0, f"with the engine '{first[0]}'", name)
    return result


def _run(interpreter: Any, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """A file's outputs, sample by sample."""
    parts = [interpreter.predict([a[i : i + 1] for a in arrays]) for i in range(len(arrays[0]))]
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def _check(result: Verification, allowed: float, other: str, engine: str) -> None:
    """Refuses more differences from something else than are allowed."""
    worst = max(result.outputs, key=lambda output: (output.beyond, output.relative))
    if worst.beyond <= allowed:
        return
    hint = (
        "If only a few samples differ, rounding changed the sign of values near 0: set `allowed` "
        "to the share of such samples. "
        if worst.beyond <= _ROUNDED
        else ""
    )
    raise Mismatch(
        f"the file computes something else than {other} with the engine '{engine}': output "
        f"'{worst.name}' differs by up to {worst.absolute:.3g}, which is {worst.relative:.3g} of "
        f"its largest value, in {worst.beyond:.2%} of {result.samples} samples by more than the "
        f"tolerance of {result.tolerance:g}, and its arg max agrees in {worst.agreement:.2%}. "
        f"{hint}Received: tolerance={result.tolerance:g}, allowed={allowed:g}"
    )


def arrange(inputs: Any, names: Sequence[str], specs: Sequence[tf.TensorSpec]) -> list[np.ndarray]:
    """Samples as a list of arrays, in the order of the model's inputs.

    Raises:
        ValueError: They do not fit the model, or are not finite.
    """
    if isinstance(inputs, dict):
        by_name = {clean(name): values for name, values in inputs.items()}
        if set(by_name) != set(names) or len(by_name) != len(inputs):
            raise ValueError(
                "samples by name need the names of the model's inputs: give these, or a list of "
                f"arrays in the model's order, {list(names)}. Received: {list(inputs)}"
            )
        inputs = [by_name[name] for name in names]
    arrays = [np.asarray(values) for values in tf.nest.flatten(inputs)]
    expected = [tuple(spec.shape[1:]) for spec in specs]
    counts = {len(a) if a.ndim else 0 for a in arrays}
    if [a.shape[1:] for a in arrays] != expected or len(counts) != 1 or 0 in counts:
        raise ValueError(
            "give samples for every input of the model, as many for each: arrays of shape "
            f"{[('samples', *shape) for shape in expected]}. "
            f"Received: shapes {[a.shape for a in arrays]}"
        )
    arrays = [a.astype(s.dtype.as_numpy_dtype) for a, s in zip(arrays, specs, strict=True)]
    for name, array in zip(names, arrays, strict=True):
        if not np.isfinite(array).all():
            raise ValueError(
                "samples must be finite: the sign of NaN is NaN in Keras and +1 in the file. "
                f"Received: input '{name}' with {int((~np.isfinite(array)).sum())} values that "
                "are not"
            )
    return arrays


def predict(model: tf.keras.Model, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """The model's outputs; not by `predict`, which would leave a function in the model."""
    structure = _model.input_structure(model)
    batches = []
    for start in range(0, len(arrays[0]), _BATCH):
        batch = [tf.constant(array[start : start + _BATCH]) for array in arrays]
        outputs = model(tf.nest.pack_sequence_as(structure, batch), training=False)
        batches.append([output.numpy() for output in tf.nest.flatten(outputs)])
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def check_finite(names: Sequence[str], outputs: Sequence[np.ndarray]) -> None:
    """Refuses outputs of a model that nothing can be compared with."""
    for name, values in zip(names, outputs, strict=True):
        if not np.isfinite(values).all():
            raise ValueError(
                "the model itself gives NaN or infinity for these samples, which nothing can be "
                "compared with: look for a layer that overflows, or weights that are not finite. "
                f"Received: output '{name}' with {int((~np.isfinite(values)).sum())} such values"
            )


def check_shapes(kind: str, model: list[Any], file: list[Any]) -> None:
    if [tuple(shape) for shape in model] != [tuple(shape) for shape in file]:
        raise ValueError(
            f"the {kind} of model and file have different shapes: give the model that the file was "
            f"made of. Received: shapes {[tuple(shape) for shape in model]}, and "
            f"{[tuple(shape) for shape in file]} in the file"
        )


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
