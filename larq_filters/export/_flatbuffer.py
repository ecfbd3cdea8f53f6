"""What a .tflite file holds: operators, their weights, bytes and multiplications."""

import dataclasses
import functools
import math
from typing import Any

from larq_filters.export import _lce

import numpy as np

_WEIGHTS = {  # the position of the weights among an operator's inputs
    "LceBconv2d": 1,
    "CONV_2D": 1,
    "DEPTHWISE_CONV_2D": 1,
    "FULLY_CONNECTED": 1,
    "TRANSPOSE_CONV": 1,
    "CONV_3D": 1,
    "CONV_3D_TRANSPOSE": 1,
    "BATCH_MATMUL": 1,
}
_DTYPES = {"FLOAT32": "<f4", "FLOAT16": "<f2", "INT32": "<i4", "INT8": "i1", "UINT8": "u1"}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor of the file; `data` is None unless it is constant."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    buffer: int
    data: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Operator:
    """An operator; tensors that are left out are None."""

    name: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    options: dict[str, Any]

    @property
    def is_binary(self) -> bool:
        """Whether it is one of Larq Compute Engine's own."""
        return self.name.startswith("Lce")

    @property
    def weights(self) -> Tensor | None:
        """The constant weights that it multiplies with."""
        position = _WEIGHTS.get(self.name)
        tensor = None if position is None else self.inputs[position]
        return tensor if tensor is not None and tensor.data is not None else None

    @property
    def names(self) -> str:
        """The names that the converter gave to its tensors, most of them paths of layers."""
        tensors = [t for t in self.inputs if t is not None and t.data is not None]
        return ";".join(tensor.name for tensor in [*tensors, *self.outputs])

    @functools.cached_property
    def rows(self) -> np.ndarray | None:
        """The weights as (outputs, weights of an output); those of a binary operator as ±1."""
        tensor = self.weights
        if tensor is None or tensor.data is None:
            return None
        data = tensor.data
        if self.name == "LceBconv2d":
            return self._unpacked(data).reshape(data.shape[0], -1)
        if self.name in ("CONV_3D", "CONV_3D_TRANSPOSE"):
            return np.moveaxis(data, -1, 0).reshape(data.shape[-1], -1)
        if self.name == "DEPTHWISE_CONV_2D":
            return data.reshape(-1, data.shape[-1]).T
        if self.name == "BATCH_MATMUL":
            return data.reshape(-1, data.shape[-1]).T
        return data.reshape(data.shape[0], -1)

    def _unpacked(self, words: np.ndarray) -> np.ndarray:
        bits = words.astype("<u4")[..., None] >> np.arange(_lce.WORD, dtype="u4") & 1
        signs = 1.0 - 2.0 * bits.reshape(*words.shape[:-1], -1)
        return signs[..., : self.options["channels_in"] // self.groups]

    @property
    def groups(self) -> int:
        """Groups of a binary convolution, which the file does not say in so many words."""
        words = math.ceil(self.options["channels_in"] / _lce.WORD)
        return words // self.inputs[1].shape[-1]  # type: ignore[union-attr]

    @property
    def engines(self) -> tuple[str, ...]:
        """Which of `_lce.ENGINES` can run it."""
        if self.name != "LceBconv2d":
            return tuple(_lce.ENGINES)
        engines = ["indirect", "reference"] if self.groups > 1 else list(_lce.ENGINES)
        if self.options["padding"] != 0 or self.options["pad_values"] != 0:
            return tuple(engines)
        if self.options["channels_in"] % 2:  # the reference pads with as many +1 as -1
            engines.remove("reference")
        is_fused = self.outputs[0].dtype != "FLOAT32" or self.options["fused_activation_function"]
        only = ("reference",) if is_fused or self._reaches_over_the_image() else tuple(engines)
        return tuple(engine for engine in engines if engine in only)

    def _reaches_over_the_image(self) -> bool:
        """Whether the kernel is larger than the image: zero padding is then corrected wrongly."""
        image, weights = self.inputs[0], self.inputs[1]
        assert image is not None and weights is not None
        dilations = self.options["dilation_height_factor"], self.options["dilation_width_factor"]
        sizes = zip(image.shape[1:3], weights.shape[1:3], dilations, strict=True)
        return any((k - 1) * dilation + 1 > n for n, k, dilation in sizes if k > 1)

    @property
    def macs(self) -> int:
        """Multiplications, each with its addition, for one sample."""
        rows = self.rows
        if rows is None:
            return 0
        if self.name in ("TRANSPOSE_CONV", "CONV_3D_TRANSPOSE"):
            source = self.inputs[2]
            pixels = math.prod(source.shape[:-1]) if source else 0  # each meets every weight
            return pixels * rows.size
        if self.name == "LceBconv2d":  # the last dimension of its output may be words
            return math.prod(self.outputs[0].shape[:-1]) * rows.size
        return math.prod(self.outputs[0].shape) * rows.shape[1]


@dataclasses.dataclass(frozen=True)
class File:
    """The parts of a .tflite file; the first subgraph is the model."""

    size: int
    operators: tuple[Operator, ...]
    inputs: dict[str, int]
    outputs: dict[str, int]

    @property
    def engines(self) -> tuple[str, ...]:
        """Which of `_lce.ENGINES` can run the whole file."""
        return tuple(e for e in _lce.ENGINES if all(e in op.engines for op in self.operators))


def read(data: bytes) -> File:
    """Reads a .tflite file.

    Args:
        data: Its bytes, of a model with one signature.

    Returns:
        Operators in the order in which they run, and which position among the file's inputs and
        outputs each of the signature's has.
    """
    schema = _lce.load("larq_compute_engine.mlir.python.tflite_schema")
    flexbuffers = _lce.load("flatbuffers.flexbuffers")
    builtin = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    dtypes = {v: k for k, v in vars(schema.TensorType).items() if isinstance(v, int)}
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))
    graph = model.subgraphs[0]

    def tensor(index: int) -> Tensor | None:
        return None if index < 0 else tensors[index]

    def tensor_of(record: Any) -> Tensor:
        raw, dtype = model.buffers[record.buffer].data, dtypes[record.type]
        shape = () if record.shape is None else tuple(int(n) for n in record.shape)
        known = raw is not None and len(raw) and dtype in _DTYPES
        values = np.frombuffer(bytes(raw), _DTYPES[dtype]).reshape(shape) if known else None
        return Tensor(record.name.decode(), shape, dtype, record.buffer, values)

    def operator(record: Any) -> Operator:
        code = model.operatorCodes[record.opcodeIndex]
        name = builtin[max(code.builtinCode, code.deprecatedBuiltinCode)]
        options = record.customOptions
        return Operator(
            code.customCode.decode() if name == "CUSTOM" else name,
            tuple(tensor(i) for i in record.inputs),
            tuple(tensors[i] for i in record.outputs),
            flexbuffers.Loads(bytes(options)) if options is not None and len(options) else {},
        )

    tensors = [tensor_of(record) for record in graph.tensors]
    signature = model.signatureDefs[0]
    inputs, outputs = list(graph.inputs), list(graph.outputs)
    return File(
        len(data),
        tuple(operator(record) for record in graph.operators),
        {t.name.decode(): inputs.index(t.tensorIndex) for t in signature.inputs},
        {t.name.decode(): outputs.index(t.tensorIndex) for t in signature.outputs},
    )
