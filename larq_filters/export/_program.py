"""A .tflite file as something that runs, with the inputs and outputs of its model."""

from typing import NamedTuple

from larq_filters.export import _flatbuffer, _lce, _trace

import tensorflow as tf


class Interface(NamedTuple):
    """The inputs and outputs of a model, and their positions in its file."""

    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    specs: tuple[tf.TensorSpec, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    int8: bool

    @classmethod
    def of(cls, file: _flatbuffer.File, traced: _trace.Trace) -> "Interface":
        """Of a file, and of the traced model that it was made of."""
        return cls(
            traced.inputs,
            traced.outputs,
            traced.specs,
            tuple(file.inputs[name] for name in traced.inputs),
            tuple(file.outputs[name] for name in traced.outputs),
            any(t.dtype == "INT8" for op in file.operators for t in op.outputs),
        )


class Program(NamedTuple):
    """A file, the engines that can run it, and its interface."""

    data: bytes
    engines: tuple[str, ...]
    interface: Interface

    def interpreter(self, engine: str, threads: int = 1) -> _lce.Interpreter:
        """What runs it with an engine.

        Raises:
            ValueError: An engine that cannot run it.
        """
        if engine not in self.engines:
            raise ValueError(
                f"Larq Compute Engine can run this file with these engines only: "
                f"{list(self.engines)}. Received: engine={engine!r}"
            )
        interface = self.interface
        return _lce.Interpreter(self.data, interface.inputs, interface.outputs, engine, threads)
