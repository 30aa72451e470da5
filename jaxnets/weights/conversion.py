"""Conversion between the variables of a model and the state dict of a reference, by one table.

The table is `RENAMES` in the family's file: for each library the rules, or a function from the
model to the rules, where a library numbers its layers through. A rule is a pair, or with a layout a
triple:

    ("backbone/stage{s}_block{b}/{layer}", "layer{s}.{b-1}.{layer}")
    ("head/fc1", "classifier.0", "(h7 w7 c) o -> o (c h7 w7)")

First comes the path of a module of ours (or of a parameter that belongs to no layer), in which each
{field} stands for any text. Then comes the reference's name, in which a field stands for the same text,
with slashes as dots, or for a number with something added. A kernel with an unusual layout has that
layout (`jaxnets.weights.layout`), from ours to theirs, as a third entry. The first rule that matches a
module holds for all its parameters.
"""

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxnets.errors import InputError, unknown_name
from jaxnets.models import create_model
from jaxnets.models.registry import family_of
from jaxnets.weights.layout import rearrange, rearranged_shape, reversed_layout

Rules = Sequence[tuple[str, ...]]
Variables = dict[str, Any]

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
_KERNEL_LAYOUTS = {2: "i o -> o i", 4: "h w i o -> o i h w"}
_FIELD = re.compile(r"\{(?P<name>\w+)(?P<added>[+-]\d+)?\}")
_COUNTER = "num_batches_tracked"  # torch's batch normalization counts its steps; nothing reads it


class Place(NamedTuple):
    """A parameter or statistic, here and in the reference.

    Attributes:
        path: its keys in our variables, from the collection to the leaf.
        shape: of ours.
        key: its name in the reference.
        layout: from ours to the reference's; None where both are the same.
    """

    path: tuple[str, ...]
    shape: tuple[int, ...]
    key: str
    layout: str | None

    @property
    def reference_shape(self) -> tuple[int, ...]:
        return rearranged_shape(self.shape, self.layout) if self.layout else self.shape


def libraries(name: str) -> tuple[str, ...]:
    """The libraries whose names of a model's parameters are known.

    Args:
        name: one of `jaxnets.list_models()`.

    Raises:
        InputError: the name is unknown.
    """
    return tuple(_renames(name))


def from_torch(
    name: str,
    state_dict: Mapping[str, Any],
    library: str | None = None,
    dtype: Any = np.float32,
    **overrides: Any,
) -> Variables:
    """The variables of a model, from the state dict of a reference.

    Every variable is filled and every tensor used. An auxiliary head may be missing, and is then
    missing from the variables too. Counts of batches (`num_batches_tracked`) are ignored.

    Args:
        name: one of `jaxnets.list_models()`.
        state_dict: arrays by the reference's names, of NumPy or readable by NumPy, such as torch's on a
            CPU.
        library: the library that has these names, one of `libraries(name)`; None to find it.
        dtype: of the variables; None for that of each array.
        **overrides: the settings the model was made with, as for `jaxnets.create_model`.

    Returns:
        `params` and, where there are any, `batch_stats`: nested dicts of NumPy arrays, copies.

    Raises:
        InputError: the model, a setting or the library is unknown, or the state dict does not fit.
    """
    _, places = fitted(create_model(name, **overrides), shapes_of(state_dict), library)
    return filled(places, state_dict, dtype)


def shapes_of(state_dict: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of each array by its name, without reading lazy ones. Counts of batches are left out."""
    return {
        key: tuple(np.shape(value))
        for key, value in state_dict.items()
        if key.rpartition(".")[2] != _COUNTER
    }


def fitted(
    model: nn.Module, shapes: Mapping[str, tuple[int, ...]], library: str | None = None
) -> tuple[str, list[Place]]:
    """The library that has the names of a state dict, and the place of each of its arrays in a model.

    Args:
        model: of `jaxnets.create_model`.
        shapes: `shapes_of(state_dict)`.
        library: as for `from_torch`.

    Raises:
        InputError: the library is unknown, or the state dict does not fit.
    """
    name, misfits = model.model_name, {}
    for candidate in _candidates(name, library):
        places = {place.key: place for place in places_of(model, candidate)}
        places = _without_absent_auxiliaries(places, shapes)
        misfit = misfit_of({key: place.reference_shape for key, place in places.items()}, shapes)
        if not misfit:
            return candidate, list(places.values())
        misfits[candidate] = misfit
    closest = min(misfits, key=lambda candidate: misfits[candidate].count)
    raise InputError(
        f"state_dict: it does not fit {name} by {closest}'s names: {misfits[closest].text}; give the "
        "model, and its settings such as num_classes, that the weights were made for"
    )


def to_torch(
    name: str, variables: Mapping[str, Any], library: str = "torchvision", **overrides: Any
) -> dict[str, np.ndarray]:
    """The state dict of a reference, from the variables of a model: `from_torch` undone.

    Args:
        name: one of `jaxnets.list_models()`.
        variables: what `model.init` or `from_torch` gave, or a tree like it, such as one with
            gradients instead of parameters. An auxiliary head may be missing.
        library: one of `libraries(name)`.
        **overrides: the settings the model was made with, as for `jaxnets.create_model`.

    Returns:
        Copies as NumPy arrays of the same dtypes, by the reference's names; with running statistics also
        a `num_batches_tracked` of 0.

    Raises:
        InputError: the model, a setting or the library is unknown, or the variables do not fit.
    """
    return exported(create_model(name, **overrides), variables, library)


def exported(model: nn.Module, variables: Mapping[str, Any], library: str) -> dict[str, np.ndarray]:
    """`to_torch` of a model that is there already, perhaps for images of other channels."""
    name = model.model_name
    (library,) = _candidates(name, library)
    leaves, _ = jax.tree_util.tree_flatten_with_path(variables)
    values = {"/".join(key.key for key in path): value for path, value in leaves}
    shapes = {path: tuple(np.shape(value)) for path, value in values.items()}
    places = {"/".join(place.path): place for place in places_of(model, library)}
    places = _without_absent_auxiliaries(places, shapes)
    misfit = misfit_of({path: place.shape for path, place in places.items()}, shapes)
    if misfit:
        raise InputError(
            f"variables: they do not fit {name}: {misfit.text}; give the model, and its settings "
            "such as num_classes, that they were made for"
        )
    state_dict = {}
    for path, place in places.items():
        value = np.asarray(values[path])
        if place.layout:
            value = rearrange(value, place.layout)
        state_dict[place.key] = np.array(value, order="C")
        if place.path[-1] == "var":
            module = place.key.rpartition(".")[0]
            state_dict[f"{module}.{_COUNTER}"] = np.zeros((), np.int64)
    return state_dict


def _renames(name: str) -> Mapping[str, Any]:
    """The table of the family that has the model."""
    return getattr(family_of(name), "RENAMES", {})


def _candidates(name: str, library: str | None) -> tuple[str, ...]:
    """The libraries to try: the one that was asked for, or all."""
    known = libraries(name)
    if not known:
        raise InputError(f"name: there is no reference for {name}, so its weights cannot be converted")
    if library is None:
        return known
    if library not in known:
        raise unknown_name(f"library of {name}", library, known)
    return (library,)


def rules_of(model: nn.Module, library: str) -> Rules:
    """The rules of a library's names for a model."""
    rules = _renames(model.model_name)[library]
    return rules(model) if callable(rules) else rules


@functools.cache
def abstract_leaves(model: nn.Module) -> list[tuple[tuple[str, ...], tuple[int, ...]]]:
    """The path and shape of every variable; nothing is computed."""

    def initialize() -> Variables:
        # Flax's own `init`, which is traced in a third of the time of a model's.
        return nn.Module.init(model, jax.random.key(0), jnp.zeros((1, *model.input_size)))

    leaves = jax.tree_util.tree_leaves_with_path(jax.eval_shape(initialize))
    return [(tuple(key.key for key in keys), leaf.shape) for keys, leaf in leaves]


@functools.cache
def places_of(model: nn.Module, library: str) -> tuple[Place, ...]:
    """Every variable of a model, and its place in the reference."""
    rules = rules_of(model, library)
    places = {}
    for path, shape in abstract_leaves(model):
        module, layout = _renamed("/".join(path[1:-1]), rules)
        key = ".".join(filter(None, (module, _LEAVES.get(path[-1], path[-1]))))
        if path[-1] != "kernel":
            layout = None
        elif layout is None:
            layout = _KERNEL_LAYOUTS[len(shape)]
        if key in places:
            raise ValueError(f"{library} has one {key} for {places[key].path} and {path}")
        places[key] = Place(path, shape, key, layout)
    return tuple(places.values())


def _renamed(path: str, rules: Rules) -> tuple[str, str | None]:
    """The reference's name of a module, and the layout of its kernel if it is unusual."""
    for pattern, template, *layout in rules:
        match = _pattern(pattern).fullmatch(path)
        if match:
            name = _FIELD.sub(functools.partial(_put_in, match), template)
            return name, *(layout or [None])
    raise ValueError(f"no rename covers {path}")


@functools.cache
def _pattern(pattern: str) -> re.Pattern:
    """The regular expression of a pattern with {fields}."""
    pieces = re.split(r"\{(\w+)\}", pattern)
    pieces[::2] = map(re.escape, pieces[::2])
    pieces[1::2] = (f"(?P<{field}>.+?)" for field in pieces[1::2])
    return re.compile("".join(pieces))


def _put_in(match: re.Match, field: re.Match) -> str:
    """The text of a template's field, from the pattern that matched."""
    text, added = match[field["name"]], field["added"]
    return str(int(text) + int(added)) if added else text.replace("/", ".")


class Misfit(NamedTuple):
    count: int
    text: str


def misfit_of(wanted: Mapping[str, tuple], came: Mapping[str, tuple]) -> Misfit | None:
    """The differences between wanted and given names and shapes; None where there are none."""
    faults = {
        "missing": [key for key in wanted if key not in came],
        "left over": [key for key in came if key not in wanted],
        "mis-shaped": [
            f"{key} is {came[key]}, wanted {wanted[key]}"
            for key in wanted
            if key in came and came[key] != wanted[key]
        ],
    }
    texts = [
        f"{len(found)} {fault} ({', '.join(found[:3])}{', ...' if len(found) > 3 else ''})"
        for fault, found in faults.items()
        if found
    ]
    return Misfit(sum(map(len, faults.values())), "; ".join(texts)) if texts else None


def _without_absent_auxiliaries(
    places: Mapping[str, Place], came: Mapping[str, tuple]
) -> dict[str, Place]:
    """The places, without those of auxiliary heads that are missing altogether."""

    def head(place: Place) -> str:
        return place.path[1]

    present = {head(places[key]) for key in came if key in places}
    return {
        key: place
        for key, place in places.items()
        if not head(place).startswith("auxiliary_") or head(place) in present
    }


def filled(places: Iterable[Place], state_dict: Mapping[str, Any], dtype: Any) -> Variables:
    """The variables: every array, read and put into its place."""
    variables: Variables = {}
    for place in places:
        value = np.asarray(state_dict[place.key], dtype)
        if place.layout:
            value = rearrange(value, reversed_layout(place.layout))
        *parents, leaf = place.path
        tree = functools.reduce(lambda tree, key: tree.setdefault(key, {}), parents, variables)
        tree[leaf] = np.array(value, order="C")
    return variables
