"""Finds where in a checkpoint the weights of a model are, whatever its classes and channels."""

import contextlib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from flax import linen as nn

from jaxnets.errors import InputError
from jaxnets.models import Classifier, create_model
from jaxnets.weights import adaptation, conversion, keras, sources
from jaxnets.weights.recognition import Shapes, recognized_model
from jaxnets.weights.unwrapping import StateDict

KEPT, DRAWN, DROPPED = "kept", "drawn", "dropped"  # what becomes of the layers that score classes


class Match(NamedTuple):
    """A model that fits the shapes in a file, the library that has the names there, the place of each
    tensor, and whether the layers that score classes have none."""

    model: nn.Module
    found: StateDict
    library: str
    places: list[conversion.Place]
    headless: bool


def matched(name: str, settings: Mapping[str, Any], checkpoint: sources.Checkpoint, head: str) -> Match:
    """Finds the weights of a model in a checkpoint.

    Args:
        name, settings: of the model.
        checkpoint: whose tensors have the names of another library.
        head: `KEPT`, `DRAWN` or `DROPPED`, as for `jaxnets.weights.load`.

    Raises:
        InputError: it does not fit; the text says which model it looks like.
    """
    model, tensors = create_model(name, **settings), conversion.tensors_of(checkpoint.tensors, name)
    library = checkpoint.library
    if library == keras.KERAS:
        tensors = keras.with_named_head(tensors, model)
    try:
        return _fitted_for(head, model, settings, tensors, library)
    except InputError as error:
        misfit = error
    hint = ""
    with contextlib.suppress(InputError):
        if head == KEPT and _fitted_for(DRAWN, model, settings, tensors, library).headless:
            none = ", or 0 for none" if isinstance(model, Classifier) else ""
            hint = f"; all but its head fits: give num_classes for a new one{none}"
    if not hint:
        with contextlib.suppress(InputError):
            shapes = conversion.shapes_of(conversion.found_in(tensors, model, library).tensors)
            looks = recognized_model(shapes) if shapes else None
            hint = f"; it looks like {looks}" if looks not in (None, name) else ""
    raise InputError(f"{checkpoint.origin}: {misfit}{hint}")


def _fitted_for(
    head: str,
    model: nn.Module,
    settings: Mapping[str, Any],
    tensors: Mapping[str, Any],
    library: str | None,
) -> Match:
    """The model, if all fits but for the layers that will be drawn or dropped.

    Raises:
        InputError: it does not.
    """
    scoring = [] if head == KEPT else _scoring(model, settings)  # then none may be missing
    spare = set(scoring)
    if head == DRAWN:
        spare |= {path for path, _ in conversion.abstract_leaves(model) if path[1] == "head"}
    found = conversion.found_in(tensors, model, library, spare)
    shapes = conversion.shapes_of(found.tensors)
    try:
        return _fitted(model, settings, found, shapes, library, spare, scoring)
    except InputError:
        if not spare:
            raise
        # Another head may be in its place, which reads other features.
        without = _without(model, shapes, spare)
        return _fitted(model, settings, found, without, library, spare, scoring)


def _fitted(
    model: nn.Module,
    settings: Mapping[str, Any],
    found: StateDict,
    shapes: Shapes,
    library: str | None,
    spare: Collection[conversion.Path],
    scoring: Collection[conversion.Path],
) -> Match:
    """The model itself if it fits, or that of the numbers of classes and channels in the file.

    Raises:
        InputError: neither does.
    """
    try:
        library, places = conversion.fitted(model, shapes, library, spare)
    except InputError as error:
        misfit = error
        for candidate in conversion.libraries_to_try(model, library):
            with contextlib.suppress(InputError):
                other = _with_the_files_sizes(model, settings, candidate, shapes)
                if other is not None:
                    library, places = conversion.fitted(other, shapes, candidate, spare)
                    model = other
                    break
        else:
            raise misfit from None
    headless = not set(scoring) <= {p.path for p in places}
    return Match(model, found, library, places, headless)


def _scoring(model: nn.Module, settings: Mapping[str, Any]) -> list[conversion.Path]:
    """The paths of the variables that score classes, but for those of auxiliary heads."""
    wider = create_model(model.model_name, num_classes=model.num_classes + 1, **settings)
    leaves = adaptation.class_leaves(model, wider)
    return [path for path in leaves if not path[1].startswith("auxiliary_")]


def _without(model: nn.Module, shapes: Shapes, paths: Collection[conversion.Path]) -> Shapes:
    """The shapes without those at some paths of a model, by any library's names."""
    keys = {
        place.key
        for library in conversion.libraries_to_try(model)
        for place in conversion.places_of(model, library)
        if place.path in paths
    }
    return {key: shape for key, shape in shapes.items() if key not in keys}


def _with_the_files_sizes(
    model: nn.Module, settings: Mapping[str, Any], library: str, shapes: Shapes
) -> nn.Module | None:
    """The model with the numbers of classes and channels in the file; None where it does not tell."""
    name, classes = model.model_name, model.num_classes
    wider = create_model(name, num_classes=classes + 1, **settings)
    places, more = (
        {place.path: place for place in conversion.places_of(of, library)} for of in (model, wider)
    )
    channels, first = model.input_size[2], adaptation.first_kernel(model)
    if first is not None:
        kernel = shapes.get(places[first].key, ())
        if len(kernel) != 4:
            return None
        channels = kernel[1]
    for path in _scoring(model, settings):
        # A layer may score each class several times, as for each of the anchors of a place.
        came = shapes.get(places[path].key, ())
        ours, with_one_more = (of[path].reference_shape for of in (places, more))
        if len(came) == len(ours):
            counts = next(c for c in zip(came, ours, with_one_more, strict=True) if c[1] != c[2])
            classes += (counts[0] - counts[1]) // (counts[2] - counts[1])
            break
    resized = create_model(name, num_classes=classes, **settings)
    return adaptation.with_channels(resized, channels)
