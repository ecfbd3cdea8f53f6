"""The one place that makes KerasTuner work with Keras 2.

KerasTuner takes whatever `import keras` gives it, once and for the whole process. Beside TensorFlow
2.16 and later that is Keras 3, which refuses models of Keras 2. So it is imported here while
`keras` is Keras 2; for everyone else `import keras` goes on to be Keras 3.
"""

import contextlib
import functools
import json
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from larq_filters import _files

import tensorflow as tf
import tf_keras


@functools.cache
def keras_tuner() -> ModuleType:
    """KerasTuner for Keras 2.

    Raises:
        ImportError: It is not installed, or was imported before for Keras 3.
    """
    is_new = "keras_tuner" not in sys.modules
    try:
        with _as_keras(tf_keras):
            import keras_tuner
            from keras_tuner.src.backend import config
    except ModuleNotFoundError as error:
        raise ImportError(
            "searches need KerasTuner and TensorBoard. Run pip install 'larq-filters[tuner]'. "
            f"Received: {error}"
        ) from error
    if config.multi_backend():
        raise ImportError(
            "KerasTuner was imported before larq_filters.tuning, so it takes Keras 3 models only. "
            "Import larq_filters.tuning before keras_tuner, and search Keras 3 models in another "
            f"program. Received: keras_tuner {keras_tuner.__version__} for "
            f"Keras {config.keras.__version__}"
        )
    if is_new:
        _explain_keras_3(keras_tuner)
        _write_whole_files()
    return keras_tuner


@contextlib.contextmanager
def _as_keras(module: ModuleType) -> Iterator[None]:
    """What `import keras` gives meanwhile."""
    before = sys.modules.get("keras")
    sys.modules["keras"] = module
    try:
        yield
    finally:
        if before is None:
            del sys.modules["keras"]
        else:
            sys.modules["keras"] = before


def _explain_keras_3(keras_tuner: ModuleType) -> None:
    """A search of Keras 3 models, which does not work in this program any more, says why."""
    build = keras_tuner.Tuner._build_hypermodel

    @functools.wraps(build)
    def checked(self: Any, hp: Any) -> tf.keras.Model:
        model = build(self, hp)
        keras = sys.modules.get("keras")
        if keras is not None and isinstance(model, keras.Model):
            raise keras_tuner.errors.FatalTypeError(
                "larq_filters.tuning was imported, so KerasTuner takes only models of Keras 2 "
                "(tf.keras). Search Keras 3 models in another program. "
                f"Received: {type(model).__module__}.{type(model).__name__}"
            )
        return model

    keras_tuner.Tuner._build_hypermodel = checked


def _write_whole_files() -> None:
    """A search killed while it saves keeps what it had saved before."""
    from keras_tuner.src import utils

    remote = utils.save_json

    def save_json(path: Any, obj: Any) -> str:
        if "://" in str(path):
            return remote(path, obj)
        text = json.dumps(obj)
        _files.write(path, text.encode())
        return text

    utils.save_json = save_json
