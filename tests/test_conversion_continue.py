"""A latent model and its continuation without latent weights, trained on side by side."""

import larq_filters as lqf

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_one_sentence, assert_same

keras = tf.keras
continue_from_latent = lqf.conversion.continue_from_latent
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def decay(value):
    return keras.optimizers.schedules.PolynomialDecay(value, 400, 0.1 * value)


OPTIMIZERS = {
    "SGD": lambda: keras.optimizers.SGD(0.1),
    "SGD, decay": lambda: keras.optimizers.SGD(0.1, weight_decay=1e-2),
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9, weight_decay=1e-3),
    "nesterov": lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "schedule": lambda: keras.optimizers.SGD(decay(0.1), momentum=0.9, weight_decay=1e-3),
    "clipped gradients": lambda: keras.optimizers.SGD(0.1, momentum=0.5, global_clipnorm=1.0),
    "Adam": lambda: keras.optimizers.Adam(1e-2),
    "Adam, schedule": lambda: keras.optimizers.Adam(decay(1e-2), epsilon=1e-4),
    "AdamW": lambda: keras.optimizers.AdamW(1e-2, weight_decay=1e-2),
}


def kernels(model):
    values = [model.get_layer(name).get_weights()[0] for name in ("conv", "dense")]
    return [np.where(value < 0, -1, 1) for value in values]


@pytest.mark.parametrize(
    ("name", "before"),
    [*((name, 57) for name in OPTIMIZERS), ("momentum", 0), ("Adam", 0)],
)
def test_the_next_200_steps_are_the_same(name, before, digits, make_model):
    """On real digits, after `before` latent steps: every binary weight, at every step."""
    latent = make_model(OPTIMIZERS[name]())
    batches = [
        (digits[0][i : i + 32], digits[1][i : i + 32])
        for i in np.random.default_rng(0).integers(0, 1700, size=before + 200)
    ]
    for batch in batches[:before]:
        latent.train_on_batch(*batch)
    state = latent.get_weights()
    model = continue_from_latent(latent)
    assert_same(latent.get_weights(), state)
    assert int(model.optimizer.iterations) == before
    flips, start = 0, kernels(latent)
    for step, batch in enumerate(batches[before:]):
        latent.train_on_batch(*batch)
        model.train_on_batch(*batch)
        for a, b in zip(kernels(latent), kernels(model), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=f"step {step}")
    for a, b in zip(start, kernels(latent), strict=True):
        flips += (a != b).sum()
    assert flips > 20
    for a, b in zip(latent.get_weights(), model.get_weights(), strict=True):
        if not np.isin(b, [-1, 1]).all():
            np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3)


def test_loss_and_metrics_are_kept(digits, make_model):
    latent = make_model(keras.optimizers.Adam())
    latent.fit(*digits, verbose=0)
    one = latent.evaluate(*digits, verbose=0, return_dict=True)
    two = continue_from_latent(latent).evaluate(*digits, verbose=0, return_dict=True)
    assert one == two and set(one) == {"loss", "accuracy"}


def dense(**kwargs):
    arguments = {"kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip", **kwargs}
    return lq.layers.QuantDense(2, input_shape=(3,), name="q", **arguments)


def compiled(*layers, optimizer="sgd"):
    model = keras.Sequential(list(layers))
    model.compile(optimizer, "mse")
    return model


def mixed():
    keras.mixed_precision.set_global_policy("mixed_float16")
    return compiled(dense())


def excluding():
    optimizer = keras.optimizers.SGD(0.1, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return compiled(dense(), optimizer=optimizer)


BAD = {
    "not compiled": (lambda: keras.Sequential([dense()]), ValueError, "not compiled"),
    "mixed precision": (mixed, ValueError, "LossScaleOptimizer"),
    "optimizer": (lambda: compiled(dense(), optimizer="rmsprop"), TypeError, "RMSprop"),
    "amsgrad": (
        lambda: compiled(dense(), optimizer=keras.optimizers.Adam(amsgrad=True)),
        ValueError,
        "amsgrad=True",
    ),
    "exclusions": (excluding, ValueError, "exclude_from_weight_decay"),
    "no binary": (
        lambda: compiled(keras.layers.Dense(2, input_shape=(3,))),
        ValueError,
        "no binary",
    ),
    "constraint": (
        lambda: compiled(dense(kernel_constraint="unit_norm")),
        ValueError,
        "Received: UnitNorm",
    ),
    "regularizer": (lambda: compiled(dense(kernel_regularizer="l2")), ValueError, "Received: L2"),
    "approx_sign": (
        lambda: compiled(dense(kernel_quantizer="approx_sign")),
        ValueError,
        "approx_sign",
    ),
    "no clip": (lambda: compiled(dense(kernel_constraint=None)), ValueError, "weight_clip"),
    "wide clip": (
        lambda: compiled(dense(kernel_constraint=lq.constraints.WeightClip(2.0))),
        ValueError,
        "±2",
    ),
    "scale": (
        lambda: compiled(dense(kernel_quantizer="magnitude_aware_sign")),
        ValueError,
        "magnitude_aware_sign",
    ),
    "two clips": (
        lambda: compiled(
            dense(),
            lq.layers.QuantDense(
                2,
                kernel_quantizer="ste_sign",
                kernel_constraint=lq.constraints.WeightClip(0.5),
                name="r",
            ),
        ),
        ValueError,
        "{'q': 1.0, 'r': 0.5}",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_carried_is_refused_by_name(name):
    make, kind, text = BAD[name]
    model = make()
    assert_one_sentence(lambda: continue_from_latent(model), kind, text)


def test_a_quantizer_without_bound_needs_no_clip(digits):
    unbounded = lq.quantizers.SteSign(clip_value=None)
    latent = compiled(dense(kernel_quantizer=unbounded, kernel_constraint=None))
    x, y = np.random.default_rng(0).normal(size=(8, 3)), np.ones((8, 2))
    latent.fit(x, y, epochs=3, verbose=0)
    model = continue_from_latent(latent)
    for _ in range(50):
        latent.train_on_batch(x, y)
        model.train_on_batch(x, y)
        w, theta = latent.get_weights()[0], model.get_weights()[0]
        np.testing.assert_array_equal(np.where(w < 0, -1, 1), theta)
