"""Pictures of filters."""

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from larq_filters._numbers import whole_number
from larq_filters.filters import Filter
from larq_filters.plots import _axes

import numpy as np
from scipy import signal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def frequency_response(
    *filters: Filter, labels: Sequence[str] | None = None, ax: "Axes | None" = None
) -> "Axes":
    """The gain of linear filters over frequency, both logarithmic.

    Args:
        *filters: One or several filters with fixed coefficients. Use `filter.at(step)` if there is
            a schedule.
        labels: A name for each filter. None: the filter as text.
        ax: Axes to draw into. None: new axes.

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
    ax = _axes.new_or(ax)
    for response, label in zip(responses, labels, strict=True):
        # At a zero of the filter there is nothing to take a logarithm of.
        gain = 20.0 * np.log10(np.maximum(response / response.max(), 1e-12))
        ax.plot(worN, gain, label=label)
    ax.set_xscale("log")
    ax.set_xlim(worN[0], math.pi)
    ax.set_ylim(max(ax.get_ylim()[0], -200.0), 5.0)
    ax.set_xlabel("frequency (rad/step)")
    ax.set_ylabel("gain (dB)")
    return _axes.finish(ax, "Frequency response")


def impulse_response(
    *filters: Filter,
    n: int | None = None,
    labels: Sequence[str] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """The impulse response of linear filters: how much a gradient counts, over its age.

    Args:
        *filters: One or several filters with fixed coefficients.
        n: Number of steps to show. None: five times the largest finite time constant.
        labels: A name for each filter. None: the filter as text.
        ax: Axes to draw into. None: new axes.

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
    ax = _axes.new_or(ax)
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
    return _axes.finish(ax, "Impulse response", below=len(filters) > 1)


def pole_zero(
    *filters: Filter, labels: Sequence[str] | None = None, ax: "Axes | None" = None
) -> "Axes":
    """Poles (×) and zeros (○) of linear filters in the z plane, with time constants.

    Zeros at z = 0 are left out, because they only delay.

    Args:
        *filters: One or several filters with fixed coefficients.
        labels: A name for each filter. None: the filter as text.
        ax: Axes to draw into. None: new axes.

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
    ax = _axes.new_or(ax)
    turn = np.linspace(0.0, 2.0 * math.pi, 400)
    ax.plot(np.cos(turn), np.sin(turn), color="0.6", linewidth=0.8)
    for i, ((zeros, poles), label) in enumerate(zip(diagrams, labels, strict=True)):
        poles, zeros = poles[np.abs(poles) > 1e-12], zeros[np.abs(zeros) > 1e-12]
        with np.errstate(divide="ignore"):
            times = np.unique(abs(1.0 / np.log(np.abs(poles))))
        shown = dict.fromkeys(f"{t:,.0f}" if 100.0 <= t < np.inf else f"{t:.3g}" for t in times)
        label = f"{label}: {', '.join(shown)} steps" if shown else label
        label = textwrap.fill(label, 50)
        (points,) = ax.plot(poles.real, poles.imag, "x", markersize=8 + 2 * i, label=label)
        ax.plot(zeros.real, zeros.imag, "o", fillstyle="none", color=points.get_color())
    ax.set_aspect("equal")
    ax.set_xlabel("real part of z")
    ax.set_ylabel("imaginary part of z")
    return _axes.finish(ax, "Poles (×) and zeros (○)", below=True)


def responses(filter: Filter) -> "Figure":
    """A linear filter's impulse and frequency response, side by side.

    Args:
        filter: The filter, with fixed coefficients.

    Returns:
        A new figure, titled with the filter.

    Raises:
        TypeError: The filter is not linear.
        ValueError: It has a schedule.

    Example:
        >>> figure = lqf.plots.responses(lqf.filters.CascadedEMA(0.01, 0.1))
        >>> [ax.get_title() for ax in figure.axes]
        ['Impulse response', 'Frequency response']
    """
    _labels([filter], None)
    filter.sos  # noqa: B018  (refuses what is not linear before there is a figure)
    figure, axes = _axes.pyplot().subplots(1, 2, figsize=(8.0, 3.4), layout="constrained")
    for draw, ax in zip((impulse_response, frequency_response), axes, strict=True):
        draw(filter, ax=ax)
        ax.get_legend().remove()
    figure.suptitle(textwrap.fill(str(filter), 80), fontsize="medium")
    return figure


def _labels(filters: Sequence[Filter], labels: Sequence[str] | None) -> Sequence[str]:
    if not filters:
        raise ValueError("there is nothing to draw. Give at least one filter. Received: none")
    for filter in filters:
        if not isinstance(filter, Filter):
            raise TypeError(
                "arguments must be filters of larq_filters.filters, not a list of them. The filter "
                f"of an optimizer is optimizer.filter. Received: {filter!r}"
            )
    if labels is None:
        names = [textwrap.shorten(str(filter), 100, placeholder=" …") for filter in filters]
        labels = [textwrap.fill(name, 50) for name in names]
    if len(labels) != len(filters):
        raise ValueError(
            "there must be as many labels as filters. "
            f"Received: {len(filters)} filters, labels={labels}"
        )
    return labels


def _distances(filter: Filter) -> list[float]:
    """The distances of the poles from the unit circle, but for those on it."""
    distances = 1.0 - np.abs(signal.sos2zpk(filter.sos)[1])
    return [float(d) for d in distances if d > 1e-12]
