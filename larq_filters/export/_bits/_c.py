"""The plain C99 program of a network: one loop a step, on static buffers."""

from collections.abc import Sequence

from larq_filters.export._bits import _kernels, _memory
from larq_filters.export._bits._network import Network, Step, Tensor, is_line, is_tensor, words

_SUMS = {
    "binary": "binary_sum",
    "signs": "signs_sum",
    "real": "real_sum",
    "int8": "int8_sum",
    "average": "average",
}
_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_CALLS = {
    "neg": "-{0}",
    "abs": "{0} < 0.0f ? -{0} : {0}",
    "square": "{0} * {0}",
    "relu": "{0} > 0.0f ? {0} : 0.0f",
    "relu6": "{0} > 6.0f ? 6.0f : {0} > 0.0f ? {0} : 0.0f",
    "max": "{0} > {1} ? {0} : {1}",
    "min": "{0} < {1} ? {0} : {1}",
    "leaky": "{0} > 0.0f ? {0} : {0} * {1}",
    "sign": "(float)({0} > 0.0f) - (float)({0} < 0.0f)",
    "copy": "{0}",
}
NAMES = ("window", *_kernels.NAMES, *_memory.BUFFERS.values())  # at the top of the program
_TYPES = {"float": "float", "bits": "uint32_t", "int": "int32_t", "int8": "int8_t"}


def program(network: Network, name: str, function: str) -> str:
    """The .c file; `name`.h holds its arrays.

    Args:
        network: The network.
        name: Of the header, and of the arrays in it.
        function: Name of the function.
    """
    writer = _Writer(network, name)
    steps = [line for i, step in enumerate(network.steps) for line in writer.step(i, step)]
    buffers = [
        f"static {_TYPES[kind]} {_memory.BUFFERS[kind]}[{length}];"
        for kind, length in writer.memory.lengths.items()
    ]
    number = network.outputs[0][1]
    outputs = network.tensors[number].positions * network.tensors[number].channels
    lines = [
        f"/* Computes what {name}.h describes. C99: no library, no allocation; not reentrant. */",
        f'#include "{name}.h"',
        "",
        "/* Products are rounded before they are added, on every processor: -std=c99 or",
        "   -ffp-contract=off tell gcc so. */",
        "#ifdef __clang__",
        "#pragma STDC FP_CONTRACT OFF",
        "#endif",
        "",
        *buffers,
        "",
        *_kernels.parts(writer.used),
        *writer.windows,
        "",
        f"int {function}(const float *x, float *y)",
        "{",
        "    int32_t p, c, best = 0;",
        *steps,
        f"    for (c = 1; c < {outputs}; ++c) {{",
        "        if (y[c] > y[best]) {",
        "            best = c;",
        "        }",
        "    }",
        "    return (int)best;",
        "}",
    ]
    return "\n".join(lines) + "\n"


class _Writer:
    def __init__(self, network: Network, name: str) -> None:
        self._network, self._name = network, name
        self.memory = _memory.plan(network)
        self.used: set[str] = set()
        self.windows: list[str] = []

    def step(self, number: int, step: Step) -> list[str]:
        """The lines of a step."""
        output = self._network.tensors[step.output]
        body = self._body(number, step, output)
        return [
            "",
            f"    /* {number}: {describe(self._network, step)} */",
            f"    for (p = 0; p < {output.positions}; ++p) {{",
            *(f"        {line}" for line in body),
            "    }",
        ]

    def _body(self, number: int, step: Step, output: Tensor) -> list[str]:
        if step.kind == "concat":
            return self._concat(step, output)
        sums = self._sum(number, step, output)
        return self._loop(output.channels, [*sums, *self._finish(step, output)])

    def _loop(self, count: int, body: Sequence[str]) -> list[str]:
        return [f"for (c = 0; c < {count}; ++c) {{", *(f"    {line}" for line in body), "}"]

    def _sum(self, number: int, step: Step, output: Tensor) -> list[str]:
        """What 'sum' is, where there is one."""
        if step.kind == "copy":
            source = self._network.tensors[step.inputs[0]]
            i = f"(p * {output.channels} + c)"
            row = (
                f"{self._place(step.inputs[0])} + {i} / {source.channels} * {source_words(source)}"
            )
            return [f"const int sum = {self._use('bit')}({row}, {i} % {source.channels});"]
        if step.kind == "map":
            if not step.inputs:
                return []
            return [f"const int32_t sum = {self._element(step.inputs[0], output)};"]
        if step.kind == "quantize":
            scale = f"{self._array(step.weights)}[0]"
            return [f"const float sum = {self._element(step.inputs[0], output)} * {scale};"]
        source, window = self._network.tensors[step.inputs[0]], step.window
        assert window is not None
        name = _SUMS.get(step.kind) or f"{'bit' if source.kind == 'bits' else source.kind}_max"
        numbers = (
            *(window.height, window.width, window.channels, window.groups, window.out_width),
            *(window.filters, window.rows, window.columns, *window.strides, *window.dilations),
            *(window.top, window.left, window.pad),
        )
        self.windows.append(f"static const window w{number} = {{{', '.join(map(str, numbers))}}};")
        kind = {"bit_max": "int", "binary_sum": "int32_t", "int8_sum": "int32_t"}.get(
            name, "int32_t" if name == "int_max" else "float"
        )
        more = f", {self._array(step.weights)}" if step.weights else ""
        place = self._place(step.inputs[0])
        return [f"const {kind} sum = {self._use(name)}(&w{number}, {place}{more}, p, c);"]

    def _finish(self, step: Step, output: Tensor) -> list[str]:
        """What becomes of it."""
        if step.thresholds:
            flip = f"{self._use('bit')}({self._array(step.flips)}, c)"
            value = f"(sum >= {self._array(step.thresholds)}[c]) != {flip}"
            return [self._put(step.output, "c", value)]
        lines = []
        is_int = self._is_int(step)

        def operand(name: str) -> str:
            if name == "sum":
                return "(float)sum" if is_int else "sum"
            if is_line(name):
                return name
            if is_tensor(name):
                return self._element(int(name[1:]), output, as_float=True)
            array = self._network.arrays[name]
            index = ("0", "c", f"p * {output.channels} + c")[array.ndim]
            return f"{self._array(name)}[{index}]"

        for i, (operation, *names) in enumerate(step.code):
            values = [operand(a) for a in names]
            if operation in _INFIX:
                text = f" {_INFIX[operation]} ".join(values)
            else:
                text = _CALLS[operation].format(*values)
            lines.append(f"const float v{i} = {text};")
        result = f"v{len(step.code) - 1}" if step.code else "sum"
        if output.kind == "int8":
            self._use("quantized")
            result = "quantized(sum)"
        elif output.kind == "bits":
            if not self._network.moves_bits(step):
                result = f"{result} >= {'0.0f' if step.code or not is_int else '0'}"
            return [*lines, self._put(step.output, "c", result)]
        elif output.kind == "float" and not step.code and is_int:
            result = "(float)sum"
        place = _at(self._place(step.output), f"p * {output.channels} + c")
        return [*lines, f"{place} = {result};"]

    def _is_int(self, step: Step) -> bool:
        if step.kind in ("max", "map"):
            return bool(step.inputs) and self._network.tensors[step.inputs[0]].kind != "float"
        return step.kind in ("binary", "int8")

    def _concat(self, step: Step, output: Tensor) -> list[str]:
        lines, start = [], 0
        for number in step.inputs:
            part = self._network.tensors[number]
            value = self._element(number, part, raw=True)
            place = f"{start} + c" if start else "c"
            if output.kind == "bits":
                body = self._put(step.output, place, value)
            else:
                target = _at(self._place(step.output), f"p * {output.channels} + {place}")
                body = f"{target} = {value};"
            lines += self._loop(part.channels, [body])
            start += part.channels
        return lines

    def _element(
        self, number: int, output: Tensor, as_float: bool = False, raw: bool = False
    ) -> str:
        """A tensor's value for channel c at position p of an output."""
        tensor, place = self._network.tensors[number], self._place(number)
        p = "p" if tensor.positions == output.positions else "0"
        c = "c" if tensor.channels == output.channels else "0"
        if tensor.kind == "bits":
            row = place if p == "0" else f"{place} + p * {source_words(tensor)}"
            value = f"{self._use('bit')}({row}, {c})"
            return value if raw else f"({value} ? 1.0f : -1.0f)"
        index = c if p == "0" else f"p * {tensor.channels} + {c}"
        value = _at(place, index)
        return f"(float){value}" if as_float and tensor.kind != "float" else value

    def _put(self, number: int, channel: str, value: str) -> str:
        tensor = self._network.tensors[number]
        place, count = self._place(number), source_words(tensor)
        row = f"{place} + p * {count}" if tensor.positions > 1 else place
        return f"{self._use('put')}({row}, {channel}, {value});"

    def _place(self, number: int) -> str:
        return self.memory.places[number]

    def _array(self, name: str) -> str:
        return identifier(self._name, name)

    def _use(self, name: str) -> str:
        self.used.add(name)
        return name


def describe(network: Network, step: Step) -> str:
    """A step in words."""
    output = network.tensors[step.output]
    shapes = " and ".join("x".join(map(str, network.tensors[n].shape[1:])) for n in step.inputs)
    what = (
        step.kind
        if step.window is None
        else f"{step.kind} {step.window.rows}x{step.window.columns}"
    )
    text = f"{step.name}, {what}"
    if shapes:
        text += f" of {shapes}"
    text += f", to {output.kind} {'x'.join(map(str, output.shape[1:]))}"
    if step.thresholds:
        text += ", by integer thresholds"
    return text.replace("*/", "* /")


def identifier(prefix: str, name: str) -> str:
    """An array's name in C."""
    return f"{prefix}_{name.replace('.', '_')}"


def source_words(tensor: Tensor) -> int:
    """Words of a position."""
    return words(tensor.channels)


def _at(place: str, index: str) -> str:
    buffer, _, start = place.partition(" + ")
    return f"{buffer}[{start} + {index}]" if start else f"{buffer}[{index}]"
