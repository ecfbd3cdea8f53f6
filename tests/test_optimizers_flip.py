"""The binary update against the plain NumPy twin, op by op and fused."""

import copy

import larq_filters as lqf

import numpy as np
import pytest
import reference
import tensorflow as tf
from helpers import binary_variable, from_zero, train
from hypothesis import given, settings
from hypothesis import strategies as st

F = lqf.filters
TINY = float(np.finfo("float32").tiny)  # TensorFlow flushes smaller numbers to 0

share = st.floats(1e-6, 1.0)
FILTERS = {  # by name: coefficients -> filter of the package, its twin
    "EMA": lambda a, b: (F.EMA(a), reference.EMA(a)),
    "CascadedEMA": lambda a, b: (F.CascadedEMA(a, b), reference.CascadedEMA(a, b)),
    "Integrator": lambda a, b: (F.Integrator(a, 1.0, b), reference.Integrator(a, 1.0, b)),
    "NormalizedEMA": lambda a, b: (F.NormalizedEMA(a, b), reference.NormalizedEMA(a, b)),
    "Adam": lambda a, b: (
        F.Cascade(F.NormalizedEMA(a, b, 1e-7, True), F.Integrator(0.01, 1.0)),
        reference.Cascade(
            reference.NormalizedEMA(a, b, 1e-7, True), reference.Integrator(0.01, 1.0)
        ),
    ),
}


@st.composite
def gradients(draw):
    """(steps, *shape): magnitudes from 1e-30 to 1e30, and zeros, NaN and infinities."""
    steps, shape = draw(st.integers(1, 12)), draw(st.lists(st.integers(1, 3), max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    g = rng.normal(size=(steps, *shape)) * 10.0 ** draw(st.integers(-30, 30))
    special = draw(st.sampled_from([0.0, np.nan, np.inf, -np.inf]))
    g[rng.random(g.shape) < draw(st.floats(0, 0.3))] = special
    return g.astype("float32")


class Twin:
    """The outputs y for every weight, step by step; a step that is not finite is skipped for it."""

    def __init__(self, filter, gradients, alphas=None):
        self.filters = [copy.deepcopy(filter) for _ in gradients[0]]
        finite = np.where(np.isfinite(gradients), np.abs(gradients), 0.0)
        self.scales = finite.max(axis=0).astype("float64")
        self.alphas = alphas

    def __call__(self, t, gradient):
        outputs = np.full(gradient.shape, np.nan)
        for k, x in enumerate(gradient.astype("float64")):
            if np.isfinite(x):
                if self.alphas is not None:
                    self.filters[k].second.alpha = self.alphas[t]
                outputs[k] = self.filters[k](x)
                continue
            for stage in getattr(self.filters[k], "stages", ()):
                if hasattr(stage, "t"):  # the bias correction counts the variable's steps
                    stage.t += 1
        return outputs

    def unsure(self, weights, outputs, threshold):
        """Where rounding may decide: within 1e-4 of the threshold."""
        margin = 1e-4 * np.maximum(np.abs(outputs), threshold) + 1e-6 * self.scales
        near = (np.abs(weights * outputs - threshold) <= margin) & (outputs != 0.0)
        return near | ((np.abs(outputs) > 0.0) & (np.abs(outputs) < TINY * 1e3))


def assert_every_flip(optimizer, plain, gradients, threshold, alphas=None):
    """Each step from the weights that the optimizer has: what was unsure once is compared again.

    Returns the share that rounding may decide.
    """
    shape = gradients.shape[1:]
    before = np.where(np.arange(np.prod(shape, dtype=int)) % 2, 1.0, -1.0)
    flat = gradients.reshape(len(gradients), -1)
    steps = train(optimizer, [binary_variable(before.reshape(shape))], gradients[:, None])
    twin, shares = Twin(plain, flat, alphas), []
    with np.errstate(all="ignore"):
        for t, (after,) in enumerate(steps):
            after, outputs = after.ravel(), twin(t, flat[t])
            unsure = twin.unsure(before, outputs, threshold)
            expected = reference.flip(before, outputs, threshold)
            np.testing.assert_array_equal(after[~unsure], expected[~unsure], err_msg=f"step {t}")
            assert set(np.abs(after)) <= {1.0}
            before = after
            shares.append(unsure.mean() if unsure.size else 0.0)
    return np.mean(shares)


@pytest.mark.parametrize("name", FILTERS)
@given(gradients(), share, share, st.sampled_from([0.0, 1e-8, 0.1]), st.booleans())
@settings(max_examples=7, deadline=None)
def test_every_flip_is_that_of_the_twin(name, gradients, a, b, threshold, jit_compile):
    filter, plain = FILTERS[name](a, b)
    if name in ("NormalizedEMA", "Adam"):  # whose squares overflow float32 beyond 1e19
        gradients = np.where(np.abs(gradients) > 1e15, np.float32(np.nan), gradients)
    optimizer = from_zero(filter=filter, threshold=threshold, jit_compile=jit_compile)
    assert_every_flip(optimizer, plain, gradients, threshold)


@given(gradients(), share, share, st.booleans())
@settings(max_examples=10, deadline=None)
def test_every_flip_under_a_schedule_is_that_of_the_twin(gradients, a, b, jit_compile):
    steps = len(gradients)
    schedule = tf.keras.optimizers.schedules.PolynomialDecay(a, steps, 0.0)
    optimizer = from_zero(schedule, b, jit_compile=jit_compile)
    alphas = a * (1 - np.arange(steps) / steps)
    assert_every_flip(optimizer, reference.CascadedEMA(a, b), gradients, 0.0, alphas)


@pytest.mark.parametrize("threshold", [0.0, 1e-3])
@pytest.mark.parametrize("name", FILTERS)
def test_the_comparison_with_the_twin_rarely_looks_away(name, threshold):
    filter, plain = FILTERS[name](1e-2, 0.1)
    gradients = np.random.default_rng(3).normal(size=(50, 200)).astype("float32")
    optimizer = from_zero(filter=filter, threshold=threshold)
    assert assert_every_flip(optimizer, plain, gradients, threshold) < 0.01


LARGE = (1001, 7)
EVERY_FILTER = [
    F.EMA(1e-3),
    F.CascadedEMA(1e-6, 1e-2),
    F.IIR([0.01], [1, -1.9, 0.91]),
    F.Cascade(F.NormalizedEMA(0.1, 1e-3, 1e-7, True), F.Integrator(1e-2, 1.0)),
    F.Cascade(F.EMA(0.1), F.Sign(), F.EMA(0.01)),
]
EVERY_SHAPE = [(), (37,), (3, 3, 4, 5), (0,), LARGE]


@pytest.mark.parametrize(
    ("filter", "shape"),
    [
        *((filter, LARGE) for filter in EVERY_FILTER),
        *((F.CascadedEMA(1e-3, 0.1), shape) for shape in EVERY_SHAPE),
    ],
    ids=str,
)
def test_fused_and_op_by_op_agree_on_every_sign(filter, shape):
    rng = np.random.default_rng(4)
    gradients = rng.normal(size=(20, 1, *shape)).astype("float32")
    initial = np.where(rng.random(shape) < 0.5, -1.0, 1.0)
    threshold, runs = 1e-6, []
    for jit_compile in (True, False):
        optimizer = from_zero(filter=filter, threshold=threshold, jit_compile=jit_compile)
        runs.append([w for (w,) in train(optimizer, [binary_variable(initial)], gradients)])
    state = {slot: np.zeros(shape) for slot in filter.slots}
    state |= {slot: np.zeros(()) for slot in filter.scalar_slots}
    near = np.zeros(shape, bool)  # where rounding may have decided a flip
    for g, fused, plain in zip(gradients[:, 0], *runs, strict=True):
        state, y = filter.step(state, g.astype("float64"), filter.coefficients)
        near |= np.abs(np.abs(y) - threshold) < 1e-5 * np.max(np.abs(y), initial=threshold)
        np.testing.assert_array_equal(fused[~near], plain[~near])
    assert near.sum() <= 0.02 * near.size


def test_one_step_by_hand(jit_compile):
    weights = binary_variable([1.0, -1.0, 1.0, -1.0, 1.0])
    optimizer = from_zero(alpha=0.5, gamma=0.25, jit_compile=jit_compile)
    optimizer.apply_gradients([(tf.constant([8.0, 8.0, -8.0, -8.0, 0.0]), weights)])
    # m = 0.25·8, y = 0.5·m; a weight flips where gradient and weight agree.
    np.testing.assert_array_equal(weights.numpy(), [-1, -1, 1, 1, 1])
    np.testing.assert_array_equal(optimizer.slots(weights)["m"], [2, 2, -2, -2, 0])
    np.testing.assert_array_equal(optimizer.slots(weights)["y"], [1, 1, -1, -1, 0])
    assert optimizer.iterations == 1


def test_threshold_is_strict(jit_compile):
    weights = binary_variable([1.0, 1.0, 1.0])
    optimizer = from_zero(1.0, None, threshold=0.5, jit_compile=jit_compile)
    optimizer.apply_gradients([(tf.constant([0.5, np.nextafter(0.5, 1, dtype="f"), -9]), weights)])
    np.testing.assert_array_equal(weights.numpy(), [1, -1, 1])


def test_a_zero_gradient_never_flips(jit_compile):
    weights = binary_variable([1.0, -1.0, 0.0, -0.0])
    optimizer = from_zero(jit_compile=jit_compile)
    for step in train(optimizer, [weights], np.zeros((5, 1, 4), "float32")):
        np.testing.assert_array_equal(step[0], [1, -1, 1, 1])


def test_what_is_not_finite_is_skipped_and_forgotten(jit_compile):
    """The element's state and weight stay; the others and the next steps go on."""
    gradients = np.array([[1, 1, 1, 1], [np.nan, np.inf, -np.inf, -3], [-9] * 4], "float32")
    weights = binary_variable([1.0] * 4)
    optimizer = from_zero(0.5, 0.5, jit_compile=jit_compile)
    after = [w for (w,) in train(optimizer, [weights], gradients[:, None])]
    np.testing.assert_array_equal(after[0], [-1, -1, -1, -1])
    np.testing.assert_array_equal(after[1], [-1, -1, -1, 1])
    # Elements 0 to 2 saw 1 and −9 only: m = 0.5, −4.25; y = 0.25, −2.
    np.testing.assert_array_equal(optimizer.slots(weights)["m"][:3], [-4.25] * 3)
    np.testing.assert_array_equal(optimizer.slots(weights)["y"][:3], [-2.0] * 3)
    np.testing.assert_array_equal(after[2], [1, 1, 1, 1])


def test_an_overflow_is_skipped_too(jit_compile):
    weights = binary_variable([1.0])
    filter = F.NormalizedEMA(0.1, 0.1)
    optimizer = from_zero(filter=filter, jit_compile=jit_compile)
    for _ in train(optimizer, [weights], np.array([[[1e30]], [[1.0]]], "float32")):
        pass
    np.testing.assert_allclose(optimizer.slots(weights)["v"], [0.1], rtol=1e-6)


def test_the_latent_free_filter_is_latent_sgd():
    """SGD with decoupled weight decay, in float64 NumPy: w = (1 − ηλ)w − η·m, θ = sign(w)."""
    rate, decay, momentum = 0.1, 1e-2, 0.9
    rng = np.random.default_rng(5)
    gradients = rng.normal(size=(500, 1, 64)).astype("float32")
    w, m = rng.normal(size=64), np.zeros(64)
    weights = binary_variable(np.sign(w))
    optimizer = from_zero(alpha=rate * decay, gamma=1 - momentum)
    optimizer.build([weights])
    scale = decay * (1 - momentum)  # y = −λ(1 − β)·w for heavy-ball momentum
    optimizer.slots(weights)["y"].assign(-scale * w)
    for g, (theta,) in zip(gradients[:, 0], train(optimizer, [weights], gradients), strict=True):
        m = momentum * m + g
        w = (1 - rate * decay) * w - rate * m
        sure = np.abs(w) > 1e-4
        np.testing.assert_array_equal(theta[sure], np.sign(w)[sure])
    np.testing.assert_allclose(optimizer.slots(weights)["y"], -scale * w, rtol=1e-3, atol=1e-6)


def test_float64_weights_have_float64_filters():
    weights = tf.Variable(np.ones(3))
    weights.precision = 1
    optimizer = from_zero(filter=F.EMA(1e-9))
    optimizer.apply_gradients([(tf.constant([1.0, -1.0, 0.0], tf.float64), weights)])
    assert optimizer.slots(weights)["y"].dtype == tf.float64
    np.testing.assert_array_equal(weights.numpy(), [-1, 1, 1])


def test_zeros_that_are_loaded_count_as_plus_one():
    weights = binary_variable(np.ones(4))
    optimizer = from_zero()
    optimizer.build([weights])
    weights.assign([0.0, -0.0, -0.5, 0.5])
    optimizer.apply_gradients([(tf.zeros(4), weights)])
    np.testing.assert_array_equal(weights.numpy(), [1.0, 1.0, -1.0, 1.0])
