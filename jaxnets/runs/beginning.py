"""What a run of a task on backbones begins with: a model for the classes of a dataset, perhaps with the
weights of a whole model, or those of a classifier in its backbone.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxnets import weights
from jaxnets.config import ImageConfig, is_run, parse_settings
from jaxnets.data import Dataset, augmentation
from jaxnets.errors import InputError, unknown_name
from jaxnets.layers.normalization import CONSTANTS, freeze_batch_norms
from jaxnets.models import Classifier, create_model, list_models, model_info
from jaxnets.paths import name_and_source
from jaxnets.runs.recipe import Prepared, Run
from jaxnets.training import Task
from jaxnets.weights import Pretrained

SMALL_BACKBONE = {
    "backbone": "resnetv2_50",
    "backbone_settings": (
        "block=basic", "depths=[1,1,1,1]", "widths=[32,64,128,128]", "stem_width=32",
    ),
}  # fmt: skip
"""The fields of `BackboneConfig` for pictures as small as scenes."""

Begun = tuple[dict[str, Any], dict[str, Any] | None, list[str]]


@dataclass(frozen=True)
class BackboneConfig(ImageConfig):
    """What is configured of a run of a model on a backbone."""

    backbone: str | None = None
    """Classifier to build it on; None for resnet50, a small one for scenes."""
    backbone_settings: tuple[str, ...] = ()
    """Its settings: drop_path=0.2 ..."""
    pretrained: bool = False
    """Begin with the public weights of the model."""
    weights: str | None = None
    """Begin with those of a file, hf:OWNER/NAME or a run."""
    backbone_weights: str | None = None
    """Weights of the backbone alone: a classifier's name or file."""

    names_weights: ClassVar[tuple[str, ...]] = ("weights", "backbone_weights")

    def filled(self, usual: Mapping[str, Any]) -> Self:
        """The configuration with these values, `augment` among them, where nothing was said."""
        opened = {name: value for name, value in usual.items() if getattr(self, name) in (None, ())}
        augment = usual["augment"] if self.augment is None else super().completed().augment
        return dataclasses.replace(self, **opened | {"augment": augment})


class Models(NamedTuple):
    """The models of a task on backbones.

    Attributes:
        task: its name.
        noun: what a model of it is called, such as "detector".
        type: the class of all of them.
        kinds: the names of those that stand on any backbone.
        classes: `(name, count) -> settings`, by which a model scores so many classes.
        images: `(name, side) -> settings`, by which it takes pictures that fit on a square.
        of_run: from the directory of a run to its `Pretrained`.
        given: names of settings that the run decides.
        norm: `(name) -> norm` of a backbone that has weights, where its family leaves the choice.
    """

    task: str
    noun: str
    type: type[nn.Module]
    kinds: Collection[str]
    classes: Callable[[str, int], dict[str, Any]]
    images: Callable[[str, int], dict[str, Any]]
    of_run: Callable[[str], Pretrained]
    given: tuple[str, ...]
    norm: Callable[[str], str]


def begin(models: Models, config: BackboneConfig, dataset: Dataset) -> Begun:
    """A model for the classes of a dataset.

    Args:
        models: those of the task.
        config: of the run.
        dataset: what to train on.

    Returns:
        What the run is to remember, its first variables, or None where they are drawn, and lines for
        the user.

    Raises:
        InputError: unknown names or settings, or weights of something else.
    """
    data = {"class_names": dataset.class_names, "image_shape": dataset.image_shape}
    if config.pretrained or config.weights is not None:
        return _of_weights(models, config, data)
    return _of_parts(models, config, data)


def prepare_run(
    models: Models,
    config: BackboneConfig,
    dataset: Dataset,
    about: Mapping[str, Any] | None,
    task_of: Callable[[nn.Module, augmentation.Augmentation | None], Task],
) -> Prepared:
    """A run before its first step: what `Recipe.prepare` is for models on backbones.

    Args:
        models: those of the task.
        config: of the run.
        dataset: what to train on.
        about: what a run that has been begun remembers; None for a new one.
        task_of: from a model and the configured augmentation to the task.
    """
    variables, notes = None, ()
    if about is None:
        about, variables, notes = begin(models, config, dataset)
    model = model_of(models, about)
    augment = augmentation.by_name(config.augment) if config.augment else None
    return Prepared(
        name=model.model_name,
        task=task_of(model, augment),
        train=dataset.train,
        test=dataset.test,
        about=about,
        variables=variables,
        notes=(*dataset.notes, *notes),
    )


def model_of(models: Models, about: Mapping[str, Any]) -> nn.Module:
    """The model that a run remembers."""
    classes = models.classes(about["model"], len(about["class_names"]))
    model = create_model(about["model"], **classes | dict(about["settings"]))
    return model.clone(class_names=tuple(about["class_names"]), input_size=tuple(about["image_shape"]))


def _of_weights(models: Models, config: BackboneConfig, data: dict[str, Any]) -> Begun:
    """The weights of a model, whose layers that score classes are drawn anew for other classes."""
    for name in ("backbone", "backbone_settings", "backbone_weights"):
        if getattr(config, name):
            raise InputError(
                f"{name}: the backbone comes with the {models.noun}'s weights; leave it out"
            )
    loaded = read(models, config)
    names, old = tuple(data["class_names"]), loaded.model
    wanted = models.classes(old.model_name, len(names))
    same = old.class_names == names and not loaded.headless
    kept = same and all(getattr(old, name) == wanted[name] for name in wanted)
    loaded = loaded.adapted(
        new_head=not kept,
        key=jax.random.key(config.seed),
        **wanted,
        **models.images(old.model_name, config.image_size),
        **parse_settings(config.settings, models.given),
    )
    settings = {name: value for name, value in loaded.settings.items() if name not in wanted}
    about = data | {"model": old.model_name, "settings": settings}
    head = "head kept" if kept else f"head new, for {len(names)} classes"
    return about, loaded.variables, [f"weights of {loaded.origin}; {head}"]


def _of_parts(models: Models, config: BackboneConfig, data: dict[str, Any]) -> Begun:
    """A model on a backbone, which may have a classifier's weights."""
    name, own = config.model, parse_settings(config.settings, models.given)
    refuse_other(models, name)
    usual = model_info(name).settings
    if (config.backbone, config.backbone_settings, config.backbone_weights) != (None, (), None) and (
        name not in models.kinds or "backbone" not in usual
    ):
        has = f", {usual['backbone']}" if "backbone" in usual else ""
        raise InputError(
            f"backbone: {name} has its own{has}; leave it out, or give a kind as the model: "
            f"{', '.join(models.kinds)}"
        )
    settings: dict[str, Any] = models.images(name, config.image_size)
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
    elif "norm" in usual:  # frozen statistics mean nothing before there are any
        settings["norm"] = "batch"
    if backbone is not None and _leaves_norm_open(backbone):
        settings["norm"] = models.norm(name)
    about = data | {"model": name, "settings": settings | own}
    if backbone is None:
        return about, None, []
    model = model_of(models, about)
    variables = _with_backbone(models.noun, model, backbone, jax.random.key(config.seed))
    return about, variables, [f"weights of {backbone.origin} in the backbone"]


def _leaves_norm_open(backbone: Pretrained) -> bool:
    return "norm" in model_info(backbone.model.model_name).settings and "norm" not in backbone.settings


def inside(models: Models, run: Run) -> Pretrained:
    """The model of a run."""
    classes = models.classes(run.about["model"], len(run.about["class_names"]))
    own = {name: value for name, value in classes.items() if name != "num_classes"}
    return Pretrained(
        model=run.task.model,
        variables=jax.tree.map(np.asarray, run.variables),
        preprocessing=None,
        class_names=tuple(run.about["class_names"]),
        settings=dict(run.about["settings"]) | own,
        origin=run.origin,
    )


def only(models: Models, members: Sequence[Run | Pretrained], found: str) -> Pretrained:
    """The one model that is given.

    Args:
        models: those of the task.
        members: what is given.
        found: what is not averaged over several, in the plural.

    Raises:
        InputError: several, or something else.
    """
    if len(members) > 1:
        raise InputError(f"models: {len(members)} given; {found} are not averaged: give one")
    loaded = inside(models, members[0]) if isinstance(members[0], Run) else members[0]
    if not isinstance(loaded.model, models.type):
        raise InputError(f"models: {loaded.model.model_name} is no {models.noun}; give one, or its run")
    return loaded


def refuse_other(models: Models, name: str) -> None:
    """Raises InputError unless a name is that of a model of the task."""
    known = list_models(task=models.task)
    if name not in known:
        raise unknown_name(models.noun, name, known)


def read(models: Models, config: BackboneConfig) -> Pretrained:
    """The weights of a whole model that a configuration names.

    Raises:
        InputError: as of `jaxnets.weights.load`, or those of something else.
    """
    if config.pretrained and config.weights is not None:
        raise InputError("pretrained and weights: give one of the two")
    settings, source = parse_settings(config.settings, models.given), config.weights
    if config.model is not None:
        refuse_other(models, config.model)
    if source is not None and is_run(source):
        loaded = models.of_run(source)
        weights.refuse_other_model(loaded.origin, loaded.model.model_name, config.model)
    elif config.model is None:
        loaded = weights.load(source, head=weights.DRAWN, **settings)
    else:
        loaded = weights.load(config.model, source, head=weights.DRAWN, **settings)
    if not isinstance(loaded.model, models.type):
        raise InputError(
            f"weights: {loaded.origin} holds a {loaded.model.model_name}, which is no {models.noun}; "
            "give it as --backbone-weights"
        )
    return loaded


def _read_backbone(config: BackboneConfig) -> Pretrained:
    """The classifier's weights that a configuration names: by NAME, SOURCE or NAME=SOURCE."""
    name, source = name_and_source(config.backbone_weights)
    settings = parse_settings(config.backbone_settings)
    if source is None and config.backbone not in (None, name):
        name, source = config.backbone, name
    loaded = weights.load(name, source, head=weights.DRAWN, **settings)
    if not isinstance(loaded.model, Classifier):
        raise InputError(
            f"backbone_weights: {loaded.origin} holds a {loaded.model.model_name}, which is no "
            "classifier; give it as --weights"
        )
    weights.refuse_other_model(loaded.origin, loaded.model.model_name, config.backbone)
    return weights.in_rgb(loaded)


def _with_backbone(noun: str, model: nn.Module, backbone: Pretrained, key: jax.Array) -> dict[str, Any]:
    """The variables of a model: those of the classifier in its backbone, and the others drawn."""
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
                f"backbone_weights: {'/'.join(path)} is {drawn[path].shape} in the {noun}, and "
                f"{came} came from {backbone.origin}; give weights of this backbone"
            )
        drawn[path] = np.asarray(given[path], np.float32)
    return unflatten_dict(drawn)
