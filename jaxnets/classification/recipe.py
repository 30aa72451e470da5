"""How classifiers are trained, measured and used by `jaxnets.runs` and the command line."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import numpy as np

from jaxnets import data
from jaxnets.classification import folders, pictures
from jaxnets.classification.finetuning import read_pretrained, transformed, wanted_images
from jaxnets.classification.task import Classification
from jaxnets.config import ImageConfig, parse_settings
from jaxnets.errors import InputError
from jaxnets.metrics import Metrics
from jaxnets.models import create_classifier
from jaxnets.ranges import Range
from jaxnets.runs.fitting import load_run, read_run
from jaxnets.runs.recipe import Prepared, Recipe, Run, load_images
from jaxnets.training import predict_all
from jaxnets.weights import Preprocessing, Pretrained


@dataclass(frozen=True)
class Config(ImageConfig):
    """With no arguments, LeNet-5 on scikit-learn's digits."""

    model: str | None = None
    """Architecture, as `jaxnets models` lists them; None for lenet5, or that of --pretrained."""
    dataset: str = "digits"
    """digits, folder:PATH, records:PATH or tfds:NAME."""
    epochs: int = 30
    """Passes over the training set."""

    pretrained: str | None = None
    """Weights to fine-tune: a model's name, a file, hf:OWNER/NAME or a run."""
    train: str | None = None
    """First part to train: head, stage4 ...; None for all."""
    layer_decay: float | None = None
    """Learning-rate factor from part to earlier part: 0.7, say."""

    loss: Literal["cross_entropy", "hinge", "mse", "bce"] = "cross_entropy"
    """Training loss."""
    label_smoothing: float = 0.0
    """Target share spread over all classes."""
    balance: Literal["none", "weights", "over", "under"] = "none"
    """Weight classes in the loss, or over- or under-sample."""
    mixup: float = 0.0
    """Strength (alpha) of mixup; 0 for none."""
    cutmix: float = 0.0
    """Strength (alpha) of cutmix; 0 for none."""

    ranges: ClassVar[Mapping[str, Range]] = ImageConfig.ranges | {
        "layer_decay": Range(0, 1, above=True),
        "label_smoothing": Range(0, 1, below=True),
        "mixup": Range(0),
        "cutmix": Range(0),
    }

    def completed(self) -> "Config":
        """The configuration with a model, where the weights do not say which."""
        completed = super().completed()
        if self.model is None and self.pretrained is None:
            return dataclasses.replace(completed, model="lenet5")
        return completed


@dataclass(frozen=True)
class Predict:
    """Of a classifier: the most probable classes."""

    top: int = 5
    """How many classes to name for each picture."""


def load(config: Config, about: Mapping[str, Any] | None) -> data.Dataset:
    """The dataset, in images that suit the model, or that are those of the run that has been begun."""
    if about is None:
        dataset = load_images(config, **_natural_shape(config, wanted_images(config, _images_of)))
        if not dataset.class_names:
            raise InputError(
                f"dataset {dataset.name} has no classes to tell apart; digits, folder:PATH, "
                "records:PATH and tfds:NAME have"
            )
        return dataset
    side, _, channels = about["image_shape"]
    options = {"size": side, "channels": channels, "interpolation": about.get("interpolation")}
    dataset = load_images(config, **options)
    if dataset.class_names != tuple(about["class_names"]):
        raise InputError(
            f"dataset {dataset.name} has classes {_some(dataset.class_names)}, but the run in "
            f"{config.run_dir} was trained on {_some(about['class_names'])}"
        )
    return dataset


def prepare(config: Config, dataset: data.Dataset, about: Mapping[str, Any] | None) -> Prepared:
    """The task as configured, with the constants and the usual augmentation of the images."""
    if config.train is not None and config.pretrained is None:
        raise InputError(
            f"train is {config.train!r}, which would leave random weights as they are before it; give "
            "--pretrained too"
        )
    variables, notes = None, ()
    if about is None and config.pretrained is None:
        about = _about(dataset, config.model, parse_settings(config.settings))
    elif about is None:
        loaded, *notes = read_pretrained(config, _of_run, dataset)
        about = _about(dataset, loaded.model.model_name, loaded.settings, loaded.preprocessing)
        variables = loaded.variables
    model = _model(config, about)
    train = dataset.train
    if config.balance in ("over", "under"):
        train = data.class_balanced(train, config.balance, config.seed)
    names = (_usual_augmentation(dataset),) if config.augment is None else config.augment
    task = dataclasses.replace(
        _task(config, model, about),
        label_smoothing=config.label_smoothing,
        class_weights=_class_weights(config, dataset),
        augment=data.augmentation.by_name(names) if names else None,
        mix=_mix(config),
    )
    return Prepared(
        name=model.model_name,
        task=task,
        train=train,
        test=dataset.test,
        about=about,
        variables=variables,
        transform=lambda optimizer: transformed(optimizer, model, config.train, config.layer_decay),
        notes=(*dataset.notes, *notes),
    )


def restore(config: Config, about: Mapping[str, Any], directory: Path) -> Classification:
    """The task of a trained run."""
    return _task(config, _model(config, about), about)


def inside(run: Run) -> Pretrained:
    """The classifier of a run, with the images that it wants."""
    return Pretrained(
        model=run.task.model,
        variables=jax.tree.map(np.asarray, run.variables),
        preprocessing=_preprocessing(run.about),
        class_names=tuple(run.about["class_names"]),
        settings=_settings(run.config, run.about),
        origin=run.origin,
        activation=folders.activation(run.task),
    )


def predict(
    members: Sequence[Run | Pretrained], images: Sequence[Path], options: Predict
) -> Iterator[str]:
    """The most probable classes of each picture, by the mean of several members."""
    if options.top < 1:
        raise InputError(f"top is {options.top}; it must be 1 or more")
    members = folders.members_of(members, inside)
    rows = np.mean([folders.probabilities_of(member, images) for member in members], axis=0)
    for path, probabilities in zip(images, rows, strict=True):
        best = probabilities.argsort()[::-1][: options.top]
        named = (f"{members[0].class_names[k]} {probabilities[k]:.1%}" for k in best)
        yield f"{path}: {', '.join(named)}"


def evaluate_pretrained(
    members: Sequence[Run | Pretrained],
    dataset: str,
    batch_size: int,
    options: folders.Evaluate,
    split: str | None = None,
) -> Metrics:
    """Measures pretrained models, or the mean of several, on a folder of images."""
    kind, _, folder = dataset.partition(":")
    if kind != "folder":
        raise InputError(
            f"dataset is {dataset!r}; pretrained models, and several runs together, are measured on a "
            "folder: give --dataset folder:PATH"
        )
    members = folders.members_of(members, inside)
    chosen = {"strict": options.strict, "split": split}
    return folders.evaluate(members, folder, options.crops, batch_size=batch_size, **chosen)


def draw(run: Run) -> list[Path]:
    """`confusion.png` and `mistakes.png`: what it says of its held-out images."""
    predictions = predict_all(run.task, run.variables, run.held_out())
    activation = folders.activation(run.task)
    found = ((batch, np.asarray(activation(scores))) for batch, scores in predictions)
    return pictures.draw_predictions(run.directory, found, run.about["class_names"])


def _of_run(directory: str) -> Pretrained:
    return inside(load_run(RECIPE, directory))


def _images_of(directory: str) -> Preprocessing:
    _, about = read_run(RECIPE, directory)
    return _preprocessing(about)


def _preprocessing(about: Mapping[str, Any]) -> Preprocessing:
    """How a run has its images."""
    side, _, channels = about["image_shape"]
    constants = (np.broadcast_to(about[name], channels).tolist() for name in ("mean", "std"))
    mean, std = map(tuple, constants)
    return Preprocessing(side, side, about.get("interpolation", "bilinear"), mean, std)


def _natural_shape(config: Config, wanted: Preprocessing | None) -> dict[str, Any]:
    """Side, channels and interpolation of the images: what the weights want, what the model insists
    on, or what it was made for where the images have no size of their own."""
    if wanted is not None:
        shape = {"channels": len(wanted.mean), "interpolation": wanted.interpolation}
        return shape if config.image_size else {"size": wanted.size, **shape}
    if config.model is None:
        return {}
    model = create_classifier(config.model, **parse_settings(config.settings))
    fixed = model.min_size == model.max_size
    if config.image_size or not (fixed or config.dataset.startswith(("folder:", "records:"))):
        return {}
    return {"size": model.input_size[0]}


def _about(
    dataset: data.Dataset,
    model: str,
    settings: Mapping[str, Any],
    images: Preprocessing | None = None,
) -> dict[str, Any]:
    """What a run remembers: the model, the classes, and the images, with the constants that the weights
    want, or else those of the dataset."""
    about = {
        "model": model,
        "settings": dict(settings),
        "class_names": dataset.class_names,
        "image_shape": dataset.image_shape,
    }
    if images is not None:
        own = {"interpolation": images.interpolation, "mean": images.mean, "std": images.std}
        return about | own
    mean, std = data.channel_statistics(dataset.train)
    return about | {"mean": tuple(mean.tolist()), "std": tuple(std.tolist())}


def _settings(config: Config, about: Mapping[str, Any]) -> dict[str, Any]:
    return about.get("settings", parse_settings(config.settings))


def _model(config: Config, about: Mapping[str, Any]) -> Any:
    name, count = about.get("model", config.model), len(about["class_names"])
    model = create_classifier(name, num_classes=count, **_settings(config, about))
    return model.clone(input_size=tuple(about["image_shape"]))


def _task(config: Config, model: Any, about: Mapping[str, Any]) -> Classification:
    mean, std = tuple(about["mean"]), tuple(about["std"])
    return Classification(model, mean=mean, std=std, loss_name=config.loss)


def _mix(config: Config) -> Any:
    if config.mixup and config.cutmix:
        raise InputError("mixup and cutmix: give one of the two")
    if config.mixup:
        return data.augmentation.mixup(config.mixup)
    return data.augmentation.cutmix(config.cutmix) if config.cutmix else None


def _class_weights(config: Config, dataset: data.Dataset) -> tuple[float, ...] | None:
    if config.balance != "weights":
        return None
    return tuple(data.class_weights(dataset.train).tolist())


def _usual_augmentation(dataset: data.Dataset) -> str:
    """By the look of the images: gray ones may be of digits, which must not be flipped."""
    height, _, channels = dataset.image_shape
    if channels == 1:
        return "digits"
    return "cifar" if height <= 64 else "imagenet"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 3 else shown


RECIPE = Recipe(
    name="classification",
    Config=Config,
    load=load,
    prepare=prepare,
    restore=restore,
    predict=predict,
    Predict=Predict,
    draw=draw,
    inside=inside,
    evaluate_pretrained=evaluate_pretrained,
    Evaluate=folders.Evaluate,
)
