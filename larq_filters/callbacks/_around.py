"""What a callback is trained with: other callbacks, and layers."""

from types import FrameType

from larq_filters import _layers
from larq_filters._warnings import warn

import tensorflow as tf


def callbacks_of(frame: FrameType | None) -> list[tf.keras.callbacks.Callback]:
    """All callbacks in order, from the frame of one that Keras' list of them calls."""
    caller = frame.f_back.f_locals.get("self") if frame and frame.f_back else None
    return list(getattr(caller, "callbacks", []))


def warn_of_regularizers(model: tf.keras.Model) -> None:
    """Warns where a regularizer pulls at binary weights; an optimizer alone does not see it."""
    layers = _layers.regularized(model)
    if layers:
        warn(
            "a regularizer on a binary kernel pushes every bit to flip, as ±1 cannot shrink: leave "
            f"it out. Received: a kernel regularizer in the layers {layers}"
        )
