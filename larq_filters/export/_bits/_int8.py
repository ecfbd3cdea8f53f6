"""Real layers in 8 bits, after training: scales from representative inputs."""

import dataclasses
from collections.abc import Sequence

from larq_filters.export._bits import _run
from larq_filters.export._bits._network import Network, Step, Tensor

import numpy as np

_LARGEST = 127.0
_TAPS = (2**31 - 1) // 127**2  # of a sum that 32 bits hold


def quantize(network: Network, inputs: Sequence[np.ndarray]) -> Network:
    """The network with its real convolutions and dense layers in 8 bits.

    x ≈ s·q, q in [−127, 127]; a kernel has a scale s for each output channel, and its input one,
    from the largest absolute value in the inputs. Sums are of 32 bits.

    Args:
        network: In floats.
        inputs: One array for each input, with samples along the first axis.
    """
    chosen = [s for s in network.steps if s.kind == "real" and _taps(s) < _TAPS]
    largest = _run.captured(network, inputs, {s.inputs[0] for s in chosen})
    tensors, steps = list(network.tensors), list[Step]()
    arrays: dict[str, np.ndarray] = {}
    quantized: dict[int, int] = {}
    for old, step in enumerate(network.steps):
        mine = {n: a for n, a in network.arrays.items() if n.startswith(f"s{old}.")}
        if step not in chosen:
            steps.append(_renamed(step, old, len(steps)))
            arrays |= {_rename(n, old, len(steps) - 1): a for n, a in mine.items()}
            continue
        source = step.inputs[0]
        unit = np.float32((largest[source] or 1.0) / _LARGEST)
        if source not in quantized:
            tensors.append(Tensor("int8", tensors[source].shape))
            quantized[source] = len(tensors) - 1
            name = f"s{len(steps)}.scale"
            arrays[name] = np.array([np.float32(1.0) / unit])
            steps.append(Step("quantize", step.name, (source,), quantized[source], weights=name))
        number = len(steps)
        kernel = mine.pop(step.weights)
        units = np.abs(kernel).reshape(-1, kernel.shape[-1]).max(0) / np.float32(_LARGEST)
        units = np.where(units > 0.0, units, np.float32(1.0)).astype(np.float32)
        arrays[f"s{number}.kernel"] = np.rint(kernel / units).astype(np.int8)
        arrays[f"s{number}.scales"] = (units * unit).astype(np.float32)
        arrays |= {_rename(n, old, number): a for n, a in mine.items()}
        moved = _renamed(step, old, number)
        code = (("mul", "sum", f"s{number}.scales"), *map(_shifted, moved.code))
        steps.append(
            dataclasses.replace(moved, kind="int8", inputs=(quantized[source],), code=code)
        )
    return dataclasses.replace(network, tensors=tuple(tensors), steps=tuple(steps), arrays=arrays)


def accuracy(
    network: Network,
    quantized: Network,
    inputs: Sequence[np.ndarray],
    labels: np.ndarray | None,
) -> dict[str, float]:
    """What 8 bits cost, as `BitsReport.accuracy` has it, by the class in the first output.

    That is its arg max, or of a single number, whether it is above 0.

    Raises:
        ValueError: Labels are no classes, or another number of them.
    """
    if not any(step.kind == "int8" for step in quantized.steps):
        return {}
    classes = []
    for one in (network, quantized):
        outputs, _ = _run.run(one, inputs)
        first = outputs[0]
        classes.append(first.argmax(-1) if first.shape[-1] > 1 else (first[..., 0] > 0).astype(int))
    floats, int8 = classes
    known = {"samples": len(inputs[0]), "agreement": float((floats == int8).mean())}
    if labels is not None:
        labels = labels.reshape(labels.shape[:1]) if labels.size == len(labels) else labels
        if labels.dtype.kind not in "biu" or labels.shape != floats.shape:
            raise ValueError(
                "labels are the index of the right class, a whole number, for each representative "
                f"sample: an array of shape {floats.shape}. "
                f"Received: {labels.dtype} of shape {labels.shape}"
            )
        known["floats"] = float((floats == labels).mean())
        known["int8"] = float((int8 == labels).mean())
    return known


def _taps(step: Step) -> int:
    return 0 if step.window is None else step.window.taps


def _rename(name: str, old: int, new: int) -> str:
    """The name of an array of a step that has another number now."""
    step, _, role = name.partition(".")
    return f"s{new}.{role}" if step == f"s{old}" and role else name


def _renamed(step: Step, old: int, new: int) -> Step:
    code = tuple(tuple(_rename(a, old, new) for a in line) for line in step.code)
    return dataclasses.replace(
        step,
        code=code,
        weights=_rename(step.weights, old, new),
        thresholds=_rename(step.thresholds, old, new),
        flips=_rename(step.flips, old, new),
    )


def _shifted(line: tuple[str, ...]) -> tuple[str, ...]:
    """A line behind another one, which scales the sum."""

    def moved(operand: str) -> str:
        if operand == "sum":
            return "v0"
        return (
            f"v{int(operand[1:]) + 1}" if operand[1:].isdigit() and operand[0] == "v" else operand
        )

    return (line[0], *map(moved, line[1:]))
