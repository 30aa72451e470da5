"""Every model by its name.

A family is one file, of whatever task. It holds the family's modules; a function
`build(*, num_classes=..., ...)` that puts them together into a model and whose annotations say what its
settings may be (`jaxnets.models.settings`); a table `VARIANTS` from the name of a model to the arguments
with which `build` makes it; the `PAPER`; and, where there are any, `WEIGHTS`, the public weights of a
model, the best first, `RENAMES`, what libraries call its parameters, a function
`class_names(num_classes)`, what those weights score, and a function `respelled(tensors)`, which gives
the tensors of further programs the names of one of those libraries. To add a family, write that file and
list it in `jaxnets.models.families`; or, from outside of jaxnets, hand it to `register`.

A model is a Linen module, called with `(images, train)`, with the fields `model_name`, `num_classes`,
`input_size` and `min_size` of `Classifier`, and its backbone in `backbone`.
"""

import fnmatch
import importlib
import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

from flax import linen as nn

from jaxnets.errors import InputError, unknown_name
from jaxnets.models.classifier import Classifier
from jaxnets.models.families import CLASSIFIERS, FAMILIES
from jaxnets.models.published import PublishedWeights
from jaxnets.models.settings import checked, settings_of

_OWN: dict[str, Any] = {}
"""The families that were registered, by the names of their modules."""


class ModelInfo(NamedTuple):
    """What is known of a model before it has parameters.

    Attributes:
        name: what `create_model` takes.
        task: what it does.
        family: the file that tells its story.
        paper: where it was published.
        num_classes: the number of classes unless another is asked for.
        input_size: the (height, width, channels) it was made for.
        settings: what `create_model` can override, with the values that this model has.
    """

    name: str
    task: str
    family: str
    paper: str
    num_classes: int
    input_size: tuple[int, int, int]
    settings: dict[str, Any]


def create_model(name: str, num_classes: int | None = None, **overrides: Any) -> nn.Module:
    """Builds a model. It has no parameters yet: `model.init(key, images)` draws them.

    Args:
        name: one of `list_models()`.
        num_classes: None for the model's own number (1000 where it was made for ImageNet); 0 for a
            classifier that returns the features its last dense layer would have read.
        **overrides: settings that replace the model's own, for instance `drop_path=0.2`; `build` in
            the file of its family explains them.

    Returns:
        the model, equal to any other that was made with the same arguments.

    Raises:
        InputError: the name or a setting is unknown, or a value does not fit.
    """
    family = family_of(name)
    settings = _settings(family, name)
    for setting in overrides:
        if setting not in settings:
            raise InputError(f"{name} has no setting {setting!r}; known: {', '.join(settings)}")
    if num_classes is not None:
        overrides["num_classes"] = num_classes
    known = settings_of(family.build)
    for setting, value in overrides.items():
        settings[setting] = checked(setting, value, known[setting].annotation, settings[setting])
    return family.build(**settings).clone(model_name=name)


def create_classifier(name: str, num_classes: int | None = None, **overrides: Any) -> Classifier:
    """`create_model` for what needs a classifier, or the backbone of one.

    Raises:
        InputError: as of `create_model`, or if the model is of another task.
    """
    task = _tasks()[family_of(name).__name__]
    if task != CLASSIFIERS:
        raise InputError(
            f"{name} is a model of {task}; wanted one of {CLASSIFIERS}, which "
            f"`jaxnets models --task {CLASSIFIERS}` lists"
        )
    return create_model(name, num_classes, **overrides)


def list_models(pattern: str = "*", pretrained: bool = False, task: str | None = None) -> list[str]:
    """The names of all models that match a pattern, sorted.

    Args:
        pattern: as a shell's, for instance "resnet*".
        pretrained: only those of which there are public weights.
        task: only those of this task, such as "classification"; None for all.

    Raises:
        InputError: no model is of such a task.
    """
    found = {name: family for family in families(task) for name in family.VARIANTS}
    names = sorted(fnmatch.filter(found, pattern))
    return [name for name in names if _weights(found[name], name)] if pretrained else names


def families(task: str | None = None) -> Iterator[Any]:
    """The families of a task, or of all: those that were registered, then those of jaxnets, each
    imported when its turn comes.

    Raises:
        InputError: no model is of such a task.
    """
    tasks = _tasks()
    known = {*FAMILIES, *tasks.values()}
    if task not in (None, *known):
        raise unknown_name("task of models", task, known)
    for name, of in tasks.items():
        if task in (None, of):
            yield _OWN[name] if name in _OWN else importlib.import_module(name)


def family_of(name: str) -> Any:
    """The family of a model; what comes behind it among `families()` is not imported.

    Raises:
        InputError: the name is unknown.
    """
    for family in families():
        if name in family.VARIANTS:
            return family
    raise unknown_name("model", name, list_models())


def model_info(name: str) -> ModelInfo:
    """What is known of a model before it has parameters.

    Args:
        name: one of `list_models()`.

    Raises:
        InputError: the name is unknown.
    """
    family = family_of(name)
    settings = _settings(family, name)
    return ModelInfo(
        name=name,
        task=_tasks()[family.__name__],
        family=family.__name__.rpartition(".")[2],
        paper=family.PAPER,
        num_classes=settings.pop("num_classes"),
        input_size=create_model(name).input_size,
        settings=settings,
    )


def published_weights(name: str) -> tuple[PublishedWeights, ...]:
    """The public weights of a model, the best first; none for many.

    Args:
        name: one of `list_models()`.

    Raises:
        InputError: the name is unknown.
    """
    return _weights(family_of(name), name)


def first_weights(name: str, library: str) -> PublishedWeights | None:
    """The first of a library's public weights for a model; None where it has none."""
    return next((row for row in published_weights(name) if row.library == library), None)


def settings_of_library(name: str, library: str) -> dict[str, Any]:
    """The settings with which a model computes what a library's does, where they are not in the weights:
    those of the first of the library's public weights.

    Args:
        name: one of `list_models()`.
        library: whose names the tensors have, such as "keras".

    Raises:
        InputError: the name is unknown.

    >>> settings_of_library("mobilenet_v2_100", "keras")
    {'tf_padding': True, 'epsilon': 0.001}
    """
    row = first_weights(name, library)
    return dict(row.settings) if row else {}


def register(family: Any) -> None:
    """Makes the models of a family known, as if its file were one of jaxnets' own.

    A script that holds a family registers itself by `register(sys.modules[__name__])`. A family that
    is registered again, by the same name, replaces what it was.

    Args:
        family: a module, or any namespace with a `__name__`, with `build`, `VARIANTS` and `PAPER`
            and perhaps `WEIGHTS`, `RENAMES`, `class_names` and `respelled`: see the head of this file.
            Its models are classifiers unless it names another task in `TASK`.

    Raises:
        InputError: it lacks something, a row of `VARIANTS` does not fit `build`, or the name of a
            model is taken by another family.
    """
    needed = ("__name__", "build", "VARIANTS", "PAPER")
    if missing := [part for part in needed if not hasattr(family, part)]:
        who = getattr(family, "__name__", repr(family))
        raise InputError(
            f"family: {who} lacks {', '.join(missing)}; give a module with a function `build`, a dict "
            "`VARIANTS` of the arguments for each model by its name, and a string `PAPER`"
        )
    known = settings_of(family.build)
    if "num_classes" not in known:
        raise InputError(f"family: `build` of {family.__name__} does not take num_classes")
    others = {
        name: other
        for other in families()
        if other.__name__ != family.__name__
        for name in other.VARIANTS
    }
    for name, row in family.VARIANTS.items():
        if name in others:
            raise InputError(
                f"family: {family.__name__} has a model {name!r}, and so has "
                f"{others[name].__name__}; give it another name"
            )
        if surplus := sorted(set(row) - set(known)):
            raise InputError(f"family: {name} sets {', '.join(surplus)}, which `build` does not take")
        settings = _settings(family, name)
        for setting, value in settings.items():
            if value is known[setting].default is inspect.Parameter.empty:
                raise InputError(f"family: {name} has no value for {setting!r}, and `build` no default")
            checked(f"{name}: {setting}", value, known[setting].annotation, None)
    _OWN[family.__name__] = family


def _tasks() -> dict[str, str]:
    """The task of every family, by the name of its module."""
    own = {name: getattr(family, "TASK", CLASSIFIERS) for name, family in _OWN.items()}
    return own | {name: task for task, names in FAMILIES.items() for name in names}


def _weights(family: Any, name: str) -> tuple[PublishedWeights, ...]:
    return getattr(family, "WEIGHTS", {}).get(name, ())


def _settings(family: Any, name: str) -> dict[str, Any]:
    """The arguments of the family's `build`: its defaults, and over them the row of the variant."""
    defaults = {setting: default for setting, (_, default) in settings_of(family.build).items()}
    return defaults | family.VARIANTS[name]
