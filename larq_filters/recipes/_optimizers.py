"""The recipe that a Keras optimizer follows."""

from larq_filters._numbers import Schedule
from larq_filters._warnings import warn
from larq_filters.filters import Filter
from larq_filters.optimizers import LatentSGD
from larq_filters.recipes._adam import Adam
from larq_filters.recipes._sgd import SGD

import tensorflow as tf


def recipe_of(optimizer: tf.keras.optimizers.Optimizer, *, clip: float | None = None) -> SGD | Adam:
    """The recipe by which a Keras `SGD`, `Adam` or `AdamW` trains latent weights.

    Args:
        optimizer: The optimizer, with a learning rate or a schedule of it; or a `LatentSGD`.
        clip: The bound of the latent weights; larq's `weight_clip` has 1.

    Returns:
        Its numbers, as they are now.

    Raises:
        TypeError: The optimizer is another one, which may have no such filter.
        ValueError: AMSGrad, averaged weights, or variables excluded from weight decay.

    Warns:
        UserWarning: The optimizer clips gradients, which is no part of the filter.

    Example:
        >>> lqf.recipes.recipe_of(tf.keras.optimizers.SGD(0.5, momentum=0.9)).momentum
        0.9
    """
    optimizers = tf.keras.optimizers
    if type(optimizer) not in (optimizers.SGD, optimizers.Adam, optimizers.AdamW, LatentSGD):
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
    weight_decay = optimizer.weight_decay or 0.0
    if weight_decay and _has_exceptions(optimizer):
        raise ValueError(
            "weight decay with exceptions cannot be converted, as one filter has one weight decay. "
            "Train without exclude_from_weight_decay. Received: an optimizer with "
            "exclude_from_weight_decay"
        )
    clipping = {n: getattr(optimizer, n) for n in ("clipnorm", "clipvalue", "global_clipnorm")}
    clipped = ", ".join(f"{n}={value:g}" for n, value in clipping.items() if value is not None)
    if clipped:
        warn(
            "the filter does not clip gradients, as the optimizer does: give FilteredFlip the same "
            f"{clipped}. Received: {type(optimizer).__name__} with {clipped}"
        )
    rate = optimizer._learning_rate
    rate = rate if isinstance(rate, Schedule) else float(rate.numpy())
    if isinstance(optimizer, optimizers.SGD):
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


def _has_exceptions(optimizer: tf.keras.optimizers.Optimizer) -> bool:
    names = ("_exclude_from_weight_decay", "_exclude_from_weight_decay_names")
    return any(getattr(optimizer, name, None) for name in names)


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
        ValueError: AMSGrad, averaged weights, or variables excluded from weight decay.

    Warns:
        UserWarning: The optimizer clips gradients, which is no part of the filter.

    Example:
        >>> lqf.recipes.from_optimizer(tf.keras.optimizers.SGD(0.5, weight_decay=0.25))
        EMA(alpha=0.125)
    """
    return recipe_of(optimizer, clip=clip).filter
