"""Larq Compute Engine: where its packages are imported, its converter called, its files run."""

import importlib
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

WORD = 32  # bits; channels are packed into words of this size
ENGINES: Mapping[str, Mapping[str, bool]] = {
    "default": {},
    "indirect": {"use_indirect_bgemm": True},
    "reference": {"use_reference_bconv": True},
}
"""Its implementations of a binary convolution, and how each is asked for."""


def load(name: str) -> Any:
    """A module of the `export` extra.

    Raises:
        ImportError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            "export needs Larq Compute Engine and LiteRT. Run pip install 'larq-filters[export]'. "
            f"Received: {error}"
        ) from error


def convert(
    function: Any, module: tf.Module, *, dtypes: tuple[tf.DType, tf.DType], **options: Any
) -> bytes:
    """The .tflite file of a traced function.

    The function goes as a SavedModel of its own, without Keras' objects: Keras would save the
    optimizer and the metrics too, and where that fails the converter silently takes another way.

    Args:
        function: A concrete function whose variables `module` holds.
        module: What to save.
        dtypes: Types of the inputs and outputs.
        **options: `target` and `experimental_default_int8_range` of `convert_saved_model`.

    Raises:
        ValueError: Larq Compute Engine refuses the function.
    """
    engine = load("larq_compute_engine")
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=function)
        try:
            return engine.convert_saved_model(
                folder, inference_input_type=dtypes[0], inference_output_type=dtypes[1], **options
            )
        except Exception as error:  # the converter's own, of no class
            reason = next((line for line in str(error).splitlines() if line.strip()), "no reason")
            if "not integer quantized" in reason:
                raise ValueError(
                    "int8 inputs and outputs need a model that was trained with fake "
                    "quantization (tf.quantization.fake_quant_*) at its real layers, or, for "
                    "measuring latency only, experimental_default_int8_range. Received: "
                    f"inference_input_type={dtypes[0].name}, "
                    f"inference_output_type={dtypes[1].name}"
                ) from error
            raise ValueError(
                "Larq Compute Engine cannot convert the model: replace the layer that it names. "
                f"Received: {reason}"
            ) from error


def convert_float(function: Any, module: tf.Module) -> bytes:
    """The .tflite file of plain TensorFlow Lite, in which binary layers are real ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tf.lite's move to another package
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
        return converter.convert()


class Interpreter:
    """Runs a .tflite file, with inputs and outputs in floats and in the order of the model.

    Args:
        model: The file.
        inputs: Positions of the model's inputs among those of the file.
        outputs: Positions of the model's outputs among those of the file.
        engine: One of `ENGINES`.
        threads: Number of threads.
    """

    def __init__(
        self,
        model: bytes,
        inputs: Sequence[int],
        outputs: Sequence[int],
        engine: str = "default",
        threads: int = 1,
    ) -> None:
        testing = load("larq_compute_engine").testing
        self._run = testing.Interpreter(model, num_threads=threads, **ENGINES[engine])
        self._inputs, self._outputs = list(inputs), list(outputs)

    @property
    def types(self) -> tuple[list[Any], list[Any]]:
        """The number formats of the file's inputs and outputs."""
        return list(self._run.input_types), list(self._run.output_types)

    def prepare(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The inputs of one sample as the file wants them: its order, its number format."""
        run = self._run
        ordered: list[Any] = [None] * len(run.input_types)
        for position, value in zip(self._inputs, values, strict=True):
            dtype = run.input_types[position]
            if np.issubdtype(dtype, np.integer) and run.input_scales[position]:
                value = value / run.input_scales[position] + run.input_zero_points[position]
                limits = np.iinfo(dtype)
                value = np.clip(np.round(value), limits.min, limits.max)
            ordered[position] = np.ascontiguousarray(value, dtype)
        return ordered

    def invoke(self, prepared: list[np.ndarray]) -> list[np.ndarray]:
        """The outputs of one prepared sample as the file gives them."""
        return self._run.interpreter.predict(prepared)

    def predict(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs of one sample, of batch size 1, in the order of the model, as floats."""
        raw = self.invoke(self.prepare(values))
        outputs = []
        for position in self._outputs:
            value, scale = np.asarray(raw[position]), self._run.output_scales[position]
            if scale:
                zero = self._run.output_zero_points[position]
                value = (value.astype(np.float32) - zero) * scale
            outputs.append(value)
        return outputs
