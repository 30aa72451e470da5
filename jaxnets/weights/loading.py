"""From a name and a source to a model with its weights, and from there to a file.

Files of ours hold the variables by their paths ("params/backbone/stem/conv1/kernel") and, in their
metadata, what else it takes to use them, so that such a file needs no name.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxnets.errors import InputError
from jaxnets.models import Classifier, create_model, list_models, model_info, published_weights
from jaxnets.models.published import PublishedWeights
from jaxnets.weights import adaptation, conversion, files, imagenet, images, sources
from jaxnets.weights.conversion import Variables
from jaxnets.weights.images import Preprocessing
from jaxnets.weights.looks import looks_like

OUR_NAMES = "jaxnets"  # beside the libraries' of `conversion.libraries`

_METADATA = "jaxnets"


class UnknownImagesError(InputError):
    """Nothing tells what images weights want."""


@dataclass(frozen=True)
class Pretrained:
    """A model with weights, and what it takes to use them.

    Attributes:
        model, variables: for `model.apply(variables, images)`.
        preprocessing: of the images; None where nothing tells it.
        class_names: what the K scores mean.
        settings: what `create_model` was given beside the name and the number of classes.
        origin: where the weights came from.
    """

    model: Classifier
    variables: Variables
    preprocessing: Preprocessing | None
    class_names: tuple[str, ...]
    settings: Mapping[str, Any]
    origin: str

    def adapted(
        self,
        num_classes: int | None = None,
        *,
        in_channels: int | None = None,
        new_head: bool = False,
        key: jax.Array | None = None,
        **overrides: Any,
    ) -> "Pretrained":
        """The same for other classes or images, as `jaxnets.load_pretrained` explains it."""
        old = self.model
        num_classes = old.num_classes if num_classes is None else num_classes
        in_channels = old.input_size[2] if in_channels is None else in_channels
        if in_channels < 1:
            raise InputError(f"in_channels is {in_channels}; it must be 1 or more")
        settings = {**self.settings, **overrides}
        model = create_model(old.model_name, num_classes=num_classes, **settings)
        model = adaptation.with_channels(model, in_channels)
        variables = flatten_dict(self.variables)
        if new_head:
            wider = create_model(old.model_name, num_classes=old.num_classes + 1, **self.settings)
            wider = adaptation.with_channels(wider, old.input_size[2])
            for path in adaptation.class_leaves(old, wider):
                variables.pop(path)
        names, preprocessing = self.class_names, self.preprocessing
        if new_head or num_classes != old.num_classes:
            names = tuple(map(str, range(num_classes)))
        if preprocessing is not None and in_channels != old.input_size[2]:
            preprocessing = preprocessing.of_channels(in_channels)
        key = jax.random.key(0) if key is None else key
        variables = adaptation.adapted(unflatten_dict(variables), model, key)
        return Pretrained(model, variables, preprocessing, names, settings, self.origin)


def load(
    name: str | PathLike,
    source: str | PathLike | None = None,
    num_classes: int | None = None,
    *,
    in_channels: int | None = None,
    new_head: bool = False,
    dtype: Any = np.float32,
    key: jax.Array | None = None,
    **overrides: Any,
) -> Pretrained:
    """A model with weights from anywhere but a run's directory; see `jaxnets.load_pretrained`."""
    name, source = _told_apart(name, source)
    checkpoint = sources.read(source)
    if _METADATA in checkpoint.metadata:
        loaded = _ours(name, checkpoint, dtype)
    else:
        loaded = _theirs(name, source, checkpoint, dtype, overrides)
    return loaded.adapted(num_classes, in_channels=in_channels, new_head=new_head, key=key, **overrides)


def find_preprocessing(name: str | PathLike, source: str | PathLike | None = None) -> Preprocessing:
    """The preprocessing that belongs to weights; of the weights themselves nothing is fetched.

    Args:
        name: of a model, for that of its best public weights; or a source, as for `load_pretrained`.
        source: of the weights, where they are others.

    Returns:
        Call it with a picture (a path, a Pillow image or uint8[H, W, C]) for f32[size, size, C].

    Raises:
        InputError: the name is unknown, or nothing tells what images the weights want.
    """
    name, source = _told_apart(name, source)
    kind, _, rest = source.partition(":")
    row, found = _row(name, source), None
    if row is not None:
        return images.of_published(row)
    if kind == sources.HUB:
        found = images.of_hub(sources.hub_config(rest))
    elif Path(source).exists():
        checkpoint = sources.read(source)
        found = _saved_preprocessing(_about(checkpoint)) or images.of_hub(checkpoint.config)
    if found is None and name and published_weights(name):
        found = images.of_published(published_weights(name)[0])
    if found is None:
        raise UnknownImagesError(
            f"preprocessing: {source} does not tell what images it wants; make one as "
            "jaxnets.weights.Preprocessing(resize=256, size=224)"
        )
    return found


def preprocessing_of(pretrained: Pretrained) -> Preprocessing:
    """What images the weights of a model want.

    Raises:
        UnknownImagesError: nothing tells.
    """
    if pretrained.preprocessing is None:
        raise UnknownImagesError(
            f"preprocessing: {pretrained.origin} does not tell what images its weights want; save it "
            "with its preprocessing by jaxnets.weights.save"
        )
    return pretrained.preprocessing


def save(path: str | PathLike, pretrained: Pretrained, library: str = OUR_NAMES) -> None:
    """Writes weights into a file.

    Args:
        path: a `.safetensors` file, or a `.pth` file where torch is installed.
        pretrained: what to write.
        library: whose names to give the tensors: "jaxnets", with all that `load` needs in the file's
            metadata, or one of `jaxnets.weights.libraries(name)`.

    Raises:
        InputError: the library or the suffix is unknown, or torch is missing.
    """
    suffix = Path(path).suffix
    if suffix not in (*files.SAFETENSORS, *files.TORCH):
        raise InputError(f"output: {path} must end in .safetensors, or in .pth for torch")
    metadata = {}
    if library == OUR_NAMES:
        tensors = {"/".join(path): value for path, value in flatten_dict(pretrained.variables).items()}
        preprocessing = pretrained.preprocessing
        about = {
            "model": pretrained.model.model_name,
            "num_classes": pretrained.model.num_classes,
            "in_channels": pretrained.model.input_size[2],
            "settings": dict(pretrained.settings),
            "class_names": pretrained.class_names,
            "preprocessing": preprocessing and dataclasses.asdict(preprocessing),
        }
        metadata[_METADATA] = json.dumps(about)
    else:
        tensors = conversion.exported(pretrained.model, pretrained.variables, library)
    if suffix in files.TORCH:
        files.write_torch(path, tensors)
    else:
        files.write_safetensors(path, tensors, metadata)


def usual_library(name: str, path: str | PathLike) -> str:
    """Whose names tensors have in a file unless others are asked for: ours, but in torch's own files
    those of the first library that has the model."""
    theirs = conversion.libraries(name)
    return theirs[0] if theirs and Path(path).suffix in files.TORCH else OUR_NAMES


def wrong_model(origin: Any, held: str, wanted: Any) -> InputError:
    """The error for weights of another model than was asked for."""
    return InputError(f"{origin} holds weights of {held}, not of {wanted}")


def _told_apart(name: str | PathLike, source: str | PathLike | None) -> tuple[str | None, str]:
    """The model's name, where it was given, and a source."""
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
    """The public weights of this source, if it is in the table."""
    names = list_models(pretrained=True) if name is None else [name]
    rows = [row for name in names for row in published_weights(name)]
    return next((row for row in rows if row.source == source), None)


def _about(checkpoint: sources.Checkpoint) -> dict[str, Any]:
    """What `save` wrote of the weights."""
    return json.loads(checkpoint.metadata.get(_METADATA, "{}"))


def _saved_preprocessing(about: Mapping[str, Any]) -> Preprocessing | None:
    saved = about.get("preprocessing")
    if not saved:
        return None
    return Preprocessing(**saved | {name: tuple(saved[name]) for name in ("mean", "std")})


def _ours(name: str | None, checkpoint: sources.Checkpoint, dtype: Any) -> Pretrained:
    about = _about(checkpoint)
    if name not in (None, about["model"]):
        raise wrong_model(checkpoint.origin, about["model"], name)
    model = create_model(about["model"], num_classes=about["num_classes"], **about["settings"])
    model = adaptation.with_channels(model, about["in_channels"])
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
    overrides: Mapping[str, Any],
) -> Pretrained:
    """From a library's names. What the settings are, other than those that shapes tell, comes from the
    table of public weights: of this source, or of the library that has these names."""
    row = _row(name, source)
    if name is None:
        name, row = _architecture(checkpoint)
    settings = {**(row.settings if row else {}), **overrides}
    # Matched with all auxiliary heads; those that are not wanted are dropped afterwards.
    auxiliary = {"aux": True} if "aux" in model_info(name).settings else {}
    matched, library, places = _matched(name, settings | auxiliary, checkpoint)
    if row is None:
        rows = [row for row in published_weights(name) if row.library == library]
        row = rows[0] if rows else None
        settings = {**(row.settings if row else {}), **overrides}
    variables = conversion.filled(places, checkpoint.tensors, dtype)
    classes, channels = matched.num_classes, matched.input_size[2]
    model = create_model(name, num_classes=classes, **settings)
    preprocessing = images.of_hub(checkpoint.config) or (row and images.of_published(row))
    if preprocessing and channels != len(preprocessing.mean):
        preprocessing = preprocessing.of_channels(channels)
    return Pretrained(
        adaptation.with_channels(model, channels),
        variables,
        preprocessing,
        tuple(checkpoint.config.get("label_names") or imagenet.class_names(classes)),
        settings,
        checkpoint.origin,
    )


def _architecture(checkpoint: sources.Checkpoint) -> tuple[str, PublishedWeights | None]:
    """The model that the hub's config names as timm does, and its row of public weights."""
    architecture = checkpoint.config.get("architecture")
    for name in list_models(pretrained=True):
        for row in published_weights(name):
            if row.architecture == architecture and row.library.startswith("timm"):
                return name, row
    if architecture in list_models():
        return architecture, None
    what = f"is of {architecture!r}, which is none of ours" if architecture else "does not tell of what"
    raise InputError(
        f'source: {checkpoint.origin} {what}; give the name of the model before it, such as "resnet50"'
    )


def _matched(
    name: str, settings: Mapping[str, Any], checkpoint: sources.Checkpoint
) -> tuple[Classifier, str, list[conversion.Place]]:
    """The model whose shapes the weights have, the library whose names, and the place of each."""
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
    found = looks_like(shapes)
    hint = f"; it looks like {found}" if found not in (None, name) else ""
    raise InputError(f"{checkpoint.origin}: {misfit}{hint}")


def _with_the_files_sizes(
    model: Classifier,
    settings: Mapping[str, Any],
    library: str,
    shapes: Mapping[str, tuple[int, ...]],
) -> Classifier | None:
    """The model with the classes and channels that the shapes tell; None where they tell none."""
    name, classes = model.model_name, model.num_classes
    places = {place.path: place for place in conversion.places_of(model, library)}
    wider = create_model(name, num_classes=classes + 1, **settings)
    last = [path for path in adaptation.class_leaves(model, wider) if path[1] == "head"]
    score, kernel = places[last[0]].key, places[adaptation.first_kernel(model)].key
    if score not in shapes or len(shapes.get(kernel, ())) != 4:
        return None
    resized = create_model(name, num_classes=shapes[score][0], **settings)
    return adaptation.with_channels(resized, shapes[kernel][1])
