"""The networks against what their papers, and the authors' code, say of them."""

import functools
import pathlib
import warnings

import larq_filters as lqf
from larq_filters.models import pretrained

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_same, model_state, slow_but
from larq_compute_engine.tflite.python.interpreter import Interpreter
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

MODELS = lqf.models
SUPPORT = pathlib.Path(__file__).parent / "support"
SMALL = {
    MODELS.BiRealNet18: {"input_shape": (32, 32, 3), "width": 4},
    MODELS.BiRealNet20: {"input_shape": (16, 16, 3), "width": 4},
    MODELS.BiRealNet34: {"input_shape": (32, 32, 3), "width": 4},
    MODELS.ReActNetA: {"input_shape": (32, 32, 3), "width": 4},
}


def binary_layers(model):
    return [layer for layer in model.layers if isinstance(layer, lq.layers.QuantConv2D)]


def macs(layer):
    """Multiply-accumulates of one image."""
    *_, in_channels, out_channels = layer.kernel.shape
    size = int(np.prod(layer.kernel.shape[:-2]))
    positions = int(np.prod(layer.output_shape[1:-1])) if len(layer.output_shape) == 4 else 1
    return positions * size * in_channels * out_channels


def totals(model):
    """Binary weights, all parameters, binary MACs and real MACs."""
    binary = binary_layers(model)
    real = [
        layer
        for layer in model.layers
        if isinstance(layer, tf.keras.layers.Conv2D | tf.keras.layers.Dense) and layer not in binary
    ]
    bits = sum(int(np.prod(layer.kernel.shape)) for layer in binary)
    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    return bits, trainable, sum(map(macs, binary)), sum(map(macs, real))


@pytest.mark.parametrize(
    "model, convolutions, memory, flops",
    # Table 3 of the Bi-Real Net paper: Mbit, and floating-point operations, 64 binary ones
    # counting as one.
    [(MODELS.BiRealNet18, 16, 33.6, 1.63e8), (MODELS.BiRealNet34, 32, 43.7, 1.93e8)],
)
def test_birealnet_is_the_published_one(model, convolutions, memory, flops):
    model = model()
    assert model.input_shape == (None, 224, 224, 3) and model.output_shape == (None, 1000)
    bits, trainable, binary_macs, real_macs = totals(model)
    assert len(binary_layers(model)) == convolutions
    assert (bits + 32 * (trainable - bits)) / 1e6 == pytest.approx(memory, rel=0.005)
    assert real_macs + binary_macs / 64 == pytest.approx(flops, rel=0.01)


def test_reactnet_a_is_the_published_one():
    model = MODELS.ReActNetA()
    bits, trainable, binary_macs, real_macs = totals(model)
    # From the authors' widths: 9 of every input plane pair, and the pointwise ones.
    ins = [32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024]
    outs = [*ins[1:], 1024]
    assert bits == sum(9 * i * i + i * o for i, o in zip(ins, outs, strict=True))
    assert trainable / 1e6 == pytest.approx(29.3, abs=0.05)
    assert binary_macs / 1e9 == pytest.approx(4.82, abs=0.005)  # their table 1
    assert real_macs / 1e8 == pytest.approx(0.12, abs=0.005)


def test_birealnet20_has_the_layers_of_resnet20():
    model = MODELS.BiRealNet20()
    bits, _, _, _ = totals(model)
    assert len(binary_layers(model)) == 18
    assert bits == 9 * (6 * 16**2 + 16 * 32 + 5 * 32**2 + 32 * 64 + 5 * 64**2)


def test_the_order_of_layers_in_a_reactnet_block():
    """RSign, 3×3, norm, shortcut, RPReLU; RSign, 1×1, norm, shortcut, RPReLU."""
    model = MODELS.ReActNetA((32, 32, 3), 10, width=4)
    names = [type(layer).__name__ for layer in model.layers]
    shift, norm, conv = "LearnableShift", "BatchNormalization", "QuantConv2D"
    half = [shift, conv, norm, "Add", shift, "PReLU", shift]
    assert names[:3] == ["InputLayer", "Conv2D", norm]
    assert names[-16:] == [*half, *half, "GlobalAveragePooling2D", "Dense"]
    sizes = [layer.kernel_size[0] for layer in binary_layers(model)]
    assert sizes[:2] == [3, 1] and sizes.count(3) == 13
    assert sizes.count(1) == 13 + 5  # five times, the channels double
    assert names.count("Concatenate") == 5 and names.count("AveragePooling2D") == 4
    assert all(layer.kernel_quantizer.precision == 1 for layer in binary_layers(model))


@pytest.mark.slow
@pytest.mark.parametrize(  # BiRealNet18 is BiRealNet34 with fewer of the same blocks
    "make", [m for m in SMALL if m is not MODELS.BiRealNet18], ids=lambda make: make.__name__
)
def test_trains_saves_and_goes_on(make, tmp_path):
    x = np.random.default_rng(0).normal(size=(8, *SMALL[make]["input_shape"])).astype("float32")
    y = np.arange(8) % 3
    model = make(num_classes=3, **SMALL[make])
    model.compile(
        lqf.optimizers.FilteredFlip(alpha=0.1, gamma=0.5),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    before = model.get_weights()
    model.fit(x, y, epochs=2, verbose=0)
    for layer in binary_layers(model):
        assert set(np.unique(layer.kernel.numpy())) == {-1.0, 1.0}
    changed = [(a != b).any() for a, b in zip(before, model.get_weights(), strict=True)]
    assert np.mean(changed) > 0.9  # a learned shift may have no gradient
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    assert_same(model_state(model), model_state(loaded))
    for each in (model, loaded):
        each.fit(x, y, verbose=0)
    assert_same(model_state(model), model_state(loaded))


@pytest.mark.parametrize(
    "make", slow_but([MODELS.BiRealNet20], SMALL), ids=lambda make: make.__name__
)
def test_other_quantizers(make):
    latent = make(kernel_quantizer="ste_sign", kernel_constraint="weight_clip", **SMALL[make])
    real = make(
        input_quantizer="ste_sign",
        kernel_quantizer=lq.quantizers.NoOp(precision=32),
        name="first_step",
        **SMALL[make],
    )
    assert real.name == "first_step"
    for layer in binary_layers(latent):
        assert isinstance(layer.kernel_quantizer, lq.quantizers.SteSign)
        assert isinstance(layer.kernel_constraint, lq.constraints.WeightClip)
    assert not any(getattr(v, "precision", None) == 1 for v in real.trainable_variables)
    assert [w.shape for w in real.get_weights()] == [w.shape for w in latent.get_weights()]


@pytest.mark.parametrize(
    "make", slow_but([MODELS.BiRealNet20], SMALL), ids=lambda make: make.__name__
)
def test_packs(make):
    model = lqf.conversion.to_latent_free(make(**SMALL[make]))  # its kernels are ±1 from now on
    exported = lqf.export.convert(model, strict=True)
    packed = [record for record in exported.report.layers if record.packed]
    assert len(packed) == len(binary_layers(model))
    shape = (64, *SMALL[make]["input_shape"])
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    # Deep networks carry on what rounding flips: of 3000 samples, none of BiRealNet18 and 20, one
    # of BiRealNet34, five of ReActNetA; with a single wrong weight, 31 % or more. Of 64 samples,
    # 3 are allowed, and 0.1 are expected: 4 of them are as likely as 1 in 200,000.
    exported.verify(x, model, allowed=0.05)


PRETRAINED = {
    "DigitsNet": ("digits", 0.98),
    "BiRealNet20": ("cifar10", 0.7),
}


@functools.cache
def images_of(weights):
    """Real images that the network was not trained on, as it wants them, and their labels."""
    if weights == "digits":  # the third that examples/quickstart.py holds out
        x, y = load_digits(return_X_y=True)
        x = x.reshape(-1, 8, 8, 1).astype("float32") / 8 - 1
        _, images, _, labels = train_test_split(x, y, test_size=1 / 3, random_state=1, stratify=y)
        return images, labels
    with np.load(SUPPORT / "cifar10_test.npz") as test:  # the first ten of each class
        return MODELS.preprocess_cifar10(test["images"]), test["labels"]


@pytest.mark.parametrize("network", PRETRAINED)
def test_trained_weights_know_real_images(network):
    weights, least = PRETRAINED[network]
    images, labels = images_of(weights)
    model = getattr(MODELS, network)(weights=weights)
    classes = np.argmax(model.predict(images, verbose=0), axis=1)
    assert np.mean(classes == labels) > least  # 0.99 and 0.8: a rounding changes single images
    for layer in binary_layers(model):
        assert set(np.unique(layer.get_weights()[0])) == {-1.0, 1.0}
    file = MODELS.packed_file(network, weights)
    assert file.stat().st_size < 80_000
    packed = np.argmax(Interpreter(file.read_bytes()).predict(images), axis=1)
    assert np.mean(packed == classes) >= 0.97  # a sum next to 0 may round to another sign


def test_without_the_top_a_network_ends_in_its_features():
    images, _ = images_of("cifar10")
    model = MODELS.BiRealNet20(weights="cifar10")
    body = MODELS.BiRealNet20(weights="cifar10", include_top=False, num_classes=7)
    features = body.predict(images[:4], verbose=0)
    assert features.shape == (4, 8, 8, 64)
    kernel, bias = model.layers[-1].get_weights()
    logits = features.mean(axis=(1, 2), dtype="float64") @ kernel.astype("float64") + bias
    np.testing.assert_allclose(logits, model.predict(images[:4], verbose=0), rtol=1e-4, atol=1e-4)
    wide = MODELS.BiRealNet20((48, 40, 3), weights="cifar10", include_top=False)
    assert wide.output_shape == (None, 12, 10, 64)


def test_fine_tuning_starts_from_the_trained_bits():
    model = MODELS.DigitsNet(weights="digits")
    before = [layer.get_weights()[0] for layer in binary_layers(model)]
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(lqf.optimizers.FilteredFlip(1e-3), loss)
    images, labels = images_of("digits")
    model.fit(images[:64], labels[:64], verbose=0)
    after = [layer.get_weights()[0] for layer in binary_layers(model)]
    assert max(np.mean(a != b) for a, b in zip(after, before, strict=True)) < 0.01


def test_weights_are_read_as_they_were_written(tmp_path):
    model = MODELS.DigitsNet(kernel_quantizer="ste_sign", kernel_constraint="weight_clip")
    pretrained.save(model, tmp_path / "some.npz")
    with np.load(tmp_path / "some.npz") as arrays:
        assert len(arrays) == len(model.weights)
        for variable, name in zip(model.weights, sorted(arrays), strict=True):
            value = variable.numpy()
            if "binary" in variable.name:  # 8 signs a byte, the first in the highest bit
                numbers = [int(f"{byte:08b}"[i]) for byte in arrays[name] for i in range(8)]
                signs = np.array(numbers[: value.size]).reshape(value.shape) * 2 - 1
                assert np.array_equal(signs, np.where(value > 0, 1, -1))
            else:
                assert np.array_equal(arrays[name], value)
    model.save_weights(tmp_path / "some.h5")
    model.save_weights(tmp_path / "checkpoint")
    for path in (tmp_path / "some.h5", str(tmp_path / "some.h5"), tmp_path / "checkpoint"):
        other = MODELS.DigitsNet(
            kernel_quantizer="ste_sign", kernel_constraint="weight_clip", weights=path
        )
        assert_same(model.get_weights(), other.get_weights())


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"weights": "imagenet"}, ["'cifar10'", "weights='imagenet'"]),
        ({"weights": "missing.h5"}, ["no such file", "save_weights", "weights='missing.h5'"]),
        ({"weights": "cifar10", "width": 8}, ["width=16", "width=8"]),
        (
            {"weights": "cifar10", "num_classes": 100},
            ["num_classes=10", "include_top=False", "num_classes=100"],
        ),
        ({"weights": "cifar10", "input_shape": (32, 32, 1)}, ["channels of input_shape=3"]),
    ],
)
def test_weights_of_another_network_are_refused(arguments, words):
    with pytest.raises(ValueError) as caught:
        MODELS.BiRealNet20(**arguments)
    assert all(word in str(caught.value) for word in words)


def test_images_that_are_divided_already_are_said():
    images = np.random.default_rng(0).integers(1, 256, (2, 4, 4, 3))
    with pytest.warns(UserWarning, match="do not divide them by 255. Received: numbers from 0"):
        MODELS.preprocess_cifar10(images / 255)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for some in (images, images.astype("float32"), 0.0 * images, np.zeros((0, 4, 4, 3))):
            MODELS.preprocess_cifar10(some)


@pytest.mark.parametrize("shape", [(2, 4, 4, 1), (4, 4), (3, 4, 5), ()])
def test_images_without_three_channels_are_refused(shape):
    for images in (np.zeros(shape), tf.zeros(shape), np.zeros(shape).tolist()):
        with pytest.raises(ValueError, match=r"red, green and blue.*Received: images of shape \("):
            MODELS.preprocess_cifar10(images)


def test_images_of_unknown_shape_are_taken():
    image = np.arange(12.0).reshape(2, 2, 3)
    dataset = tf.data.Dataset.from_generator(lambda: iter([image]), tf.float32)
    (prepared,) = dataset.map(MODELS.preprocess_cifar10)
    np.testing.assert_allclose(prepared, MODELS.preprocess_cifar10(image), rtol=1e-6)


def test_a_file_with_the_name_of_weights_is_not_read(tmp_path, monkeypatch):
    expected = MODELS.DigitsNet(weights="digits").get_weights()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").write_text("not weights")
    assert_same(MODELS.DigitsNet(weights="digits").get_weights(), expected)


def test_packed_files_that_do_not_exist():
    with pytest.raises(ValueError, match="birealnet20_cifar10, digitsnet_digits.*'imagenet'"):
        MODELS.packed_file("BiRealNet20", "imagenet")


def test_images_are_prepared_alike_as_arrays_and_tensors():
    images = np.arange(2 * 2 * 2 * 3, dtype="uint8").reshape(2, 2, 2, 3) * 10
    expected = (images - np.array([125.3, 123.0, 113.9])) / np.array([63.0, 62.1, 66.7])
    array, tensor = (
        MODELS.preprocess_cifar10(images),
        MODELS.preprocess_cifar10(tf.constant(images)),
    )
    assert array.dtype == np.float32 and tensor.dtype == tf.float32
    np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tensor, expected, rtol=1e-5, atol=1e-6)
