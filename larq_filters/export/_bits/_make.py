"""From a Keras model to a network."""

from typing import Any

from larq_filters.export import _frozen, _model, _trace
from larq_filters.export._bits import _build
from larq_filters.export._bits._network import Network, check_finite
from larq_filters.export._bits._nodes import Graph

import tensorflow as tf


def network(model: tf.keras.Model) -> Network:
    """The network of a model, of an uncompiled clone; see `bits`."""
    _model.check(model)
    _model.check_quantizers(model)
    structure = _model.input_structure(model)
    clone, kernels = _frozen.freeze(model)
    for layer in clone._flatten_layers():
        _open(layer)
    traced = _trace.trace(clone, kernels, structure)
    made = _build.build(Graph(traced, kernels))
    # Not before: what is refused may not run on this processor, such as channels that come first.
    _frozen.check_clone(model, clone, structure)
    for name, array in made.arrays.items():
        check_finite(made.steps[int(name[1 : name.index(".")])].name, [array])
    return made


def _open(layer: Any) -> None:
    """Lets the graph show what a layer does, where Keras hides it in a compiled function."""
    if isinstance(layer.call, tf.types.experimental.PolymorphicFunction):
        layer.call = layer.call.python_function
    if hasattr(layer, "_jit_compiled_convolution_op"):  # of groups
        layer._jit_compiled_convolution_op = layer.convolution_op
