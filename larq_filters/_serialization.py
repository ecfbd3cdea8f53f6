"""What Keras saves of this package: registered classes, and values in configs."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

register = tf.keras.utils.register_keras_serializable(package="larq_filters")


def serialize(value: Any) -> Any:
    """A filter, schedule, number or tuple of them as JSON-ready values."""
    if isinstance(value, tuple):
        return [serialize(item) for item in value]
    if hasattr(value, "get_config"):
        # Keras' older format, as the .h5 and SavedModel loaders read no other.
        return tf.keras.utils.legacy.serialize_keras_object(value)
    return value


def deserialize(value: Any) -> Any:
    """The inverse of `serialize`."""
    if isinstance(value, list | tuple):
        return tuple(deserialize(item) for item in value)
    if isinstance(value, Mapping):  # finds Keras' own schedules, and whatever is registered
        return tf.keras.optimizers.schedules.deserialize(dict(value), use_legacy_format=True)
    return value
