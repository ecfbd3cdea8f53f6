"""A network run in NumPy, in the same order of float32 operations as the C program."""

import math
from collections.abc import Callable, Sequence

from larq_filters.export._bits import _code
from larq_filters.export._bits._network import Network, Step, Window, is_tensor, unpack

import numpy as np

_SAMPLES = 32  # at once


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
        self._errors: dict[int, np.ndarray] = {}  # bounds of what was rounded; none if it is exact
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
        return self._shaped(number, self.values[self._network.root(number)])

    def _error(self, number: int) -> np.ndarray:
        root = self._network.root(number)
        errors = self._errors.get(root, np.zeros(1, np.float32))
        return self._shaped(number, np.broadcast_to(errors, self.values[root].shape))

    def _shaped(self, number: int, values: np.ndarray) -> np.ndarray:
        tensor = self._network.tensors[number]
        return values.reshape(self._samples, tensor.positions, tensor.channels)

    def _make(self, step: Step) -> np.ndarray:
        network, output = self._network, self._network.tensors[step.output]
        if step.kind == "concat":
            if output.kind == "float":
                self._errors[step.output] = np.concatenate([*map(self._error, step.inputs)], -1)
            return np.concatenate([self._get(number) for number in step.inputs], -1)
        if step.kind == "copy":
            return self._get(step.inputs[0])
        if step.kind == "quantize":
            scaled = self._get(step.inputs[0]) * network.arrays[step.weights]
            clipped = np.clip(scaled, np.float32(-127), np.float32(127))
            return np.trunc(clipped + np.copysign(np.float32(0.5), clipped))
        sums = self._sums(step)
        if step.thresholds:
            flips = unpack(network.arrays[step.flips], output.channels) > 0
            passes = sums >= network.arrays[step.thresholds]
            for channel, low, high in step.edges:
                near = (sums[..., channel] >= low) & (sums[..., channel] <= high)
                self.near |= near.any(1)
            return np.where(passes != flips, np.float32(1), np.float32(-1))
        if output.kind == "int" or network.moves_bits(step):
            return sums

        result = sums.astype(np.float32), self._sum_error(step)

        def operand(name: str) -> _code.Pair:
            if name == "sum":
                return result
            if is_tensor(name):
                number = int(name[1:])
                return self._get(number).astype(np.float32), self._error(number)
            return _code.constant(network.arrays[name])

        values, error = _code.evaluate(step.code, operand) if step.code else result
        shape = (self._samples, output.positions, output.channels)
        values = np.broadcast_to(np.asarray(values, np.float32), shape)
        if output.kind == "float":
            self._errors[step.output] = np.broadcast_to(error, shape)
            return values
        near = (np.abs(values) <= error) & (error > 0.0)
        self.near |= near.reshape(self._samples, -1).any(1)
        return np.where(values >= 0, np.float32(1), np.float32(-1))

    def _sum_error(self, step: Step) -> np.ndarray:
        """A bound of what Keras and this rounded differently in a step's sums."""
        window, none = step.window, np.zeros((1, 1, 1), np.float32)
        if window is None:
            return none
        unit = np.float32(_code.UNIT)
        if step.kind == "binary":
            if not step.code or step.code[0][:2] != ("mul", "sum"):
                return none
            exact = _code.is_exact(self._network.arrays[step.code[0][2]])
            return none if exact else none + unit * np.float32(window.taps) ** 2
        if step.kind == "int8" or self._network.tensors[step.inputs[0]].kind != "float":
            return none
        x, error = self._get(step.inputs[0]), self._error(step.inputs[0])
        if step.kind == "max":
            return _pool(error, window, "max")
        # A sum of n rounds n times: errors of either sign, beside partial sums.
        taps = window.rows * window.columns if step.kind == "average" else window.taps
        error = error + unit * np.float32(4.0 + 2.0 * math.sqrt(taps)) * np.abs(x)
        if step.kind == "average":
            return _pool(error, window, "average")
        weights = np.abs(self._kernel(step))
        return _convolve(error, weights, window, _add_exactly).astype(np.float32)

    def _sums(self, step: Step) -> np.ndarray:
        if step.kind == "map":
            return self._get(step.inputs[0]) if step.inputs else np.zeros(0, np.float32)
        x, window = self._get(step.inputs[0]), step.window
        assert window is not None
        if step.kind in ("max", "average"):
            return _pool(x, window, step.kind)
        add = _add_exactly if step.kind in ("binary", "int8") else _add_in_order
        sums = _convolve(x, self._kernel(step), window, add)
        return sums.astype(np.int32) if add is _add_exactly else sums

    def _kernel(self, step: Step) -> np.ndarray:
        """(rows, columns, channels, filters)"""
        weights = self._network.arrays[step.weights]
        if step.kind not in ("binary", "signs") or step.window is None:
            return weights
        return np.moveaxis(unpack(weights, step.window.channels).astype(np.float32), 0, -1)


def _convolve(
    x: np.ndarray, kernel: np.ndarray, window: Window, add: Callable[..., np.ndarray]
) -> np.ndarray:
    """Sums over windows; `add` multiplies and adds up the taps of each."""
    patches = _patches(x.reshape(len(x), -1, window.groups * window.channels), window)
    parts = np.split(patches, window.groups, -1)
    kernels = np.split(kernel, window.groups, -1)
    return np.concatenate([add(p, k) for p, k in zip(parts, kernels, strict=True)], -1)


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
    return flat @ kernel.reshape(-1, kernel.shape[-1]).astype(dtype)


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
