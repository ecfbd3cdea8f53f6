"""Warnings that point at the line of a user's program that led to them."""

import inspect
import warnings

_INSIDE = {"larq_filters", "larq", "tf_keras", "tensorflow", "abc", "contextlib", "threading"}


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warns of the innermost line that is neither of this package, nor of Keras or TensorFlow."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and _is_inside(frame.f_globals["__name__"], frame.f_code.co_filename):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=1 if frame is None else level)


def _is_inside(module: str, file: str) -> bool:
    return module.partition(".")[0] in _INSIDE or "__autograph_generated_file" in file
