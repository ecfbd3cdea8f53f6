import warnings

import larq_filters as lqf

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from helpers import FROZEN, assert_one_sentence, assert_same, frozen_inside

keras = tf.keras
to_latent_free = lqf.conversion.to_latent_free
LATENT = {"kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}


@keras.utils.register_keras_serializable("tests")
class Block(keras.layers.Layer):
    """Layers within a layer, passed in and so part of its config."""

    def __init__(self, layers, **kwargs):
        super().__init__(**kwargs)
        self.layers = [
            keras.utils.deserialize_keras_object(x) if isinstance(x, dict) else x for x in layers
        ]

    def call(self, x):
        for layer in self.layers:
            x = layer(x)
        return x

    def get_config(self):
        return {**super().get_config(), "layers": self.layers}


@keras.utils.register_keras_serializable("tests")
class HardCoded(keras.layers.Layer):
    """A layer whose code makes a latent larq layer, when it is built."""

    def build(self, shape):
        self.inner = lq.layers.QuantDense(3, name="inner", **LATENT)
        super().build(shape)

    def call(self, x):
        return self.inner(x)


@keras.utils.register_keras_serializable("tests")
class Subclassed(keras.Model):
    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = lq.layers.QuantDense(units, name="dense", **LATENT)

    def call(self, x):
        return self.dense(keras.layers.Flatten()(x))

    def get_config(self):
        return {"units": self.units, "name": self.name}


def sequential():
    return keras.Sequential(
        [
            lq.layers.QuantConv2D(4, 3, input_shape=(8, 8, 3), input_quantizer=None, **LATENT),
            keras.layers.BatchNormalization(),
            lq.layers.QuantSeparableConv2D(
                5,
                3,
                input_quantizer="approx_sign",
                depthwise_quantizer="ste_sign",
                pointwise_quantizer="ste_sign",
                depthwise_constraint="weight_clip",
                pointwise_constraint="weight_clip",
            ),
            lq.layers.QuantDepthwiseConv2D(
                3, depthwise_quantizer="ste_sign", depthwise_constraint="weight_clip"
            ),
            lq.layers.QuantConv2DTranspose(3, 2, **LATENT),
            lq.layers.QuantLocallyConnected2D(3, 1, **LATENT),
            keras.layers.Reshape((9, 3)),
            lq.layers.QuantConv1D(4, 2, **LATENT),
            lq.layers.QuantLocallyConnected1D(4, 2, **LATENT),
            keras.layers.TimeDistributed(lq.layers.QuantDense(4, **LATENT)),
            keras.layers.Flatten(),
            lq.layers.QuantDense(6, kernel_quantizer="approx_sign"),
            lq.layers.QuantDense(2),
        ],
        name="the_model",
    )


def functional():
    inputs = keras.Input((8, 8, 3))
    shared = lq.layers.QuantConv2D(3, 3, padding="same", name="shared", **LATENT)
    x = shared(shared(inputs))
    inner = keras.Sequential([lq.layers.QuantDense(3, name="deep", **LATENT)], name="inner_model")
    outputs = inner(Block([lq.layers.QuantDense(3, **LATENT)], name="block")(x))
    return keras.Model(inputs, [keras.layers.add([outputs, x]), x], name="two_outputs")


MODELS = {"sequential": sequential, "functional": functional, "subclassed": Subclassed}


@pytest.fixture(params=MODELS)
def latent(request):
    """A latent model whose weights and batch norm statistics are not as initialised."""
    model = MODELS[request.param]()
    model(np.zeros((1, 8, 8, 3), "float32"))
    rng = np.random.default_rng(0)
    weights = [rng.uniform(-1, 1, w.shape) for w in model.get_weights()]
    weights = [np.where(np.abs(w) < 0.05, 0.0, w) for w in weights]  # sign(0) = +1
    for i, variable in enumerate(model.weights):
        if "variance" in variable.name:
            weights[i] = np.abs(weights[i])
    model.set_weights(weights)
    return model


def kernels(model):
    return [v for v in model.trainable_variables if getattr(v, "precision", None) == 1]


def test_predictions_names_and_real_weights_stay(latent):
    before = latent.get_weights()
    model = to_latent_free(latent)
    x = np.random.default_rng(1).normal(size=(5, 8, 8, 3)).astype("float32")
    assert_same(
        *[
            [np.asarray(y) for y in tf.nest.flatten(m.predict(x, verbose=0))]
            for m in (latent, model)
        ]
    )
    assert_same(latent.get_weights(), before)
    assert model.name == latent.name and not model.optimizer
    assert [layer.name for layer in model.layers] == [layer.name for layer in latent.layers]
    assert len(model.weights) == len(latent.weights)
    for old, new in zip(latent.weights, model.weights, strict=True):
        old_value, new_value = old.numpy(), new.numpy()
        if getattr(old, "precision", None) == 1:
            np.testing.assert_array_equal(new_value, np.where(old_value < 0, -1, 1))
            assert new.precision == 1 and new.constraint is None
        else:
            np.testing.assert_array_equal(new_value, old_value)


def test_no_latent_quantizer_is_left(latent):
    model = to_latent_free(latent)
    assert len(kernels(model)) == len(kernels(latent)) > 0
    for layer in model._flatten_layers():
        for quantizer in ("kernel_quantizer", "depthwise_quantizer", "pointwise_quantizer"):
            if getattr(layer, quantizer, None) is not None:
                assert isinstance(getattr(layer, quantizer), lq.quantizers.NoOp)
                assert getattr(layer, quantizer.replace("quantizer", "constraint")) is None


def test_the_result_trains_saves_and_loads(latent, tmp_path):
    model = to_latent_free(latent)
    model.compile(lqf.optimizers.FilteredFlip(alpha=0.5, gamma=0.5), "mse")
    x = np.random.default_rng(1).normal(size=(16, 8, 8, 3)).astype("float32")
    y = [np.ones_like(y) for y in tf.nest.flatten(model.predict(x, verbose=0))]
    before = [v.numpy() for v in kernels(model)]
    model.fit(x, y if len(y) > 1 else y[0], epochs=3, verbose=0)
    after = [v.numpy() for v in kernels(model)]
    assert any((a != b).any() for a, b in zip(before, after, strict=True))
    assert all(set(np.unique(w)) <= {-1.0, 1.0} for w in after)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same(loaded.get_weights(), model.get_weights())
    if not isinstance(latent, Subclassed):  # its code makes latent kernels, as the warning says
        assert all(isinstance(v.quantizer, lq.quantizers.NoOp) for v in kernels(loaded))


def test_shared_layers_stay_shared():
    model = to_latent_free(functional())
    assert len([v for v in model.weights if v.name.startswith("shared/kernel")]) == 1
    assert len(model.get_layer("shared").inbound_nodes) == 2


@pytest.mark.filterwarnings("ignore:the code of another layer")
@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize(("units", "name"), FROZEN)
def test_what_is_frozen_inside_a_layer_stays_frozen(units, name, built):
    """Keras orders the weights of a layer by it: frozen ones last."""
    model, x = frozen_inside(units, name)
    if not built:
        model = keras.Sequential([type(model.layers[0])(units)])
        getattr(model.layers[0], name).trainable = False
    converted = to_latent_free(model)
    assert_same([converted(x)], [model(x)]) if built else converted(x)
    for layer in ("first", "norm", "second"):
        assert getattr(converted.layers[0], layer).trainable == (layer != name)


def test_input_quantizers_stay():
    layer = to_latent_free(sequential()).layers[2]
    assert isinstance(layer.input_quantizer, lq.quantizers.ApproxSign)


def test_scales_are_named():
    model = keras.Sequential(
        [
            lq.layers.QuantDense(3, name="plain", input_shape=(4,), **LATENT),
            lq.layers.QuantDense(3, name="scaled", kernel_quantizer="magnitude_aware_sign"),
        ]
    )
    model.layers[0].kernel_quantizer = lq.quantizers.NoOp(precision=1)  # as converted before
    with pytest.warns(UserWarning, match=r"scale.*\['scaled'\]"):
        converted = to_latent_free(model)
    for old, new in zip(kernels(model), kernels(converted), strict=True):
        np.testing.assert_array_equal(new.numpy(), np.where(old.numpy() < 0, -1, 1))


def test_a_scale_above_one_is_named_too():
    layer = lq.layers.QuantDense(3, name="up", kernel_quantizer="magnitude_aware_sign")
    model = keras.Sequential([keras.Input((4,)), layer])
    layer.set_weights([2.0 * np.ones((4, 3)), np.zeros(3)])
    with pytest.warns(UserWarning, match=r"scale.*\['up'\]"):
        to_latent_free(model)


def test_layers_made_in_code_are_named():
    model = keras.Sequential([HardCoded(input_shape=(4,))])
    with pytest.warns(UserWarning, match=r"the code of another layer sets.*\['inner'\]"):
        converted = to_latent_free(model)
    assert isinstance(converted.layers[0].inner.kernel_quantizer, lq.quantizers.NoOp)
    x = np.eye(4, dtype="float32")
    assert_same([converted.predict(x, verbose=0)], [model.predict(x, verbose=0)])


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_converting_twice_changes_nothing(policy):
    keras.mixed_precision.set_global_policy(policy)
    once = to_latent_free(sequential())
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*kernel quantizer")
        twice = to_latent_free(once)
    assert_same(once.get_weights(), twice.get_weights())


def test_a_model_that_is_not_built_converts():
    model = keras.Sequential([lq.layers.QuantDense(3, **LATENT)])
    converted = to_latent_free(model)
    assert not converted.built
    converted.compile(lqf.optimizers.FilteredFlip(alpha=0.5), "mse")
    converted.fit(np.ones((4, 2)), np.ones((4, 3)), verbose=0)
    assert set(np.unique(np.abs(converted.get_weights()[0]))) == {1.0}


def test_under_a_strategy(mirrored):
    with mirrored.scope():
        latent = sequential()
        model = to_latent_free(latent)
    for old, new in zip(kernels(latent), kernels(model), strict=True):
        assert new.constraint is None
        for a, b in zip(
            mirrored.experimental_local_results(old.latent_variable),
            mirrored.experimental_local_results(new.latent_variable),
            strict=True,
        ):
            np.testing.assert_array_equal(b.numpy(), np.where(a.numpy() < 0, -1, 1))


class NoConfig(keras.Model):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, x):
        return self.layer(x)


BAD = {
    "not a model": (lambda: "model.h5", TypeError, "builtins.str"),
    "no config": (lambda: NoConfig(lq.layers.QuantDense(2, **LATENT)), ValueError, "get_config"),
    "zero or one": (
        lambda: keras.Sequential(
            [lq.layers.QuantDense(2, kernel_quantizer="ste_heaviside", input_shape=(3,), name="q")]
        ),
        ValueError,
        "layer 'q'",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_sentence(name):
    make, kind, text = BAD[name]
    model = make()
    assert_one_sentence(lambda: to_latent_free(model), kind, text)
