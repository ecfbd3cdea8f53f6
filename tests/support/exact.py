"""A training whose sums are all exact in float32: in whichever order they are added, nothing parts.

Inputs and targets are small whole numbers, and both layers binary. So all gradients are whole
numbers too, divided by a batch size that is a power of two, on every processor and device.
"""

import larq as lq
import numpy as np
import tensorflow as tf

STEPS, BATCH = 12, 32


def batches():
    """Inputs (STEPS, BATCH, 12) and targets (…, 4), different in the two halves of each batch."""
    rng = np.random.default_rng(3)
    x = rng.integers(-2, 3, (STEPS, BATCH, 12)).astype("float32")
    y = rng.integers(-9, 10, (STEPS, BATCH, 4)).astype("float32")
    x[:, BATCH // 2 :] *= 3
    return x, y


def network():
    """Two binary layers; the same weights at every call."""
    tf.keras.utils.set_random_seed(5)
    binary = {"kernel_quantizer": lq.quantizers.NoOp(precision=1), "use_bias": False}
    return tf.keras.Sequential(
        [
            lq.layers.QuantDense(8, name="one", input_shape=(12,), **binary),
            lq.layers.QuantDense(4, name="two", **binary),
        ]
    )


def loss(y_true, y_pred):
    return tf.reduce_sum((y_pred - y_true) ** 2, axis=-1) / 2.0


def fit(optimizer, callbacks=(), epochs=1, **options):
    """The network and its history, after training on the batches in order."""
    model = network()
    model.compile(optimizer, loss, **options)
    model.optimizer.build(model.trainable_variables)  # ±1 before the first gradient, also eagerly
    x, y = (a.reshape(-1, a.shape[-1]) for a in batches())
    history = model.fit(
        x, y, BATCH, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks)
    )
    return model, history.history
