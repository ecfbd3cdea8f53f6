"""What FilteredFlip is made with: checks of its arguments; each error names the way out."""

import difflib
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from larq_filters._numbers import (
    Coefficient,
    Schedule,
    not_negative,
    number,
    share,
    whole_number,
)
from larq_filters._warnings import warn
from larq_filters.optimizers import _feedback
from larq_filters.optimizers._partition import Partition, short_name

import tensorflow as tf
from tf_keras.src.utils.tf_utils import can_jit_compile

_STRATEGIES = {
    tf.distribute.experimental.CentralStorageStrategy: (
        "larq's binary variables cannot be updated",
        "use tf.distribute.MirroredStrategy on the same devices",
    ),
    (tf.distribute.TPUStrategy, tf.distribute.experimental.TPUStrategy): (
        "FilteredFlip has never been run",
        "use tf.distribute.MirroredStrategy or MultiWorkerMirroredStrategy on GPUs or CPUs",
    ),
}

_AVERAGE = "an average of binary weights is not binary. Set `average`: it uses the average's sign"
_NO_MAGNITUDE = {
    "learning_rate": "a binary weight has no magnitude for it to scale. Set `alpha`, which Keras' "
    "callbacks then know as `learning_rate`",
    "lr": "a binary weight has no magnitude for it to scale. Set `alpha`, which Keras' callbacks "
    "then know as `learning_rate`",
    "weight_decay": "a binary weight has no magnitude to shrink. What it does to a latent weight "
    "is alpha = learning rate · weight decay",
    "ema_overwrite_frequency": _AVERAGE,
    "use_ema": _AVERAGE,
}
_TRANSLATED = {
    "momentum": "it is a filter. Set gamma = 1 − momentum",
    "nesterov": "momentum is a filter. Give "
    "filter=larq_filters.recipes.from_sgd(..., nesterov=True)",
    "beta_1": "Adam is a filter. Give filter=larq_filters.recipes.from_adam(..., beta_1=...)",
    "beta_2": "Adam is a filter. Give filter=larq_filters.recipes.from_adam(..., beta_2=...)",
    "epsilon": "Adam is a filter. Give filter=larq_filters.recipes.from_adam(..., epsilon=...)",
    "amsgrad": "AMSGrad is not a filter over gradients. Adam without it is "
    "filter=larq_filters.recipes.from_adam(...)",
    "decay": "`decay_steps` makes alpha decay to 0, and alpha takes any schedule of Keras",
    "ema_momentum": _AVERAGE,
}
_OTHER_NAMES = {  # as other projects, and people, call an argument
    **dict.fromkeys(("default_optimizer", "fp_optimizer", "optimizer"), "real_optimizer"),
    "tau": "threshold",
    **dict.fromkeys(("steps", "total_steps"), "decay_steps"),
    "epochs": "decay_steps, which is epochs times steps per epoch",
}


def threshold(value: Any) -> Coefficient:
    """A finite number from 0 on, or a schedule."""
    value = number("threshold", value)
    if not isinstance(value, Schedule) and not 0.0 <= value < math.inf:
        raise ValueError(
            "threshold must be 0 or more and finite: below 0 every weight would flip at every "
            f"step. Received: threshold={value:g}"
        )
    return value


def current(key: str, value: float) -> float:
    """A value a coefficient may take while training: as when made, or 0 at the end of a decay."""
    name = short_name(key)
    if name == "threshold":
        return threshold(value)
    if name in ("alpha", "gamma", "sigma", "leak"):
        return value if value == 0.0 else share(name, value)
    if name == _feedback.RATIO:
        return value if value == 0.0 else _feedback.first(value)
    return not_negative(name, value)


def state_dtype(value: Any) -> str | None:
    """The name of a type that a filter's state can be kept in, or None."""
    if value is None:
        return None
    try:
        name = tf.as_dtype(value).name
    except TypeError:
        name = None
    if name == "float32":
        return None
    if name != "bfloat16":
        raise ValueError(
            "state_dtype is None or 'float32', which keep the filters' state in full, or "
            "'bfloat16'. "
            f"Received: state_dtype={value!r}"
        )
    return name


def inertia(value: Any, filter: Partition) -> float | None:
    """A finite number from 0 on, 0 for a filter without state; or None."""
    if value is None:
        return None
    value = not_negative("inertia", value)
    if value and not filter.has_state:
        raise ValueError(
            "inertia sets the initial state of a filter, and this filter has no state. Leave it "
            f"at 0. Received: inertia={value:g}, filter={filter}"
        )
    return value


def average(value: Any, real_optimizer: tf.keras.optimizers.Optimizer) -> float | None:
    """A finite number from 1 on, beside a real optimizer that keeps no averages; or None."""
    if value is None:
        return None
    value = not_negative("average", value)
    if value < 1.0:
        raise ValueError(
            "average must be 1 or more. 1 weights all past values equally; more weights later "
            f"values more. Received: average={value:g}"
        )
    if getattr(real_optimizer, "use_ema", False):
        raise ValueError(
            "average already averages all variables, and so does use_ema of the real optimizer. "
            f"Use one of them. Received: average={value:g}, {real_optimizer.name} with use_ema"
        )
    return value


def jit_compile(value: Any) -> bool | None:
    """Whether XLA compiles the update, where it can compile at all; or None."""
    if not can_jit_compile():
        return False
    return None if value is None else bool(value)


def seed(value: Any) -> int:
    """A whole number of 32 bits."""
    meaning = "a whole number from 0 to 2**32 - 1"
    return whole_number("seed", value, below=2**32, meaning=meaning)


def no_magnitude(kwargs: Mapping[str, Any], optimizer: type[Any]) -> None:
    """Refuses arguments that are misspelt, or of Keras optimizers, and says what to give instead.

    Args:
        kwargs: The arguments that the optimizer does not know.
        optimizer: The optimizer, among whose arguments one that was misspelt is looked for.
    """
    known = inspect.signature(optimizer).parameters.keys() - {"kwargs"}
    for name, value in kwargs.items():
        if name in _OTHER_NAMES:
            raise TypeError(
                f"FilteredFlip has no `{name}`: give {_OTHER_NAMES[name]}. Received: {name}={value}"
            )
        is_set = value is not None if name in ("learning_rate", "lr") else bool(value)
        reason = _TRANSLATED.get(name) or (_NO_MAGNITUDE.get(name) if is_set else None)
        if reason is not None:
            raise ValueError(
                f"FilteredFlip has no `{name}`: {reason}. For the real variables, set it on "
                f"`real_optimizer`. Received: {name}={value}"
            )
        for meant in difflib.get_close_matches(name, known, n=1, cutoff=0.75):
            raise TypeError(f"FilteredFlip has no `{name}`: give {meant}. Received: {name}={value}")


def strategy(strategy: tf.distribute.Strategy) -> None:
    """Refuses the strategies of tf.distribute that cannot train, or that nobody has seen train."""
    for kind, (reason, way_out) in _STRATEGIES.items():
        if isinstance(strategy, kind):
            name = type(strategy).__name__
            raise ValueError(f"under {name}, {reason}: {way_out}. Received: strategy={name}")


def warn_of_none(real: int) -> None:
    """Warns that there is no binary variable beside so many real ones."""
    warn(
        "FilteredFlip found no binary variable, so only its real optimizer will train this model. "
        "A variable is binary when larq gives it precision 1: set a kernel quantizer such as "
        "'ste_sign'. Frozen layers are not trained: unfreeze them before compile. "
        f"Received: {real} real variables",
    )


def all_known(unknown: Sequence[str], number: int) -> None:
    """Refuses variables that an optimizer was not built with, of so many in all."""
    if unknown and len(unknown) == number:
        raise ValueError(
            "this FilteredFlip already trains other variables: make a new one for each model, "
            "or call `optimizer.build(variables)` with those of all before the first step. "
            f"Received: variables {unknown}"
        )
    if unknown:
        raise ValueError(
            "a variable appeared after the optimizer was built: compile a model that has changed "
            "(a layer unfrozen, a new head) with a new FilteredFlip, or, in a loop of your own, "
            "call `optimizer.build(variables)` with all trainable variables before the first step. "
            f"Received: variables {unknown}"
        )


def _of_current_class(identifier: Any) -> Any:
    """A config of one of Keras' optimizers, which is of the legacy class unless it says so."""
    if not isinstance(identifier, Mapping):
        return identifier
    given = dict(identifier)
    known = {name.lower() for name in dir(tf.keras.optimizers)}
    if str(given.get("class_name")).lower() in known:
        given["config"] = {"is_legacy_optimizer": False, **given["config"]}
    return given


def real_optimizer(identifier: Any) -> tf.keras.optimizers.Optimizer:
    """A Keras 2 optimizer, of the current class, that can train on its own."""
    way_out = "give the name, config or instance of a tf.keras optimizer, such as 'adam'"
    kind = type(identifier)
    if kind.__module__.startswith("larq.") and kind.__name__ in ("Bop", "CaseOptimizer"):
        raise TypeError(
            "real_optimizer trains the real variables only. larq_filters.recipes.bop is larq's "
            "Bop, and FilteredFlip takes the place of a CaseOptimizer: "
            f"{way_out}. Received: real_optimizer=larq.optimizers.{kind.__name__}"
        )
    if isinstance(identifier, tf.keras.optimizers.legacy.Optimizer):
        known = hasattr(tf.keras.optimizers, kind.__name__)
        raise TypeError(
            "real_optimizer is of Keras' legacy class, which the current one cannot hold: "
            f"{f'use tf.keras.optimizers.{kind.__name__}' if known else way_out}. "
            f"Received: real_optimizer=tf.keras.optimizers.legacy.{kind.__name__}"
        )
    is_scaler = isinstance(identifier, tf.keras.mixed_precision.LossScaleOptimizer)
    if is_scaler or hasattr(identifier, "real_optimizer"):
        raise TypeError(
            "real_optimizer trains the real variables only, so it is neither a FilteredFlip, a "
            f"LatentSGD nor a LossScaleOptimizer, which goes around one: {way_out}. "
            f"Received: real_optimizer={kind.__name__}"
        )
    try:
        optimizer = tf.keras.optimizers.get(_of_current_class(identifier))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(identifier, Mapping):
            way_out = "give the config that tf.keras.optimizers.serialize(optimizer) makes"
        raise TypeError(
            f"real_optimizer is not an optimizer of Keras 2: {way_out}. "
            f"Received: real_optimizer={identifier!r}"
        ) from error
    return optimizer if optimizer is identifier else real_optimizer(optimizer)
