"""Conversion between the variables of a model and the state dict of a reference, by one table."""

import functools
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxnets.errors import InputError, some, unknown_name
from jaxnets.models import create_model
from jaxnets.weights.layout import KERNEL_LAYOUTS, rearrange, rearranged_shape, reversed_layout
from jaxnets.weights.renames import OUR_NAMES, covering, libraries, libraries_of, renamed, rules_of
from jaxnets.weights.spelling import LEAVES, spelled
from jaxnets.weights.unwrapping import Names, StateDict, flattened, unwrapped

Path = tuple[str, ...]
Variables = dict[str, Any]

COUNTER = "num_batches_tracked"  # torch's batch normalization counts its steps; nothing reads it


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


def from_torch(
    name: str,
    state_dict: Mapping[str, Any],
    library: str | None = None,
    dtype: Any = np.float32,
    **overrides: Any,
) -> Variables:
    """The variables of a model, from the state dict of a reference.

    Every variable is filled, and every tensor of the model used. An auxiliary head may be missing, and
    is then missing from the variables too; one that the model does not have is left out, as are
    counters. Prefixes, and dicts around the tensors, are taken off; what else these hold is logged by
    its names. Of raw weights and their running average the average is taken.

    Args:
        name: one of `jaxnets.list_models()`.
        state_dict: arrays by the reference's names, of NumPy or readable by NumPy, such as torch's on a
            CPU; or a checkpoint with such a dict in it.
        library: the library that has these names, one of `libraries(name)`; None to find it.
        dtype: of the variables; None for that of each array.
        **overrides: the settings the model was made with, as for `jaxnets.create_model`.

    Returns:
        `params` and, where there are any, `batch_stats`: nested dicts of NumPy arrays, copies.

    Raises:
        InputError: the model, a setting or the library is unknown, or the state dict does not fit.
    """
    model = create_model(name, **overrides)
    found = found_in(tensors_of(state_dict, name), model, library)
    _, places = fitted(model, shapes_of(found.tensors), library)
    found.tell("state_dict")
    return filled(places, found.tensors, dtype)


def tensors_of(content: Any, name: str) -> Mapping[str, Any]:
    """The tensors of a checkpoint for a model of this name, `flattened` and `spelled`."""
    return spelled(flattened(content), name)


def found_in(
    tensors: Mapping[str, Any],
    model: nn.Module,
    library: str | None = None,
    spare: Collection[Path] = (),
) -> StateDict:
    """The tensors of a model, by a library's names, among those of a checkpoint.

    Args:
        tensors: `tensors_of` the checkpoint.
        model: of `jaxnets.create_model`; its number of classes does not matter.
        library: as for `from_torch`.
        spare: the paths of variables that may be missing, as those of a head that will be drawn anew.

    Raises:
        InputError: the library is unknown, or there are several sets that fit.
    """
    libraries = libraries_to_try(model, library)
    return unwrapped(tensors, [_names(model, library, frozenset(spare)) for library in libraries])


def _names(model: nn.Module, library: str, spare: frozenset[Path]) -> Names:
    places = places_of(model, library)
    headless = spare or getattr(model, "num_classes", None) == 0
    body = [p for p in places if p.path not in spare and p.path[1] != "head" and not _auxiliary(p)]
    return Names(
        known={place.key for place in places},
        needed={p.key for p in places if p.path not in spare and not _auxiliary(p)},
        auxiliary=unwanted_auxiliaries(model, library),
        parts={place.key.partition(".")[0] for place in body} if headless else None,
    )


def unwanted_auxiliaries(model: nn.Module, library: str) -> Callable[[str], bool]:
    """Whether a name in a library is of an auxiliary head, and the model has none."""
    rules = [rule for rule in rules_of(model, library) if rule[0].startswith("auxiliary_")]
    if not rules or any(map(_auxiliary, places_of(model, library))):
        return lambda key: False
    either = covering(rules)
    return lambda key: either.fullmatch(key.rpartition(".")[0]) is not None


def _auxiliary(place: Place) -> bool:
    return place.path[1].startswith("auxiliary_")


def shapes_of(state_dict: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of each array by its name, without reading lazy ones. Counts of batches are left out."""
    return {
        key: tuple(np.shape(value))
        for key, value in state_dict.items()
        if key.rpartition(".")[2] != COUNTER
    }


def fitted(
    model: nn.Module,
    shapes: Mapping[str, tuple[int, ...]],
    library: str | None = None,
    spare: Collection[Path] = (),
) -> tuple[str, list[Place]]:
    """The library that has the names of a state dict, and the place of each of its arrays in a model.

    Args:
        model: of `jaxnets.create_model`.
        shapes: `shapes_of(state_dict)`.
        library: as for `from_torch`.
        spare: as for `found_in`; those that are missing get no place.

    Raises:
        InputError: the library is unknown, or the state dict does not fit.
    """
    name, misfits = model.model_name, {}
    for candidate in libraries_to_try(model, library):
        places = {place.key: place for place in places_of(model, candidate)}
        places = without_absent_auxiliaries(places, shapes)
        places = {key: p for key, p in places.items() if key in shapes or p.path not in spare}
        misfit = misfit_of({key: place.reference_shape for key, place in places.items()}, shapes)
        if not misfit:
            return candidate, list(places.values())
        misfits[candidate] = misfit
    closest = min(misfits, key=lambda candidate: misfits[candidate].count)
    raise InputError(
        f"state_dict: it does not fit {name} by {closest}'s names: {misfits[closest].text}; give the "
        "model, and its settings such as num_classes, that the weights were made for; they are "
        f"{some(list(shapes)) or 'none'}"
    )


def checked_library(name: str, library: str) -> str:
    """The library that was asked for, which must have the model."""
    known = libraries(name)
    if not known:
        raise InputError(f"name: there is no reference for {name}, so its weights cannot be converted")
    if library not in known:
        raise unknown_name(f"library of {name}", library, known)
    return library


def has_names(model: nn.Module, library: str) -> bool:
    """Whether one of `libraries_of` a model has a name of its own for each of its variables; it may lack
    some for the settings of the model, or have one for two layers."""
    try:
        places_of(model, library)
    except ValueError:
        return False
    return True


def libraries_to_try(model: nn.Module, library: str | None = None) -> tuple[str, ...]:
    """The library that was asked for; or those that have names for the model, and our own names."""
    if library is None:
        named = (known for known in libraries_of(model) if has_names(model, known))
        return (*named, OUR_NAMES)
    return (library if library == OUR_NAMES else checked_library(model.model_name, library),)


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
        module, layout = renamed("/".join(path[1:-1]), rules)
        key = ".".join(filter(None, (module, LEAVES.get(path[-1], path[-1]))))
        if path[-1] != "kernel":
            layout = None
        elif layout is None:
            layout = KERNEL_LAYOUTS[len(shape)]
        if key in places:
            raise ValueError(f"{library} has one {key} for {places[key].path} and {path}")
        places[key] = Place(path, shape, key, layout)
    return tuple(places.values())


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


def without_absent_auxiliaries(
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
