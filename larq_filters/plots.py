"""Pictures of filters and of how a network trains with them, with matplotlib.

Every function draws into the axes it is given, or into new ones, and returns them. Output scales
have no meaning to binary weights, so responses are drawn relative to their largest value.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from larq_filters import _layers
from larq_filters._numbers import whole_number
from larq_filters.filters import Filter
from larq_filters.optimizers import FilteredFlip

import numpy as np
import tensorflow as tf
from scipy import signal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "flip_ratio",
    "frequency_response",
    "impulse_response",
    "pole_zero",
    "state_histogram",
]

_MANY = 8  # more layers than that are not named one by one


def frequency_response(
    *filters: Filter, labels: Sequence[str] | None = None, ax: "Axes | None" = None
) -> "Axes":
    """The gain of linear filters over frequency, both logarithmic.

    Args:
        *filters: One or several, each with fixed coefficients (`filter.at(step)` else).
        labels: A name for each; how it prints if None.
        ax: Axes to draw into; new ones if None.

    Returns:
        The axes: frequency in rad/step, and gain in dB relative to the largest one shown.

    Raises:
        TypeError: A filter is not linear.
        ValueError: A filter has a schedule, or there are not as many labels as filters.

    Example:
        >>> ax = lqf.plots.frequency_response(lqf.filters.EMA(0.1), lqf.filters.EMA(0.01))
        >>> ax.get_xlabel()
        'frequency (rad/step)'
    """
    labels = _labels(filters, labels)
    slowest = min((share for f in filters for share in _distances(f)), default=1.0)
    worN = np.geomspace(min(slowest / 30.0, 0.01), math.pi, 2000)
    responses = [np.abs(f.frequency_response(worN)[1]) for f in filters]
    ax = _axes(ax)
    for response, label in zip(responses, labels, strict=True):
        # At a zero of the filter there is nothing to take a logarithm of.
        gain = 20.0 * np.log10(np.maximum(response / response.max(), 1e-12))
        ax.plot(worN, gain, label=label)
    ax.set_xscale("log")
    ax.set_xlim(worN[0], math.pi)
    ax.set_ylim(max(ax.get_ylim()[0], -200.0), 5.0)
    ax.set_xlabel("frequency (rad/step)")
    ax.set_ylabel("gain (dB)")
    return _finish(ax, "Frequency response")


def impulse_response(
    *filters: Filter,
    n: int | None = None,
    labels: Sequence[str] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """How much a gradient counts in the output, over its age, for linear filters.

    Args:
        *filters: One or several, each with fixed coefficients.
        n: Number of steps to show; five of the largest finite time constant if None.
        labels: A name for each; how it prints if None.
        ax: Axes to draw into; new ones if None.

    Returns:
        The axes: age of a gradient in steps, and its weight relative to the largest one.

    Raises:
        TypeError: A filter is not linear.
        ValueError: A filter has a schedule, or there are not as many labels as filters.

    Example:
        >>> ax = lqf.plots.impulse_response(lqf.filters.CascadedEMA(0.01, 0.1))
        >>> ax.get_xlabel()
        'age of a gradient (steps)'
    """
    labels = _labels(filters, labels)
    finite = [f.time_constant for f in filters if math.isfinite(f.time_constant)]
    if n is None:
        n = min(max(10, math.ceil(5.0 * max(finite, default=20.0))), 10_000_000)
    n = whole_number("n", n, least=2)
    responses = [f.impulse_response(n) for f in filters]
    ax = _axes(ax)
    shown = np.concatenate([np.linspace(0, n - 1, 4000), np.geomspace(1, n - 1, 1000)])
    shown = np.unique(shown.round().astype(int))
    for response, label in zip(responses, labels, strict=True):
        ax.plot(shown, response[shown] / np.abs(response).max(), label=label)
    ax.axhline(0.0, color="0.6", linewidth=0.8, zorder=0)
    if finite and max(finite) > 30.0 * min(finite):  # so that the fastest is seen, too
        ax.set_xscale("symlog", linthresh=max(2.0, 2.0 * min(finite)))
        ax.set_xlim(0, n)
    else:
        ax.locator_params("x", nbins=6 if n < 10_000 else 3)
        ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.set_xlabel("age of a gradient (steps)")
    ax.set_ylabel("its weight, relative")
    return _finish(ax, "Impulse response", below=len(filters) > 1)


def pole_zero(
    *filters: Filter, labels: Sequence[str] | None = None, ax: "Axes | None" = None
) -> "Axes":
    """Poles (×) and zeros (○) of linear filters in the z plane; the legend has time constants.

    Zeros at z = 0, which are mere delays, are left out.

    Args:
        *filters: One or several, each with fixed coefficients.
        labels: A name for each; how it prints if None.
        ax: Axes to draw into; new ones if None.

    Returns:
        The axes: real and imaginary part of z.

    Raises:
        TypeError: A filter is not linear.
        ValueError: A filter has a schedule, or there are not as many labels as filters.

    Example:
        >>> ax = lqf.plots.pole_zero(lqf.filters.EMA(0.1), labels=["EMA"])
        >>> ax.get_legend().get_texts()[0].get_text()
        'EMA: 9.49 steps'
    """
    labels = _labels(filters, labels)
    diagrams = [signal.sos2zpk(f.sos)[:2] for f in filters]
    ax = _axes(ax)
    turn = np.linspace(0.0, 2.0 * math.pi, 400)
    ax.plot(np.cos(turn), np.sin(turn), color="0.6", linewidth=0.8)
    for i, ((zeros, poles), label) in enumerate(zip(diagrams, labels, strict=True)):
        poles, zeros = poles[np.abs(poles) > 1e-12], zeros[np.abs(zeros) > 1e-12]
        with np.errstate(divide="ignore"):
            times = sorted({f"{t:.3g}" for t in abs(1.0 / np.log(np.abs(poles)))}, key=float)
        label = f"{label}: {', '.join(times)} steps" if times else label
        label = textwrap.fill(label, 50)
        (points,) = ax.plot(poles.real, poles.imag, "x", markersize=8 + 2 * i, label=label)
        ax.plot(zeros.real, zeros.imag, "o", fillstyle="none", color=points.get_color())
    ax.set_aspect("equal")
    ax.set_xlabel("real part of z")
    ax.set_ylabel("imaginary part of z")
    return _finish(ax, "Poles (×) and zeros (○)", below=True)


def flip_ratio(history: Any, *, ax: "Axes | None" = None) -> "Axes":
    """The share of weights that flipped per step, over epochs, for each layer and overall.

    Args:
        history: What `model.fit` returned with `callbacks.FlipRatio`, or its `history`.
        ax: Axes to draw into; new ones if None.

    Returns:
        The axes: epochs, counted from 1, and flips per weight and step, logarithmic.

    Raises:
        ValueError: There are no flip ratios in `history`.

    Example:
        >>> ax = lqf.plots.flip_ratio({"flip_ratio": [0.02, 0.01], "flip_ratio/conv": [0.02, 0.01]})
        >>> ax.get_ylabel()
        'flips per weight and step'
    """
    logs: Mapping[str, Sequence[float]] = getattr(history, "history", history)
    if "flip_ratio" not in logs:
        raise ValueError(
            "there are no flip ratios in this history: train with callbacks=[larq_filters."
            f"callbacks.FlipRatio()]. Received: a history of {list(logs)}"
        )
    ax = _axes(ax)
    layers = [name for name in logs if name.startswith("flip_ratio/")]
    labels = _layer_labels([name.split("/", 1)[1] for name in layers])
    values = [value for name in (*layers, "flip_ratio") for value in logs[name]]
    floor = min((value for value in values if value > 0.0), default=1e-6) / 3.0
    for name, label, color in zip(layers, labels, _colors(len(layers)), strict=True):
        _ratios(ax, logs[name], floor, color=color, linewidth=1.0, label=label)
    _ratios(ax, logs["flip_ratio"], floor, color="k", marker=".", linewidth=2.0, label="all layers")
    if 0.0 in values:
        ax.plot([], [], "kv", label="0: no weight flipped")
    ax.set_yscale("log")
    ax.locator_params("x", integer=True)
    ax.set_xlabel("epoch")
    ax.set_ylabel("flips per weight and step")
    return _finish(ax, "Flip ratio")


def state_histogram(
    model: tf.keras.Model,
    layers: Sequence[str] | None = None,
    *,
    bins: int = 100,
    ax: "Axes | None" = None,
) -> "Axes":
    """How far binary weights are from flipping: filter outputs y times weights θ, per layer.

    A weight flips where θ·y exceeds the threshold τ, which is drawn as a dashed line. y is the
    output that the state would give at the next step if its gradient were 0.

    Args:
        model: A model compiled with `FilteredFlip`, after some training.
        layers: Names of layers to show, all if None.
        bins: Number of bins; what is beyond them counts in the outermost.
        ax: Axes to draw into; new ones if None.

    Returns:
        The axes: θ·y in units of each layer's root mean square of y, and the share of its weights.

    Raises:
        TypeError: The model is not compiled with a FilteredFlip.
        ValueError: It has not been trained yet, or has no such layer.

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
    optimizer = FilteredFlip.of(model)
    if optimizer is None:
        kind = type(getattr(model, "optimizer", None)).__name__
        raise TypeError(
            f"a state histogram is of a model compiled with FilteredFlip. Received: {kind}"
        )
    margins = _margins(model, optimizer)
    missing = sorted(set(layers or ()) - {layer for layer, _ in margins})
    margins = {key: m for key, m in margins.items() if layers is None or key[0] in layers}
    if missing or not margins:
        raise ValueError(
            "no such layer has binary weights: give names of those that have, or none. "
            f"Received: layers={missing}"
        )
    ax = _axes(ax)
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
    ax.set_xlabel("θ·y, in units of the layer's root mean square of y")
    ax.set_ylabel("share of weights")
    return _finish(ax, "Distance of weights from flipping")


def _margins(
    model: tf.keras.Model, optimizer: FilteredFlip
) -> dict[tuple[str, str], tuple[np.ndarray, float]]:
    """By layer and kernel, θ·y of its weights, and the root mean square of y."""
    if not optimizer.filter.slots:
        raise ValueError(
            "this filter has no state, so nothing says how far weights are from flipping. "
            f"Received: filter={optimizer.filter}"
        )
    coefficients = {name: c.numpy() for name, c in optimizer.coefficients.items()}
    margins = {}
    for variable, layer in _layers.layer_names(model):
        slots = {name: slot.numpy() for name, slot in optimizer.slots(variable).items()}
        if not slots and not _layers.is_binary(variable):
            continue
        if not any(np.any(slot) for slot in slots.values()):
            raise ValueError(
                "the state of every filter starts at 0: train the model first. Received: "
                f"{int(optimizer.iterations)} steps of training"
            )
        weights = tf.convert_to_tensor(variable).numpy()
        zero = np.zeros_like(next(iter(slots.values())))
        _, output = optimizer.filter.step(slots, zero, coefficients)
        output = np.asarray(output, "float64").ravel()
        scale = float(np.sqrt(np.mean(output**2)))
        kernel = variable.name.rsplit("/", 1)[-1].split(":")[0]
        margins[layer, kernel] = (output * weights.ravel(), scale or 1.0)
    return margins


def _axes(ax: "Axes | None") -> "Axes":
    if ax is not None:
        return ax
    return import_pyplot().subplots(layout="constrained")[1]


def import_pyplot() -> Any:
    """Matplotlib's pyplot, or an error that says how to install it."""
    try:
        from matplotlib import pyplot
    except ModuleNotFoundError as error:
        raise ImportError("pictures need matplotlib: pip install 'larq-filters[plots]'") from error
    return pyplot


def _finish(ax: "Axes", title: str, *, below: bool = False) -> "Axes":
    """The legend goes below the axes where it would lie on what is drawn."""
    ax.set_title(title, fontsize="medium")
    ax.grid(True, alpha=0.3)
    if below:
        ax.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.18))
    else:
        ax.legend(fontsize="small")
    return ax


def _labels(filters: Sequence[Filter], labels: Sequence[str] | None) -> Sequence[str]:
    if not filters:
        raise ValueError("give at least one filter. Received: none")
    for filter in filters:
        if not isinstance(filter, Filter):
            raise TypeError(
                "give filters of larq_filters.filters, one after the other; the filter of an "
                f"optimizer is optimizer.filter. Received: {filter!r}"
            )
    labels = [str(f) for f in filters] if labels is None else labels
    if len(labels) != len(filters):
        raise ValueError(
            f"give as many labels as filters. Received: {len(filters)} filters, labels={labels}"
        )
    return labels


def _distances(filter: Filter) -> list[float]:
    """The distances of the poles from the unit circle, but for those on it."""
    distances = 1.0 - np.abs(signal.sos2zpk(filter.sos)[1])
    return [float(d) for d in distances if d > 1e-12]


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
