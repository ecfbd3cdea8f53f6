"""Random networks of everything that `export.bits` packs."""

import larq_filters as lqf

import larq as lq
import numpy as np
import tensorflow as tf
from export_helpers import randomize

layers = tf.keras.layers
Q = lq.layers
INPUTS = ("ste_sign", "approx_sign", "swish_sign")


def kernel(rng):
    """The quantizer of a kernel, and whether there is a bias.

    A kernel of ± one scale gets one: Keras adds these scales one by one, so that a sum which is 0
    becomes a number next to 0, whose sign nobody knows before.
    """
    choice = rng.integers(4)
    if choice == 0:
        return {"kernel_quantizer": "magnitude_aware_sign", "use_bias": True}
    quantizer = lq.quantizers.NoOp(precision=1) if choice == 1 else "ste_sign"
    return {"kernel_quantizer": quantizer, "use_bias": bool(rng.integers(2))}


def binary_conv(rng, x, filters, strides=1, **fixed):
    """A binary convolution of any kind that fits."""
    room = min(x.shape[1:3])
    size = int(rng.integers(1, min(room, 3) + 1))
    groups = int(rng.choice([g for g in (1, 1, 2, 3) if x.shape[-1] % g == 0 == filters % g]))
    options = {
        "kernel_size": (size, int(rng.integers(1, size + 1))),
        "strides": strides,
        "padding": str(rng.choice(["same", "valid"])),
        "pad_values": float(rng.choice([1.0, 0.0, -1.0])),
        "groups": groups,
        "input_quantizer": str(rng.choice(INPUTS)),
        **kernel(rng),
    }
    if strides == 1 and groups == 1 and room > 4 and rng.integers(4) == 0:
        options["dilation_rate"] = 2
    return Q.QuantConv2D(filters, **{**options, **fixed})(x)


def between(rng, x):
    """What may be between a binary layer and the next sign."""
    for _ in range(rng.integers(0, 3)):
        choice = rng.integers(6)
        if choice <= 1:
            x = layers.BatchNormalization(scale=bool(rng.integers(4)))(x)
        elif choice == 2:
            x = layers.PReLU(shared_axes=list(range(1, len(x.shape) - 1)))(x)
        elif choice == 3:
            x = lqf.models.LearnableShift()(x)
        elif choice == 4:
            x = layers.ReLU(6.0 if rng.integers(2) else None)(x)
        else:
            x = layers.LeakyReLU(0.1)(x)
    return x


def block(rng, x):
    """A binary convolution, what follows, and perhaps a shortcut around it."""
    filters, choice = int(rng.choice([3, 8, 12, 32, 33])), rng.integers(5)
    if choice == 0:
        same = {"padding": "same", "strides": 1, "dilation_rate": 1}
        y = between(rng, binary_conv(rng, x, x.shape[-1], **same))
        return layers.add([y, x])
    if choice == 1:
        same = {"padding": "same", "strides": 1, "dilation_rate": 1}
        some = [between(rng, binary_conv(rng, x, filters, **same)) for _ in range(2)]
        return layers.concatenate(some)
    x = between(rng, binary_conv(rng, x, filters, strides=int(rng.integers(1, 3))))
    if choice == 2 and min(x.shape[1:3]) > 1:
        if rng.integers(3) == 0:
            x = lq.quantizers.SteSign()(x)
        pool = layers.MaxPooling2D if rng.integers(3) else layers.AveragePooling2D
        padding = str(rng.choice(["same", "valid"]))
        x = between(rng, pool(2, strides=int(rng.integers(1, 3)), padding=padding)(x))
    return x


def network(seed):
    """A network, with weights at random, batch norms of both signs among them."""
    rng = np.random.default_rng(seed)
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(seed)
    inputs = x = layers.Input((*(int(n) for n in rng.integers(3, 8, 2)), int(rng.integers(1, 5))))
    first = rng.integers(4)
    if first == 0:  # binary from the first layer on
        x = between(rng, binary_conv(rng, x, 8))
    elif first == 1:  # binary weights, real inputs
        x = Q.QuantConv2D(8, 2, padding="same", kernel_quantizer="ste_sign")(x)
    elif first == 2:
        x = layers.DepthwiseConv2D(2, depth_multiplier=2, padding="same")(x)
    else:
        x = layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    for _ in range(rng.integers(1, 3)):
        x = block(rng, x)
    last = rng.integers(4)
    if last == 0:
        x = layers.GlobalAveragePooling2D()(x)
    elif last == 1:
        x = layers.GlobalMaxPooling2D()(x)
    else:
        x = layers.Flatten()(x)
        if last == 2:
            x = between(rng, Q.QuantDense(9, input_quantizer="ste_sign", **kernel(rng))(x))
    if rng.integers(3):
        x = layers.Dense(5)(x)
    return randomize(tf.keras.Model(inputs, x), seed)
