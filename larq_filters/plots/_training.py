"""Plots of the training of a network."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from larq_filters import _layers
from larq_filters._numbers import whole_number
from larq_filters.optimizers import FilteredFlip
from larq_filters.plots import _axes

import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MANY = 8  # more layers than that are not named one by one


def flip_ratio(history: Any, *, ax: "Axes | None" = None) -> "Axes":
    """Flip ratios over epochs: the share of weights that flip per step, by layer and overall.

    Args:
        history: The result of `model.fit` with `callbacks.FlipRatio`, or its `history`.
        ax: Axes to draw into. None: new axes.

    Returns:
        The axes: epochs, counted from 1, and flips per weight and step, logarithmic.

    Raises:
        TypeError: `history` is something else.
        ValueError: There are no flip ratios in `history`.

    Example:
        >>> ax = lqf.plots.flip_ratio({"flip_ratio": [0.02, 0.01], "flip_ratio/conv": [0.02, 0.01]})
        >>> ax.get_ylabel()
        'flips per weight and step'
    """
    logs: Mapping[str, Sequence[float]] = getattr(history, "history", history)
    logs = getattr(logs, "history", logs)  # of a model that was trained
    if not isinstance(logs, Mapping):
        raise TypeError(
            "history is what `model.fit` returned, or its `history`. "
            f"Received: {type(history).__name__}"
        )
    if "flip_ratio" not in logs:
        raise ValueError(
            "this history has no flip ratios. Train with callbacks=[larq_filters."
            f"callbacks.FlipRatio()]. Received: a history of {list(logs)}"
        )
    ax = _axes.new_or(ax)
    layers = [name for name in logs if name.startswith("flip_ratio/")]
    labels = _layer_labels([name.split("/", 1)[1] for name in layers])
    values = [value for name in (*layers, "flip_ratio") for value in logs[name]]
    floor = min((value for value in values if value > 0.0), default=1e-6) / 3.0
    for name, label, color in zip(layers, labels, _colors(len(layers)), strict=True):
        _ratios(ax, logs[name], floor, color=color, marker=".", linewidth=1.0, label=label)
    _ratios(ax, logs["flip_ratio"], floor, color="k", marker=".", linewidth=2.0, label="all layers")
    if 0.0 in values:
        ax.plot([], [], "kv", label="0: no weight flipped")
    ax.set_yscale("log")
    if len(logs["flip_ratio"]) == 1:
        ax.set_xticks([1])
    else:
        ax.locator_params("x", integer=True)
    ax.set_xlabel("epoch")
    ax.set_ylabel("flips per weight and step")
    return _axes.finish(ax, "Flip ratio")


def state_histogram(
    model: tf.keras.Model,
    layers: Sequence[str] | None = None,
    *,
    bins: int = 100,
    ax: "Axes | None" = None,
) -> "Axes":
    """How far binary weights are from flipping: filter outputs y times weights θ, per layer.

    A weight flips where θ·y exceeds the threshold τ, which is drawn as a dashed line. y is the
    output of the last step.

    Args:
        model: A model compiled with `FilteredFlip`, after some training.
        layers: Names of the layers to show. None: all.
        bins: Number of bins. Values outside count in the outermost bins.
        ax: Axes to draw into. None: new axes.

    Returns:
        The axes: θ·y in units of each layer's root mean square of y, and the share of its weights.

    Raises:
        TypeError: The model is not compiled with a FilteredFlip.
        ValueError: It has not been trained yet, or has no such layer; or `bins` is no whole number
            from 1 on.

    Example:
        >>> model = tf.keras.Sequential([
        ...     lq.layers.QuantDense(64, kernel_quantizer="ste_sign", input_shape=(4,)),
        ... ])
        >>> model.compile(lqf.optimizers.FilteredFlip(alpha=0.1, gamma=0.5), loss="mse")
        >>> _ = model.fit(np.eye(4), np.ones((4, 64)), epochs=3, verbose=0)
        >>> lqf.plots.state_histogram(model).get_ylabel()
        'share of weights'
    """
    layers = [layers] if isinstance(layers, str) else layers
    bins = whole_number("bins", bins, least=1)
    optimizer = FilteredFlip.of(model)
    if optimizer is None:
        kind = type(getattr(model, "optimizer", None)).__name__
        raise TypeError(
            f"state_histogram needs a model compiled with FilteredFlip. Received: {kind}"
        )
    margins = _margins(model, optimizer)
    missing = sorted(set(layers or ()) - {layer for layer, _ in margins})
    margins = {key: m for key, m in margins.items() if layers is None or key[0] in layers}
    if missing or not margins:
        raise ValueError(
            "there is no layer of this name with binary weights. Give other names, or None. "
            f"Received: layers={missing}"
        )
    ax = _axes.new_or(ax)
    threshold = float(optimizer.threshold.numpy())
    largest = max(float((output / scale).max()) for output, scale in margins.values())
    last = max(0.5, min(largest, 4.0), 1.1 * threshold / min(s for _, s in margins.values()))
    edges = np.linspace(-4.0, last, bins + 1).tolist()
    several = [layer for layer, _ in margins]
    labels = _layer_labels(
        [f"{lay}/{kernel}" if several.count(lay) > 1 else lay for lay, kernel in margins]
    )
    lines = zip(margins.values(), labels, _colors(len(margins)), strict=True)
    for (output, scale), label, color in lines:
        values = np.clip(output / scale, edges[0], edges[-1])
        weights = np.full(values.shape, 1.0 / values.size)
        ax.hist(values, edges, weights=weights, histtype="step", color=color, label=label)
        if threshold > 0.0:
            ax.axvline(threshold / scale, color=color, linestyle="--", linewidth=1.0)
    if threshold == 0.0:
        ax.axvline(0.0, color="k", linestyle="--", linewidth=1.0, label="τ = 0")
    else:
        ax.plot([], [], "k--", linewidth=1.0, label=f"τ = {threshold:g}, for each")
    ax.set_xlabel("θ·y, in units of the layer's root mean square of y")
    ax.set_ylabel("share of weights")
    return _axes.finish(ax, "Distance of weights from flipping")


def _margins(
    model: tf.keras.Model, optimizer: FilteredFlip
) -> dict[tuple[str, str], tuple[np.ndarray, float]]:
    """As `_layers.margins`, of a model that was trained."""
    if not int(optimizer.iterations):
        raise ValueError(
            "filters have no state before the first step. Train the model first. Received: 0 steps "
            "of training"
        )
    margins = _layers.margins(model, optimizer)
    if not margins and any(map(_layers.is_binary, model.trainable_variables)):
        raise ValueError(
            "this filter has no state, so the distance of weights from flipping is not known. "
            f"Received: filter={optimizer.filter}"
        )
    return margins


def _colors(n: int) -> Any:
    from matplotlib import colormaps

    return colormaps["viridis"](np.linspace(0.0, 0.9, n))


def _layer_labels(layers: Sequence[str]) -> Sequence[str]:
    """The layers' names; of many, the first and the last: the colors between tell the depth."""
    if len(layers) <= _MANY:
        return layers
    return [f"{layers[0]} (first)", *[""] * (len(layers) - 2), f"{layers[-1]} (last)"]


def _ratios(ax: "Axes", values: Sequence[float], floor: float, **style: Any) -> None:
    """A line over epochs; a 0, which a logarithm does not have, is a triangle at the bottom."""
    epochs, ratios = np.arange(1, len(values) + 1), np.asarray(values, "float64")
    ax.plot(epochs, np.where(ratios > 0.0, ratios, np.nan), **style)
    zeros = epochs[ratios == 0.0]
    ax.plot(zeros, np.full(zeros.shape, floor), "v", color=style["color"])
