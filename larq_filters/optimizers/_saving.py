"""Saving and loading of FilteredFlip, by config and by variables."""

import copy
import math
import re
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from larq_filters._numbers import Coefficient, Schedule
from larq_filters._serialization import deserialize, serialize
from larq_filters._warnings import warn

import numpy as np
import tensorflow as tf
from typing_extensions import override

_NUMBERS = ("coefficients", "scheduled", "scales", "before", "gains")


class Saving(tf.keras.optimizers.Optimizer):
    """What FilteredFlip says to Keras, and is told, when a model is saved and loaded."""

    _lost_iterations = 0  # steps that were done by the optimizer that this one's config is of

    @override
    def set_weights(self, weights: Sequence[Any]) -> None:
        """Sets all variables of the optimizer, as `load_model` does from .h5."""
        super().set_weights([_from_hdf5(weight) for weight in weights])

    @override
    def save_own_variables(self, store: MutableMapping[str, Any]) -> None:
        """Saves all variables of the optimizer, as `save` does to .keras and .weights.h5."""
        super().save_own_variables(store)
        # Of these a .keras file has a config besides; a .weights.h5 file has not.
        for kind, values in self._numbers().items():
            store[kind] = np.array([values.get(key, math.nan) for key in self._coefficients])

    @override
    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Sets all variables of the optimizer, as `load_model` does from .keras."""
        own = {name: _from_hdf5(value) for name, value in store.items()}
        numbers = [own.pop(kind, np.array([])) for kind in _NUMBERS]
        super().load_own_variables(own)
        if len(own) == len(self.variables):  # else nothing was loaded, and Keras says so
            names = list(self._coefficients)
            given = [dict(zip(names, values, strict=False)) for values in numbers]
            self._continue_from(*({k: v for k, v in g.items() if v == v} for g in given))

    def _numbers(self) -> dict[str, dict[str, float]]:
        """What `_continue_from` takes: of all coefficients, by name."""
        read = tf.keras.backend.get_value
        fixed = [key for key in self._coefficients if key not in self._scales]
        return {
            "coefficients": {key: float(read(self._coefficients[key])) for key in fixed},
            "scheduled": self._scheduled_coefficients(),
            "scales": {**dict.fromkeys(self._scales, 1.0), **self._changed_scales()},
            "before": self._last_coefficients(),
            "gains": self._learned_gains(),
        }

    @override
    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> dict[str, Any]:
        """What TensorFlow saves: in a SavedModel not the state, which it could not load again."""
        children = dict(super()._trackable_children(save_type, **kwargs))
        if save_type == "savedmodel":
            children["_variables"] = tf.__internal__.tracking.wrap([self.iterations])
        return children

    @override
    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, coefficients set since, and the number of steps done.

        For trackers, which log flat numbers, each coefficient of the filter is there on its own,
        such as `filter_alpha`: of a schedule, the first value.
        """
        return {
            **_flat(self._filters.coefficients),
            "name": self.name,
            "clipnorm": self.clipnorm,
            "clipvalue": self.clipvalue,
            "global_clipnorm": self.global_clipnorm,
            "jit_compile": self.jit_compile,
            "state_dtype": self._state_dtype,
            "seed": self._seed,
            "inertia": self._inertia,
            "average": self._average,
            "filter": self._filters.serialize(),
            "flip_ratio": serialize(self._given.get("flip_ratio")),
            "threshold": serialize(self._given["threshold"]),
            "real_optimizer": tf.keras.optimizers.serialize(
                self._real_optimizer, use_legacy_format=True
            ),
            "iterations": int(tf.keras.backend.get_value(self.iterations)),
            **self._numbers(),
            # Of these two only what was set since:
            "coefficients": self._changed_coefficients(),
            "scales": self._changed_scales(),
        }

    @classmethod
    @override
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> Any:
        """The inverse of `get_config`, but for the filters' state, which starts anew."""
        config = dict(config)
        if "iterations" in config:  # of `get_config`, which in earlier versions had no inertia
            config.setdefault("inertia", 0.0)
        values = [config.pop(name, {}) for name in _NUMBERS]
        iterations = config.pop("iterations", 0)
        with tf.keras.utils.custom_object_scope(custom_objects or {}):
            for name in {"alpha", "gamma", "filter", "threshold", "flip_ratio"} & set(config):
                config[name] = deserialize(config[name])
            _take_flat(config)
            if isinstance(config.get("real_optimizer"), Mapping):
                config["real_optimizer"] = tf.keras.optimizers.deserialize(
                    copy.deepcopy(config["real_optimizer"]),  # Keras changes what it is given
                    use_legacy_format=True,
                )
            new = cls(**config)
        new._continue_from(*values)
        new._lost_iterations = iterations
        return new

    def _warn_of_lost_state(self) -> None:
        lost, self._lost_iterations = self._lost_iterations, 0
        if lost and not tf.keras.backend.get_value(self.iterations):
            warn(
                "the filters start anew: this optimizer was loaded without its state, which "
                "the SavedModel format (and a config) cannot carry. To continue training where it "
                "stopped, save as .keras, or with tf.train.Checkpoint. Received: an "
                f"optimizer that had done {lost} steps",
            )


def _flat(coefficients: Mapping[str, Coefficient]) -> dict[str, float]:
    return {
        f"filter_{re.sub(r'[^A-Za-z0-9_./-]', '_', name)}": float(
            value(0) if isinstance(value, Schedule) else value
        )
        for name, value in coefficients.items()
    }


def _take_flat(config: dict[str, Any]) -> None:
    """Removes what `_flat` added, which says the same as the filter: or it is refused."""
    for name, value in _flat(getattr(config.get("filter"), "coefficients", {})).items():
        flat = config.pop(name, value)
        if flat != value:
            raise ValueError(
                f"`{name}` in a config is only for display, and `filter` is used. "
                f"Change `filter`. Received: {name}={flat} beside filter={config['filter']}"
            )


def _from_hdf5(value: Any) -> np.ndarray:
    """HDF5 knows no bfloat16 and gives back the bytes."""
    value = np.asarray(value)
    return value.view(tf.bfloat16.as_numpy_dtype) if value.dtype.kind == "V" else value
