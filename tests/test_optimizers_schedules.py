"""Learning rates that fall without an end."""

import larq_filters as lqf

import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_one_sentence

schedules = tf.keras.optimizers.schedules
Decay = lqf.optimizers.InverseSquareRootDecay


def test_is_the_equation():
    rate = Decay(0.5, decay_steps=40)
    for t in (0, 1, 40, 1000):
        assert float(rate(t)) == pytest.approx(0.5 / np.sqrt(1 + t / 40), rel=1e-6)
        assert float(rate(tf.constant(t, tf.int64))) == float(rate(t))


def test_config_round_trip():
    rate = Decay(0.5, decay_steps=40.0, name="mine")
    assert rate.get_config() == {"initial_learning_rate": 0.5, "decay_steps": 40.0, "name": "mine"}
    again = schedules.deserialize(schedules.serialize(rate))
    assert type(again) is Decay and again.get_config() == rate.get_config()


@pytest.mark.parametrize("name", ["initial_learning_rate", "decay_steps"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_what_is_out_of_range(name, value):
    arguments = {"initial_learning_rate": 0.1, "decay_steps": 10.0, name: value}
    text = f"{name} must be positive and finite. Received: {name}={value:g}"
    assert_one_sentence(lambda: Decay(**arguments), ValueError, text)
