"""Binary neural networks without latent weights: filter the gradients, flip the bits.

>>> import larq_filters as lqf
>>> optimizer = lqf.optimizers.FilteredFlip(decay_steps=10_000)
"""

import importlib
from types import ModuleType

from larq_filters import _keras as _keras  # first: selects Keras 2
from larq_filters import callbacks, conversion, export, filters, models, optimizers, plots, recipes

__version__ = "0.2.0"

__all__ = [
    "callbacks",
    "conversion",
    "export",
    "filters",
    "models",
    "optimizers",
    "plots",
    "recipes",
]


def __getattr__(name: str) -> ModuleType:
    if name == "tuning":  # on demand, as KerasTuner is not always there
        return importlib.import_module("larq_filters.tuning")
    raise AttributeError(f"module 'larq_filters' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*globals(), "tuning"]
