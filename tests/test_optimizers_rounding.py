"""State in bfloat16: right on average, repeatable, and the same wherever it is computed."""

import larq_filters as lqf
from larq_filters.optimizers import _rounding

import ml_dtypes
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

F = lqf.filters
keras = tf.keras
N = 2**16


def narrow(alpha=1e-2, gamma=0.1, **kwargs):
    return from_zero(alpha, gamma, state_dtype="bfloat16", **kwargs)


def neighbours(exact):
    """The bfloat16 numbers next to float32 ones, toward 0 and away from it, in NumPy."""
    bits = exact.view(np.uint32) & 0xFFFF0000
    return bits.view(np.float32), (bits + 0x10000).view(np.float32)


def drawn(value, seed=0, step=0, variable=0, slot="y"):
    rounding = _rounding.Rounding(seed, tf.constant(step, tf.int64), variable, ("m", "y"))
    return rounding.at(0)(slot, tf.constant(value)).numpy()


@pytest.mark.parametrize("scale", [1e-30, 1e-4, 1.0, 3e38])
def test_rounds_to_a_neighbour_and_is_right_on_average(scale):
    rng = np.random.default_rng(0)
    exact = (rng.uniform(-1, 1, N) * scale).astype("float32")
    low, high = neighbours(exact)
    largest = np.float32(ml_dtypes.finfo("bfloat16").max)
    high = np.clip(high, -largest, largest)
    rounded = drawn(exact)
    assert ((rounded == low) | (rounded == high)).all()
    assert 0.4 < (rounded == high).mean() < 0.6
    np.testing.assert_array_equal(rounded.astype(ml_dtypes.bfloat16).astype("f"), rounded)
    inside = np.abs(exact) < largest
    error = ((rounded - exact) / (high - low))[inside].astype("float64")
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(error.size)


@pytest.mark.parametrize("share", [1, 7, 100, 0x4000, 0xFFF0])
def test_the_share_that_rounds_up_is_the_distance(share):
    exact = np.full(N, np.uint32(0x3F800000 + share)).view(np.float32)
    up = (drawn(exact) > exact).mean()
    p = share / 0x10000
    assert abs(up - p) < 4 * np.sqrt(p * (1 - p) / N)


def test_numbers_of_bfloat16_stay():
    exact = np.arange(-300, 300).astype(ml_dtypes.bfloat16).astype("float32")
    np.testing.assert_array_equal(drawn(exact), exact)


def test_draws_have_nothing_to_do_with_each_other():
    """Over steps, slots, variables and seeds, and along the elements, also when shifted."""
    half = np.full(N, 1 + 2.0**-8, "float32")
    draws = [
        drawn(half, seed, step, variable, slot) > 1.0
        for seed in (0, 1)
        for step in (0, 1, 2, 1000)
        for variable in (0, 1)
        for slot in ("m", "y")
    ]
    z = [(d - d.mean()) / d.std() for d in draws]
    limit = 5 / np.sqrt(N)
    for i, a in enumerate(z):
        assert all(abs(np.mean(a * b)) < limit for b in z[:i])
        assert all(abs(np.mean(a[k:] * a[:-k])) < limit for k in (1, 2, 3, 7, 16, 64, 1024, 3072))
    spectrum = np.abs(np.fft.rfft(z[0]))[1:] / np.sqrt(N)
    for other in z[1:]:  # no shift of one is another
        assert np.abs(np.fft.ifft(np.fft.fft(z[0]).conj() * np.fft.fft(other))).max() < 8 * N**0.5
    assert spectrum.max() < 5


def test_every_state_is_a_neighbour_of_the_exact_next_one(jit_compile):
    rng = np.random.default_rng(1)
    gradients = rng.normal(size=(20, 1, 70_000)).astype("float32")
    weights = binary_variable(np.ones(70_000))
    optimizer = narrow(1e-2, None, jit_compile=jit_compile)
    before = np.zeros(70_000, "float32")
    for g, _ in zip(gradients[:, 0], train(optimizer, [weights], gradients), strict=True):
        exact = before + np.float32(1e-2) * (g - before)
        y = optimizer.slots(weights)["y"].numpy()
        assert y.dtype == ml_dtypes.bfloat16
        near = 1e-7 * (np.abs(exact) + np.abs(g))  # XLA may fuse multiplication and addition
        between = np.minimum(*neighbours(exact - near)) <= y.astype("float32")
        assert (between & (y.astype("float32") <= np.maximum(*neighbours(exact + near)))).all()
        before = y.astype("float32")


def test_a_small_alpha_moves_the_state_and_plain_rounding_does_not():
    """y → 1 under a constant gradient of 1; to the nearest, it stops where a step is lost."""
    alpha, steps = 1e-4, 4000
    weights = binary_variable(np.ones(N // 16))
    optimizer = narrow(alpha, None)
    step = tf.function(lambda g: optimizer.apply_gradients([(g, weights)]))
    ones = tf.ones(N // 16)
    plain = np.float32(0)
    for _ in range(steps):
        step(ones)
        plain = np.float32(ml_dtypes.bfloat16(plain + np.float32(alpha) * (1 - plain)))
    exact = 1 - (1 - alpha) ** steps
    y = optimizer.slots(weights)["y"].numpy().astype("float64")
    assert abs(y.mean() - exact) < 4 * y.std() / np.sqrt(y.size)
    assert plain < 0.1 * exact


HALVES = {  # by number of slots
    1: F.EMA(0.125),
    2: F.CascadedEMA(0.125, 0.5),
    3: F.Cascade(F.EMA(0.5), F.EMA(0.25), F.EMA(0.125)),
}


@pytest.mark.parametrize(
    ("shape", "slots"), [((37,), 2), *(((3, 3, 96, 192), n) for n in HALVES)], ids=str
)
def test_fused_and_op_by_op_draw_the_same(shape, slots):
    """With coefficients that are powers of two, nothing else is rounded."""
    rng = np.random.default_rng(2)
    gradients = rng.integers(-8, 9, size=(5, 1, *shape)).astype("float32")
    gradients[3].flat[::7] = np.nan
    gradients[2].flat[::5] = np.inf
    runs = []
    for jit_compile in (True, False):
        weights = binary_variable(np.ones(shape))
        optimizer = from_zero(
            filter=HALVES[slots], state_dtype="bfloat16", jit_compile=jit_compile, seed=5
        )
        after = [w for (w,) in train(optimizer, [weights], gradients)]
        runs.append(after + [s.numpy() for s in optimizer.slots(weights).values()])
    assert_same(*runs)
    assert np.isfinite(runs[0][-1].astype("f")).all()


def lowbias32(index, one, two):
    """The integer hash "lowbias32" with a key before it and one between its rounds, in NumPy."""
    h = index + one
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x7FEB352D)
    h = h ^ two
    h = (h ^ (h >> np.uint32(15))) * np.uint32(0x846CA68B)
    return h ^ (h >> np.uint32(16))


def mixed(number):
    return lowbias32(number, np.uint32(0x6A09E667), np.uint32(0xBB67AE85))


@pytest.mark.parametrize(("seed", "step", "variable", "slot"), [(0, 0, 0, "m"), (7, 1234, 3, "y")])
def test_what_is_drawn_is_written_down(seed, step, variable, slot):
    """Other draws would be as good, but a training that is resumed has to go on with the same."""
    with np.errstate(over="ignore"):
        one = two = mixed(np.uint32(seed))
        for part in np.array([variable, 0, step], "uint32"):
            one, two = mixed(one + part), mixed(two + mixed(part + np.uint32(0x9E3779B9)))
        draws = lowbias32(np.arange(1000, dtype="uint32"), one, two)
        draws = draws << np.uint32(16) if slot == "y" else draws  # the second of two
    exact = np.random.default_rng(0).normal(size=1000).astype("float32")
    bits = exact.view(np.uint32) + (draws >> np.uint32(16)) & np.uint32(0xFFFF0000)
    np.testing.assert_array_equal(drawn(exact, seed, step, variable, slot), bits.view("float32"))


def test_the_seed_decides():
    gradients = np.random.default_rng(3).normal(size=(3, 1, 500)).astype("float32")

    def state(seed):
        weights = binary_variable(np.ones(500))
        optimizer = narrow(seed=seed)
        list(train(optimizer, [weights], gradients))
        return optimizer.slots(weights)["y"].numpy()

    np.testing.assert_array_equal(state(1), state(1))
    assert (state(1) != state(2)).any()


def test_scalars_stay_float32():
    weights = binary_variable(np.ones(3))
    filter = F.NormalizedEMA(0.1, 0.1, bias_correction=True)
    optimizer = from_zero(filter=filter, state_dtype="bfloat16")
    for _ in train(optimizer, [weights], np.ones((300, 1, 3), "float32")):
        pass
    slots = optimizer.slots(weights)
    assert [slots[name].dtype for name in ("m", "v", "t")] == [tf.bfloat16] * 2 + [tf.float32]
    assert slots["t"].numpy() == 300


# The variables


def test_state_is_a_variable_of_bfloat16():
    weights = binary_variable(np.ones(3))
    optimizer = narrow()
    optimizer.build([weights])
    y = optimizer.slots(weights)["y"]
    y.assign([1.0, -0.5, 1e-3])
    rounded = np.array([1.0, -0.5, 1e-3]).astype(ml_dtypes.bfloat16)
    assert y.shape == (3,) and "CPU" in y.device and y.name in repr(y)
    for value in (y, y.numpy(), y.read_value(), tf.identity(y), tf.cast(y, tf.float64)):
        np.testing.assert_array_equal(value, rounded)
    assert np.asarray(y).dtype == tf.convert_to_tensor(y).dtype == ml_dtypes.bfloat16
    assert_one_sentence(
        lambda: tf.convert_to_tensor(y, tf.float32), ValueError, "cast it with tf.cast"
    )


@pytest.mark.parametrize("one, two", [("state", "variable"), ("variable", "state")])
def test_checkpoints_are_those_of_variables_of_bfloat16(one, two, tmp_path):
    """As on GPUs and in earlier versions, whose variables are such."""
    weights = binary_variable(np.ones(3))
    optimizer = narrow()
    optimizer.build([weights])
    kinds = {
        "state": optimizer.slots(weights)["y"],
        "variable": tf.Variable(tf.zeros(3, tf.bfloat16)),
    }
    kinds[one].assign([1.0, -2.0, 0.5])
    path = tf.train.Checkpoint(value=kinds[one]).write(str(tmp_path / "value"))
    kinds[one].assign([0.0, 0.0, 0.0])
    tf.train.Checkpoint(value=kinds[two]).read(path).assert_consumed()
    np.testing.assert_array_equal(kinds[two], [1.0, -2.0, 0.5])


@pytest.mark.slow
def test_a_saved_model_has_no_state(digits, make_small, tmp_path):
    """It has the weights, and says that the filters start anew."""
    model = make_small(narrow())
    model.fit(dataset(digits), verbose=0)
    model.save(tmp_path / "model", save_format="tf")
    again = keras.models.load_model(tmp_path / "model")
    assert_same(again.get_weights(), model.get_weights())
    with pytest.warns(UserWarning, match="the filters start anew"):
        again.fit(dataset(digits), verbose=0)


# Training


def dataset(digits):
    return tf.data.Dataset.from_tensor_slices(tuple(a[:640] for a in digits)).batch(64)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize("way", slow_but(["checkpoint"], ["model.keras", "model.h5", "checkpoint"]))
def test_resuming_is_bit_identical(way, digits, make_small, tmp_path):
    whole = make_small(narrow(seed=9))
    whole.fit(dataset(digits), epochs=2, verbose=0)
    if way == "checkpoint":
        path = tf.train.Checkpoint(model=whole, optimizer=whole.optimizer).save(tmp_path / way)
        again = make_small(narrow(seed=9))
        tf.train.Checkpoint(model=again, optimizer=again.optimizer).restore(path)
    else:
        whole.save(tmp_path / way)
        again = keras.models.load_model(tmp_path / way)
        assert again.optimizer.get_config()["state_dtype"] == "bfloat16"
        assert again.optimizer.get_config()["seed"] == 9
    for model in (again, whole):
        model.fit(dataset(digits), epochs=2, verbose=0)
    assert again.optimizer.slots(again.get_layer("conv").kernel)["y"].dtype == tf.bfloat16
    assert_same(model_state(again), model_state(whole))


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"state_dtype": "float16"}, "state_dtype='float16'"),
        ({"state_dtype": "float8"}, "state_dtype='float8'"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 0.5}, "seed=0.5"),
    ],
)
def test_bad_input_gets_one_sentence(kwargs, text):
    assert_one_sentence(lambda: from_zero(**kwargs), ValueError, text)
