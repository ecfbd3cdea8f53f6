"""A packed network as data: tensors, steps, and arrays of numbers, as the .npz file holds them."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

WORD = 32  # bits; channel c of a position is bit c % 32, from the lowest, of word c // 32
TYPES = {"float": "float32", "bits": "uint32", "int": "int32", "int8": "int8"}


def words(channels: int) -> int:
    """Words that so many bits take."""
    return -(-channels // WORD)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """What a step makes: positions × channels, the last axis being the channels.

    Args:
        kind: 'float', 'bits' (±1, packed), 'int' (sums of ±1) or 'int8'.
        shape: With the batch axis, of one sample.
        alias: The tensor whose memory it is, in another shape; itself if -1.
    """

    kind: str
    shape: tuple[int, ...]
    alias: int = -1

    @property
    def channels(self) -> int:
        """The length of the last axis."""
        return self.shape[-1]

    @property
    def positions(self) -> int:
        """How many vectors of channels it has."""
        return math.prod(self.shape[:-1])

    @property
    def elements(self) -> int:
        """Numbers or words that it takes in memory."""
        return self.positions * (words(self.channels) if self.kind == "bits" else self.channels)


@dataclasses.dataclass(frozen=True)
class Window:
    """Where a convolution or a pooling looks; a dense layer is a window of 1×1 on every position.

    Args:
        height: Of the input.
        width: Of the input.
        channels: Of the input, in a group.
        groups: How many times so many channels the input has.
        out_height: Of the output.
        out_width: Of the output.
        filters: Channels of the output.
        rows: Height of the window.
        columns: Width of the window.
        strides: Of rows and columns.
        dilations: Of rows and columns.
        top: Rows of padding above the input.
        left: Columns of padding to the left of it.
        pad: What a binary input is padded with: 1, −1, or 0 for nothing; others are with 0.
    """

    height: int
    width: int
    channels: int
    groups: int
    out_height: int
    out_width: int
    filters: int
    rows: int
    columns: int
    strides: tuple[int, int]
    dilations: tuple[int, int]
    top: int
    left: int
    pad: int

    @property
    def taps(self) -> int:
        """Products in a sum."""
        return self.rows * self.columns * self.channels

    @property
    def macs(self) -> int:
        """Products in all sums."""
        return self.taps * self.filters * self.out_height * self.out_width

    @property
    def is_padded(self) -> bool:
        """Whether it looks beyond the input."""
        bottom = (self.out_height - 1) * self.strides[0] + (self.rows - 1) * self.dilations[0]
        right = (self.out_width - 1) * self.strides[1] + (self.columns - 1) * self.dilations[1]
        return bool(
            self.top
            or self.left
            or bottom - self.top >= self.height
            or right - self.left >= self.width
        )


@dataclasses.dataclass(frozen=True)
class Step:
    """One thing that the program does, for every position of its output.

    Args:
        kind: 'binary' (XNOR and popcount), 'signs' (real inputs, binary weights), 'real', 'int8',
            'max', 'average', 'map', 'copy' (bits in another shape), 'concat' or 'quantize'.
        name: Path of the layer in the model.
        inputs: Tensors that it reads, by number.
        output: The tensor that it makes.
        window: Where it looks, of a convolution or a pooling.
        weights: Name of the kernel's array, or empty.
        code: What becomes of each sum: operation and operands, one line a result. An operand is
            'sum', 'v' and the number of a line, 't' and the number of a tensor, or an array's name.
        thresholds: Name of the array of integers that a sum is compared with, or empty.
        flips: Name of the array of bits that turn the comparison, or empty.
        note: Why a sign is of floats.
        edges: (channel, smallest, largest) sums whose sign the rounding of floats decides.
    """

    kind: str
    name: str
    inputs: tuple[int, ...]
    output: int
    window: Window | None = None
    weights: str = ""
    code: tuple[tuple[str, ...], ...] = ()
    thresholds: str = ""
    flips: str = ""
    note: str = ""
    edges: tuple[tuple[int, int, int], ...] = ()


@dataclasses.dataclass(frozen=True)
class Network:
    """Steps in the order in which they run.

    Args:
        inputs: The model's inputs: name and number of the tensor.
        outputs: The model's outputs: name and number of the tensor.
        tensors: By number.
        steps: In order.
        arrays: Weights and constants, by name.
    """

    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]
    tensors: tuple[Tensor, ...]
    steps: tuple[Step, ...]
    arrays: Mapping[str, np.ndarray]

    def root(self, number: int) -> int:
        """The tensor whose memory a tensor is."""
        alias = self.tensors[number].alias
        return number if alias < 0 else self.root(alias)

    def reads(self, step: Step) -> tuple[int, ...]:
        """The tensors that a step reads, those of its code included."""
        more = [int(a[1:]) for line in step.code for a in line[1:] if is_tensor(a)]
        return (*step.inputs, *more)

    def moves_bits(self, step: Step) -> bool:
        """Whether the bits that a step makes are bits that it reads."""
        kinds = {self.tensors[number].kind for number in (*step.inputs, step.output)}
        return step.kind in ("copy", "concat", "max") and kinds == {"bits"}

    def to_dict(self) -> dict[str, Any]:
        """All but the arrays, of types that JSON has."""
        return {
            "inputs": self.inputs,
            "outputs": self.outputs,
            "tensors": [dataclasses.asdict(t) for t in self.tensors],
            "steps": [dataclasses.asdict(s) for s in self.steps],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> "Network":
        """The inverse of `to_dict`; `KeyError`, `TypeError` or `ValueError` if it is none."""

        def frozen(value: Any) -> Any:
            return tuple(map(frozen, value)) if isinstance(value, list) else value

        def make(kind: Any, fields: Mapping[str, Any]) -> Any:
            return kind(**{key: frozen(value) for key, value in fields.items()})

        steps = [
            dict(s, window=None if s["window"] is None else make(Window, s["window"]))
            for s in data["steps"]
        ]
        return cls(
            inputs=frozen(data["inputs"]),
            outputs=frozen(data["outputs"]),
            tensors=tuple(make(Tensor, t) for t in data["tensors"]),
            steps=tuple(make(Step, s) for s in steps),
            arrays=arrays,
        )


def is_tensor(operand: str) -> bool:
    """Whether an operand of a step's code is a tensor."""
    return operand[0] == "t" and operand[1:].isdigit()


def is_line(operand: str) -> bool:
    """Whether an operand of a step's code is an earlier line of it."""
    return operand[0] == "v" and operand[1:].isdigit()


def pack(signs: np.ndarray) -> np.ndarray:
    """Signs along the last axis as words: bit 1 is +1, and what is left of a word is 0."""
    channels = signs.shape[-1]
    bits = np.zeros((*signs.shape[:-1], words(channels) * WORD), np.uint8)
    bits[..., :channels] = signs > 0
    packed = np.packbits(bits, -1, bitorder="little")
    return packed.view("<u4").astype(np.uint32)


def unpack(packed: np.ndarray, channels: int) -> np.ndarray:
    """The inverse of `pack`, as int8."""
    octets = np.ascontiguousarray(packed.astype("<u4")).view(np.uint8)
    bits = np.unpackbits(octets, axis=-1, count=channels, bitorder="little")
    return bits.astype(np.int8) * 2 - 1


def check_finite(layer: str, arrays: Iterable[np.ndarray]) -> None:
    """Refuses numbers of a layer, or of what follows it, that C cannot hold."""
    wrong = sum(int((~np.isfinite(array)).sum()) for array in arrays)
    if wrong:
        raise ValueError(
            f"layer '{layer}', or the batch norm behind it, has weights that are not finite, which "
            f"C cannot hold: train the model again. Received: {wrong} such numbers"
        )
