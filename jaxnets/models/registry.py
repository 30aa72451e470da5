"""Every model by its name.

A family is one file. It holds the family's modules; a function `build(*, num_classes=..., ...)`
that puts them together into a `Classifier` and whose annotations say what its settings may be
(`jaxnets.models.settings`); a table `VARIANTS` from the name of a model to the arguments with which
`build` makes it; the `PAPER`; and, where there are any, `WEIGHTS`, the public weights of a model, the
best first, and `RENAMES`, what libraries call its parameters. To add a family, write that file and
list it below; or, from outside of jaxnets, hand it to `register`.
"""

import fnmatch
import importlib
import inspect
from typing import Any, NamedTuple

from jaxnets.errors import InputError, unknown_name
from jaxnets.models.classifier import Classifier
from jaxnets.models.published import PublishedWeights
from jaxnets.models.settings import checked, settings_of

FAMILIES = [
    importlib.import_module(f"jaxnets.models.{name}")
    for name in (
        "alexnet",
        "densenet",
        "dpn",
        "fractalnet",
        "googlenet",
        "highway",
        "inception_resnet_v2",
        "inception_v2",
        "inception_v3",
        "inception_v4",
        "lenet",
        "mlp",
        "mobilenet_v1",
        "mobilenet_v2",
        "nasnet",
        "nin",
        "pnasnet",
        "polynet",
        "resnet",
        "resnetv2",
        "senet",
        "squeezenet",
        "vgg",
        "vit",
        "xception",
        "zfnet",
    )
]
"""Those of jaxnets, and behind them those that were registered."""


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
    for setting in overrides:
        if setting not in settings:
            raise InputError(f"{name} has no setting {setting!r}; known: {', '.join(settings)}")
    if num_classes is not None:
        overrides["num_classes"] = num_classes
    known = settings_of(family.build)
    for setting, value in overrides.items():
        settings[setting] = checked(setting, value, known[setting].annotation, settings[setting])
    return family.build(**settings).clone(model_name=name)


def list_models(pattern: str = "*", pretrained: bool = False) -> list[str]:
    """The names of all models that match a pattern, sorted.

    Args:
        pattern: as a shell's, for instance "resnet*".
        pretrained: only those of which there are public weights.
    """
    names = sorted(fnmatch.filter(_families_by_model(), pattern))
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


def register(family: Any) -> None:
    """Makes the models of a family known, as if its file were one of jaxnets' own.

    A script that holds a family registers itself by `register(sys.modules[__name__])`. A family that
    is registered again, by the same name, replaces what it was.

    Args:
        family: a module, or any namespace with a `__name__`, with `build`, `VARIANTS` and `PAPER`
            and perhaps `WEIGHTS` and `RENAMES`: see the head of this file.

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
    others = _families_by_model(without=family.__name__)
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
    for index, other in enumerate(FAMILIES):
        if other.__name__ == family.__name__:
            FAMILIES[index] = family
            return
    FAMILIES.append(family)


def _families_by_model(without: str | None = None) -> dict[str, Any]:
    """Every model's family, perhaps without those of a name."""
    return {
        model: family for family in FAMILIES if family.__name__ != without for model in family.VARIANTS
    }


def _family_of(name: str) -> Any:
    families = _families_by_model()
    if name not in families:
        raise unknown_name("model", name, families)
    return families[name]


def _settings(family: Any, name: str) -> dict[str, Any]:
    """The arguments of the family's `build`: its defaults, and over them the row of the variant."""
    defaults = {setting: default for setting, (_, default) in settings_of(family.build).items()}
    return defaults | family.VARIANTS[name]
