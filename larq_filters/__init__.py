"""Binary neural networks without latent weights: filter the gradients, flip the bits.

import larq_filters as lqf

model.compile(optimizer=lqf.optimizers.FilteredFlip(alpha=1e-3, gamma=0.1), loss=...)
"""

from larq_filters import _keras, callbacks, conversion, filters, models, optimizers, recipes

__version__ = "0.1.0"

__all__ = ["_keras", "callbacks", "conversion", "filters", "models", "optimizers", "recipes"]
