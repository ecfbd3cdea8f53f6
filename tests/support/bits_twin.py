"""Packed networks read and run by code that is not the package's: the documented layout, alone.

The .npz file is opened as a zip archive and its arrays are parsed byte by byte; a network runs one
sample at a time, window by window, on bits that are unpacked with shifts.
"""

import ast
import itertools
import json
import re
import zipfile

import numpy as np

F = np.float32
CODE = {
    "add": lambda a, b: F(a + b),
    "sub": lambda a, b: F(a - b),
    "mul": lambda a, b: F(a * b),
    "div": lambda a, b: F(a / b),
    "neg": lambda a: -a,
    "abs": abs,
    "square": lambda a: F(a * a),
    "relu": lambda a: np.where(a > 0, a, F(0)),
    "relu6": lambda a: np.where(a > 6, F(6), np.where(a > 0, a, F(0))),
    "max": lambda a, b: np.where(a > b, a, b),
    "min": lambda a, b: np.where(a < b, a, b),
    "leaky": lambda a, b: np.where(a > 0, a, F(a * b)),
    "sign": lambda a: (a > 0).astype(F) - (a < 0).astype(F),
    "copy": lambda a: a,
}


def parse_npy(data):
    """An array of a .npy file of version 1."""
    assert data[:8] == b"\x93NUMPY\x01\x00"
    length = int.from_bytes(data[8:10], "little")
    head = ast.literal_eval(data[10 : 10 + length].decode("latin1"))
    assert not head["fortran_order"]
    body = data[10 + length :]
    array = np.frombuffer(body, head["descr"]).reshape(head["shape"])
    assert array.nbytes == len(body)  # nothing is behind it
    return array


def read_npz(path):
    """The head and the arrays of a file."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        arrays = {name.removesuffix(".npy"): parse_npy(archive.read(name)) for name in names}
    head = json.loads(arrays.pop("network").tobytes().decode("utf-8"))
    return head, arrays


def read_header(text):
    """The arrays of a C header by name, and its macros that are numbers."""
    types = {"float": "<f4", "uint32_t": "<u4", "int32_t": "<i4", "int16_t": "<i2", "int8_t": "i1"}
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    arrays = {}
    for kind, name, size, body in re.findall(
        r"static const (\w+) (\w+)\[(\d+)\] = \{(.*?)\};", text, re.DOTALL
    ):
        end = "f" if kind == "float" else "u"
        numbers = [token.strip().removesuffix(end) for token in body.split(",")]
        values = [float(n) if kind == "float" else int(n, 0) for n in numbers]
        arrays[name] = np.array(values, types[kind])
        assert len(values) == int(size)
    return arrays, {n: int(v) for n, v in re.findall(r"#define (\w+) (\d+)", text)}


def signs(words, channels):
    """±1 of the last axis' bits."""
    places = [(c // 32, c % 32) for c in range(channels)]
    bits = [words[..., word] >> np.uint32(place) & np.uint32(1) for word, place in places]
    for word in range(words.shape[-1]):  # and the bits behind the last channel are 0
        used = min(32, channels - 32 * word)
        assert not (words[..., word].astype(np.uint64) >> np.uint64(used)).any()
    return np.stack(bits, -1).astype(np.int64) * 2 - 1


class Twin:
    """A network of a file."""

    def __init__(self, path):
        self.head, self.arrays = read_npz(path)

    def predict(self, *inputs):
        """The outputs of samples."""
        rows = [self.one(*sample) for sample in zip(*inputs, strict=True)]
        return [np.stack(part) for part in zip(*rows, strict=True)]

    def one(self, *sample):
        self.values = {}
        for (_, number), x in zip(self.head["inputs"], sample, strict=True):
            self.values[number] = np.asarray(x, F)
        for step in self.head["steps"]:
            self.values[step["output"]] = self.make(step)
        tensors = self.head["tensors"]
        return [self.get(n).reshape(tensors[n]["shape"][1:]) for _, n in self.head["outputs"]]

    def get(self, number):
        """(positions, channels)"""
        tensor, root = self.head["tensors"][number], number
        while self.head["tensors"][root]["alias"] >= 0:
            root = self.head["tensors"][root]["alias"]
        return self.values[root].reshape(-1, tensor["shape"][-1])

    def make(self, step):
        kind, output = step["kind"], self.head["tensors"][step["output"]]
        channels = output["shape"][-1]
        parts = [self.get(number) for number in step["inputs"]]
        if kind == "concat":
            return np.concatenate(parts, 1)
        if kind == "copy":
            return parts[0].reshape(-1, channels)
        if kind == "quantize":
            scaled = np.clip(F(parts[0] * self.arrays[step["weights"]]), F(-127), F(127))
            return np.trunc(F(scaled + np.where(scaled < 0, F(-0.5), F(0.5)))).astype(np.int64)
        sums = parts[0] if kind == "map" and parts else None
        if kind in ("binary", "signs", "real", "int8"):
            sums = self.convolve(step, parts[0])
        elif kind in ("max", "average"):
            sums = self.pool(step, parts[0])
        if step["thresholds"]:
            flips = signs(self.arrays[step["flips"]], channels) > 0
            at_least = sums >= self.arrays[step["thresholds"]].astype(np.int64)
            return np.where(np.where(flips, ~at_least, at_least), 1, -1)
        lines = []
        for name, *operands in step["code"]:
            values = [self.operand(a, lines, sums) for a in operands]
            lines.append(CODE[name](*values))
        result = lines[-1] if lines else sums
        if output["kind"] == "bits":
            return np.where(result >= 0, 1, -1)
        whole = int(np.prod(output["shape"])) // channels
        result = np.broadcast_to(result, (whole, channels))
        return result if output["kind"] == "int" else result.astype(F)

    def operand(self, name, lines, sums):
        if name == "sum":
            return sums.astype(F)
        if name[0] == "v" and name[1:].isdigit():
            return lines[int(name[1:])]
        if name[0] == "t" and name[1:].isdigit():
            return self.get(int(name[1:])).astype(F)
        return self.arrays[name]

    def windows(self, window, x):
        """For each output position, its taps: where in the window, and where in the input."""
        for oy, ox in itertools.product(range(window["out_height"]), range(window["out_width"])):
            taps = []
            for row, column in itertools.product(range(window["rows"]), range(window["columns"])):
                y = oy * window["strides"][0] + row * window["dilations"][0] - window["top"]
                x = ox * window["strides"][1] + column * window["dilations"][1] - window["left"]
                inside = 0 <= y < window["height"] and 0 <= x < window["width"]
                taps.append((row, column, y * window["width"] + x if inside else None))
            yield taps

    def convolve(self, step, x):
        window, kind = step["window"], step["kind"]
        channels, groups, filters = (window[n] for n in ("channels", "groups", "filters"))
        x = x.reshape(-1, groups, channels)
        kernel = self.arrays[step["weights"]]
        if kind in ("binary", "signs"):
            kernel = np.moveaxis(signs(kernel, channels), 0, -1)
        assert kernel.shape == (window["rows"], window["columns"], channels, filters)
        if kind in ("binary", "int8"):
            kernel = kernel.astype(np.int64)
            x = x.astype(np.int64)
        group = np.repeat(np.arange(groups), filters // groups)
        padding = np.full((groups, channels), window["pad"] if kind == "binary" else 0, x.dtype)
        sums = []
        for taps in self.windows(window, x):
            total = np.zeros(filters, kernel.dtype if kind != "signs" else F)
            for row, column, place in taps:
                values = padding if place is None else x[place]
                for c in range(channels):
                    total = total + values[group, c] * kernel[row, column, c].astype(total.dtype)
            sums.append(total)
        return np.stack(sums)

    def pool(self, step, x):
        results = []
        for taps in self.windows(step["window"], x):
            values = [x[place] for _, _, place in taps if place is not None]
            if step["kind"] == "max":
                results.append(np.max(values, 0))
            else:
                total = np.zeros(x.shape[1], F)
                for value in values:
                    total = F(total + value)
                results.append(F(total / F(len(values))))
        return np.stack(results)
