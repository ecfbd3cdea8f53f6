"""The binary update against the plain NumPy twin, op by op and fused."""

import copy

import larq_filters as lqf

import numpy as np
import pytest
import reference
import tensorflow as tf
from helpers import binary_variable, train
from hypothesis import given, settings
from hypothesis import strategies as st

F = lqf.filters
TINY = float(np.finfo("float32").tiny)  # TensorFlow flushes smaller numbers to 0

share = st.floats(1e-6, 1.0)
FILTERS = {  # by name: coefficients -> filter of the package, its twin
    "EMA": lambda a, b: (F.EMA(a), reference.EMA(a)),
    "CascadedEMA": lambda a, b: (F.CascadedEMA(a, b), reference.CascadedEMA(a, b)),
    "Integrator": lambda a, b: (F.Integrator(a, limit=1.0), reference.Integrator(a, 1.0)),
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
    """(steps, weights): magnitudes from 1e-30 to 1e30, and zeros, NaN and infinities."""
    steps, size = draw(st.integers(1, 12)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    g = rng.normal(size=(steps, size)) * 10.0 ** draw(st.integers(-30, 30))
    special = draw(st.sampled_from([0.0, np.nan, np.inf, -np.inf]))
    g[rng.random(g.shape) < draw(st.floats(0, 0.3))] = special
    return g.astype("float32")


def twin(filter, weights, gradients, threshold):
    """The weights after every step, and where rounding may decide: within 1e-4 of the threshold.

    A step that is not finite, or that overflows float32, is skipped for its weight.
    """
    filters = [copy.deepcopy(filter) for _ in weights]
    weights, unsure = weights.astype("float64"), np.zeros(len(weights), bool)
    for g in gradients.astype("float64"):
        for k, x in enumerate(g):
            if not np.isfinite(x):
                for stage in getattr(filters[k], "stages", ()):
                    if hasattr(stage, "t"):  # the bias correction counts the variable's steps
                        stage.t += 1
                continue
            y = filters[k](x)
            scale = np.abs(gradients[:, k][np.isfinite(gradients[:, k])]).max(initial=0.0)
            near = abs(weights[k] * y - threshold) <= 1e-4 * max(abs(y), threshold) + 1e-6 * min(
                scale, 1e30
            )
            unsure[k] |= near and y != 0.0
            unsure[k] |= 0.0 < abs(y) < TINY * 1e3
            weights[k] = reference.flip(weights[k : k + 1], np.array([y]), threshold)[0]
        yield weights.copy(), unsure.copy()


@pytest.mark.parametrize("name", FILTERS)
@given(gradients(), share, share, st.sampled_from([0.0, 1e-8, 0.1]))
@settings(max_examples=40, deadline=None)
def test_every_flip_is_that_of_the_twin(name, gradients, a, b, threshold):
    filter, plain = FILTERS[name](a, b)
    squares = name in ("NormalizedEMA", "Adam")
    if squares:
        gradients = np.where(np.abs(gradients) > 1e15, np.float32(np.nan), gradients)
    initial = np.where(np.arange(gradients.shape[1]) % 2, 1.0, -1.0)
    optimizer = lqf.optimizers.FilteredFlip(filter=filter, threshold=threshold, jit_compile=False)
    steps = train(optimizer, [binary_variable(initial)], gradients[:, None])
    with np.errstate(all="ignore"):
        expected = list(twin(plain, initial, gradients, threshold))
    for t, ((weights,), (plain_weights, unsure)) in enumerate(zip(steps, expected, strict=True)):
        np.testing.assert_array_equal(weights[~unsure], plain_weights[~unsure], err_msg=f"step {t}")
        assert set(np.abs(weights)) <= {1.0}


def test_the_comparison_with_the_twin_rarely_looks_away():
    rng = np.random.default_rng(3)
    g = rng.normal(size=(50, 200)).astype("float32")
    *_, (_, unsure) = twin(reference.CascadedEMA(1e-2, 0.1), np.ones(200), g, 0.0)
    assert unsure.mean() < 0.05


@pytest.mark.parametrize(
    "filter",
    [
        F.EMA(1e-3),
        F.CascadedEMA(1e-3, 0.1),
        F.CascadedEMA(1e-6, 1e-2),
        F.IIR([0.01], [1, -1.9, 0.91]),
        F.Cascade(F.NormalizedEMA(0.1, 1e-3, 1e-7, True), F.Integrator(1e-2, 1.0)),
        F.Cascade(F.EMA(0.1), F.Sign(), F.EMA(0.01)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("shape", [(), (1,), (37,), (3, 3, 4, 5), (0,), (1001, 7)])
def test_fused_and_op_by_op_agree_on_every_sign(filter, shape):
    rng = np.random.default_rng(4)
    gradients = rng.normal(size=(20, 1, *shape)).astype("float32")
    initial = np.where(rng.random(shape) < 0.5, -1.0, 1.0)
    runs = []
    for jit_compile in (True, False):
        optimizer = lqf.optimizers.FilteredFlip(
            filter=filter, threshold=1e-6, jit_compile=jit_compile
        )
        runs.append(list(train(optimizer, [binary_variable(initial)], gradients)))
    for fused, plain in zip(*runs, strict=True):
        np.testing.assert_array_equal(fused, plain)


def test_one_step_by_hand(jit_compile):
    weights = binary_variable([1.0, -1.0, 1.0, -1.0, 1.0])
    optimizer = lqf.optimizers.FilteredFlip(alpha=0.5, gamma=0.25, jit_compile=jit_compile)
    optimizer.apply_gradients([(tf.constant([8.0, 8.0, -8.0, -8.0, 0.0]), weights)])
    # m = 0.25·8, y = 0.5·m; a weight flips where gradient and weight agree.
    np.testing.assert_array_equal(weights.numpy(), [-1, -1, 1, 1, 1])
    np.testing.assert_array_equal(optimizer.slots(weights)["m"], [2, 2, -2, -2, 0])
    np.testing.assert_array_equal(optimizer.slots(weights)["y"], [1, 1, -1, -1, 0])
    assert optimizer.iterations == 1


def test_threshold_is_strict(jit_compile):
    weights = binary_variable([1.0, 1.0, 1.0])
    optimizer = lqf.optimizers.FilteredFlip(1.0, None, threshold=0.5, jit_compile=jit_compile)
    optimizer.apply_gradients([(tf.constant([0.5, np.nextafter(0.5, 1, dtype="f"), -9]), weights)])
    np.testing.assert_array_equal(weights.numpy(), [1, -1, 1])


def test_a_zero_gradient_never_flips(jit_compile):
    weights = binary_variable([1.0, -1.0, 0.0, -0.0])
    optimizer = lqf.optimizers.FilteredFlip(jit_compile=jit_compile)
    for step in train(optimizer, [weights], np.zeros((5, 1, 4), "float32")):
        np.testing.assert_array_equal(step[0], [1, -1, 1, 1])


def test_what_is_not_finite_is_skipped_and_forgotten(jit_compile):
    """The element's state and weight stay; the others and the next steps go on."""
    gradients = np.array([[1, 1, 1, 1], [np.nan, np.inf, -np.inf, -3], [-9] * 4], "float32")
    weights = binary_variable([1.0] * 4)
    optimizer = lqf.optimizers.FilteredFlip(0.5, 0.5, jit_compile=jit_compile)
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
    optimizer = lqf.optimizers.FilteredFlip(filter=filter, jit_compile=jit_compile)
    for _ in train(optimizer, [weights], np.array([[[1e30]], [[1.0]]], "float32")):
        pass
    np.testing.assert_allclose(optimizer.slots(weights)["v"], [0.1], rtol=1e-6)


def test_the_latent_free_filter_is_latent_sgd():
    """SGD with decoupled weight decay, in float64 NumPy: w = (1 − ελ)w − ε·m, θ = sign(w)."""
    rate, decay, momentum = 0.1, 1e-2, 0.9
    rng = np.random.default_rng(5)
    gradients = rng.normal(size=(500, 1, 64)).astype("float32")
    w, m = rng.normal(size=64), np.zeros(64)
    weights = binary_variable(np.sign(w))
    optimizer = lqf.optimizers.FilteredFlip(alpha=rate * decay, gamma=1 - momentum)
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
    optimizer = lqf.optimizers.FilteredFlip(filter=F.EMA(1e-9))
    optimizer.apply_gradients([(tf.constant([1.0, -1.0, 0.0], tf.float64), weights)])
    assert optimizer.slots(weights)["y"].dtype == tf.float64
    np.testing.assert_array_equal(weights.numpy(), [-1, 1, 1])
