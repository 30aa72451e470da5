"""Our variables by the names and in the layouts of other libraries, if their models compute the same."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from jaxnets.errors import InputError
from jaxnets.models import create_model, model_info, published_weights
from jaxnets.weights.conversion import (
    COUNTER,
    checked_library,
    misfit_of,
    places_of,
    without_absent_auxiliaries,
)
from jaxnets.weights.layout import rearrange


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
        InputError: the model, a setting or the library is unknown, the variables do not fit, or the
            library's model computes something else, as with another padding or epsilon.
    """
    return exported(create_model(name, **overrides), variables, library, overrides)


def exported(
    model: nn.Module, variables: Mapping[str, Any], library: str, settings: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """`to_torch` of a model that is there already, perhaps for images of other channels, and that was
    made with these settings."""
    name = model.model_name
    library = checked_library(name, library)
    _refuse_other_function(name, library, settings)
    leaves, _ = jax.tree_util.tree_flatten_with_path(variables)
    values = {"/".join(key.key for key in path): value for path, value in leaves}
    shapes = {path: tuple(np.shape(value)) for path, value in values.items()}
    places = {"/".join(place.path): place for place in places_of(model, library)}
    places = without_absent_auxiliaries(places, shapes)
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
            state_dict[f"{module}.{COUNTER}"] = np.zeros((), np.int64)
    return state_dict


def _refuse_other_function(name: str, library: str, settings: Mapping[str, Any]) -> None:
    """Checks that the library's model computes what one with these settings does, as far as public
    weights differ in them.

    Raises:
        InputError: it does not.
    """
    rows, known = published_weights(name), model_info(name).settings
    publisher = library.partition("_")[0]  # of older names, as torchvision_v1, too
    theirs = [row for row in rows if row.library.partition("_")[0] == publisher]
    # Where no file is by these very names, the library's model of today is ours by default.
    today = [] if any(row.library == library for row in theirs) else [known]
    theirs = [{**known, **row.settings} for row in theirs] + today
    differ = {
        key: value
        for key, value in settings.items()
        if any(key in row.settings for row in rows) and all(value != row[key] for row in theirs)
    }
    if differ:
        here, there = (
            ", ".join(f"{key}={values[key]!r}" for key in differ) for values in (differ, theirs[0])
        )
        raise InputError(
            f"library: {library}'s {name} computes something else: it has {there}, and these weights "
            f"are for {here}; save them by the names of jaxnets, in a .safetensors file"
        )
