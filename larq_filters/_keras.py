"""The one place that selects and checks Keras 2.

larq and the optimizers here are written for Keras 2 (the ``tf_keras`` package). From TensorFlow
2.16 on, ``tf.keras`` is Keras 3 unless ``TF_USE_LEGACY_KERAS=1`` is set before ``tf.keras`` is
touched.
"""

import os
import sys

_VARIABLE = "TF_USE_LEGACY_KERAS"
_TRUE = ("1", "true", "True")  # the spellings that TensorFlow accepts
_WAY_OUT = (
    f"Set the environment variable {_VARIABLE}=1 before Python starts, or `import larq_filters` "
    "before anything that touches `tf.keras`. In a notebook, restart the kernel first."
)


def select_keras_2() -> None:
    """Makes ``tf.keras`` Keras 2, or says why it cannot.

    Raises:
        ImportError: Keras 3 is already loaded as ``tf.keras``, it was asked for explicitly, or
            ``tf_keras`` is missing.
    """
    before = os.environ.get(_VARIABLE)
    if before is not None and before not in _TRUE:
        raise ImportError(
            "larq_filters needs Keras 2, but the environment asks for Keras 3. "
            f"{_WAY_OUT} Received: {_VARIABLE}={before!r}"
        )
    os.environ[_VARIABLE] = "1"
    try:
        import tf_keras  # noqa: F401  (a clearer error than TensorFlow's own)
    except ModuleNotFoundError as error:
        if before is None:
            del os.environ[_VARIABLE]
        raise ImportError(
            "larq_filters needs Keras 2, which is the package `tf_keras` in the version of your "
            "TensorFlow: `pip install tf_keras`."
        ) from error
    folder = None
    if before is None and "tensorflow" in sys.modules:
        folder = _redirect_imports()

    import tensorflow as tf

    module = tf.keras.Model.__module__
    if not module.startswith("tf_keras."):
        if before is None:
            del os.environ[_VARIABLE]
        if folder is not None:
            tf.__path__.remove(folder)
        raise ImportError(
            "larq_filters needs Keras 2, but Keras 3 is already loaded as `tf.keras`. "
            f"{_WAY_OUT} Received: tf.keras.Model from {module}"
        )


def _redirect_imports() -> str | None:
    """Makes ``from tensorflow.keras import ...`` find Keras 2; returns what it added to the path.

    TensorFlow decides where these imports lead when it is itself imported, which was before the
    environment variable was set.
    """
    import tensorflow as tf
    import tf_keras.api._v2.keras as keras_2

    if "tensorflow.keras" not in sys.modules:
        folder = os.path.dirname(os.path.dirname(keras_2.__file__))
        if folder not in tf.__path__:
            tf.__path__.insert(0, folder)
            return folder
    return None


select_keras_2()
