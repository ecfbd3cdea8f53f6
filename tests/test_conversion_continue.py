"""A latent model and its continuation without latent weights, trained on side by side."""

import larq_filters as lqf

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_one_sentence, assert_same, frozen_inside, slow_but

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


NEAR = 1e-5  # at so small a latent weight, its sign is a matter of rounding


def assert_trains_alike(latent, model, batches):
    """Every binary weight after every step, but where rounding decides its sign; those are few.

    Each step starts from the same weights and sees the same batch. Otherwise a single bit that
    rounding turned, and on some processor it does, would make two networks of one.
    """
    signs, near = [], []
    for step, batch in enumerate(batches):
        for one in (latent, model):
            one.train_on_batch(*batch)
        pairs = list(zip(latent.trainable_variables, model.trainable_variables, strict=True))
        for old, new in pairs:
            w = tf.convert_to_tensor(old).numpy()
            if getattr(old, "precision", 32) == 1:
                near.append(np.abs(w) <= NEAR)
                w = np.where(w < 0, -1, 1)
                differs = (w != new.numpy()) & ~near[-1]
                assert not differs.any(), f"step {step}: {differs.sum()} of {new.name}"
                signs.append(w)
            else:
                np.testing.assert_allclose(new, w, rtol=1e-3, atol=1e-4, err_msg=f"step {step}")
            new.assign(w)
    assert np.mean([n.mean() for n in near]) < 1e-3
    kernels = len(signs) // len(batches)
    flips = sum((a != b).sum() for a, b in zip(signs, signs[kernels:], strict=False))
    assert flips > 20  # or there was nothing to compare


QUICK = {("Adam", 20)}
CASES = [*((name, 20) for name in OPTIMIZERS), ("momentum", 0), ("Adam", 0)]


@pytest.mark.parametrize(("name", "before"), slow_but(QUICK, CASES))
def test_the_next_steps_are_the_same(name, before, digits, make_model):
    """On real digits, after `before` latent steps."""
    latent = make_model(OPTIMIZERS[name]())
    batches = [
        (digits[0][i : i + 32], digits[1][i : i + 32])
        for i in np.random.default_rng(0).integers(0, 1700, size=before + 40)
    ]
    for batch in batches[:before]:
        latent.train_on_batch(*batch)
    state = latent.get_weights()
    model = continue_from_latent(latent)
    assert_same(latent.get_weights(), state)
    assert int(model.optimizer.iterations) == before
    assert_trains_alike(latent, model, batches[before:])


@pytest.mark.filterwarnings("ignore:the code of another layer")
@pytest.mark.parametrize(("units", "name"), [(8, "first"), (4, "norm")])
def test_what_is_frozen_inside_a_layer_stays_as_it_is(units, name):
    latent, x = frozen_inside(units, name)
    latent.compile("adam", "mse")
    latent.train_on_batch(x, np.zeros((5, 8)))
    model = continue_from_latent(latent)
    assert_same([model(x)], [latent(x)])
    frozen = getattr(model.layers[0], name).get_weights()
    model.train_on_batch(x, np.zeros((5, 8)))
    assert_same(getattr(model.layers[0], name).get_weights(), frozen)


def test_loss_and_metrics_are_kept(digits, make_model):
    latent = make_model(keras.optimizers.Adam())
    latent.fit(*digits, verbose=0)
    one = latent.evaluate(*digits, verbose=0, return_dict=True)
    two = continue_from_latent(latent).evaluate(*digits, verbose=0, return_dict=True)
    assert one == two and set(one) == {"loss", "accuracy"}


@pytest.mark.filterwarnings("error:.*clip")
def test_gradient_clipping_is_kept():
    latent = compiled(dense(), optimizer=keras.optimizers.SGD(0.1, global_clipnorm=2.5))
    assert continue_from_latent(latent).optimizer.global_clipnorm == 2.5


def test_settings_of_compile_are_kept(make_model):
    latent = make_model()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    latent.compile("adam", loss, steps_per_execution=4, jit_compile=True)
    model = continue_from_latent(latent)
    assert int(model._steps_per_execution) == 4 and model.jit_compile is True
    assert not model.run_eagerly


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


@keras.utils.register_keras_serializable("tests")
class OneSided(lq.quantizers.NoOp):
    """Its pseudo-gradient is 1 for positive weights only."""

    def __init__(self, **kwargs):
        super().__init__(precision=1)

    def call(self, inputs):
        @tf.custom_gradient
        def sign(x):
            return tf.where(x < 0, -1.0, 1.0), lambda dy: tf.where(x > 0, dy, 0.5 * dy)

        return sign(inputs)


@keras.utils.register_keras_serializable("tests")
class DeadNearZero(lq.quantizers.NoOp):
    """Its pseudo-gradient is 1 but for weights next to 0."""

    def __init__(self, **kwargs):
        super().__init__(precision=1)

    def call(self, inputs):
        @tf.custom_gradient
        def sign(x):
            return tf.where(x < 0, -1.0, 1.0), lambda dy: tf.where(tf.abs(x) > 0.1, dy, 0.0 * dy)

        return sign(inputs)


BAD = {
    "dead near 0": (
        lambda: compiled(dense(kernel_quantizer=DeadNearZero())),
        ValueError,
        "dead_near_zero",
    ),
    "one side": (lambda: compiled(dense(kernel_quantizer=OneSided())), ValueError, "one_sided"),
    "not compiled": (lambda: keras.Sequential([dense()]), ValueError, "not compiled"),
    "mixed precision": (mixed, ValueError, "LossScaleOptimizer"),
    "optimizer": (lambda: compiled(dense(), optimizer="rmsprop"), TypeError, "RMSprop"),
    "LatentSGD": (
        lambda: compiled(dense(), optimizer=lqf.optimizers.LatentSGD()),
        TypeError,
        "LatentSGD",
    ),
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
        "{'q.kernel_constraint': 1.0, 'r.kernel_constraint': 0.5}",
    ),
    "two clips of a layer": (
        lambda: compiled(
            lq.layers.QuantSeparableConv2D(
                2,
                1,
                depthwise_quantizer=lq.quantizers.SteSign(clip_value=None),
                pointwise_quantizer=lq.quantizers.SteSign(clip_value=None),
                depthwise_constraint="weight_clip",
                input_shape=(2, 2, 3),
                name="q",
            )
        ),
        ValueError,
        "{'q.depthwise_constraint': 1.0, 'q.pointwise_constraint': None}",
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
    assert_trains_alike(latent, continue_from_latent(latent), [(x, y)] * 50)
