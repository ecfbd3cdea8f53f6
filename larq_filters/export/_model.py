"""What a model has to be, and what it takes as input, to be exported."""

from typing import Any

import larq as lq
import tensorflow as tf


def check(model: Any) -> None:
    """Refuses what no file can be made of, in one sentence each."""
    kind = f"{type(model).__module__}.{type(model).__name__}"
    if not isinstance(model, tf.keras.Model):
        if any(c.__module__.startswith("keras.") for c in type(model).__mro__):
            raise TypeError(
                "this is a model of Keras 3, and larq's layers are of Keras 2: build it with "
                f"tf.keras after `import larq_filters`. Received: {kind}"
            )
        raise TypeError(
            "export takes a model of Keras 2 (tf.keras.Model); a file is loaded with "
            f"tf.keras.models.load_model first. Received: {kind}"
        )
    if not model.built:
        raise ValueError(
            "the model has no weights yet: train it, or call it on an input of the right shape. "
            f"Received: model '{model.name}', not built"
        )
    for layer in model._flatten_layers():
        if any(c.__name__.startswith("Revived") for c in type(layer).__mro__[1:]):
            raise ValueError(
                "a layer of the SavedModel has lost its class, which was not known when it was "
                "loaded: import or register it first, or save the model as .keras. Received: "
                f"layer '{layer.name}' of class {type(layer).__name__}"
            )
        if layer.compute_dtype not in ("float32", None) and layer.weights:
            raise ValueError(
                "a file computes in float32, not in mixed precision: build the model under the "
                "policy float32 and copy the weights with set_weights. Received: layer "
                f"'{layer.name}' with policy {layer.dtype_policy.name}"
            )


def check_quantizers(model: tf.keras.Model) -> None:
    """Refuses activations whose quantizer computes with all samples of a batch."""
    for layer in model._flatten_layers():
        for attribute in ("input_quantizer", "activation"):
            quantizer = getattr(layer, attribute, None)
            if _is_of_a_batch(quantizer):
                raise ValueError(
                    "a quantizer of activations takes a mean or a maximum of the whole batch, so "
                    "an output depends on the samples beside it, and a file has one sample: use "
                    "one with a fixed scale or threshold, such as 'ste_sign' or 'ste_tern'. "
                    f"Received: layer '{layer.name}' with {attribute} {type(quantizer).__name__}"
                )


def _is_of_a_batch(quantizer: Any) -> bool:
    quantizers = lq.quantizers
    return (
        isinstance(quantizer, quantizers.MagnitudeAwareSign)
        or (isinstance(quantizer, quantizers.SteTern) and quantizer.ternary_weight_networks)
        or (
            isinstance(quantizer, quantizers.DoReFa)
            and quantizer.mode == "weights"
            and quantizer.precision > 1  # of one bit, it is the sign
        )
    )


def check_lstm(model: tf.keras.Model) -> None:
    """Refuses LSTMs that Larq Compute Engine converts to something else."""
    for layer in model._flatten_layers():
        if isinstance(layer, tf.keras.layers.LSTM) and not layer.unroll:
            raise ValueError(
                "Larq Compute Engine converts an LSTM that is not unrolled to a wrong file: use "
                "LSTM(unroll=True) or RNN(LSTMCell(units)), which take the same weights. Received: "
                f"layer '{layer.name}'"
            )


def input_structure(model: tf.keras.Model) -> Any:
    """The nested structure in which a model takes its inputs, of tensors or specs.

    Raises:
        ValueError: It is not known, as of a subclassed model with more than one argument, or a
            shape is not fixed, or a type is none of numbers.
    """
    structure = getattr(model, "_nested_inputs", model.inputs)
    if model.inputs is None:
        saved: Any = model.save_spec() or ((), {})
        arguments, keywords = saved
        if len(arguments) != 1 or keywords:
            raise ValueError(
                "the shape of the model's input is not known: call the model once on a sample, as "
                f"its only argument. Received: model '{model.name}' with "
                f"{len(arguments) + len(keywords)} known arguments"
            )
        structure = arguments[0]
    for tensor in tf.nest.flatten(structure):
        dtype = tf.as_dtype(tensor.dtype)
        if not (dtype.is_floating or dtype.is_integer or dtype.is_bool or dtype.is_complex):
            raise ValueError(
                "a file takes numbers only: put what makes them of text before the model. Received:"
                f" input '{tensor.name}' of type {dtype.name}"
            )
        shape = tuple(tensor.shape)
        if not shape or None in shape[1:]:
            raise ValueError(
                "export needs fixed input shapes, except for the batch axis: make the model with a "
                f"fixed Input and copy the weights. Received: input '{tensor.name}' of shape "
                f"{shape}"
            )
    return structure


def in_order(model: tf.keras.Model, inputs: Any) -> Any:
    """Samples that are in a dict as the model takes them, in the order of its inputs."""
    structure = input_structure(model)
    if isinstance(inputs, dict) and isinstance(structure, dict) and set(inputs) == set(structure):
        return tf.nest.flatten(inputs)
    return inputs
