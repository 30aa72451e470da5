"""Every model by its name.

A family is one file. It holds the family's modules; a function `build(*, num_classes=..., ...)`
that puts them together into a `Classifier`; a table `VARIANTS` from the name of a model to the
arguments with which `build` makes it; the `PAPER`; and, where there are any, `WEIGHTS`, the public
weights of a model, the best first, and `RENAMES`, what libraries call its parameters. To add a
family, write that file and list it in `FAMILIES`.
"""

import fnmatch
import inspect
import numbers
from types import ModuleType
from typing import Any, NamedTuple

from jaxnets.errors import InputError, unknown_name
from jaxnets.models import (
    alexnet,
    densenet,
    dpn,
    fractalnet,
    googlenet,
    highway,
    inception_resnet_v2,
    inception_v2,
    inception_v3,
    inception_v4,
    lenet,
    mlp,
    mobilenet_v1,
    mobilenet_v2,
    nasnet,
    nin,
    pnasnet,
    polynet,
    resnet,
    resnetv2,
    senet,
    squeezenet,
    vgg,
    vit,
    xception,
    zfnet,
)
from jaxnets.models.classifier import Classifier
from jaxnets.models.published import PublishedWeights

FAMILIES = (
    alexnet,
    densenet,
    dpn,
    fractalnet,
    googlenet,
    highway,
    inception_resnet_v2,
    inception_v2,
    inception_v3,
    inception_v4,
    lenet,
    mlp,
    mobilenet_v1,
    mobilenet_v2,
    nasnet,
    nin,
    pnasnet,
    polynet,
    resnet,
    resnetv2,
    senet,
    squeezenet,
    vgg,
    vit,
    xception,
    zfnet,
)

_FAMILY_OF = {name: family for family in FAMILIES for name in family.VARIANTS}

_RATES = ("dropout", "aux_dropout", "block_dropout", "drop_path")  # of any family


class ModelInfo(NamedTuple):
    """What is known of a model before it has parameters.

    Attributes:
        name: what `create_model` takes.
        family: the file under `jaxnets/models/` that tells its story.
        paper: where it was published.
        num_classes: the number of classes unless another is asked for.
        input_size: the (height, width, channels) it was made for.
        settings: what `create_model` can override, with the values that this model has.
    """

    name: str
    family: str
    paper: str
    num_classes: int
    input_size: tuple[int, int, int]
    settings: dict[str, Any]


def create_model(name: str, num_classes: int | None = None, **overrides: Any) -> Classifier:
    """Builds a model. It has no parameters yet: `model.init(key, images)` draws them.

    Args:
        name: one of `list_models()`.
        num_classes: None for the model's own number (1000 where it was made for ImageNet); 0 for a
            model that returns the features its last dense layer would have read.
        **overrides: settings that replace the model's own, for instance `drop_path=0.2`; `build` in
            the file of its family explains them.

    Returns:
        the model, equal to any other that was made with the same arguments.

    Raises:
        InputError: the name or a setting is unknown, or a value does not fit.
    """
    family = _family_of(name)
    settings = _settings(family, name)
    for setting, value in overrides.items():
        if setting not in settings:
            raise InputError(f"{name} has no setting {setting!r}; known: {', '.join(settings)}")
        settings[setting] = _checked(setting, value, settings[setting])
    if num_classes is not None:
        settings["num_classes"] = _checked("num_classes", num_classes, 0)
    return family.build(**settings).clone(model_name=name)


def list_models(pattern: str = "*", pretrained: bool = False) -> list[str]:
    """The names of all models that match a pattern, sorted.

    Args:
        pattern: as a shell's, for instance "resnet*".
        pretrained: only those of which there are public weights.
    """
    names = sorted(fnmatch.filter(_FAMILY_OF, pattern))
    return [name for name in names if published_weights(name)] if pretrained else names


def model_info(name: str) -> ModelInfo:
    """What is known of a model before it has parameters.

    Args:
        name: one of `list_models()`.

    Raises:
        InputError: the name is unknown.
    """
    family = _family_of(name)
    settings = _settings(family, name)
    return ModelInfo(
        name=name,
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
    return getattr(_family_of(name), "WEIGHTS", {}).get(name, ())


def _family_of(name: str) -> ModuleType:
    if name not in _FAMILY_OF:
        raise unknown_name("model", name, _FAMILY_OF)
    return _FAMILY_OF[name]


def _settings(family: ModuleType, name: str) -> dict[str, Any]:
    """The arguments of the family's `build`: its defaults, and over them the row of the variant."""
    arguments = inspect.signature(family.build).parameters.values()
    return {argument.name: argument.default for argument in arguments} | family.VARIANTS[name]


def _checked(setting: str, value: Any, standard: Any) -> Any:
    """`value`, if it is of the same kind as the `standard` value that it replaces."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if isinstance(standard, tuple):
        # The items of a tuple that may be empty are names, which `build` knows.
        item, least = (standard[0], 1) if standard else ("", 0)
        wanted, fits = "a tuple", isinstance(value, tuple | list) and len(value) >= least
        if least:
            wanted += " of at least one"
        if fits:
            return tuple(_checked(setting, given, item) for given in value)
    elif setting in _RATES:
        wanted, fits = "a probability in [0, 1)", number and 0 <= value < 1
    elif isinstance(standard, bool | str):
        wanted, fits = f"a {type(standard).__name__}", isinstance(value, type(standard))
    elif isinstance(standard, int):
        least = min(standard, 1)
        wanted = f"an integer, {least} or more"
        fits = number and isinstance(value, numbers.Integral) and value >= least
    else:
        wanted, fits = "a number", number
    if not fits:
        raise InputError(f"{setting}: wanted {wanted}, such as {standard!r}; got {value!r}")
    return value
