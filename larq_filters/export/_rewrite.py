"""Exact rewrites of a clone, after which Larq Compute Engine can pack more of its layers.

Each gives layers of the clone another `call` with the same outputs. None is for training.
"""

from collections.abc import Callable
from typing import Any

from larq_filters import _layers
from larq_filters.export import _graph, _lce

import larq as lq
import numpy as np
import tensorflow as tf

KINDS = (lq.layers.QuantDense, lq.layers.QuantConv1D, lq.layers.QuantConv2D)


def rewrite(model: tf.keras.Model, *, pack_dense: bool) -> Callable[[], None]:
    """Rewrites what can be rewritten exactly, in place.

    - `QuantDense` with a binarized input: a 1×1 convolution between two reshapes.
    - `QuantConv1D` with a binarized input: a convolution over one row.
    - `QuantConv2D` in groups of a channel count that is not a multiple of 32: a convolution for
      each group, and a concatenation.
    - Max pooling into batch norm, if γ ≥ 0 in every channel: batch norm into max pooling, as
      max(γx + β) = γ·max(x) + β. Batch norm then merges into the binary convolution before it, and
      the pooling into a binary one.
    - `SteTern` as input quantizer: the same three values by clipping, as Larq Compute Engine takes
      the sign of a sum of signs for a binary one.

    Args:
        model: A built clone, whose kernels are as they are quantized.
        pack_dense: Whether to rewrite `QuantDense`.

    Returns:
        What takes all of it back.
    """
    before: list[tuple[Any, str, Any]] = []

    def change(layer: Any, attribute: str, value: Any) -> None:
        before.append((layer, attribute, getattr(layer, attribute)))
        setattr(layer, attribute, value)

    def restore() -> None:
        for layer, attribute, value in reversed(before):
            setattr(layer, attribute, value)

    for layer in model._flatten_layers():
        if isinstance(layer.call, tf.types.experimental.PolymorphicFunction):
            change(layer, "call", layer.call.python_function)  # it may keep an earlier trace
        if _computes_as(getattr(layer, "input_quantizer", None), lq.quantizers.SteTern):
            change(layer, "input_quantizer", _ternary(layer.input_quantizer))
        packed = _packed(layer, pack_dense)
        if packed is not None:
            change(layer, "call", _if_binary(layer, packed))
    for pool, norm in _pools_into_norms(model):
        change(pool, "call", _both(pool.call, norm.call))
        change(norm, "call", _neither)
    return restore


def is_own(layer: Any, kind: type) -> bool:
    """Whether a layer's class computes as a kind: a subclass may do something else."""

    def methods(of: type) -> list[tuple[str, type]]:
        names = ("__call__", "call", "convolution_op")
        return [(name, part) for name in names for part in of.__mro__ if name in vars(part)]

    return isinstance(layer, kind) and methods(type(layer)) == methods(kind)


def _computes_as(layer: Any, kind: Any) -> bool:
    """Whether a layer computes as a kind: neither its class nor itself has another `call`."""
    return is_own(layer, kind) and getattr(layer.call, "__func__", None) is kind.call


def is_binarized(layer: Any, inputs: Any) -> bool:
    """Whether a layer binarizes its input, or is given one that is ±1 already."""
    quantizer = getattr(layer, "input_quantizer", None)
    if quantizer is not None:
        return getattr(quantizer, "precision", None) == 1 and _gives_signs(quantizer)
    if inputs is None or not tf.is_symbolic_tensor(inputs):
        return False
    return _graph.is_binary_sign(_graph.source(inputs).op)


def _gives_signs(quantizer: Any) -> bool:
    """Whether a quantizer of one bit gives numbers of both signs, and not 0 and 1."""
    try:
        with tf.init_scope():  # a graph is being made
            (negative, positive), _ = _layers.probe(quantizer, [-1.0, 1.0], rank=4)
    except Exception:  # one of the user's own may want other shapes
        return True
    return bool(negative < 0.0 < positive)


def _packed(layer: Any, pack_dense: bool) -> Callable[[Any, np.ndarray, Any], Any] | None:
    """The rewrite of a layer with a binary kernel, if there is one."""
    if getattr(getattr(layer, "kernel", None), "precision", None) != 1:
        return None
    if _computes_as(layer, lq.layers.QuantDense):
        return _dense if pack_dense else None
    if getattr(layer, "data_format", None) != "channels_last":
        return None
    if _computes_as(layer, lq.layers.QuantConv1D):
        return _conv1d if layer.padding != "causal" and layer.groups == 1 else None
    if _computes_as(layer, lq.layers.QuantConv2D) and layer.groups > 1:
        return _groups if layer.kernel.shape[2] % _lce.WORD else None
    return None


def _if_binary(layer: Any, packed: Callable[[Any, np.ndarray, Any], Any]) -> Callable[[Any], Any]:
    call, kernel = layer.call, layer.kernel.numpy()

    @tf.autograph.experimental.do_not_convert
    def either(inputs: Any) -> Any:
        return packed(layer, kernel, inputs) if is_binarized(layer, inputs) else call(inputs)

    return either


def _quantized(layer: Any, inputs: Any) -> Any:
    if layer.input_quantizer is None:
        return lq.math.sign(inputs)  # is ±1 already; says so next to the convolution
    return layer.input_quantizer(inputs)


def _finish(layer: Any, outputs: Any) -> Any:
    if layer.use_bias:
        outputs = tf.nn.bias_add(outputs, layer.bias)
    return outputs if layer.activation is None else layer.activation(outputs)


def _dense(layer: Any, kernel: np.ndarray, inputs: Any) -> Any:
    channels, units = kernel.shape
    x = _quantized(layer, tf.reshape(inputs, [1, 1, -1, channels]))
    x = tf.nn.conv2d(x, kernel[None, None], 1, "VALID")
    shape = [-1 if n is None else n for n in [*inputs.shape[:-1], units]]
    return _finish(layer, tf.reshape(x, shape))


def _conv1d(layer: Any, kernel: np.ndarray, inputs: Any) -> Any:
    x = _padded(layer, _quantized(layer, inputs[:, None]), inputs)
    x = tf.nn.conv2d(
        x,
        kernel[None],
        [1, layer.strides[0]],
        layer.padding.upper() if layer._is_native_padding else "VALID",
        dilations=[1, layer.dilation_rate[0]],
    )
    return _finish(layer, x[:, 0])


def _groups(layer: Any, kernel: np.ndarray, inputs: Any) -> Any:
    parts = [
        tf.nn.conv2d(
            _padded(layer, _quantized(layer, x), inputs),
            part,
            layer.strides,
            layer.padding.upper() if layer._is_native_padding else "VALID",
            dilations=layer.dilation_rate,
        )
        for x, part in zip(
            tf.split(inputs, layer.groups, -1),
            np.split(kernel, layer.groups, -1),
            strict=True,
        )
    ]
    return _finish(layer, tf.concat(parts, -1))


def _padded(layer: Any, x: Any, inputs: Any) -> Any:
    if layer._is_native_padding:
        return x
    paddings = layer._get_padding_same(inputs)
    if len(paddings) < len(x.shape):
        paddings = [paddings[0], [0, 0], *paddings[1:]]
    return tf.pad(x, paddings, constant_values=layer.pad_values)


def _ternary(quantizer: Any) -> Callable[[Any], Any]:
    def ternary(x: Any) -> Any:
        threshold = quantizer.threshold_value
        return tf.clip_by_value(tf.sign(x + threshold) + tf.sign(x - threshold), -1.0, 1.0)

    ternary.precision = quantizer.precision  # type: ignore[attr-defined]
    return ternary


def _pools_into_norms(model: tf.keras.Model) -> list[tuple[Any, Any]]:
    """Pairs of a max pooling and the batch norm that alone uses its output, in channels last."""
    layers = list(model._flatten_layers())
    results = [o for m in layers if isinstance(m, tf.keras.Model) for o in _flat(m.outputs)]
    pairs = []
    for pool in layers:
        if type(pool) is not tf.keras.layers.MaxPooling2D or len(pool.outbound_nodes) != 1:
            continue
        norm = pool.outbound_nodes[0].layer
        if not any(_computes_as(norm, kind) for kind in _layers.BATCH_NORMS) or not norm.built:
            continue
        alone = len(pool.inbound_nodes) == len(norm.inbound_nodes) == 1
        if alone and not any(pool.output is result for result in results) and _keeps_order(norm):
            if pool.data_format == "channels_last" and list(norm.axis) == [3]:
                pairs.append((pool, norm))
    return pairs


def _keeps_order(norm: Any) -> bool:
    weights = [np.asarray(w) for w in norm.get_weights()]
    finite = all(np.isfinite(w).all() for w in weights)
    return finite and (norm.gamma is None or bool((norm.gamma.numpy() >= 0.0).all()))


def _both(pool: Callable[..., Any], norm: Callable[..., Any]) -> Callable[..., Any]:
    @tf.autograph.experimental.do_not_convert
    def both(inputs: Any, **kwargs: Any) -> Any:
        return pool(norm(inputs, training=False))

    return both


@tf.autograph.experimental.do_not_convert
def _neither(inputs: Any, **kwargs: Any) -> Any:
    return inputs


def _flat(nested: Any) -> list[Any]:
    return tf.nest.flatten(nested) if nested is not None else []
