"""What a run of detection begins with: a detector for the classes of a dataset, perhaps with weights."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxnets import weights
from jaxnets.config import ImageConfig, is_run, parse_settings
from jaxnets.data import Dataset
from jaxnets.detection.creating import KINDS, own_classes
from jaxnets.detection.detector import Detector
from jaxnets.errors import InputError, unknown_name
from jaxnets.layers.normalization import CONSTANTS, freeze_batch_norms
from jaxnets.models import Classifier, create_model, list_models, model_info
from jaxnets.weights import Pretrained
from jaxnets.weights.transfer import HEAD

TASK = "detection"
STAGES = 4  # of a backbone, of strides 4 to 32

_GIVEN = (
    "name", "num_classes", "first_label", "backbone", "backbone_settings", "min_size", "max_size",
    "mean", "std",
)  # fmt: skip

Begun = tuple[dict[str, Any], dict[str, Any] | None, list[str]]


def begin(config: ImageConfig, dataset: Dataset, of_run: Callable[[str], Pretrained]) -> Begun:
    """A detector for the classes of a dataset.

    Args:
        config: of the run.
        dataset: what to train on.
        of_run: from the directory of a run to its `Pretrained`.

    Returns:
        What the run is to remember, its first variables, or None where they are drawn, and lines for
        the user.

    Raises:
        InputError: unknown names or settings, or weights of something else.
    """
    data = {"class_names": dataset.class_names, "image_shape": dataset.image_shape}
    if config.pretrained or config.weights is not None:
        return _of_weights(config, data, of_run)
    return _of_parts(config, data)


def model_of(about: Mapping[str, Any]) -> Detector:
    """The detector that a run remembers."""
    settings = own_classes(about["model"], len(about["class_names"])) | dict(about["settings"])
    model = create_model(about["model"], **settings)
    return model.clone(class_names=tuple(about["class_names"]), input_size=tuple(about["image_shape"]))


def has_masks(config: ImageConfig, of_run: Callable[[str], Pretrained]) -> bool:
    """Whether the detector of a configuration finds masks."""
    name, settings = config.model, parse_settings(config.settings)
    if name is None:
        loaded = _read(config, of_run)
        name, settings = loaded.model.model_name, {**loaded.settings, **settings}
    _refuse_other(name)
    return bool({**model_info(name).settings, **settings}.get("masks"))


def is_trained(config: ImageConfig) -> bool:
    """Whether the backbone begins with weights."""
    return config.pretrained or (config.weights, config.backbone_weights) != (None, None)


def partly_frozen(
    optimizer: optax.GradientTransformation, model: Detector, config: ImageConfig
) -> optax.GradientTransformation:
    """An optimizer that leaves the first stages of the backbone as they are; see `frozen_stages`."""
    stages = int(is_trained(config)) if config.frozen_stages is None else config.frozen_stages
    if not stages:
        return optimizer
    first = HEAD if stages == STAGES else model.maps[stages - STAGES]
    return optax.selective_transform(optimizer, freeze_mask=weights.freeze_mask(model, first))


def _of_weights(config: ImageConfig, data: dict[str, Any], of_run: Callable) -> Begun:
    """A detector's weights, whose layers that score classes are drawn anew for other classes."""
    for name in ("backbone", "backbone_settings", "backbone_weights"):
        if getattr(config, name):
            raise InputError(f"{name}: the backbone comes with the detector's weights; leave it out")
    loaded = _read(config, of_run)
    names, old = tuple(data["class_names"]), loaded.model
    wanted = own_classes(old.model_name, len(names))
    kept = old.class_names == names and (old.num_classes, old.first_label) == tuple(wanted.values())
    loaded = loaded.adapted(
        wanted["num_classes"],
        new_head=not kept,
        key=jax.random.key(config.seed),
        first_label=wanted["first_label"],
        min_size=config.image_size,
        max_size=config.image_size,
        **parse_settings(config.settings, _GIVEN),
    )
    settings = {name: value for name, value in loaded.settings.items() if name != "first_label"}
    about = data | {"model": old.model_name, "settings": settings}
    head = "head kept" if kept else f"head new, for {len(names)} classes"
    return about, loaded.variables, [f"weights of {loaded.origin}; {head}"]


def _of_parts(config: ImageConfig, data: dict[str, Any]) -> Begun:
    """A detector on a backbone, which may have a classifier's weights."""
    name, own = config.model, parse_settings(config.settings, _GIVEN)
    _refuse_other(name)
    usual = model_info(name).settings
    if name not in KINDS and (config.backbone is not None or config.backbone_settings):
        raise InputError(
            f"backbone: {name} has its own, {usual['backbone']}; leave it out, or give a kind as the "
            f"model: {', '.join(KINDS)}"
        )
    settings: dict[str, Any] = {"min_size": config.image_size, "max_size": config.image_size}
    if config.backbone is not None:
        settings["backbone"] = config.backbone
    if config.backbone_settings:
        settings["backbone_settings"] = parse_settings(config.backbone_settings)
    backbone = None
    if config.backbone_weights is not None:
        backbone = _read_backbone(config)
        settings["backbone"] = backbone.model.model_name
        settings["backbone_settings"] = dict(backbone.settings)
        if backbone.preprocessing is not None:
            settings |= {"mean": backbone.preprocessing.mean, "std": backbone.preprocessing.std}
    else:  # frozen statistics mean nothing before there are any
        settings["norm"] = "batch"
    if backbone is not None and _leaves_norm_open(backbone):
        settings["norm"] = usual["norm"] if usual.get("version") == 2 else "frozen"
    about = data | {"model": name, "settings": settings | own}
    if backbone is None:
        return about, None, []
    model = model_of(about)
    variables = _with_backbone(model, backbone, jax.random.key(config.seed))
    return about, variables, [f"weights of {backbone.origin} in the backbone"]


def _leaves_norm_open(backbone: Pretrained) -> bool:
    return "norm" in model_info(backbone.model.model_name).settings and "norm" not in backbone.settings


def _refuse_other(name: str) -> None:
    known = list_models(task=TASK)
    if name not in known:
        raise unknown_name("detector", name, known)


def _read(config: ImageConfig, of_run: Callable[[str], Pretrained]) -> Pretrained:
    """The detector's weights that a configuration names."""
    if config.pretrained and config.weights is not None:
        raise InputError("pretrained and weights: give one of the two")
    settings, source = parse_settings(config.settings, _GIVEN), config.weights
    if config.model is not None:
        _refuse_other(config.model)
    if source is not None and is_run(source):
        loaded = of_run(source)
        weights.refuse_other_model(loaded.origin, loaded.model.model_name, config.model)
    elif config.model is None:
        loaded = weights.load(source, **settings)
    else:
        loaded = weights.load(config.model, source, **settings)
    if not isinstance(loaded.model, Detector):
        raise InputError(
            f"weights: {loaded.origin} holds a {loaded.model.model_name}, which is no detector; give it "
            "as --backbone-weights"
        )
    return loaded


def _read_backbone(config: ImageConfig) -> Pretrained:
    """The classifier's weights that a configuration names: by NAME, SOURCE or NAME=SOURCE."""
    name, equals, source = config.backbone_weights.partition("=")
    settings = parse_settings(config.backbone_settings)
    if not equals and config.backbone not in (None, name):
        name, source = config.backbone, name
    loaded = weights.load(name, source or None, **settings)
    if not isinstance(loaded.model, Classifier):
        raise InputError(
            f"backbone_weights: {loaded.origin} holds a {loaded.model.model_name}, which is no "
            "classifier; give it as --weights"
        )
    weights.refuse_other_model(loaded.origin, loaded.model.model_name, config.backbone)
    return weights.in_rgb(loaded)


def _with_backbone(model: Detector, backbone: Pretrained, key: jax.Array) -> dict[str, Any]:
    """The variables of a detector: those of the classifier in its backbone, and the others drawn."""
    images = jnp.zeros((1, *model.input_size), jnp.float32)
    drawn = flatten_dict(jax.tree.map(np.asarray, jax.jit(model.init)(key, images)))
    given = backbone.variables
    if CONSTANTS in {path[0] for path in drawn}:
        given = freeze_batch_norms(given)
    given = {path: leaf for path, leaf in flatten_dict(given).items() if path[1] == "backbone"}
    for path in drawn:
        if path[1] != "backbone":
            continue
        if path not in given or given[path].shape != drawn[path].shape:
            came = "nothing" if path not in given else given[path].shape
            raise InputError(
                f"backbone_weights: {'/'.join(path)} is {drawn[path].shape} in the detector, and {came} "
                f"came from {backbone.origin}; give weights of this backbone"
            )
        drawn[path] = np.asarray(given[path], np.float32)
    return unflatten_dict(drawn)
