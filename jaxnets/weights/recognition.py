"""Recognizes the architecture of a state dict by its names and shapes."""

from collections.abc import Mapping

from jaxnets.models import create_model, list_models, published_weights
from jaxnets.models.registry import settings_of_library
from jaxnets.weights import conversion, renames

Shapes = Mapping[str, tuple[int, ...]]


def recognized_model(shapes: Shapes) -> str | None:
    """The name of the model that a state dict fits, for any number of classes; None where none fits. Of
    several it is one of which there are public weights.

    Models whose table of names does not cover the state dict are ruled out at once; the others are
    traced for their shapes, which takes up to a second each.

    Args:
        shapes: `conversion.shapes_of(state_dict)`.
    """
    modules = {key.rpartition(".")[0] for key in shapes}
    for name in sorted(list_models(), key=lambda name: not published_weights(name)):
        for library in renames.libraries(name):
            model = create_model(name, **settings_of_library(name, library))
            if library not in renames.libraries_of(model):
                continue
            if _covers(renames.rules_of(model, library), modules) and _fits(model, library, shapes):
                return name
    return None


def _covers(rules: renames.Rules, modules: set[str]) -> bool:
    """Whether the rules give a name to each module, and the modules of the head are among them."""
    heads = [template for pattern, template, *_ in rules if pattern.startswith("head/")]
    if any("{" not in head and head not in modules for head in heads):
        return False
    either = renames.covering(rules)
    return all(either.fullmatch(module) for module in modules)


def _fits(model, library: str, shapes: Shapes) -> bool:
    """Whether names and shapes fit the model, apart from the shapes in its heads."""
    if not conversion.has_names(model, library):
        return False
    unwanted = conversion.unwanted_auxiliaries(model, library)
    shapes = {key: shape for key, shape in shapes.items() if not unwanted(key)}
    places = {place.key: place for place in conversion.places_of(model, library)}
    absent = {key for key, place in places.items() if place.path[1].startswith("auxiliary_")}
    return places.keys() - absent <= shapes.keys() <= places.keys() and all(
        places[key].path[1] != "backbone" or places[key].reference_shape == shape
        for key, shape in shapes.items()
    )
