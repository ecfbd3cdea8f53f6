r"""Latent-weight recipes, and other projects' binary optimizers, in terms of filters.

A latent weight w is trained by an optimizer and used only by its sign. Seen from outside, −w (times
a scale without meaning) is the output of a filter over the gradients: `from_sgd` and `from_adam`
give that filter, `sgd_state` and `adam_state` the state in which it goes on from given latent
weights. With both, a `FilteredFlip` holds sign(w) after every step, up to rounding where w is next
to 0.

A recipe of your own is a function that returns a `FilteredFlip`, under the names that its users
know:

>>> def double_bop(threshold=1e-8, gamma=1e-4, **kwargs):
...     filter = lqf.filters.CascadedEMA(alpha=gamma, gamma=gamma)
...     return lqf.optimizers.FilteredFlip(filter=filter, threshold=threshold, **kwargs)
>>> double_bop(gamma=0.01, real_optimizer="sgd").filter
CascadedEMA(alpha=0.01, gamma=0.01)

It saves and resumes as any `FilteredFlip`. To go on from the state of another optimizer, assign to
`optimizer.slots(variable)`, as `SGD.state` and `Adam.state` say for latent weights.
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
