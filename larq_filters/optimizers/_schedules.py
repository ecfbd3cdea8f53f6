"""A learning rate that falls without an end."""

from typing import Any

from larq_filters._numbers import positive
from larq_filters._serialization import register, register_by_name

import tensorflow as tf
from typing_extensions import override


@register_by_name
@register
class InverseSquareRootDecay(tf.keras.optimizers.schedules.LearningRateSchedule):
    """η_t = η₀/√(1 + t/s): a learning rate that is good at any length of the training.

    Args:
        initial_learning_rate: η₀, more than 0.
        decay_steps: s, more than 0: after 3s steps half of η₀ is left.
        name: Name of the schedule.

    Raises:
        ValueError: A number is out of its range.

    Example:
        >>> schedule = lqf.optimizers.InverseSquareRootDecay(1e-2, decay_steps=100)
        >>> [round(float(schedule(t)), 4) for t in (0, 300, 1500)]
        [0.01, 0.005, 0.0025]
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        name: str = "InverseSquareRootDecay",
    ) -> None:
        self.initial_learning_rate = positive("initial_learning_rate", initial_learning_rate)
        self.decay_steps = positive("decay_steps", decay_steps)
        self.name = name

    @override
    def __call__(self, step: Any) -> tf.Tensor:
        """The learning rate after so many steps."""
        with tf.name_scope(self.name):
            rate = tf.convert_to_tensor(self.initial_learning_rate, name="initial_learning_rate")
            steps = tf.cast(self.decay_steps, rate.dtype)
            return rate / tf.sqrt(1.0 + tf.cast(step, rate.dtype) / steps)

    @override
    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_steps": self.decay_steps,
            "name": self.name,
        }
