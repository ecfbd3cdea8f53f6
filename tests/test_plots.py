"""What the pictures show, read back from matplotlib's lines; the eyes' part is not tested."""

import subprocess
import sys

import larq_filters as lqf

import larq as lq
import matplotlib
import numpy as np
import pytest
import reference
import tensorflow as tf
from helpers import assert_one_sentence
from scipy import signal

matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402

F, plots = lqf.filters, lqf.plots
BUTTER = signal.butter(2, 0.05, output="sos")
FILTERS = [F.EMA(0.01), F.CascadedEMA(0.01, 0.1), F.IIR.from_sos(BUTTER)]


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def lines(ax):
    """Data by label."""
    return {line.get_label(): line.get_data() for line in ax.get_lines()}


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


HISTORY = {"loss": [1.0], "flip_ratio": [0.02, 0.01], "flip_ratio/conv": [0.03, 0.02]}
CALLS = {
    "frequency_response": lambda **kw: plots.frequency_response(*FILTERS, **kw),
    "impulse_response": lambda **kw: plots.impulse_response(*FILTERS, **kw),
    "pole_zero": lambda **kw: plots.pole_zero(*FILTERS, **kw),
    "flip_ratio": lambda **kw: plots.flip_ratio(HISTORY, **kw),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_draws_into_the_axes_it_is_given(call, tmp_path):
    figure, axes = plt.subplots(1, 2, layout="constrained")
    assert call(ax=axes[1]) is axes[1]
    assert not axes[0].get_lines() and axes[1].get_lines()
    assert axes[1].get_xlabel() and axes[1].get_ylabel() and legend(axes[1])
    figure.savefig(tmp_path / "picture.png")  # nothing in it that cannot be drawn
    assert call() not in axes


@pytest.mark.parametrize("name", ["frequency_response", "impulse_response", "pole_zero"])
def test_labels(name):
    ax = CALLS[name](labels=["one", "two", "three"])
    assert [label.split(":")[0] for label in legend(ax)] == ["one", "two", "three"]
    ax = CALLS[name]()
    assert legend(ax)[1].startswith("CascadedEMA(alpha=0.01, gamma=0.1)")
    assert_one_sentence(lambda: CALLS[name](labels=["one"]), ValueError, "as many labels")
    assert_one_sentence(getattr(plots, name), ValueError, "at least one filter")
    with pytest.raises(TypeError, match="NormalizedEMA is not linear"):
        getattr(plots, name)(F.NormalizedEMA(0.1, 0.1))


def test_frequency_response_is_scipys():
    w, gain = lines(plots.frequency_response(FILTERS[2], labels=["it"]))["it"]
    _, h = signal.sosfreqz(BUTTER, w)
    shown = np.abs(h) > 1e-6
    np.testing.assert_allclose(gain[shown], 20 * np.log10(np.abs(h[shown]) / 1.0), atol=1e-5)
    assert gain.max() == pytest.approx(0, abs=1e-9)
    assert w[-1] == pytest.approx(np.pi)
    cutoff = np.interp(0.05 * np.pi, w, gain)
    assert cutoff == pytest.approx(-3.01, abs=0.02)


def test_frequency_response_of_an_integrator():
    """Infinite at 0, which is not shown: 6 dB less per octave elsewhere."""
    w, gain = lines(plots.frequency_response(F.Integrator(1.0), labels=["it"]))["it"]
    assert np.isfinite(gain).all()
    assert np.interp(0.02, w, gain) - np.interp(0.04, w, gain) == pytest.approx(6.02, abs=0.01)


def test_impulse_response_is_the_recursions():
    twin = reference.CascadedEMA(0.01, 0.1)
    expected = np.array([twin(x) for x in np.eye(300)[0]])
    age, weight = lines(plots.impulse_response(FILTERS[1], n=300, labels=["it"]))["it"]
    np.testing.assert_array_equal(age, np.arange(300))
    np.testing.assert_allclose(weight, expected / expected.max())
    age, _ = lines(plots.impulse_response(*FILTERS[:2], labels=["it", "other"]))["it"]
    assert age[-1] == pytest.approx(5 * 99.5, abs=2)  # five of the largest time constant


def test_slow_filters_are_drawn_with_few_points():
    age, weight = lines(plots.impulse_response(F.EMA(1e-5), labels=["it"]))["it"]
    assert len(age) <= 5000 and age[-1] == pytest.approx(5e5, rel=1e-3)
    np.testing.assert_allclose(weight, (1 - 1e-5) ** age, rtol=1e-9)


def test_responses_are_both_in_one_figure():
    it = F.CascadedEMA(0.01, 0.1)
    axes = plots.responses(it).axes
    for ax, draw in zip(axes, (plots.impulse_response, plots.frequency_response), strict=True):
        found, expected = lines(ax), lines(draw(it))
        assert found.keys() == expected.keys() and str(it) in found
        for label in found:
            np.testing.assert_array_equal(found[label], expected[label])
    assert axes[0].get_figure().get_suptitle() == str(it)
    before = plt.get_fignums()
    with pytest.raises(TypeError, match="Sign is not linear"):
        plots.responses(F.Sign())
    assert_one_sentence(lambda: plots.responses([it]), TypeError, "not a list of them")
    assert plt.get_fignums() == before


@pytest.mark.parametrize(
    "draw",
    [plots.frequency_response, plots.impulse_response, plots.pole_zero, plots.responses],
)
def test_a_filter_with_a_schedule_is_refused(draw):
    it = F.EMA(tf.keras.optimizers.schedules.PolynomialDecay(0.1, 100, 0.01))
    assert_one_sentence(lambda: draw(it), ValueError, "at(step)")
    draw(it.at(50))


def test_poles_and_zeros():
    ax = plots.pole_zero(FILTERS[1], F.IIR([1.0, -0.5], [1.0, -1.6, 0.8]), labels=["two", "ring"])
    assert legend(ax) == ["two: 9.49, 99.5 steps", "ring: 8.96 steps"]
    data = list(lines(ax).values())
    np.testing.assert_allclose(sorted(lines(ax)["two: 9.49, 99.5 steps"][0]), [0.9, 0.99])
    real, imaginary = lines(ax)["ring: 8.96 steps"]
    np.testing.assert_allclose(real, 0.8)
    np.testing.assert_allclose(np.abs(imaginary), 0.4)
    assert any(len(x) == 1 and x[0] == pytest.approx(0.5) for x, _ in data)
    np.testing.assert_allclose(np.hypot(*data[0]), 1.0)  # the unit circle
    assert legend(plots.pole_zero(F.Integrator(1.0), labels=["sum"])) == ["sum: inf steps"]


def test_flip_ratio(make_small, digits):
    model = make_small(lqf.optimizers.FilteredFlip())
    history = model.fit(*digits, epochs=2, verbose=0, callbacks=[lqf.callbacks.FlipRatio()])
    ax = plots.flip_ratio(history)
    assert legend(ax) == ["conv", "dense", "all layers"]
    epochs, ratios = lines(ax)["dense"]
    assert list(epochs) == [1, 2] and list(ratios) == history.history["flip_ratio/dense"]
    assert ax.get_yscale() == "log"
    assert_one_sentence(lambda: plots.flip_ratio({"loss": [1.0]}), ValueError, "FlipRatio()")


def test_many_layers_are_not_named_one_by_one():
    logs = {"flip_ratio": [0.1, 0.2]} | {f"flip_ratio/conv{i}": [0.1, 0.2] for i in range(20)}
    assert legend(plots.flip_ratio(logs)) == ["conv0 (first)", "conv19 (last)", "all layers"]


@pytest.mark.parametrize("threshold", [0.0, 1e-5])
def test_state_histogram(threshold, make_small, digits):
    model = make_small(lqf.optimizers.FilteredFlip(0.01, 0.1, threshold=threshold))
    model.fit(*digits, epochs=2, verbose=0)
    ax = plots.state_histogram(model, bins=50)
    assert legend(ax)[:2] == ["conv", "dense"]
    kernel = model.get_layer("dense").kernel
    y = model.optimizer.slots(kernel)["y"].numpy().ravel()
    values = y * np.sign(kernel.numpy().ravel()) / np.sqrt(np.mean(y**2))
    dashed = [line.get_xdata()[0] for line in ax.get_lines() if len(line.get_xdata())]
    if threshold:
        assert dashed[1] == pytest.approx(threshold / np.sqrt(np.mean(y**2)), rel=1e-5)
        assert legend(ax)[2] == "τ = 1e-05, for each"
    else:
        assert dashed == [0.0] and legend(ax)[2] == "τ = 0"
    edges = ax.patches[0].get_xy()[::2, 0]
    edges = np.linspace(edges.min(), edges.max(), 51)
    assert edges[0] == -4.0 and edges[-1] >= max(0.5, 1.1 * max(dashed)) - 1e-9
    expected, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    drawn = next(p for p in ax.patches if p.get_label() == "dense").get_xy()[1:-1:2, 1]
    np.testing.assert_allclose(drawn, expected / values.size, atol=1.01 / values.size)
    assert legend(plots.state_histogram(model, ["conv"]))[0] == "conv"


def test_state_histogram_refuses(make_small, digits):
    def histogram(model, *arguments):
        return lambda: plots.state_histogram(model, *arguments)

    assert_one_sentence(histogram(make_small("sgd")), TypeError, "FilteredFlip")
    assert_one_sentence(histogram(make_small()), TypeError, "NoneType")
    model = make_small(lqf.optimizers.FilteredFlip())
    assert_one_sentence(histogram(model), ValueError, "Train the model first")
    model.fit(digits[0][:64], digits[1][:64], verbose=0)
    assert_one_sentence(histogram(model, ["last"]), ValueError, "no layer of this name")
    for bins in (0, 10.5, "auto"):
        call = lambda bins=bins: plots.state_histogram(model, bins=bins)  # noqa: E731
        assert_one_sentence(call, ValueError, f"bins={bins!r}")


def test_both_kernels_of_a_layer_are_shown():
    """In a model within a model, by the name that the layer has there, as FlipRatio's logs do."""
    quantizers = {f"{kind}_quantizer": "ste_sign" for kind in ("depthwise", "pointwise")}
    layer = lq.layers.QuantSeparableConv2D(4, 3, name="both", **quantizers)
    inner = tf.keras.Sequential([tf.keras.Input((5, 5, 3)), layer], name="inner")
    model = tf.keras.Sequential([inner, tf.keras.layers.GlobalAveragePooling2D()])
    model.compile(lqf.optimizers.FilteredFlip(0.1, 0.5), "mse")
    x = np.random.default_rng(0).normal(size=(8, 5, 5, 3))
    model.fit(x, np.ones((8, 4)), verbose=0)
    expected = ["both/depthwise_kernel", "both/pointwise_kernel", "τ = 0"]
    assert legend(plots.state_histogram(model)) == expected
    assert legend(plots.state_histogram(model, ["both"])) == expected


def test_a_trained_layer_beside_a_frozen_one(make_small, digits):
    model = make_small()
    model.get_layer("conv").trainable = False
    model.compile(lqf.optimizers.FilteredFlip(), "sparse_categorical_crossentropy")
    model.fit(digits[0][:64], digits[1][:64], verbose=0)
    assert legend(plots.state_histogram(model)) == ["dense", "τ = 0"]
    assert isinstance(model.get_layer("conv"), lq.layers.QuantConv2D)


@pytest.mark.slow
def test_without_matplotlib():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import larq_filters as lqf\n"
        "try: lqf.plots.impulse_response(lqf.filters.EMA(0.1))\n"
        "except ImportError as error: print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'larq-filters[plots]'" in result.stdout, result.stderr


def test_state_histogram_under_mixed_precision(make_small, digits):
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    model = make_small(lqf.optimizers.FilteredFlip(threshold=1e-6))
    model.fit(*digits, verbose=0)
    assert legend(plots.state_histogram(model, "conv"))[0] == "conv"


def test_state_histogram_of_a_filter_without_state(make_small, digits):
    model = make_small(lqf.optimizers.FilteredFlip(filter=F.Sign()))
    model.fit(*digits, verbose=0)
    assert_one_sentence(lambda: plots.state_histogram(model), ValueError, "has no state")


def test_flip_ratio_of_what():
    model = tf.keras.Sequential([tf.keras.layers.Dense(1)])
    model.history = tf.keras.callbacks.History()
    model.history.history = {"flip_ratio": [0.5]}
    assert list(plots.flip_ratio(model).get_xticks()) == [1]
    assert_one_sentence(lambda: plots.flip_ratio(3), TypeError, "int")


def test_epochs_without_flips_are_at_the_bottom():
    ax = plots.flip_ratio({"flip_ratio": [0.02, 0.01, 0.0, 0.0]})
    line, zeros = ax.get_lines()[:2]
    np.testing.assert_array_equal(line.get_ydata(), [0.02, 0.01, np.nan, np.nan])
    np.testing.assert_array_equal(zeros.get_xdata(), [3, 4])
    assert (zeros.get_ydata() < 0.01).all() and "0: no weight flipped" in legend(ax)


@pytest.mark.parametrize("draw", [plots.impulse_response, plots.frequency_response])
@pytest.mark.parametrize("number", [1, 3])
def test_a_filter_with_many_coefficients_fits_the_legend(number, draw):
    filters = [F.IIR.from_sos(signal.butter(4, 0.1 * (i + 1), output="sos")) for i in range(3)]
    ax = draw(*filters[:number])
    figure = ax.get_figure()
    figure.canvas.draw()
    box = ax.get_legend().get_window_extent()
    inside = figure.bbox.padded(1.0)
    assert inside.contains(*box.min) and inside.contains(*box.max)
    assert ax.get_window_extent().width > 0.7 * figure.bbox.width


def test_the_legend_hides_no_pole():
    """Of the filters whose poles lie in every corner of the unit disc."""
    ringing = F.IIR([1.0], [1.0, -1.0, 0.9])
    ax = plots.pole_zero(F.CascadedEMA(0.01, 0.1), ringing, F.EMA(1e-4))
    figure = ax.get_figure()
    figure.canvas.draw()
    assert not ax.get_legend().get_window_extent().overlaps(ax.get_window_extent())
    inside = figure.bbox.padded(1.0)
    assert inside.contains(*ax.get_legend().get_window_extent().min)
    assert inside.contains(*ax.get_legend().get_window_extent().max)


@pytest.mark.parametrize("time", [1e2, 1e5, 1e7])
def test_numbers_at_an_axis_do_not_run_into_each_other(time):
    figure, axes = plt.subplots(1, 2, figsize=(8.0, 3.4), layout="constrained")
    plots.impulse_response(F.EMA(1 / time), ax=axes[0])
    figure.canvas.draw()
    boxes = [t.get_window_extent() for t in axes[0].get_xticklabels() if t.get_text()]
    low, high = axes[0].get_window_extent().intervalx
    shown = sorted((b.x0, b.x1) for b in boxes if low <= (b.x0 + b.x1) / 2 <= high)
    assert len(shown) >= 2
    assert all(one[1] + 2 < two[0] for one, two in zip(shown, shown[1:], strict=False))


def test_what_is_not_a_filter_is_named():
    draw = plots.impulse_response
    assert_one_sentence(lambda: draw(FILTERS), TypeError, "not a list of them")
    optimizer = lqf.optimizers.FilteredFlip()
    assert_one_sentence(lambda: draw(optimizer), TypeError, "optimizer.filter")
    assert_one_sentence(lambda: draw(F.EMA(0.1), n=0), ValueError, "n=0")


def test_pictures_have_titles():
    for call in CALLS.values():
        assert call().get_title()
