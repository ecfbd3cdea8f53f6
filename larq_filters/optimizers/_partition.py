"""Which filter each binary variable has: one for all, or one for each layer."""

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from larq_filters._layers import layer_name
from larq_filters._numbers import Coefficient
from larq_filters._serialization import deserialize, register, serialize
from larq_filters.filters import Filter

import tensorflow as tf

Key: TypeAlias = Any
"""The name of a layer, a pattern, a tuple of these, a layer, or a function of a variable."""
ALL = "*"
"""The key of all that no key before it matches; its coefficients have no prefix."""


@register
class Partition:
    """Filters by the layers that they are for; a variable has the first whose key matches.

    Args:
        filters: From the name of a layer, a pattern of names, several of them, a layer or a
            function of a variable, to a filter, or to None for weights that are not trained.
        labels: What coefficients of each key are called; told from the keys by default.
        places: The label of each binary variable, in the order of building, if it was settled by
            the optimizer that this one's config is of. They count where names fail: variables of a
            model that Keras loaded from .keras have lost the names of their layers.
    """

    def __init__(
        self,
        filters: Mapping[Key, Filter | None],
        labels: Sequence[str] | None = None,
        places: Sequence[str] | None = None,
    ) -> None:
        self._keys = list(filters)
        self._labels = list(labels) if labels is not None else _labels(self._keys)
        self._filters = dict(zip(self._labels, filters.values(), strict=True))
        self._places = None if places is None else list(places)

    @property
    def has_state(self) -> bool:
        """Whether any filter has."""
        return any(filter.slots for filter in self._filters.values() if filter is not None)

    def __getitem__(self, label: str) -> Filter | None:
        return self._filters[label]

    @property
    def coefficients(self) -> dict[str, Coefficient]:
        """Of all filters, by `label/name`, or by name where the key is `ALL`."""
        return {
            prefixed(label, name): value
            for label, filter in self._filters.items()
            if filter is not None
            for name, value in filter.coefficients.items()
        }

    @property
    def names(self) -> dict[str, list[str]]:
        """What the coefficients of each filter are called, by its label."""
        return {
            label: [prefixed(label, name) for name in filter.coefficients]
            for label, filter in self._filters.items()
            if filter is not None
        }

    def with_coefficients(self, values: Mapping[str, Coefficient]) -> Any:
        """The filter, or the mapping, with other values for some coefficients."""
        filters = [
            None if filter is None else filter.with_coefficients(part(values, label))
            for label, filter in self._filters.items()
        ]
        if self._keys == [ALL]:
            return filters[0]
        return dict(zip(self._keys, filters, strict=True))

    @property
    def used(self) -> set[str]:
        """The labels of filters that train variables, once `settle` found these."""
        return set(self._places or ())

    def settle(self, variables: Sequence[tf.Variable]) -> list[str]:
        """The label of each binary variable.

        Raises:
            ValueError: A key has no variable, or none is left of those that it matches.
        """
        try:
            self._places = self._by_keys(variables)
        except ValueError:
            if self._places is None or len(self._places) != len(variables):
                raise
        return self._places

    def _by_keys(self, variables: Sequence[tf.Variable]) -> list[str]:
        labels: dict[int, str] = {}
        for key, label in zip(self._keys, self._labels, strict=True):
            matched = [i for i, variable in enumerate(variables) if _matches(key, variable)]
            mine = [i for i in matched if i not in labels]
            labels |= dict.fromkeys(mine, label)
            if not mine and key != ALL:
                raise ValueError(_without_variables(key, label, bool(matched), variables))
        return [labels[i] for i in range(len(variables))]

    def serialize(self) -> Any:
        """The only filter, or the partition, as JSON-ready values."""
        only = self._filters[ALL] if self._keys == [ALL] else None
        return serialize(self if only is None else only)

    def get_config(self) -> dict[str, Any]:
        """Keys, labels and filters, ready for JSON; layers and functions become their labels."""
        names = []
        for key, label in zip(self._keys, self._labels, strict=True):
            if callable(key) and self._places is None:
                raise ValueError(
                    "an optimizer whose filter keys are layers or functions can be saved only "
                    "after it is built. Received: the key "
                    f"{label!r} of an optimizer that is not built"
                )
            names.append(label if callable(key) else key)
        filters = [serialize(filter) for filter in self._filters.values()]
        labels, places = self._labels, self._places
        return {"names": names, "labels": labels, "filters": filters, "places": places}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Partition":
        """The inverse of `get_config`."""
        keys = [name if isinstance(name, str) else tuple(name) for name in config["names"]]
        filters = [deserialize(filter) for filter in config["filters"]]
        return cls(dict(zip(keys, filters, strict=True)), config["labels"], config["places"])

    def __repr__(self) -> str:
        if self._keys == [ALL]:
            return repr(self._filters[ALL])
        return "{" + ", ".join(f"{k!r}: {f!r}" for k, f in self._filters.items()) + "}"


def prefixed(label: str, name: str) -> str:
    """What a coefficient of a filter is called in the optimizer."""
    return name if label == ALL else f"{label}/{name}"


def label_of(key: str) -> str:
    """The label of the filter that a coefficient is of."""
    return key.rpartition("/")[0] or ALL


def short_name(key: str) -> str:
    """The name of a coefficient in its own filter: `alpha` of `dense/1.alpha`."""
    return key.rpartition("/")[2].rpartition(".")[2]


def part(values: Mapping[str, Any], label: str) -> dict[str, Any]:
    """Of values by coefficients of all filters, those of one, by its own names."""
    pairs = ((name.rpartition("/"), value) for name, value in values.items())
    return {name: value for (own, _, name), value in pairs if (own or ALL) == label}


def _labels(keys: Sequence[Key]) -> list[str]:
    labels: list[str] = []
    for key in keys:
        if isinstance(key, str):
            label = key
        elif isinstance(key, tuple):
            label = "|".join(key)
        else:
            label = str(getattr(key, "name", None) or getattr(key, "__name__", key))
        number = sum(other == label or other.startswith(f"{label}#") for other in labels)
        labels.append(f"{label}#{number + 1}" if number else label)
    return labels


def _matches(key: Key, variable: tf.Variable) -> bool:
    if isinstance(key, tf.keras.layers.Layer):
        return any(own is variable for own in key.trainable_variables)
    if callable(key):
        return bool(key(variable))
    path, layer = _path(variable), layer_name(variable)
    names = (path, layer, layer.rpartition("/")[2])
    patterns = (key,) if isinstance(key, str) else key
    return any(name == p or fnmatch.fnmatchcase(name, p) for name in names for p in patterns)


def _without_variables(
    key: Key, label: str, is_taken: bool, variables: Sequence[tf.Variable]
) -> str:
    if is_taken:
        reason = "matches only layers that a key before it has"
    elif isinstance(key, tf.keras.layers.Layer):
        reason = "is a layer of another model, or has no binary weights that are trained"
    else:
        reason = (
            "matches no layer with binary weights that are trained (a frozen layer needs no key)"
        )
    names = sorted({layer_name(variable) for variable in variables})
    lost = any("/" not in variable.name for variable in variables)
    way_out = (
        "; Keras loses the layers' names when it loads a .keras file: give the layer itself as the "
        "key, such as model.get_layer('dense')"
    )
    return (
        f"filter: the key {label!r} {reason}{way_out if lost else ''}. Received: layers with "
        f"binary weights that are trained {names}"
    )


def _path(variable: tf.Variable) -> str:
    return variable.name.partition(":")[0]
