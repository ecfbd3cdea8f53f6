"""A clone as one traced function of a single sample, and where its layers are in the graph."""

import dataclasses
import re
from typing import Any

from larq_filters.export._frozen import Kernel
from larq_filters.export._rewrite import is_binarized

import tensorflow as tf


@dataclasses.dataclass
class Call:
    """The calls of a layer that has kernels.

    Args:
        scopes: Their name scopes.
        binarized: Whether each of them binarizes its input, or is given one that is ±1.
    """

    scopes: list[str] = dataclasses.field(default_factory=list)
    binarized: bool = False


@dataclasses.dataclass(frozen=True)
class Trace:
    """A traced model.

    Args:
        function: The concrete function, of batch size 1.
        module: What holds its variables, to be saved.
        inputs: Names of the inputs in the order of the model.
        outputs: Names of the outputs in the order of the model.
        specs: Shapes and types of the inputs, for one sample.
        calls: By the layer's id, in the order in which the layers were first called.
        binary: Paths of the layers with binary kernels, by the name scopes of their calls.
    """

    function: Any
    module: tf.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    specs: tuple[tf.TensorSpec, ...]
    calls: dict[int, Call]
    binary: dict[str, str]


def trace(model: tf.keras.Model, kernels: list[Kernel], structure: Any) -> Trace:
    """Traces a clone for a single sample.

    Args:
        model: The clone.
        kernels: Its kernels.
        structure: That of its input, of tensors or specs.
    """
    flat = tf.nest.flatten(structure)
    inputs = _names(getattr(model, "input_names", None), "input", len(flat))
    specs = [
        tf.TensorSpec([1, *tensor.shape[1:]], tensor.dtype, name)
        for tensor, name in zip(flat, inputs, strict=True)
    ]
    calls: dict[int, Call] = {}
    for layer in {id(k.layer): k.layer for k in kernels}.values():
        _watch(layer, calls)
    outputs: tuple[str, ...] = ()

    @tf.function(input_signature=specs)
    def serve(*values: Any) -> Any:
        nonlocal outputs
        calls.clear()  # TensorFlow traces twice: to create variables, and without
        results = model(tf.nest.pack_sequence_as(structure, values), training=False)
        results = tf.nest.flatten(results)
        outputs = _names(getattr(model, "output_names", None), "output", len(results))
        return {n: tf.identity(r, n) for n, r in zip(outputs, results, strict=True)}

    module = tf.Module()
    module.serve = serve
    # Not the model: Keras would save its layers, one function each.
    module.held = [getattr(v, "latent_variable", v) for v in model.variables]
    function = serve.get_concrete_function()
    binary = {
        scope: path(scope)
        for kernel in kernels
        if kernel.precision == 1 and id(kernel.layer) in calls
        for scope in calls[id(kernel.layer)].scopes
    }
    return Trace(function, module, inputs, outputs, tuple(specs), calls, binary)


def path(scope: str) -> str:
    """The path of a layer in its model, from the name scope of a call."""
    return scope.split("/", 1)[-1]


def _watch(layer: Any, calls: dict[int, Call]) -> None:
    call = layer.call

    @tf.autograph.experimental.do_not_convert
    def watched(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        record = calls.setdefault(id(layer), Call(binarized=True))
        record.scopes.append(tf.get_current_name_scope())
        record.binarized &= is_binarized(layer, inputs)
        return call(inputs, *args, **kwargs)

    layer.call = watched


def clean(name: str) -> str:
    """A name of which all characters are allowed in a file."""
    return re.sub(r"\W", "_", name)


def _names(given: Any, kind: str, count: int) -> tuple[str, ...]:
    if given is None or len(given) != count:
        given = [f"{kind}_{i}" for i in range(count)] if count > 1 else [kind]
    names: list[str] = []
    for name in given:
        name = clean(name)
        name = name if re.match(r"[A-Za-z]", name) else f"{kind}_{name}"
        names.append(name if name not in names else f"{name}_{len(names)}")
    return tuple(names)
