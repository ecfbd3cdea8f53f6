"""The flip ratio as a hyperparameter, which α follows."""

import itertools
import warnings

import larq_filters as lqf

import exact
import numpy as np
import pytest
import tensorflow as tf
from helpers import (
    assert_one_sentence,
    assert_same,
    binary_variable,
    from_zero,
    model_state,
    slow_but,
    train,
)

FilteredFlip = lqf.optimizers.FilteredFlip
F = lqf.filters
keras = tf.keras


def decay(value, steps=100):
    return keras.optimizers.schedules.PolynomialDecay(value, steps, 0.0)


def noise(optimizer, variables, steps, scale=1.0, seed=0):
    """Trains on normal noise: before each step the optimizer's α, and after it the weights."""
    rng = np.random.default_rng(seed)
    step = tf.function(lambda *g: optimizer.apply_gradients(zip(g, variables, strict=True)))
    seen = []
    for _ in range(steps):
        step(*[tf.constant(scale * rng.normal(size=v.shape), tf.float32) for v in variables])
        now = {k: float(v) for k, v in optimizer.coefficients.items()}
        seen.append((now, [v.numpy() for v in variables]))
    return seen


def ones(size):
    return binary_variable(np.where(np.arange(size) % 2, 1.0, -1.0))


def flips(before, after):
    return np.count_nonzero(np.concatenate(before) != np.concatenate(after))


def followed(alpha, ratios, seen, size, start):
    """The α of every step, as the flips that were seen in the step before must have moved it."""
    gain, alphas, before = alpha / ratios[0] ** 2, [], start
    for ratio, after in zip(ratios, seen, strict=True):
        alphas.append(min(gain * ratio**2, 1.0))
        wrong = (ratio - flips(before, after) / size) / (ratio + 1 / size)
        gain *= np.exp(0.02 * np.clip(wrong, -1, 1))
        gain, before = (min(gain, ratio**-2) if ratio else gain), after
    return alphas


@pytest.mark.parametrize("given", [0.02, 0.0005, decay(0.02), decay(0.02, 20)])
def test_alpha_follows_the_flips(given):
    """From the weights alone, as they were after every step."""
    variables = [ones(600), ones(400)]
    optimizer = FilteredFlip(flip_ratio=given, filter=F.CascadedEMA(0.03, 0.1))
    start = [v.numpy() for v in variables]
    seen = noise(optimizer, variables, 60)
    ratios = [float(given(t)) if callable(given) else given for t in range(60)]
    expected = followed(0.03, ratios, [w for _, w in seen], 1000, start)
    np.testing.assert_allclose([c["alpha"] for c, _ in seen], expected, rtol=1e-4)
    np.testing.assert_allclose([c["flip_ratio"] for c, _ in seen], ratios, rtol=1e-5)


@pytest.mark.parametrize("gamma", [None, 0.1, 0.5])
def test_alpha_starts_where_noise_flips_the_ratio(gamma):
    """What the equation says, counted: some 20,000 flips, whose deviation is below 2 %."""
    ratio = 0.04
    alpha = float(FilteredFlip(gamma=gamma, flip_ratio=ratio).alpha)
    variable, seen = ones(2_000), []
    seen = noise(from_zero(alpha, gamma), [variable], 500)
    weights = [w for _, w in seen[200:]]
    share = sum(map(flips, weights, weights[1:])) / (299 * 2_000)
    assert share == pytest.approx(ratio, rel=0.06)


@pytest.mark.parametrize("alpha", [0.5, 1e-4])
def test_the_ratio_is_reached_from_a_wrong_alpha(alpha):
    """A deviation of 1 %, and what is still missing, are far below the bound."""
    variable, ratio = ones(5_000), 0.03
    optimizer = FilteredFlip(flip_ratio=ratio, filter=F.CascadedEMA(alpha, 0.1), inertia=0.0)
    seen = noise(optimizer, [variable], 900)
    weights = [w for _, w in seen[700:]]
    share = sum(map(flips, weights, weights[1:])) / (199 * 5_000)
    assert share == pytest.approx(ratio, rel=0.1)


def test_decay_steps_lets_it_decay_linearly():
    optimizer = FilteredFlip(flip_ratio=0.02, decay_steps=10)
    seen = noise(optimizer, [ones(10)], 11)
    expected = [0.02 * (1 - t / 10) for t in range(11)]
    np.testing.assert_allclose([c["flip_ratio"] for c, _ in seen], expected, atol=1e-8)
    assert seen[-1][0]["alpha"] == 0.0
    with pytest.warns(UserWarning, match=r"^flip_ratio had decayed to 0 before training ended, "):
        noise(optimizer, [], 0)
        optimizer.finalize_variable_values([])


def test_each_filter_has_its_own_alpha():
    first, second, third = ones(600), ones(400), ones(50)
    keys = [lambda v: v is first, lambda v: v is second, lambda v: v is third]
    filters = [F.CascadedEMA(0.03, 0.1), F.EMA(0.003), None]
    optimizer = FilteredFlip(flip_ratio=0.02, filter=dict(zip(keys, filters, strict=True)))
    start = [first.numpy()], [second.numpy()]
    seen = noise(optimizer, [first, second, third], 40)
    names = [k for k in seen[0][0] if k.endswith("/alpha")]
    for i, (name, alpha, size) in enumerate(zip(names, (0.03, 0.003), (600, 400), strict=True)):
        expected = followed(alpha, [0.02] * 40, [[w[i]] for _, w in seen], size, start[i])
        np.testing.assert_allclose([c[name] for c, _ in seen], expected, rtol=1e-4)
    assert seen[-1][0][names[0]] != pytest.approx(0.03) and optimizer.learning_rate is (
        optimizer.flip_ratio
    )


def test_weights_without_a_gradient_do_not_count():
    """Else α would grow until the others make up for them."""
    small, large = ones(5_000), ones(45_000)
    optimizer = FilteredFlip(flip_ratio=0.02)
    optimizer.build([small, large])
    seen = noise(optimizer, [small], 400)
    shares = [flips(a, b) / 5_000 for (_, a), (_, b) in itertools.pairwise(seen)]
    assert np.mean(shares[200:]) == pytest.approx(0.02, rel=0.1)
    assert seen[-1][0]["alpha"] < 0.06


def test_it_is_the_learning_rate():
    """So Keras' callbacks scale it; α moves at once with its square."""
    optimizer, variable = FilteredFlip(flip_ratio=decay(0.02), gamma=0.1), ones(200)
    alpha = noise(optimizer, [variable], 1)[-1][0]["alpha"]
    optimizer.learning_rate = 0.5 * optimizer.learning_rate
    seen = noise(optimizer, [variable], 2)
    np.testing.assert_allclose(
        [c["flip_ratio"] for c, _ in seen], [0.01, 0.01 * 0.0196 / 0.0198], rtol=1e-5
    )
    assert seen[0][0]["alpha"] == pytest.approx(alpha * 0.5**2, rel=0.021)
    optimizer.flip_ratio = 0.004
    assert noise(optimizer, [variable], 1)[0][0]["flip_ratio"] == pytest.approx(0.004)
    assert "flip_ratio=" in repr(optimizer) and "alpha" in str(optimizer.filter)


def test_alpha_cannot_be_set_beside_it():
    optimizer = FilteredFlip(flip_ratio=0.02)
    for set_it in (
        lambda: setattr(optimizer, "alpha", 0.5),
        lambda: optimizer.coefficients["alpha"].assign(0.5),
    ):
        assert_one_sentence(set_it, AttributeError, "set that, which is also the learning rate")


WRONG = {
    "alpha, too": (lambda: FilteredFlip(0.01, flip_ratio=0.02), "give one of them"),
    "no alpha": (
        lambda: FilteredFlip(flip_ratio=0.02, filter=F.NormalizedEMA(0.1, 0.01)),
        "for '*'",
    ),
    "a schedule of alpha": (
        lambda: FilteredFlip(flip_ratio=0.02, filter={"a": F.EMA(0.1), "b*": F.EMA(decay(0.1))}),
        "for 'b*'",
    ),
    "nothing flips": (lambda: FilteredFlip(flip_ratio=0.0), "flip_ratio=0"),
    "percent": (lambda: FilteredFlip(flip_ratio=1), "such as 0.01 for 1 %"),
    "a setting": (lambda: setattr(FilteredFlip(flip_ratio=0.1), "flip_ratio", 1.0), "flip_ratio=1"),
    "a start at nothing": (lambda: FilteredFlip(flip_ratio=decay(0.0)), "starts at 0"),
    "two decays": (lambda: FilteredFlip(flip_ratio=decay(0.1), decay_steps=9), "decay_steps=9"),
    "a length that is none": (lambda: FilteredFlip(flip_ratio=0.1, decay_steps=0), "decay_steps=0"),
}


@pytest.mark.parametrize("make, text", WRONG.values(), ids=WRONG)
def test_refuses(make, text):
    assert_one_sentence(make, ValueError, text)


def test_a_ratio_that_is_not_reached_is_said():
    """No filter flips half of the weights that all gradients support."""
    variable = ones(100)
    optimizer = FilteredFlip(flip_ratio=0.5)
    list(train(optimizer, [variable], 150 * [[-variable.numpy()]]))
    assert float(optimizer.alpha) == 1.0
    with pytest.warns(UserWarning, match="give a smaller flip_ratio.*flip_ratio=0.5, alpha=1"):
        optimizer.finalize_variable_values([variable])
    for steps in (300, 150):  # α falls in the end
        decaying = FilteredFlip(flip_ratio=0.5, decay_steps=steps)
        list(train(decaying, [variable], 150 * [[-variable.numpy()]]))
        assert float(decaying.alpha) < 1.0
        with pytest.warns(UserWarning, match=f"give a smaller.*PolynomialDecay.*{steps}.*alpha=1"):
            decaying.finalize_variable_values([variable])
    reached = FilteredFlip(flip_ratio=0.02)
    noise(reached, [ones(10)], 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        reached.finalize_variable_values([])


def fit(optimizer, **options):
    return exact.fit(optimizer, [lqf.callbacks.FlipRatio()], **options)


@pytest.mark.parametrize("way", slow_but(["jit_compile"], ["jit_compile", "run_eagerly"]))
def test_however_the_step_runs(way):
    one, history = fit(FilteredFlip(flip_ratio=0.05))
    two, other = fit(FilteredFlip(flip_ratio=0.05), **{way: True})
    assert_same(one.get_weights(), two.get_weights())
    assert history["flip_ratio"] == other["flip_ratio"]
    assert float(one.optimizer.alpha) == pytest.approx(float(two.optimizer.alpha), rel=1e-5)


def test_two_replicas_and_one_agree(mirrored):
    one, _ = fit(FilteredFlip(flip_ratio=0.05))
    with mirrored.scope():
        two = exact.network()
        two.compile(FilteredFlip(flip_ratio=0.05), exact.loss)
        two.optimizer.build(two.trainable_variables)
    x, y = (a.reshape(-1, a.shape[-1]) for a in exact.batches())
    two.fit(x, y, exact.BATCH, shuffle=False, verbose=0)
    assert_same(one.get_weights(), two.get_weights())
    for name, alpha in one.optimizer.coefficients.items():
        replicas = mirrored.experimental_local_results(two.optimizer.coefficients[name])
        np.testing.assert_allclose([r.numpy() for r in replicas], [alpha.numpy()] * 2, rtol=1e-5)


@pytest.mark.parametrize("format", slow_but([".keras"], [".keras", ".h5", "checkpoint"]))
def test_saved_and_resumed(format, tmp_path, digits, make_small):
    def fit(model, batches):
        for i in batches:
            model.train_on_batch(*(a[64 * i : 64 * (i + 1)] for a in digits))
        alpha = model.optimizer.alpha.numpy()
        return [*model_state(model), alpha, model.optimizer.flip_ratio.numpy()]

    model = make_small(FilteredFlip(flip_ratio=decay(0.05)))
    fit(model, range(3))
    if format == "checkpoint":
        path = str(tmp_path / "checkpoint")
        tf.train.Checkpoint(model=model, optimizer=model.optimizer).write(path)
        other = make_small(FilteredFlip(flip_ratio=decay(0.05)))
        other.optimizer.build(other.trainable_variables)
        tf.train.Checkpoint(model=other, optimizer=other.optimizer).read(path).assert_consumed()
    else:
        model.save(tmp_path / f"model{format}")
        other = keras.models.load_model(tmp_path / f"model{format}")
        assert repr(other.optimizer) == repr(model.optimizer)
    assert_same(fit(other, range(3, 6)), fit(model, range(3, 6)))


def test_its_counter_is_there_for_all():
    optimizer, variable = FilteredFlip(flip_ratio=0.05), ones(100)
    optimizer.build([variable])
    before = [variable.numpy()]
    ((_, after),) = noise(optimizer, [variable], 1)
    assert int(optimizer.flips(variable)) == flips(before, after)
