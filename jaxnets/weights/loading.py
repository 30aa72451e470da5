"""Loading of models with weights, from anywhere but the directory of a run.

Files of ours hold the variables by their paths ("params/backbone/stem/conv1/kernel") and, in their
metadata, the model, its settings, its preprocessing and its class names: they are loaded without a name.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax.traverse_util import unflatten_dict

from jaxnets.errors import InputError
from jaxnets.models import create_model, list_models, model_info, published_weights
from jaxnets.models.published import PublishedWeights
from jaxnets.models.registry import family_of
from jaxnets.weights import adaptation, conversion, imagenet, images, sources
from jaxnets.weights.images import Preprocessing
from jaxnets.weights.pretrained import Pretrained, UnknownImagesError, naming
from jaxnets.weights.recognition import recognized_model
from jaxnets.weights.saving import METADATA


def load(
    name: str | PathLike,
    source: str | PathLike | None = None,
    *,
    dtype: Any = np.float32,
    key: jax.Array | None = None,
    **settings: Any,
) -> Pretrained:
    """Reads weights from anywhere but the directory of a run; see `adapted` for other classes.

    Args:
        name, source, dtype: as for `jaxnets.load_pretrained`.
        key: for auxiliary heads that the settings ask for and the weights lack.
        **settings: of the model, as for `jaxnets.create_model`.

    Raises:
        InputError: as for `jaxnets.load_pretrained`.
    """
    if "num_classes" in settings:
        raise InputError(
            "num_classes: weights are read with their own; change it with .adapted(num_classes)"
        )
    name, source = _model_and_source(name, source)
    checkpoint = sources.read(source)
    if METADATA in checkpoint.metadata:
        loaded = _ours(name, checkpoint, dtype)
    else:
        loaded = _theirs(name, source, checkpoint, dtype, settings)
    return loaded.adapted(key=key, **settings)


def find_preprocessing(name: str | PathLike, source: str | PathLike | None = None) -> Preprocessing:
    """The preprocessing that weights were trained with; the weights themselves are not fetched.

    Args:
        name: of a model, for its best public weights; or a source, as for `load_pretrained`.
        source: of other weights for that model.

    Returns:
        Call it with a picture (a path, a Pillow image or uint8[H, W, C]) for f32[size, size, C].

    Raises:
        InputError: the name is unknown, or the preprocessing is.
    """
    name, source = _model_and_source(name, source)
    kind, _, rest = source.partition(":")
    row, found = _row(name, source), None
    if row is not None:
        found = images.of_published(row)
    elif kind == sources.HUB:
        found = images.of_hub(sources.hub_config(rest))
    elif Path(source).exists():
        checkpoint = sources.read(source)
        found = _saved_preprocessing(_about(checkpoint)) or images.of_hub(checkpoint.config)
    if found is None and name and published_weights(name):
        found = images.of_published(published_weights(name)[0])
    if found is None:
        raise UnknownImagesError(
            f"preprocessing: {source} does not state its preprocessing; make one, such as "
            "jaxnets.weights.Preprocessing(resize=256, size=224)"
        )
    return found


def refuse_other_model(origin: Any, held: str, wanted: Any) -> None:
    """Checks that weights are of the model that is wanted, whichever it is where that is None.

    Raises:
        InputError: they are of another.
    """
    if wanted is not None and held != str(wanted):
        raise InputError(f"{origin} holds weights of {held}, not of {wanted}")


def _model_and_source(name: str | PathLike, source: str | PathLike | None) -> tuple[str | None, str]:
    """The name of the model, None where only a source was given, and the source."""
    name = os.fspath(name)
    if source is not None:
        model_info(name)  # for its error, where there is no such model
        return name, os.fspath(source)
    if name not in list_models() and sources.is_source(name):
        return None, name
    rows = published_weights(name)
    if not rows:
        raise InputError(
            f"there are no public weights for {name}; `jaxnets models --pretrained` lists all; "
            "give the source of others"
        )
    return name, rows[0].source


def _row(name: str | None, source: str) -> PublishedWeights | None:
    """The row of this source in the table of public weights, or of a file of the same name."""
    names = list_models(pretrained=True) if name is None else [name]
    rows = [row for name in names for row in published_weights(name)]
    file = Path(source).name
    return next((row for row in rows if source == row.source or file == row.file), None)


def _about(checkpoint: sources.Checkpoint) -> dict[str, Any]:
    """The metadata that `save` wrote."""
    return json.loads(checkpoint.metadata.get(METADATA, "{}"))


def _saved_preprocessing(about: Mapping[str, Any]) -> Preprocessing | None:
    saved = about.get("preprocessing")
    if not saved:
        return None
    return Preprocessing(**saved | {name: tuple(saved[name]) for name in ("mean", "std")})


def _ours(name: str | None, checkpoint: sources.Checkpoint, dtype: Any) -> Pretrained:
    about = _about(checkpoint)
    refuse_other_model(checkpoint.origin, about["model"], name)
    model = create_model(about["model"], num_classes=about["num_classes"], **about["settings"])
    # Files that were written before they kept the whole size keep the channels.
    size = about.get("input_size") or (*model.input_size[:2], about["in_channels"])
    model = naming(model.clone(input_size=tuple(size)), about.get("naming"))
    wanted = {"/".join(path): shape for path, shape in conversion.abstract_leaves(model)}
    misfit = conversion.misfit_of(wanted, conversion.shapes_of(checkpoint.tensors))
    if misfit:
        raise InputError(f"{checkpoint.origin} does not fit {model.model_name}: {misfit.text}")
    variables = {
        tuple(path.split("/")): np.asarray(value, dtype) for path, value in checkpoint.tensors.items()
    }
    return Pretrained(
        model,
        unflatten_dict(variables),
        _saved_preprocessing(about),
        tuple(about["class_names"]),
        about["settings"],
        checkpoint.origin,
    )


def _theirs(
    name: str | None,
    source: str,
    checkpoint: sources.Checkpoint,
    dtype: Any,
    settings: Mapping[str, Any],
) -> Pretrained:
    """From a file with the names of another library.

    Settings that are not given and that shapes do not show come from the table of public weights: from
    the row of this source, or else from the first row of the library whose names these are.
    """
    row = _row(name, source)
    if name is None:
        name, row = _architecture(checkpoint)
    # Matched with all auxiliary heads; those that are not wanted are dropped afterwards.
    auxiliary = {"aux": True} if "aux" in model_info(name).settings else {}
    published = row.settings if row else {}
    matched, library, places = _matched(name, {**published, **settings, **auxiliary}, checkpoint)
    if row is None:
        row = next((row for row in published_weights(name) if row.library == library), None)
    settings = {**(row.settings if row else {}), **settings}
    variables = conversion.filled(places, checkpoint.tensors, dtype)
    classes, channels = matched.num_classes, matched.input_size[2]
    class_names = getattr(family_of(name), "class_names", imagenet.class_names)
    model = create_model(name, num_classes=classes, **settings)
    preprocessing = images.of_hub(checkpoint.config) or (row and images.of_published(row))
    if preprocessing and channels != len(preprocessing.mean):
        preprocessing = preprocessing.of_channels(channels)
    return Pretrained(
        adaptation.with_channels(model, channels),
        variables,
        preprocessing,
        tuple(checkpoint.config.get("label_names") or class_names(classes)),
        settings,
        checkpoint.origin,
    )


def _architecture(checkpoint: sources.Checkpoint) -> tuple[str, PublishedWeights | None]:
    """The model that the hub's config names, by timm's name, and its row of public weights."""
    architecture = checkpoint.config.get("architecture")
    for name in list_models(pretrained=True):
        for row in published_weights(name):
            if row.architecture == architecture and row.library.startswith("timm"):
                return name, row
    if architecture in list_models():
        return architecture, None
    what = (
        f"is of {architecture!r}, which is none of ours" if architecture else "does not name its model"
    )
    raise InputError(
        f'source: {checkpoint.origin} {what}; give the name of the model before it, such as "resnet50"'
    )


def _matched(
    name: str, settings: Mapping[str, Any], checkpoint: sources.Checkpoint
) -> tuple[nn.Module, str, list[conversion.Place]]:
    """The model that fits the shapes, the library that has these names, and the place of each tensor."""
    shapes = conversion.shapes_of(checkpoint.tensors)
    model = create_model(name, **settings)
    try:
        return model, *conversion.fitted(model, shapes)
    except InputError as error:
        misfit = error
    for library in conversion.libraries(name):
        other = _with_the_files_sizes(model, settings, library, shapes)
        if other is not None:
            with contextlib.suppress(InputError):
                return other, *conversion.fitted(other, shapes, library)
    found = recognized_model(shapes)
    hint = f"; it looks like {found}" if found not in (None, name) else ""
    raise InputError(f"{checkpoint.origin}: {misfit}{hint}")


def _with_the_files_sizes(
    model: nn.Module,
    settings: Mapping[str, Any],
    library: str,
    shapes: Mapping[str, tuple[int, ...]],
) -> nn.Module | None:
    """The model with the numbers of classes and channels in the file; None where they are not found."""
    name, classes = model.model_name, model.num_classes
    wider = create_model(name, num_classes=classes + 1, **settings)
    places, more = (
        {place.path: place for place in conversion.places_of(of, library)} for of in (model, wider)
    )
    kernel = places[adaptation.first_kernel(model)].key
    for path in adaptation.class_leaves(model, wider):
        # A layer may score each class several times, as for each of the anchors of a place.
        came = shapes.get(places[path].key, ())
        ours, with_one_more = (of[path].reference_shape for of in (places, more))
        if len(came) == len(ours) and len(shapes.get(kernel, ())) == 4:
            counts = next(c for c in zip(came, ours, with_one_more, strict=True) if c[1] != c[2])
            classes += (counts[0] - counts[1]) // (counts[2] - counts[1])
            resized = create_model(name, num_classes=classes, **settings)
            return adaptation.with_channels(resized, shapes[kernel][1])
    return None
