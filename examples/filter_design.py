"""Trains binary networks with filters designed by scipy.signal, and compares them with averages.

    python examples/filter_design.py --plot filter_design.png

Butterworth low-passes, as `IIR.from_sos`, against moving averages with the same cutoff, on
scikit-learn's real digits: same epochs, seeds and real optimizer. In the first group, every filter
keeps its coefficients. In the second, each ends in a moving average whose α decays to 0, which
brings the weights to rest; a designed filter then stands before it. (The coefficients of an `IIR`
take schedules as well, but a Butterworth filter whose cutoff decays to 0 drifts on and does not
come to rest.)
"""

import argparse
import pathlib
import textwrap
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import larq_filters as lqf  # before TensorFlow's Keras is touched: selects Keras 2

import larq as lq
import numpy as np
import tensorflow as tf
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import optimize, signal
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

UNITS, BATCH = 64, 64
GAMMA = 0.1  # of the averages that smooth the gradient first
filters = lqf.filters


class Design(NamedTuple):
    """A filter to train with."""

    name: str
    filter: filters.Filter  # as it is at the first step
    decays: bool  # whether the α of its last stage decays to 0


class Result(NamedTuple):
    """What a filter gives, a value for each seed."""

    accuracies: np.ndarray  # on held-out digits
    flips: np.ndarray  # share of the binary weights that flip in a step


def butterworth(order: int, cutoff: float) -> filters.Filter:
    """A low-pass with its −3 dB cutoff in rad/step; SciPy counts in units of π rad/sample."""
    return filters.IIR.from_sos(signal.butter(order, cutoff / np.pi, output="sos"))


def cutoff_of(filter: filters.Filter) -> float:
    """The frequency in rad/step at which the gain is 3 dB, a factor of √2, below that at 0."""

    def excess(frequency: float) -> float:
        _, (gain, at_zero) = np.abs(filter.frequency_response([frequency, 0.0]))
        return gain / at_zero - np.sqrt(0.5)

    return optimize.brentq(excess, 1e-9, np.pi)


def matched(make: Callable[[float], filters.Filter], cutoff: float) -> filters.Filter:
    """The filter of a family with one coefficient in (0, 1) that has a given cutoff."""
    return make(optimize.brentq(lambda c: cutoff_of(make(c)) - cutoff, cutoff / 2, 0.8))


def lag_of_180(filter: filters.Filter) -> float:
    """The frequency in rad/step at which filter and step together lag by 180°; at most π.

    A flip answers the gradient of one step, and the gradient of the next step answers the flip.
    """
    frequencies = np.linspace(1e-4, np.pi, 30_000)
    lag = frequencies - np.unwrap(np.angle(filter.frequency_response(frequencies)[1]))
    return frequencies[np.argmax(lag >= np.pi)] if (lag >= np.pi).any() else np.pi


def designs(cutoff: float) -> list[Design]:
    smooth = butterworth(2, cutoff_of(filters.EMA(GAMMA)))
    ema = matched(filters.EMA, cutoff)
    cema = matched(lambda alpha: filters.CascadedEMA(alpha, GAMMA), cutoff)
    return [
        Design("EMA", ema, False),
        Design(f"CascadedEMA, γ = {GAMMA:g}", cema, False),
        Design("CascadedEMA, γ = α", matched(lambda c: filters.CascadedEMA(c, c), cutoff), False),
        *(Design(f"Butterworth {n}", butterworth(n, cutoff), False) for n in (2, 3, 4)),
        Design("EMA", ema, True),
        Design(f"CascadedEMA, γ = {GAMMA:g}", cema, True),
        Design(
            "Butterworth 2, EMA",
            matched(lambda c: filters.Cascade(smooth, filters.EMA(c)), cutoff),
            True,
        ),
    ]


def with_decay(filter: filters.Filter, steps: int) -> filters.Filter:
    """The same filter, with the α of its last stage decaying linearly to 0."""

    def decay(alpha: float) -> tf.keras.optimizers.schedules.LearningRateSchedule:
        return tf.keras.optimizers.schedules.PolynomialDecay(alpha, steps, 0.0)

    if isinstance(filter, filters.EMA):
        return filters.EMA(decay(filter.alpha))
    if isinstance(filter, filters.CascadedEMA):
        return filters.CascadedEMA(decay(filter.alpha), filter.gamma)
    *first, last = filter.filters
    return filters.Cascade(*first, with_decay(last, steps))


def build_model() -> tf.keras.Model:
    """All weights are binary but those of batch norm."""
    layers = tf.keras.layers
    kernel = {"kernel_quantizer": "ste_sign", "use_bias": False}
    kernel["kernel_constraint"] = "weight_clip"
    return tf.keras.Sequential(
        [
            lq.layers.QuantDense(UNITS, input_shape=(64,), **kernel),
            layers.BatchNormalization(),
            lq.layers.QuantDense(UNITS, input_quantizer="ste_sign", **kernel),
            layers.BatchNormalization(),
            lq.layers.QuantDense(10, input_quantizer="ste_sign", **kernel),
            layers.BatchNormalization(),
        ]
    )


def train(design: Design, epochs: int, seed: int) -> tuple[float, float]:
    """Accuracy on held-out digits, and flips per step and binary weight."""
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(seed)
    images, labels = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(
        images / 8 - 1, labels, test_size=1 / 3, random_state=seed, stratify=labels
    )
    steps = epochs * -(-len(x) // BATCH)
    rate = tf.keras.optimizers.schedules.PolynomialDecay(1e-2, steps, 0.0)
    model = build_model()
    model.compile(
        optimizer=lqf.optimizers.FilteredFlip(
            filter=with_decay(design.filter, steps) if design.decays else design.filter,
            real_optimizer=tf.keras.optimizers.Adam(rate),
        ),
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    flips = lqf.callbacks.FlipRatio()
    history = model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=[flips])
    # Where weights flip to the end, batch norm's averages lag behind them.
    recalibrate = lqf.callbacks.RecalibrateBatchNorm([x], batches=1)
    _, accuracy = model.evaluate(x_test, y_test, verbose=0, callbacks=[recalibrate])
    return accuracy, float(np.mean(history.history["flip_ratio"]))


def compare(designs: list[Design], epochs: int, seeds: int) -> list[Result]:
    """Prints the table."""
    print("                                  cutoff  180° lag    accuracy %     flips")
    print("filter                 order    rad/step  rad/step    mean ± std  per step")
    results = []
    bar = tqdm(total=len(designs) * seeds, leave=False, ncols=80)
    for i, design in enumerate(designs):
        if i == 0 or design.decays and not designs[i - 1].decays:
            tqdm.write(f"{'α decays to 0' if design.decays else 'fixed coefficients'}:")
        values = []
        for seed in range(1, seeds + 1):
            values.append(train(design, epochs, seed))
            bar.update()
        results.append(Result(*np.array(values).T))
        tqdm.write(row(design, results[-1]))
    bar.close()
    return results


def row(design: Design, result: Result) -> str:
    sos = design.filter.sos
    order = np.count_nonzero(sos[:, 4]) + np.count_nonzero(sos[:, 5])
    accuracies = 100 * result.accuracies
    return (
        f"  {design.name:20} {order:5} {cutoff_of(design.filter):11.4f} "
        f"{lag_of_180(design.filter):9.4f} {accuracies.mean():6.1f} ± "
        f"{standard_deviation(accuracies):4.1f} {result.flips.mean():9.2%}"
    )


def standard_deviation(values: np.ndarray) -> float:
    return values.std(ddof=1) if len(values) > 1 else np.nan


def conclude(designs: list[Design], results: list[Result], cutoff: float) -> None:
    percent = {
        (d.name, d.decays): 100 * r.accuracies for d, r in zip(designs, results, strict=True)
    }
    cema = f"CascadedEMA, γ = {GAMMA:g}"

    def gain(one: tuple[str, bool], other: tuple[str, bool]) -> str:
        differences = percent[one] - percent[other]
        error = standard_deviation(differences) / np.sqrt(len(differences))
        return f"{differences.mean():+.1f}±{error:.1f}"

    lags = [lag_of_180(butterworth(order, cutoff)) / cutoff for order in (2, 3, 4)]
    for sentence in (
        "Differences in points of accuracy, seed by seed, each with its own split of the digits: "
        "mean±standard error.",
        "Fixed coefficients: Butterworth 2 against EMA "
        f"{gain(('Butterworth 2', False), ('EMA', False))}, against CascadedEMA with γ = {GAMMA:g} "
        f"{gain(('Butterworth 2', False), (cema, False))}.",
        f"α decaying to 0: Butterworth 2 before the last EMA instead of EMA({GAMMA:g}) "
        f"{gain(('Butterworth 2, EMA', True), (cema, True))}.",
        f"The decay itself: EMA {gain(('EMA', True), ('EMA', False))}, CascadedEMA "
        f"{gain((cema, True), (cema, False))}.",
        f"Butterworth 2, 3 and 4 lag by 180° at {lags[0]:.1f}, {lags[1]:.1f} and {lags[2]:.1f} "
        "times the cutoff. A flip changes the gradients that the filter sees next, which closes a "
        "loop; a loop that lags by 180° at frequencies that its filter passes swings. That is the "
        f"likely reason for the {percent['Butterworth 3', False].mean():.0f}% and "
        f"{percent['Butterworth 4', False].mean():.0f}% of orders 3 and 4.",
    ):
        print(textwrap.fill(sentence, 80, initial_indent="- ", subsequent_indent="  "))


def plot(path: pathlib.Path, designs: list[Design], results: list[Result], cutoff: float) -> None:
    figure = Figure(figsize=(8, 7), layout="constrained")
    top, bottom = figure.subfigures(2, 1)
    left, right = top.subplots(1, 2)
    fixed = [design for design in designs if not design.decays]
    colors = {design.name: f"C{i}" for i, design in enumerate(fixed)}
    draw_responses((left, right), fixed, cutoff)
    draw_accuracies(bottom.subplots(), designs, results, colors)
    figure.savefig(path, dpi=100)


def draw_responses(axes: Sequence[Axes], designs: list[Design], cutoff: float) -> None:
    names = [design.name for design in designs]
    lqf.plots.frequency_response(*(d.filter for d in designs), labels=names, ax=axes[0])
    axes[0].axvline(cutoff, color="grey", linestyle=":")
    axes[0].set(xlim=(cutoff / 100, np.pi), ylim=(-80, 5))
    axes[0].set_title(f"Frequency responses, −3 dB at {cutoff:g} rad/step", fontsize="medium")
    steps = int(10 / cutoff)
    lqf.plots.impulse_response(*(d.filter for d in designs), n=steps, labels=names, ax=axes[1])
    axes[1].get_legend().remove()
    axes[1].set_title("Impulse responses", fontsize="medium")


def draw_accuracies(
    ax: Axes, designs: list[Design], results: list[Result], colors: dict[str, str]
) -> None:
    for i, (design, result) in enumerate(zip(designs, results, strict=True)):
        accuracies = 100 * result.accuracies
        color = colors.get(design.name, f"C{len(colors)}")
        ax.plot(accuracies, [i] * len(accuracies), "o", color=color, alpha=0.5)
        ax.plot(accuracies.mean(), i, "|", color="black", markersize=16)
    names = [f"{d.name}{', α → 0' if d.decays else ''}" for d in designs]
    ax.set_yticks(range(len(designs)), names)
    ax.invert_yaxis()
    ax.set_title("Digits: accuracy of each filter", fontsize="medium")
    ax.set(xlabel=f"test accuracy (%): each of {len(results[0].accuracies)} seeds, and their mean")
    ax.grid(axis="x", alpha=0.3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--cutoff", type=float, default=0.02, help="−3 dB cutoff of all filters, in rad/step")
    add("--epochs", type=int, default=20)
    add("--seeds", type=int, default=5)
    add("--plot", type=pathlib.Path, default=pathlib.Path("filter_design.png"))
    args = parser.parse_args()
    if not 0 < args.cutoff < 0.9 * cutoff_of(filters.EMA(GAMMA)):
        parser.error(f"--cutoff must be in (0, 0.09), below that of EMA({GAMMA:g})")

    start = time.perf_counter()
    compared = designs(args.cutoff)
    results = compare(compared, args.epochs, args.seeds)
    print()
    conclude(compared, results, args.cutoff)
    plot(args.plot, compared, results, args.cutoff)
    print(f"\npicture in {args.plot}; {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
