"""The C header of a network: its sizes, its function, and all of its arrays."""

import textwrap
from collections.abc import Iterable
from typing import Any

from larq_filters.export._bits import _c, _memory
from larq_filters.export._bits._network import Network

import numpy as np

_TYPES = {
    "float32": "float",
    "uint32": "uint32_t",
    "int32": "int32_t",
    "int16": "int16_t",
    "int8": "int8_t",
}
_LAYOUT = """\
Bits: 1 is +1, 0 is -1. Channel c is bit c % 32, from the lowest, of word c / 32; bits of the last
word beyond the last channel are 0. Sums are channels - 2 * popcount(input ^ kernel), over the
window. A threshold t: the sign of what batch norm makes of a sum is +1 where sum >= t, or, where
the channel's bit in flips is 1, where sum < t. Kernels of bits have the axes outputs x rows x
columns x words, and real ones rows x columns x inputs x outputs; the last one moves fastest."""


def header(network: Network, name: str, function: str) -> str:
    """The .h file.

    Args:
        network: The network.
        name: What its arrays and macros begin with.
        function: Name of the C function.
    """
    macro = name.upper()
    ends = [
        (kind, ", ".join(f"{end} {_shape(network.tensors[n].shape[1:])}" for end, n in some),
         sum(int(np.prod(network.tensors[n].shape)) for _, n in some))
        for kind, some in (("INPUTS", network.inputs), ("OUTPUTS", network.outputs))
    ]  # fmt: skip
    constants = sum(array.nbytes for array in network.arrays.values())
    lines = [
        "/* A binary network, made by larq_filters.",
        "",
        *_LAYOUT.splitlines(),
        "*/",
        f"#ifndef {macro}_H",
        f"#define {macro}_H",
        "",
        "#include <stdint.h>",
        "",
        *(f"#define {macro}_{k} {size}  /* floats: {text} */" for k, text, size in ends),
        f"#define {macro}_CONSTANT_BYTES {constants}  /* the arrays below, in flash */",
        f"#define {macro}_BUFFER_BYTES {_memory.plan(network).size}  /* static, in RAM */",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        "/* Fills y from x, which must be finite; returns the index of the largest value of the",
        "   first output. */",
        f"int {function}(const float *x, float *y);",
        "",
        "#ifdef __cplusplus",
        "}",
        "#endif",
    ]
    for number, step in enumerate(network.steps):
        mine = [n for n in network.arrays if n.startswith(f"s{number}.")]
        if mine:
            lines += ["", f"/* {number}: {_c.describe(network, step)} */"]
        for array_name in mine:
            lines += _array(_c.identifier(name, array_name), array_name, network.arrays[array_name])
    return "\n".join([*lines, "", "#endif"]) + "\n"


def _array(identifier: str, name: str, array: np.ndarray) -> Iterable[str]:
    kind = array.dtype.name
    if name.endswith(".flips"):
        axes = "words: a bit for each channel"
    elif array.ndim > 1:
        axes = _shape(array.shape)
    else:
        axes = "channels" if array.size > 1 else "one number"
    yield f"static const {_TYPES[kind]} {identifier}[{array.size}] = {{  /* {axes} */"
    numbers = ", ".join(map(_number, array.ravel()))
    yield textwrap.indent(textwrap.fill(numbers, 94), "    ")
    yield "};"


def _number(value: Any) -> str:
    if value.dtype.kind == "f":
        text = f"{float(value):.9g}"
        return f"{text}f" if "." in text or "e" in text else f"{text}.0f"
    return f"0x{int(value):08x}u" if value.dtype.kind == "u" else str(int(value))


def _shape(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))
