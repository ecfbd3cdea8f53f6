r"""Latent-weight recipes, and other projects' binary optimizers, in terms of filters.

An optimizer trains a latent weight w, and the network uses only sign(w). So −w, up to a positive
scale, is the output of a filter over the gradients. `from_sgd` and `from_adam` return the filter
that is mathematically equivalent to training latent weights with SGD or Adam. `sgd_state` and
`adam_state` return the filter's state for given latent weights. With both, a `FilteredFlip` holds
sign(w) after every step, up to rounding where w is close to 0.

Write a recipe of your own as a function that returns a `FilteredFlip` and has the hyperparameters
that its users know:

>>> def double_bop(threshold=1e-8, gamma=1e-4, **kwargs):
...     filter = lqf.filters.CascadedEMA(alpha=gamma, gamma=gamma)
...     return lqf.optimizers.FilteredFlip(filter=filter, threshold=threshold, **kwargs)
>>> double_bop(gamma=0.01, real_optimizer="sgd").filter
CascadedEMA(alpha=0.01, gamma=0.01)

It saves and resumes as any `FilteredFlip`. To continue from the state of another optimizer, assign
that state to `optimizer.slots(variable)`. `SGD.state` and `Adam.state` do it for latent weights.
"""

from larq_filters.recipes._adam import Adam, adam_state, from_adam
from larq_filters.recipes._explain_text import Explanation, Hyperparameter
from larq_filters.recipes._optimizers import from_optimizer, recipe_of
from larq_filters.recipes._peers import bop, bop2ndorder, diode
from larq_filters.recipes._sgd import SGD, explain, from_sgd, sgd_state

__all__ = [
    "SGD",
    "Adam",
    "Explanation",
    "Hyperparameter",
    "adam_state",
    "bop",
    "bop2ndorder",
    "diode",
    "explain",
    "from_adam",
    "from_optimizer",
    "from_sgd",
    "recipe_of",
    "sgd_state",
]
