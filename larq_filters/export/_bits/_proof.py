"""Whether a packed network computes what the model computes."""

import contextlib
import ctypes
import dataclasses
import math
import os
import pathlib
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from larq_filters._text import html_table
from larq_filters.export import _model, _verify
from larq_filters.export._bits import _c, _header, _run
from larq_filters.export._bits._network import Network
from larq_filters.export._verify import Mismatch, Verification

import numpy as np
import tensorflow as tf

Predict = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
_FEW = 16  # samples for the C program, which is compared with NumPy bit for bit


@dataclasses.dataclass(frozen=True)
class BitsVerification(Verification):
    """How all outputs of a packed network differ from the model's; prints as a table.

    Args:
        outputs: One `Difference` for each output, in the order of the model.
        samples: Number of samples.
        tolerance: The largest relative difference that counts as equal.
        near: Samples in which the argument of a float sign is so close to 0 that Keras may round it
            to the other sign.
        unexplained: Samples beyond the tolerance that are not among them; if all samples are among
            them, all that are beyond.
        compiler: What compiled the C program, whose outputs were equal bit for bit on the first 16
            samples; empty if there is none.

    Example:
        >>> difference = lqf.export.Difference("logits", 1e-6, 1e-7, 1.0, 0.0)
        >>> print(lqf.export.BitsVerification((difference,), 100, 1e-3, 2, 0, "cc"))
        output                    absolute   relative   same arg max   beyond 0.001
        logits                     1.0e-06    1.0e-07        100.00%          0.00%
        signs near rounding     2 of 100 samples; 0 of the others exceed the tolerance
        C program               equal bit for bit, compiled by cc
    """

    near: int
    unexplained: int
    compiler: str

    def __str__(self) -> str:
        return f"{super().__str__()}\n{self._more()}"

    def _repr_html_(self) -> str:
        return html_table(*self._table(), below=self._more())

    def _more(self) -> str:
        program = (
            f"equal bit for bit, compiled by {self.compiler}"
            if self.compiler
            else "not compiled here"
        )
        return (
            f"signs near rounding     {self.near} of {self.samples} samples; {self.unexplained} "
            "of the others exceed the tolerance\n"
            f"C program               {program}"
        )


def arrange(network: Network, inputs: Any) -> list[np.ndarray]:
    """Samples as a list of arrays, in the order of the model's inputs.

    Raises:
        ValueError: They do not fit the model, or are not finite.
    """
    names = [name for name, _ in network.inputs]
    specs = [tf.TensorSpec(network.tensors[n].shape, tf.float32) for _, n in network.inputs]
    return _verify.arrange(inputs, names, specs)


def verify(
    network: Network,
    model: tf.keras.Model,
    inputs: Any,
    *,
    tolerance: float | None,
    allowed: float,
    compiler: str | None,
) -> BitsVerification:
    """Runs a network and its model on the same samples, and compares; see `Bits.verify`."""
    arrays = arrange(network, _model.in_order(model, inputs))
    if tolerance is None:
        tolerance = 0.1 if any(s.kind == "int8" for s in network.steps) else 1e-3
    if not (tolerance >= 0.0 and 0.0 <= allowed < 1.0):
        raise ValueError(
            "tolerance is 0 or more and allowed is in [0, 1). "
            f"Received: tolerance={tolerance}, allowed={allowed}"
        )
    known = tf.nest.flatten(_model.input_structure(model))
    _verify.check_shapes("inputs", [k.shape[1:] for k in known], [a.shape[1:] for a in arrays])
    expected = _verify.predict(model, arrays)
    _verify.check_finite([name for name, _ in network.outputs], expected)
    got, near = _run.run(network, arrays)
    _verify.check_shapes("outputs", [e.shape for e in expected], [g.shape for g in got])
    result = _verify.compare([name for name, _ in network.outputs], got, expected, tolerance)
    beyond = _beyond(got, expected, tolerance)
    # Where every sample is next to an edge, there is none that shows that the rest is right.
    unexplained = int(beyond.sum() if near.all() else (beyond & ~near).sum())
    compiler = _compiler(compiler)
    if compiler:
        _check_program(network, compiler, [a[:_FEW] for a in arrays], [g[:_FEW] for g in got])
    proof = BitsVerification(
        result.outputs, result.samples, tolerance, int(near.sum()), unexplained, compiler
    )
    if unexplained > allowed * result.samples:
        worst = max(result.outputs, key=lambda output: (output.beyond, output.relative))
        raise Mismatch(
            f"the bits compute something else than the model: output '{worst.name}' differs by up "
            f"to {worst.absolute:.3g}, which is {worst.relative:.3g} of its largest value. "
            f"{unexplained} of {result.samples} samples exceed the tolerance without a sign near "
            "rounding. Give the model that the bits were made of. With 8-bit real layers, or where "
            "all samples have a sign near rounding, set `allowed` to a share of samples. "
            f"Received: tolerance={tolerance:g}, allowed={allowed:g}"
        )
    return proof


def _beyond(got: list[np.ndarray], expected: list[np.ndarray], tolerance: float) -> np.ndarray:
    """Which samples differ by more than the tolerance in any output."""
    beyond = np.zeros(len(got[0]), bool)
    for one, two in zip(got, expected, strict=True):
        distance = np.abs(one.astype(np.float64) - two).reshape(len(two), -1).max(1)
        beyond |= ~(distance <= tolerance * (np.abs(two).max() or 1.0))
    return beyond


def _check_program(
    network: Network, compiler: str, inputs: list[np.ndarray], expected: list[np.ndarray]
) -> None:
    with _compiled(network, compiler) as predict:
        for (name, _), one, two in zip(network.outputs, predict(inputs), expected, strict=True):
            if not np.array_equal(one, two, equal_nan=True):
                raise Mismatch(
                    "the C program computes something else than the same bits in NumPy: look for "
                    "a compiler that does not round each operation to float32. Received: "
                    f"output '{name}', which differs by {np.abs(one - two).max():.3g}, compiled "
                    f"by {compiler}"
                )


def _compiler(given: str | None) -> str:
    """What compiles C here: what was given, the environment variable CC, or else cc; or ''."""
    wanted = os.environ.get("CC") if given is None else given
    if given == "" or not (wanted or shutil.which("cc")):
        return ""
    program, *arguments = shlex.split(wanted or "cc")
    found = shutil.which(program)
    if found is None:
        raise ValueError(
            "there is no such C compiler: name another one, by `compiler` or the environment "
            f"variable CC, or compiler='' for none. Received: {wanted}"
        )
    return shlex.join([found, *arguments])


@contextlib.contextmanager
def _compiled(network: Network, compiler: str) -> Iterator[Predict]:
    """What runs the program on samples: one array for each input, one for each output.

    Raises:
        ValueError: The compiler fails, or what it makes does not run here.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "bits.h").write_text(_header.header(network, "bits", "predict"), "utf-8")
        (folder / "bits.c").write_text(_c.program(network, "bits", "predict"), "utf-8")
        command = [
            *shlex.split(compiler),
            "-std=c99",
            "-O2",
            "-ffp-contract=off",
            "-shared",
            "-fPIC",
        ]
        command += [str(folder / "bits.c"), "-o", str(folder / "bits.so")]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            reason = " ".join(done.stderr.split())[:300]
            raise ValueError(
                f"the C compiler fails: name another one. Received: {compiler}, which says {reason}"
            )
        try:
            function = ctypes.CDLL(str(folder / "bits.so")).predict
        except OSError as error:
            raise ValueError(
                "what the C compiler makes does not run here: name one for this machine. "
                f"Received: {compiler}"
            ) from error
        yield lambda inputs: _predict(network, function, inputs)


def _predict(
    network: Network, function: Callable[..., int], inputs: Sequence[np.ndarray]
) -> list[np.ndarray]:
    shapes = [network.tensors[number].shape[1:] for _, number in network.outputs]
    sizes = [math.prod(shape) for shape in shapes]
    rows = []
    for sample in zip(*inputs, strict=True):
        x = np.concatenate([value.ravel() for value in sample]).astype(np.float32)
        y = np.zeros(sum(sizes), np.float32)
        function(x.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p))
        rows.append(y)
    parts = np.split(np.stack(rows), np.cumsum(sizes)[:-1], axis=1)
    return [part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]
