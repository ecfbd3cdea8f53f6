import math

import larq_filters as lqf

import numpy as np
import pytest
import reference
import tensorflow as tf
from helpers import assert_one_sentence
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

F = lqf.filters


def schedule(start):
    return tf.keras.optimizers.schedules.PolynomialDecay(start, 100, 0.0)


SCHEDULE = schedule(0.1)

LINEAR = {  # filter, and its b and a by hand
    "EMA": (F.EMA(0.3), [0.3], [1, -0.7]),
    "EMA, slow": (F.EMA(1e-4), [1e-4], [1, -(1 - 1e-4)]),
    "EMA, none": (F.EMA(1), [1], [1, 0]),
    "CascadedEMA": (F.CascadedEMA(0.2, 0.5), [0.1], np.polymul([1, -0.8], [1, -0.5])),
    "Integrator": (F.Integrator(0.5), [0.5], [1, -1]),
    "Integrator, leaking": (F.Integrator(0.5, leak=0.25), [0.5], [1, -0.75]),
    "IIR, first order": (F.IIR([0.2, 0.1], [2.0, -1.0]), [0.1, 0.05], [1, -0.5]),
    "IIR, ringing": (F.IIR([1, 0.4, 0.2], [1, -1.8, 0.97]), [1, 0.4, 0.2], [1, -1.8, 0.97]),
    "IIR, butter": (F.IIR(*signal.butter(5, 0.2)), *signal.butter(5, 0.2)),
    "IIR, delayed": (F.IIR([0, 0, 0, 0, 0, 0.2], [1, -0.8]), [0, 0, 0, 0, 0, 0.2], [1, -0.8]),
    "IIR, sos": (F.IIR.from_sos(signal.butter(4, 0.3, output="sos")), *signal.butter(4, 0.3)),
    "IIR, FIR": (F.IIR([0.5, 0.3, 0.2, 0.1], [1.0]), [0.5, 0.3, 0.2, 0.1], [1]),
    "Cascade": (
        F.Cascade(F.EMA(0.3), F.Cascade(F.IIR([1, 0.5], [1, 0.25]), F.EMA(0.2))),
        np.polymul([0.3], np.polymul([1, 0.5], [0.2])),
        np.polymul([1, -0.7], np.polymul([1, 0.25], [1, -0.8])),
    ),
}
STATEFUL = {
    **{name: filter for name, (filter, _, _) in LINEAR.items()},
    "Integrator, limited": F.Integrator(0.5, limit=1.0),
    "Integrator, limited and leaking": F.Integrator(0.5, limit=1.0, leak=0.25),
    "NormalizedEMA": F.NormalizedEMA(0.1, 0.01),
    "NormalizedEMA, large epsilon": F.NormalizedEMA(0.1, 0.01, 0.5),
    "NormalizedEMA, corrected": F.NormalizedEMA(0.1, 0.01, 0.5, bias_correction=True),
    "NormalizedEMA, epsilon_hat": F.NormalizedEMA(0.1, 0.01, 0.5, True, epsilon_hat=True),
    "CoupledSGD": F.CoupledSGD(0.1, 0.9, 0.01),
    "CoupledSGD, dampened and limited": F.CoupledSGD(0.5, 0.9, 0.1, dampening=0.3, limit=1.0),
    "CoupledSGD, Nesterov": F.CoupledSGD(0.1, 0.9, 0.01, nesterov=True),
    "Sign": F.Sign(),
    "Diode": F.Cascade(F.EMA(0.1), F.Sign(), F.EMA(0.01)),
}
TWINS = {  # what makes the plain twin of tests/support/reference.py of each that has one
    "EMA": lambda: reference.EMA(0.3),
    "EMA, slow": lambda: reference.EMA(1e-4),
    "EMA, none": lambda: reference.EMA(1),
    "CascadedEMA": lambda: reference.CascadedEMA(0.2, 0.5),
    "Integrator, limited": lambda: reference.Integrator(0.5, 1.0),
    "Integrator, limited and leaking": lambda: reference.Integrator(0.5, 1.0, leak=0.25),
    "NormalizedEMA": lambda: reference.NormalizedEMA(0.1, 0.01),
    "NormalizedEMA, large epsilon": lambda: reference.NormalizedEMA(0.1, 0.01, 0.5),
    "NormalizedEMA, corrected": lambda: reference.NormalizedEMA(0.1, 0.01, 0.5, True),
    "NormalizedEMA, epsilon_hat": lambda: reference.NormalizedEMA(0.1, 0.01, 0.5, True, True),
    "CoupledSGD": lambda: reference.CoupledSGD(0.1, 0.9, 0.01),
    "CoupledSGD, dampened and limited": lambda: reference.CoupledSGD(0.5, 0.9, 0.1, 0.3, limit=1.0),
    "CoupledSGD, Nesterov": lambda: reference.CoupledSGD(0.1, 0.9, 0.01, nesterov=True),
    "Sign": lambda: reference.Sign(),
    "Diode": lambda: reference.Cascade(reference.EMA(0.1), reference.Sign(), reference.EMA(0.01)),
}


def test_every_public_filter_is_in_the_tables():
    """A new one goes into LINEAR, or into STATEFUL and TWINS."""
    public = {getattr(F, name) for name in F.__all__} - {F.Filter}
    compared = {type(STATEFUL[name]) for name in {*LINEAR, *TWINS}}
    assert compared == public and LINEAR.keys() | TWINS.keys() == STATEFUL.keys()


def run(filter, inputs, state=None):
    """The outputs for a sequence, in float64, and the last state."""
    shape = np.shape(inputs[0])
    state = state or {
        **{slot: np.zeros(shape) for slot in filter.slots},
        **{slot: np.zeros(()) for slot in filter.scalar_slots},
    }
    outputs = []
    for x in inputs:
        state, y = filter.step(state, x, filter.coefficients)
        outputs.append(np.asarray(y))
    return np.array(outputs), state


@pytest.fixture
def inputs():
    return np.random.default_rng(0).normal(size=(300, 4))


@pytest.mark.parametrize("name", LINEAR)
def test_step_is_the_difference_equation(name, inputs):
    filter, b, a = LINEAR[name]
    outputs, _ = run(filter, inputs)
    np.testing.assert_allclose(outputs, signal.lfilter(b, a, inputs, axis=0), atol=1e-12)


@pytest.mark.parametrize("order", range(7))
@pytest.mark.parametrize("delay", range(6))
def test_leading_zeros_are_delays(delay, order):
    rng = np.random.default_rng(order)
    a = np.poly(rng.uniform(-0.9, 0.9, size=order)) if order else np.ones(1)
    for b in ([1.0], rng.normal(size=3)):
        b = [*[0.0] * delay, *b]
        impulse = np.eye(1, 40)[0]
        filter = F.IIR(b, a)
        np.testing.assert_allclose(
            filter.impulse_response(40), signal.lfilter(b, a, impulse), atol=1e-12
        )
        assert F.IIR.from_config(filter.get_config()) == filter
    assert F.IIR([0, 0, 0, 1], [1, -0.9]).impulse_response(4).tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("name", TWINS)
def test_step_is_that_of_the_twin(name, inputs):
    outputs, _ = run(STATEFUL[name], inputs)
    twin = TWINS[name]()
    np.testing.assert_allclose(outputs, [twin(x) for x in inputs], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", STATEFUL)
def test_a_run_split_in_two_is_one_run(name, inputs):
    filter = STATEFUL[name]
    whole, _ = run(filter, inputs)
    first, state = run(filter, inputs[:117])
    second, _ = run(filter, inputs[117:], state)
    np.testing.assert_array_equal(np.concatenate([first, second]), whole)
    assert set(state) == {*filter.slots, *filter.scalar_slots}


@pytest.mark.parametrize("name", LINEAR)
def test_frequency_response(name):
    filter, b, a = LINEAR[name]
    w = np.linspace(0.01, np.pi - 0.01, 200)
    frequencies, h = filter.frequency_response(w)
    np.testing.assert_allclose(frequencies, w, rtol=1e-15)
    np.testing.assert_allclose(h, signal.freqz(b, a, w)[1], rtol=1e-12, atol=1e-12)
    assert filter.frequency_response(64)[0].shape == (64,)
    assert filter.frequency_response()[0].shape == (512,)


@pytest.mark.parametrize("name", LINEAR)
def test_impulse_response(name):
    filter, b, a = LINEAR[name]
    n = max(len(b), len(a))  # dimpulse wants polynomials in z, these are in 1/z
    b, a = (np.pad(p, (0, n - len(p))) for p in (b, a))
    _, (expected,) = signal.dimpulse((b, a, 1), n=100)
    np.testing.assert_allclose(filter.impulse_response(100), expected[:, 0], atol=1e-12)


@pytest.mark.parametrize("name", LINEAR)
def test_sos(name):
    filter, b, a = LINEAR[name]
    w = np.linspace(0.1, 3, 50)
    assert filter.sos.shape[1:] == (6,) and filter.sos.dtype == np.float64
    _, h = signal.sosfreqz(filter.sos, w)
    np.testing.assert_allclose(h, signal.freqz(b, a, w)[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", LINEAR)
def test_time_constant(name):
    filter, _, a = LINEAR[name]
    poles = abs(np.roots(a))
    largest = max(poles, default=0.0)
    expected = -1 / np.log(largest) if 0 < largest < 1 else (math.inf if largest else 0.0)
    several = sum(abs(poles - largest) < 1e-2) > 1  # roots that are the same lose their digits
    assert filter.time_constant == pytest.approx(expected, rel=1e-3 if several else 1e-10)


def test_time_constant_keeps_its_digits_for_slow_filters():
    # −1/ln(1 − α) = 1/α − 1/2 − α/12 − ...
    for filter in (F.EMA(1e-9), F.CascadedEMA(1e-9, 0.1), F.Cascade(F.EMA(0.1), F.EMA(1e-9))):
        assert filter.time_constant == pytest.approx(1e9 - 0.5, rel=1e-14)


def test_an_integrator_never_forgets():
    assert F.Integrator(0.1).time_constant == math.inf
    assert abs(F.Integrator(0.1).frequency_response([0.0])[1]) == [math.inf]


@pytest.mark.parametrize("alpha", [1e-6, 1e-4, 1e-2])
@pytest.mark.parametrize(
    "make",
    [
        lambda alpha: F.EMA(alpha),
        lambda alpha: F.CascadedEMA(alpha, 0.1),
        lambda alpha: F.IIR([alpha], [1, -(1 - alpha)]),
        lambda alpha: F.IIR([alpha * 0.1], np.polymul([1, -(1 - alpha)], [1, -0.9])),
    ],
    ids=["EMA", "CascadedEMA", "IIR", "IIR of CascadedEMA"],
)
def test_state_in_float32_stays_close_to_float64(make, alpha):
    """20,000 steps; a direct form in float32 realises a pole at 1 − 1e-6 as one at 1 − 6e-7."""
    filter = make(alpha)
    rng = np.random.default_rng(1)
    inputs = (rng.normal(size=(20_000, 16)) + 0.3).astype("float32")

    @tf.function(jit_compile=True)
    def outputs(inputs):
        zeros = {slot: tf.zeros(16) for slot in filter.slots}
        state, y, i = zeros, tf.zeros(16), tf.constant(0)
        while i < len(inputs):
            state, y = filter.step(state, inputs[i], filter.coefficients)
            i += 1
        return y

    b, a = signal.sos2tf(filter.sos)
    exact = signal.lfilter(b, a, inputs.astype("float64"), axis=0)[-1]
    np.testing.assert_allclose(outputs(tf.constant(inputs)), exact, rtol=1e-5)


FILTERS = {
    **STATEFUL,
    "EMA, scheduled": F.EMA(SCHEDULE),
    "CascadedEMA, scheduled": F.CascadedEMA(SCHEDULE, SCHEDULE),
    "Integrator, scheduled": F.Integrator(SCHEDULE, 1.0),
    "NormalizedEMA, scheduled": F.NormalizedEMA(SCHEDULE, SCHEDULE),
    "CoupledSGD, scheduled": F.CoupledSGD(SCHEDULE, 0.9, 0.01),
    "IIR, scheduled": F.IIR([SCHEDULE, 0.1], [1, -0.5]),
    "Cascade, scheduled": F.Cascade(F.NormalizedEMA(SCHEDULE, 0.1), F.Integrator(SCHEDULE)),
}


@pytest.mark.parametrize("name", FILTERS)
def test_serializes_by_value(name):
    filter = FILTERS[name]
    again = type(filter).from_config(filter.get_config())
    assert again == filter and hash(again) == hash(filter) and again is not filter
    config = tf.keras.utils.serialize_keras_object(filter)
    assert tf.keras.utils.deserialize_keras_object(config) == filter
    optimizer = lqf.optimizers.FilteredFlip(filter=filter).get_config()  # by registered names
    assert lqf.optimizers.FilteredFlip.from_config(optimizer).filter == filter
    assert {filter: "found"}[again] == "found"


FALLING = tf.keras.optimizers.schedules.PolynomialDecay(0.1, 40, 0.0)
SCHEDULED = {
    "schedule": F.EMA(FALLING),
    "scheduled cascade": F.Cascade(F.EMA(0.1), F.Sign(), F.CascadedEMA(FALLING, 0.5)),
    "scheduled IIR": F.IIR([FALLING], [1.0, -0.5]),
}


@pytest.mark.parametrize("name", [*STATEFUL, *SCHEDULED])
def test_repr_is_the_call_that_makes_it(name):
    filter = (STATEFUL | SCHEDULED)[name]
    names = {n: getattr(F, n) for n in F.__all__} | vars(tf.keras.optimizers.schedules)
    assert eval(repr(filter), names) == filter


def test_filters_differ_by_type_and_value():
    assert len(set(FILTERS.values())) == len(FILTERS)
    assert F.EMA(0.1) != F.EMA(0.2) and F.EMA(0.1) != "EMA"
    assert F.Cascade(F.EMA(0.1), F.EMA(0.2)) != F.Cascade(F.EMA(0.2), F.EMA(0.1))


def test_filters_in_words():
    assert str(F.EMA(1e-4)) == "EMA(alpha=0.0001)"
    assert str(F.CascadedEMA(SCHEDULE, 0.1)) == "CascadedEMA(alpha=PolynomialDecay, gamma=0.1)"
    assert str(F.Integrator(0.5)) == "Integrator(rate=0.5)"
    half = lqf.recipes.from_sgd(SCHEDULE, weight_decay=0.5)
    assert str(half) == "EMA(alpha=0.5 × PolynomialDecay)"


def test_a_filter_without_a_step_cannot_be_made():
    with pytest.raises(TypeError, match="abstract"):
        type("Unfinished", (F.Filter,), {})()


def test_filters_are_frozen():
    with pytest.raises(AttributeError):
        F.EMA(0.1).alpha = 0.2


@pytest.mark.parametrize("name", [name for name in FILTERS if "scheduled" in name])
def test_at_takes_schedules_at_a_step(name):
    filter = FILTERS[name]
    fixed = filter.at(50)
    assert not any(
        isinstance(c, tf.keras.optimizers.schedules.LearningRateSchedule)
        for c in fixed.coefficients.values()
    )
    assert "0.05" in repr(fixed)
    if "IIR" in name:
        assert fixed.sos[0, 0] == pytest.approx(0.05)
    if name.startswith(("EMA", "IIR")):
        with pytest.raises(ValueError, match="at\\(step\\)"):
            filter.frequency_response()
        fixed.frequency_response()


def test_a_schedule_in_a_second_order_section():
    filter = F.IIR([0.5, SCHEDULE, 0.1], [1, -0.5, 0.06])
    assert list(filter.coefficients) == ["sos0_1"]
    np.testing.assert_allclose(filter.at(50).sos, [[0.5, 0.05, 0.1, 1, -0.5, 0.06]])


def test_a_schedule_beside_a_number_in_a_denominator():
    """Whose stability is not known in advance."""
    filter = F.IIR.from_sos([[1, 0, 0, 1, SCHEDULE, 0.06]])
    assert list(filter.coefficients) == ["sos0_4"]
    with pytest.raises(ValueError, match="unstable"):
        F.IIR([1], [1, schedule(-3.0), 0.06]).at(0)


def test_a_decay_may_have_ended():
    """α is then 0: nothing is forgotten, and nothing taken in."""
    ended = F.CascadedEMA(SCHEDULE, 0.1).at(100)
    assert ended.alpha == 0.0 and ended.time_constant == math.inf
    np.testing.assert_array_equal(ended.impulse_response(5), np.zeros(5))


SETTLED = [name for name in STATEFUL if name not in ("Integrator", "Sign")]


@tf.function
def lead(filter, x, steps):
    """The state and the output after steps of a constant input, from zero, in one graph."""
    state, y = {slot: tf.zeros_like(x) for slot in filter.slots}, tf.zeros_like(x)
    state |= {slot: tf.zeros((), x.dtype) for slot in filter.scalar_slots}
    for _ in tf.range(steps):
        state, y = filter.step(state, x, filter.coefficients)
    return state, y


@pytest.mark.parametrize("name", SETTLED)
def test_the_steady_state_is_where_a_constant_input_leads(name):
    """To after 3,000 steps; a step more changes nothing."""
    filter, x = STATEFUL[name], np.array([0.5, -0.25, 0.125])
    state, y = filter.steady_state(tf.constant(x), filter.coefficients)
    coupled = name.startswith("CoupledSGD")  # which gives what 100 steps lead to
    if "slow" not in name:
        last, output = lead(filter, tf.constant(x), 100 if coupled else 3_000)
        np.testing.assert_allclose(y, output, rtol=1e-5, atol=1e-9)
        for slot in filter.slots:
            np.testing.assert_allclose(state[slot], last[slot], rtol=1e-5, atol=1e-9)
    if not coupled:
        after, again = filter.step(state, tf.constant(x), filter.coefficients)
        np.testing.assert_allclose(again, y, rtol=1e-6, atol=1e-12)
        for slot in filter.slots:
            np.testing.assert_allclose(after[slot], state[slot], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", LINEAR)
def test_the_steady_state_is_that_of_scipy(name):
    """`sosfilt_zi` says what a filter gives for a step that has always been there: its gain."""
    filter = STATEFUL[name]
    if name == "Integrator":  # which has none: after 100 steps
        _, y = filter.steady_state(tf.constant([0.5], tf.float64), filter.coefficients)
        np.testing.assert_allclose(y, 100 * 0.5 * 0.5)
        return
    x = np.full(4, 0.5)
    zi = signal.sosfilt_zi(filter.sos) * x[0]
    expected, _ = signal.sosfilt(filter.sos, x, zi=zi)
    _, y = filter.steady_state(tf.constant(x), filter.coefficients)
    np.testing.assert_allclose(y, expected, rtol=1e-9)


def test_other_numbers_for_coefficients():
    diode = F.Cascade(F.EMA(0.1), F.Sign(), F.EMA(0.01))
    expected = F.Cascade(F.EMA(0.1), F.Sign(), F.EMA(0.5))
    assert diode.with_coefficients({"2.alpha": 0.5}) == expected
    assert F.EMA(0.1).with_coefficients({}) == F.EMA(0.1)
    iir = F.IIR([0.5], [1.0, -0.5])
    assert iir.with_coefficients({}) == iir
    scheduled = F.Cascade(F.EMA(0.1), F.IIR([SCHEDULE], [1.0, -0.5]))
    expected = F.Cascade(F.EMA(0.1), F.IIR([0.25], [1.0, -0.5]))
    assert scheduled.with_coefficients({"1.sos0_0": 0.25}) == expected


def test_scheduled_iir_follows_its_schedule():
    scheduled, x = F.IIR([SCHEDULE], [1, -0.5]), np.ones(3)
    zeros = {"q0": np.zeros(3), "r0": np.zeros(3)}
    _, y = scheduled.step(zeros, x, {"sos0_0": 0.25})
    np.testing.assert_allclose(y, 0.25)
    assert list(scheduled.coefficients) == ["sos0_0"]


@given(st.floats(0, 1, exclude_min=True), st.floats(0, 1, exclude_min=True))
@settings(max_examples=50, deadline=None)
def test_every_share_in_range_is_taken(alpha, gamma):
    filter = F.CascadedEMA(alpha, gamma)
    assert filter.time_constant >= 0
    assert F.CascadedEMA.from_config(filter.get_config()) == filter


BAD = {
    "alpha 0": (lambda: F.EMA(0), ValueError, "alpha=0"),
    "alpha 2": (lambda: F.EMA(2), ValueError, "alpha=2"),
    "alpha NaN": (lambda: F.EMA(math.nan), ValueError, "alpha=nan"),
    "alpha text": (lambda: F.EMA("0.1"), TypeError, "alpha='0.1'"),
    "alpha None": (lambda: F.EMA(None), TypeError, "alpha=None"),
    "alpha bool": (lambda: F.EMA(True), TypeError, "alpha=True"),
    "gamma": (lambda: F.CascadedEMA(0.1, -0.1), ValueError, "gamma=-0.1"),
    "sigma": (lambda: F.NormalizedEMA(0.1, 1.5), ValueError, "sigma=1.5"),
    "epsilon": (lambda: F.NormalizedEMA(0.1, 0.1, epsilon=0), ValueError, "epsilon=0"),
    "rate": (lambda: F.Integrator(0), ValueError, "rate=0"),
    "limit": (lambda: F.Integrator(1, limit=-1), ValueError, "limit=-1"),
    "limit schedule": (lambda: F.Integrator(1, limit=SCHEDULE), TypeError, "limit="),
    "outside": (lambda: F.IIR([1], [1, -1.1]), ValueError, "|z|=1.1"),
    "outside, ringing": (lambda: F.IIR([1], [1, -1, 1.2]), ValueError, "unstable"),
    "twice on the circle": (lambda: F.IIR([1], [1, -2, 1]), ValueError, "two poles at z=1"),
    "twice, two sections": (
        lambda: F.IIR.from_sos([[1, 0, 0, 1, -1, 0]] * 2),
        ValueError,
        "two poles at z=1",
    ),
    "a0": (lambda: F.IIR([1], [0, 1]), ValueError, "a0=0"),
    "a0 beyond the second order": (lambda: F.IIR([1], [0, 1, 0.5, 0.1]), ValueError, "a0=0"),
    "infinite": (lambda: F.IIR([math.inf], [1]), ValueError, "inf"),
    "no coefficients": (lambda: F.IIR([], [1]), ValueError, "b=[]"),
    "third order schedule": (lambda: F.IIR([SCHEDULE], [1, 0, 0, 0.1]), ValueError, "from_sos"),
    "schedule beside a0": (lambda: F.IIR([SCHEDULE], [2]), ValueError, "a0=2"),
    "sos shape": (lambda: F.IIR.from_sos(np.ones((2, 5))), ValueError, "shape (2, 5)"),
    "sos row": (lambda: F.IIR.from_sos([1, 0, 0, 1, 0, 0]), ValueError, "shape (6,)"),
    "sos of too many axes": (
        lambda: F.IIR.from_sos(np.ones((1, 6, 6))),
        ValueError,
        "shape (1, 6, 6)",
    ),
    "sos empty": (lambda: F.IIR.from_sos(np.ones((0, 6))), ValueError, "shape (0, 6)"),
    "no stage": (lambda: F.Cascade(), ValueError, "at least one"),
    "not a stage": (lambda: F.Cascade(F.EMA(0.1), 0.1), TypeError, "0.1"),
    "not linear": (lambda: F.Sign().sos, TypeError, "not linear"),
    "limited": (lambda: F.Integrator(1, 1).impulse_response(3), TypeError, "not linear"),
    "limited, leaking": (lambda: F.Integrator(1, 1, 0.5).time_constant, TypeError, "not linear"),
    "cascade": (lambda: F.Cascade(F.EMA(0.1), F.Sign()).time_constant, TypeError, "Sign"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_sentence(name):
    assert_one_sentence(*BAD[name])


@pytest.mark.parametrize("a", [[1, -1], [1, 1], [1, 0, 1], [1, 0, -1], [1, -1.5, 0.5]])
def test_a_pole_on_the_unit_circle_is_taken_with_a_warning(a):
    with pytest.warns(UserWarning, match="never forgets"):
        filter = F.IIR([1], a)
    assert filter.time_constant == math.inf


def test_only_poles_on_the_circle_may_not_meet():
    """Beside 1 and −1, both sections have a pole at 1/2, which may be twice."""
    with pytest.warns(UserWarning, match="never forgets") as caught:
        filter = F.IIR.from_sos([[1, 0, 0, 1, -1.5, 0.5], [1, 0, 0, 1, 0.5, -0.5]])
    assert filter.sos.shape == (2, 6)
    assert "0.5" not in str(caught[0].message)
