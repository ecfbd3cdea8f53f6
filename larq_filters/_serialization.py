"""What Keras saves of this package: registered classes, and values in configs."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

register = tf.keras.utils.register_keras_serializable(package="larq_filters")


def register_by_name(cls: Any) -> Any:
    """Lets Keras find a class by its name alone, as it finds its own.

    So `compile("Name")` finds an optimizer, and the .h5 format the schedule of another optimizer.
    """
    tf.keras.utils.get_custom_objects()[cls.__name__] = _Name(cls)
    return cls


class _Name(str):
    """The name of a class, which makes instances of it.

    Keras puts the object of a name in the place of the name when it loads a .keras file, and
    `compile` takes a name there, but no class.
    """

    _class: Any

    def __new__(cls, named: Any) -> "_Name":
        new = super().__new__(cls, named.__name__)
        new._class = named
        return new

    def from_config(self, config: Mapping[str, Any]) -> Any:
        return self._class.from_config(config)


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
