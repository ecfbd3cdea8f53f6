"""A network run in NumPy, in the same order of float32 operations as the C program."""

import math
from collections.abc import Sequence
from typing import Any

from larq_filters.export._bits import _code
from larq_filters.export._bits._network import Network, Step, Window, unpack

import numpy as np

_SAMPLES = 32  # at once
_NEAR = 32.0 * float(np.finfo(np.float32).eps)


def run(network: Network, inputs: Sequence[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """The outputs, and in which samples the sign of a float is within rounding of its edge.

    Args:
        network: The network.
        inputs: One array for each input, with samples along the first axis.
    """
    parts, near = [], []
    for start in range(0, len(inputs[0]), _SAMPLES):
        some = _Run(network, [x[start : start + _SAMPLES] for x in inputs])
        parts.append(some.outputs())
        near.append(some.near)
    return [np.concatenate(part) for part in zip(*parts, strict=True)], np.concatenate(near)


def captured(network: Network, inputs: Sequence[np.ndarray], tensors: set[int]) -> dict[int, float]:
    """The largest absolute value of some tensors of floats, over all samples."""
    largest = dict.fromkeys(tensors, 0.0)
    for start in range(0, len(inputs[0]), _SAMPLES):
        some = _Run(network, [x[start : start + _SAMPLES] for x in inputs])
        for number in tensors:
            value = float(np.abs(some.values[network.root(number)]).max())
            largest[number] = max(largest[number], value)
    return largest


class _Run:
    """Values of all tensors, as (samples, positions, channels): ±1 for bits."""

    def __init__(self, network: Network, inputs: Sequence[np.ndarray]) -> None:
        self._network = network
        self._samples = len(inputs[0])
        self.near = np.zeros(self._samples, bool)
        self.values: dict[int, np.ndarray] = {}
        for (_, number), x in zip(network.inputs, inputs, strict=True):
            self._set(number, x.astype(np.float32))
        for step in network.steps:
            self._set(step.output, self._make(step))

    def outputs(self) -> list[np.ndarray]:
        """In the order of the model, each of its shape."""
        return [
            self._get(number).reshape(self._samples, *self._network.tensors[number].shape[1:])
            for _, number in self._network.outputs
        ]

    def _set(self, number: int, values: np.ndarray) -> None:
        tensor = self._network.tensors[number]
        self.values[number] = values.reshape(self._samples, tensor.positions, tensor.channels)

    def _get(self, number: int) -> np.ndarray:
        tensor = self._network.tensors[number]
        values = self.values[self._network.root(number)]
        return values.reshape(self._samples, tensor.positions, tensor.channels)

    def _make(self, step: Step) -> np.ndarray:
        network, output = self._network, self._network.tensors[step.output]
        if step.kind == "concat":
            return np.concatenate([self._get(number) for number in step.inputs], -1)
        if step.kind == "copy":
            return self._get(step.inputs[0])
        if step.kind == "quantize":
            scaled = self._get(step.inputs[0]) * network.arrays[step.weights]
            return np.trunc(np.clip(scaled, -127, 127) + np.copysign(np.float32(0.5), scaled))
        sums = self._sums(step)
        if step.thresholds:
            flips = unpack(network.arrays[step.flips], output.channels) > 0
            passes = sums >= network.arrays[step.thresholds]
            return np.where(passes != flips, np.float32(1), np.float32(-1))
        if output.kind == "int" or (output.kind == "bits" and step.kind == "max"):
            return sums
        largest: Any = 0.0

        def operand(name: str) -> np.ndarray:
            nonlocal largest
            if name == "sum":
                value = sums.astype(np.float32)
            elif name[0] == "t":
                value = self._get(int(name[1:])).astype(np.float32)
            else:
                value = network.arrays[name]
            largest = np.maximum(largest, np.abs(value))
            return value

        values = np.asarray(_code.evaluate(step.code, operand), np.float32)
        if output.kind == "bits":
            close = np.broadcast_to(np.abs(values) <= _NEAR * largest, values.shape)
            self.near |= close.reshape(self._samples, -1).any(1)
            return np.where(values >= 0, np.float32(1), np.float32(-1))
        shape = (self._samples, output.positions, output.channels)
        return np.broadcast_to(values, shape)

    def _sums(self, step: Step) -> np.ndarray:
        if step.kind == "map":
            return self._get(step.inputs[0]) if step.inputs else np.zeros(0, np.float32)
        x, window = self._get(step.inputs[0]), step.window
        assert window is not None
        if step.kind in ("max", "average"):
            return _pool(x, window, step.kind)
        patches = _patches(x.reshape(self._samples, -1, window.groups * window.channels), window)
        weights = self._network.arrays[step.weights]
        if step.kind in ("binary", "signs"):
            signs = unpack(weights, window.channels).astype(np.float32)
            weights = np.moveaxis(signs, 0, -1)
        parts = np.split(patches, window.groups, -1)
        kernels = np.split(weights, window.groups, -1)
        exact = step.kind in ("binary", "int8")
        add = _add_exactly if exact else _add_in_order
        made = [add(p, k) for p, k in zip(parts, kernels, strict=True)]
        return np.concatenate(made, -1)


def _positions(window: Window) -> np.ndarray:
    """Input positions of every window, (outputs, rows · columns), and −1 outside the input."""
    y = np.arange(window.out_height)[:, None] * window.strides[0] - window.top
    y = y + np.arange(window.rows) * window.dilations[0]
    x = np.arange(window.out_width)[:, None] * window.strides[1] - window.left
    x = x + np.arange(window.columns) * window.dilations[1]
    y, x = y[:, None, :, None], x[None, :, None, :]
    inside = (y >= 0) & (y < window.height) & (x >= 0) & (x < window.width)
    outputs = window.out_height * window.out_width
    return np.where(inside, y * window.width + x, -1).reshape(outputs, -1)


def _patches(x: np.ndarray, window: Window) -> np.ndarray:
    """(samples, outputs, rows · columns, channels)."""
    fill = np.full((len(x), 1, x.shape[-1]), window.pad, x.dtype)
    return np.concatenate([x, fill], 1)[:, _positions(window)]


def _add_exactly(patches: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Sums of whole numbers, for which the order does not matter."""
    dtype = np.float32 if np.abs(kernel).max(initial=1) <= 1 else np.float64
    flat = patches.reshape(*patches.shape[:2], -1).astype(dtype)
    return (flat @ kernel.reshape(-1, kernel.shape[-1]).astype(dtype)).astype(np.int32)


def _add_in_order(patches: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    taps = patches.reshape(*patches.shape[:2], -1)
    rows = kernel.reshape(-1, kernel.shape[-1])
    sums = np.zeros((*taps.shape[:2], rows.shape[-1]), np.float32)
    for tap in range(math.prod(kernel.shape[:-1])):
        sums += taps[..., tap, None] * rows[tap]
    return sums


def _pool(x: np.ndarray, window: Window, kind: str) -> np.ndarray:
    positions = _positions(window)
    inside = (positions >= 0)[None, :, :, None]
    if kind == "max":
        return np.where(inside, x[:, positions], -np.inf).max(2).astype(x.dtype)
    sums = np.zeros((len(x), len(positions), x.shape[-1]), np.float32)
    for tap in range(positions.shape[1]):
        sums += np.where(inside[:, :, tap], x[:, positions[:, tap]], np.float32(0))
    return sums / inside.sum(2).astype(np.float32)
