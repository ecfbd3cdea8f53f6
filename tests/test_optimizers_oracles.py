"""Replays what other projects' released optimizers did, through the public interface."""

import larq_filters as lqf

import numpy as np
import pytest
import tensorflow as tf
from helpers import binary_variable, from_zero, train
from oracles import load

F = lqf.filters


class Recorded(tf.keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that plays back recorded values."""

    def __init__(self, values):
        self.values = tf.constant(values, tf.float32)

    def __call__(self, step):
        return tf.gather(self.values, step)


def replay(filter, gradients, initial, expected, threshold=0.0, seed=None, jit_compile=True):
    optimizer = from_zero(filter=filter, threshold=threshold, jit_compile=jit_compile)
    variables = [binary_variable(w) for w in initial]
    optimizer.build(variables)
    for variable, state in zip(variables, seed or [], strict=False):
        for slot, value in state.items():
            optimizer.slots(variable)[slot].assign(value)
    steps = 0
    for t, weights in enumerate(train(optimizer, variables, zip(*gradients, strict=True))):
        for k, weight in enumerate(weights):
            np.testing.assert_array_equal(weight, expected[k][t], err_msg=f"step {t}, tensor {k}")
        steps += 1
    assert steps == len(expected[0]) == 200
    return [optimizer.slots(variable) for variable in variables]


def assert_state(slot, expected, gradients):
    tolerance = 1e-7 * np.abs(gradients).max()
    np.testing.assert_allclose(slot.numpy(), expected, rtol=1e-5, atol=tolerance)


@pytest.mark.parametrize("name", ["cema_constant", "cema_linear_decay"])
def test_cascaded_ema_is_the_authors_cema(name, jit_compile):
    o = load(name)
    alpha = Recorded(o["alpha"]) if np.ptp(o["alpha"]) else float(o["alpha"][0])
    assert (np.ptp(o["alpha"]) > 0) == (name == "cema_linear_decay")
    gradients = [o["gradients_0"], o["gradients_1"]]
    slots = replay(
        F.CascadedEMA(alpha=alpha, gamma=float(o["gamma"])),
        gradients,
        [o["initial_weights_0"], o["initial_weights_1"]],
        [o["weights_0"], o["weights_1"]],
        jit_compile=jit_compile,
    )
    for k in range(2):
        assert_state(slots[k]["m"], o[f"momentum_{k}"], gradients[k])
        assert_state(slots[k]["y"], o[f"inertia_{k}"], gradients[k])


def test_ema_with_threshold_is_larqs_bop(jit_compile):
    o = load("bop")
    (slots,) = replay(
        F.EMA(float(o["gamma"])),
        [o["gradients"]],
        [o["initial_weights"]],
        [o["weights"]],
        threshold=float(o["threshold"]),
        jit_compile=jit_compile,
    )
    assert_state(slots["y"], o["m"], o["gradients"])


def test_normalized_ema_with_threshold_is_bop2ndorder(jit_compile):
    o = load("bop2ndorder")
    (slots,) = replay(
        F.NormalizedEMA(float(o["gamma"]), float(o["sigma"])),
        [o["gradients"]],
        [o["initial_weights"]],
        [o["weights"]],
        threshold=float(o["threshold"]),
        jit_compile=jit_compile,
    )
    assert_state(slots["m"], o["m"], o["gradients"])
    assert_state(slots["v"], o["v"], o["gradients"] ** 2)


def test_ema_of_signs_of_ema_is_diode(jit_compile):
    # Diode's s is lr·y, and its weights start as −sign(s).
    o = load("diode")
    (slots,) = replay(
        F.Cascade(F.EMA(1 - float(o["beta1"])), F.Sign(), F.EMA(1 - float(o["beta2"]))),
        [o["gradients"]],
        [o["initial_weights"]],
        [o["weights"]],
        seed=[{"2.y": o["initial_s"] / o["lr"]}],
        jit_compile=jit_compile,
    )
    assert_state(slots["0.y"], o["l"], o["gradients"])
    np.testing.assert_allclose(slots["2.y"] * o["lr"], o["s"], rtol=1e-5, atol=1e-9)
