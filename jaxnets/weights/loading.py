"""Loading of models with weights, from anywhere but the directory of a run.

Files of ours hold the variables by their paths ("params/backbone/stem/conv1/kernel") and, in their
metadata, the model, its settings, its preprocessing and its class names: they are loaded without a name.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from jaxnets.errors import InputError
from jaxnets.models import create_model, list_models, model_info, published_weights
from jaxnets.models.published import PublishedWeights
from jaxnets.models.registry import family_of, first_weights
from jaxnets.paths import name_and_source
from jaxnets.weights import adaptation, conversion, formats, imagenet, images, keras, sources
from jaxnets.weights.images import Preprocessing
from jaxnets.weights.matching import DROPPED, KEPT, matched
from jaxnets.weights.pretrained import Pretrained, UnknownImagesError, naming
from jaxnets.weights.saving import METADATA


def load(
    name: str | PathLike,
    source: str | PathLike | None = None,
    *,
    dtype: Any = np.float32,
    key: jax.Array | None = None,
    head: str = KEPT,
    **settings: Any,
) -> Pretrained:
    """Reads weights from anywhere but the directory of a run; see `adapted` for other classes.

    Args:
        name, source, dtype: as for `jaxnets.load_pretrained`.
        key: for auxiliary heads that the settings ask for and the weights lack.
        head: what becomes of the layers that score classes. If they will be `DRAWN` anew, they may be
            missing, and also the whole head that they end; if they will be `DROPPED`, they alone.
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
        loaded = _theirs(name, source, checkpoint, dtype, settings, head)
    classes = 0 if loaded.headless and head == DROPPED else None
    adapted = loaded.adapted(classes, key=key, **settings)
    return dataclasses.replace(adapted, headless=loaded.headless)


def model_named_by(source: str | PathLike) -> str | None:
    """The model that NAME, NAME=SOURCE or a file of ours says it is of; None where nothing is said."""
    name, _ = name_and_source(source)
    if name in list_models():
        return name
    if not os.path.exists(name) or not sources.is_weights(name):
        return None
    if os.path.isfile(name) and formats.format_of(Path(name)) != formats.SAFETENSORS:
        return None  # no other format has our metadata
    return _about(sources.read(name)).get("model")


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
        about.get("activation", "softmax"),
    )


def _theirs(
    name: str | None,
    source: str,
    checkpoint: sources.Checkpoint,
    dtype: Any,
    settings: Mapping[str, Any],
    head: str,
) -> Pretrained:
    """From a file with the names of another library.

    Settings that are not given and that shapes do not show come from the table of public weights: from
    the row of this source, or else from the first row of the library whose names these are.
    """
    row = _row(name, source)
    if name is None:
        name, row = _architecture(checkpoint)
    if checkpoint.library == keras.KERAS:
        row = row or first_weights(name, keras.KERAS)
        if row is None:
            raise _not_in_keras(name, checkpoint)
        settings = {**keras.head_settings(name, checkpoint.tensors), **settings}
        if head == KEPT:
            keras.refuse_other_head(checkpoint.origin, checkpoint.config)
    elif checkpoint.library:
        row = row or first_weights(name, checkpoint.library)
    match = matched(name, {**(row.settings if row else {}), **settings}, checkpoint, head)
    row = row or first_weights(name, match.library)
    settings = {**(row.settings if row else {}), **settings}
    match.found.tell(checkpoint.origin)
    variables = conversion.filled(match.places, match.found.tensors, dtype)
    classes, channels = match.model.num_classes, match.model.input_size[2]
    class_names = getattr(family_of(name), "class_names", imagenet.class_names)
    labels = checkpoint.config.get("label_names") or ()
    if isinstance(labels, Mapping):  # by number
        labels = [labels.get(str(k), str(k)) for k in range(classes)]
    model = create_model(name, num_classes=classes, **settings)
    preprocessing = images.of_hub(checkpoint.config) or (row and images.of_published(row))
    if preprocessing and channels != len(preprocessing.mean):
        preprocessing = preprocessing.of_channels(channels)
    return Pretrained(
        adaptation.with_channels(model, channels),
        variables,
        preprocessing,
        tuple(map(str, labels if len(labels) == classes else class_names(classes))),
        settings,
        checkpoint.origin,
        headless=match.headless,
    )


def _not_in_keras(name: str, checkpoint: sources.Checkpoint) -> InputError:
    known = [other for other in list_models(pretrained=True) if first_weights(other, keras.KERAS)]
    return InputError(
        f"name: {checkpoint.origin} is a file of Keras, which has no {name}; wanted one of "
        f"{', '.join(known)}"
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
