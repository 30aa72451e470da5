"""Loading and saving of models with weights.

Files of ours hold the variables by their paths ("params/backbone/stem/conv1/kernel") and, in their
metadata, the model, its settings, its preprocessing and its class names: they are loaded without a name.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
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
from jaxnets.weights.recognition import recognized_model

OUR_NAMES = "jaxnets"  # beside the libraries' of `conversion.libraries`

_METADATA = "jaxnets"


class UnknownImagesError(InputError):
    """Nothing tells what images weights want."""


@dataclass(frozen=True)
class Pretrained:
    """A model with weights, its preprocessing and its classes.

    Attributes:
        model, variables: for `model.apply(variables, images)`.
        preprocessing: of the images; None where it is unknown.
        class_names: of the K scores.
        settings: of `create_model`, without the name and the number of classes.
        origin: where the weights came from, for messages.
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
        class_names: Sequence[str] | None = None,
        in_channels: int | None = None,
        new_head: bool = False,
        key: jax.Array | None = None,
        **overrides: Any,
    ) -> "Pretrained":
        """The same model for other classes, other images or with other settings.

        Args:
            num_classes, in_channels, new_head, key, overrides: as for `jaxnets.load_pretrained`.
            class_names: of the classes to score. The head is kept if these are the names that the
                weights have, in the same order, and drawn anew otherwise.

        Returns:
            A new model with its weights. Where none are given, new classes are named by their numbers.

        Raises:
            InputError: `num_classes` is not the number of `class_names`, `in_channels` is below 1, or a
                setting changes parameters other than those of the heads and of the first kernel.
        """
        old, names = self.model, self.class_names
        if class_names is not None:
            class_names = tuple(class_names)
            if num_classes not in (None, len(class_names)):
                raise InputError(
                    f"num_classes is {num_classes}, but class_names has {len(class_names)}; give either"
                )
            num_classes, new_head = len(class_names), new_head or class_names != names
        num_classes = old.num_classes if num_classes is None else num_classes
        in_channels = old.input_size[2] if in_channels is None else in_channels
        if in_channels < 1:
            raise InputError(f"in_channels is {in_channels}; it must be 1 or more")
        settings = {**self.settings, **overrides}
        model = create_model(old.model_name, num_classes=num_classes, **settings)
        # The size of the images decides the parameters of a perceptron.
        model = model.clone(input_size=(*old.input_size[:2], in_channels))
        variables = flatten_dict(self.variables)
        if new_head:
            wider = create_model(old.model_name, num_classes=old.num_classes + 1, **self.settings)
            wider = wider.clone(input_size=old.input_size)
            for path in adaptation.class_leaves(old, wider):
                variables.pop(path)
        if class_names is not None:
            names = class_names
        elif new_head or num_classes != old.num_classes:
            names = tuple(map(str, range(num_classes)))
        preprocessing = self.preprocessing
        if preprocessing is not None and in_channels != old.input_size[2]:
            preprocessing = preprocessing.of_channels(in_channels)
        key = jax.random.key(0) if key is None else key
        variables = adaptation.adapted(unflatten_dict(variables), model, key)
        return Pretrained(model, variables, preprocessing, names, settings, self.origin)


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
    if _METADATA in checkpoint.metadata:
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
            f"preprocessing: {source} does not state its preprocessing; make one, such as "
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
        pretrained: the model and its weights.
        library: the library whose tensor names are used: one of `jaxnets.weights.libraries(name)`, or
            "jaxnets", which also writes all else that `load` needs into the file's metadata.

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
    """The default library of tensor names: ours, but in a torch file the first that has the model."""
    theirs = conversion.libraries(name)
    return theirs[0] if theirs and Path(path).suffix in files.TORCH else OUR_NAMES


def wrong_model(origin: Any, held: str, wanted: Any) -> InputError:
    """An error: the weights are of another model than was asked for."""
    return InputError(f"{origin} holds weights of {held}, not of {wanted}")


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
    """The row of this source in the table of public weights."""
    names = list_models(pretrained=True) if name is None else [name]
    rows = [row for name in names for row in published_weights(name)]
    return next((row for row in rows if row.source == source), None)


def _about(checkpoint: sources.Checkpoint) -> dict[str, Any]:
    """The metadata that `save` wrote."""
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
) -> tuple[Classifier, str, list[conversion.Place]]:
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
    model: Classifier,
    settings: Mapping[str, Any],
    library: str,
    shapes: Mapping[str, tuple[int, ...]],
) -> Classifier | None:
    """The model with the numbers of classes and channels in the file; None where they are not found."""
    name, classes = model.model_name, model.num_classes
    places = {place.path: place for place in conversion.places_of(model, library)}
    wider = create_model(name, num_classes=classes + 1, **settings)
    last = [path for path in adaptation.class_leaves(model, wider) if path[1] == "head"]
    score, kernel = places[last[0]].key, places[adaptation.first_kernel(model)].key
    if score not in shapes or len(shapes.get(kernel, ())) != 4:
        return None
    resized = create_model(name, num_classes=shapes[score][0], **settings)
    return adaptation.with_channels(resized, shapes[kernel][1])
