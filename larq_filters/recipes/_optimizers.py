"""The recipe that a Keras optimizer follows."""

from larq_filters._numbers import Schedule
from larq_filters.filters import Filter
from larq_filters.recipes._adam import Adam
from larq_filters.recipes._sgd import SGD

import tensorflow as tf


def recipe_of(optimizer: tf.keras.optimizers.Optimizer, *, clip: float | None = None) -> SGD | Adam:
    """The recipe by which a Keras `SGD`, `Adam` or `AdamW` trains latent weights.

    Args:
        optimizer: The optimizer, with a learning rate or a schedule of it.
        clip: The bound of the latent weights; larq's `weight_clip` has 1.

    Returns:
        Its numbers, as they are now.

    Raises:
        TypeError: The optimizer is another one, which may have no such filter.
        ValueError: AMSGrad, or averaged weights.

    Example:
        >>> lqf.recipes.recipe_of(tf.keras.optimizers.SGD(0.5, momentum=0.9)).momentum
        0.9
    """
    optimizers = tf.keras.optimizers
    if type(optimizer) not in (optimizers.SGD, optimizers.Adam, optimizers.AdamW):
        legacy = "legacy." if isinstance(optimizer, optimizers.legacy.Optimizer) else ""
        raise TypeError(
            "only SGD, Adam and AdamW of tf.keras.optimizers have a known filter. Train latent "
            "weights with one of them, or start over with FilteredFlip. "
            f"Received: {legacy}{type(optimizer).__name__}"
        )
    if optimizer.use_ema:
        raise ValueError(
            "averages of latent weights are not a filter over gradients. Train without use_ema. "
            "Received: use_ema=True"
        )
    rate = optimizer._learning_rate
    rate = rate if isinstance(rate, Schedule) else float(rate.numpy())
    weight_decay = optimizer.weight_decay or 0.0
    if type(optimizer) is optimizers.SGD:
        momentum = float(optimizer.momentum)
        nesterov = bool(optimizer.nesterov) and momentum > 0.0  # without momentum, plain SGD
        return SGD(rate, momentum, weight_decay, nesterov, clip=clip)
    if optimizer.amsgrad:
        raise ValueError(
            "AMSGrad divides by the largest v so far, so it is no filter over gradients. Use Adam "
            "without amsgrad. Received: amsgrad=True"
        )
    return Adam(
        rate,
        optimizer.beta_1,
        optimizer.beta_2,
        optimizer.epsilon,
        clip,
        weight_decay=weight_decay,
        epsilon_hat=not getattr(optimizer, "adaptive_epsilon", False),
    )


def from_optimizer(
    optimizer: tf.keras.optimizers.Optimizer, *, clip: float | None = None
) -> Filter:
    """The filter that is equivalent to training latent weights with a Keras optimizer.

    Args:
        optimizer: A Keras `SGD`, `Adam` or `AdamW`, as for `recipe_of`.
        clip: The bound of the latent weights; larq's `weight_clip` has 1.

    Returns:
        `recipe_of(optimizer, clip=clip).filter`.

    Raises:
        TypeError: The optimizer is another one, which may have no such filter.
        ValueError: AMSGrad, or averaged weights.

    Example:
        >>> lqf.recipes.from_optimizer(tf.keras.optimizers.SGD(0.5, weight_decay=0.25))
        EMA(alpha=0.125)
    """
    return recipe_of(optimizer, clip=clip).filter
