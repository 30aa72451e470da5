"""How classifiers are trained, measured and used by `jaxnets.runs` and the command line."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxnets import data, weights
from jaxnets.classification import folders, images, pictures
from jaxnets.classification.config import Config
from jaxnets.classification.distilling import Teacher
from jaxnets.classification.finetuning import read, read_pretrained, transformed, wanted_images
from jaxnets.classification.multilabel import MultiLabel, by_class
from jaxnets.classification.task import Classification
from jaxnets.config import parse_settings
from jaxnets.data.dataset import is_multi_label
from jaxnets.errors import InputError
from jaxnets.metrics import Metrics
from jaxnets.models import create_classifier
from jaxnets.paths import name_and_source
from jaxnets.runs.fitting import load_run, read_run
from jaxnets.runs.recipe import (
    Prepared,
    Recipe,
    Run,
    Served,
    Told,
    load_images,
    measured,
    refuse_other_classes,
)
from jaxnets.training import predict_all
from jaxnets.training.optimizers import moves_averages
from jaxnets.weights import Preprocessing, Pretrained

TOP = 5  # classes that are named of a picture


@dataclass(frozen=True)
class Predict:
    """Of a classifier: the most probable classes."""

    top: int | None = None
    """How many classes to name for each picture; None for 5, or for all above 50% where pictures may
    have several."""


def load(config: Config, about: Mapping[str, Any] | None) -> data.Dataset:
    """The dataset, in images that suit the model, or that are those of the run that has been begun."""
    if about is None:
        natural = images.natural_shape(config, wanted_images(config, _images_of))
        dataset = load_images(config, **{"size": config.sides[1], **natural})
        if not dataset.class_names:
            raise InputError(
                f"dataset {dataset.name} has no classes to tell apart; digits, folder:PATH, "
                "csv:PATH, records:PATH and tfds:NAME have"
            )
        return dataset
    side, _, channels = about["image_shape"]
    options = {"size": side, "channels": channels, "interpolation": about.get("interpolation")}
    dataset = load_images(config, **options)
    refuse_other_classes(config, dataset, about)
    return dataset


def prepare(config: Config, dataset: data.Dataset, about: Mapping[str, Any] | None) -> Prepared:
    """The task as configured, with the constants and the usual augmentation of the images."""
    if config.train is not None and config.pretrained is None:
        raise InputError(
            f"train is {config.train!r}, which would leave random weights as they are before it; give "
            "--pretrained too"
        )
    if config.layer_decay is not None and moves_averages(config.optimizer):
        raise InputError(
            f"layer_decay: {config.optimizer} goes back over its own steps, which must not be scaled; "
            "leave it out, or take another optimizer"
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
    if about.get("multi_label") and config.balance != "none":
        raise InputError(f"balance is {config.balance}, which is for one label an image; leave it out")
    if config.balance in ("over", "under"):
        train = data.class_balanced(train, config.balance, config.seed)
    if config.repeats > 1:
        train = data.repeated(train, config.repeats)
    names = (images.usual_augmentation(dataset),) if config.augment is None else config.augment
    task = dataclasses.replace(
        _task(config, model, about),
        label_smoothing=config.label_smoothing,
        class_weights=_class_weights(config, dataset),
        augment=data.augmentation.by_name(names) if names else None,
        mix=images.mix(config),
        teacher=_teacher(config, dataset),
    )
    return Prepared(
        name=model.model_name,
        task=task,
        train=train,
        test=dataset.test,
        about=about,
        variables=variables,
        sides=images.growing(config, model),
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
        preprocessing=images.of_run(run.about),
        class_names=tuple(run.about["class_names"]),
        settings=_settings(run.config, run.about),
        origin=run.origin,
        activation=folders.activation(run.task),
    )


def predict(
    members: Sequence[Run | Pretrained], images: Sequence[Path], options: Predict
) -> Iterator[Told]:
    """The classes of each picture, the most probable first, by the mean of the members."""
    if options.top is not None and options.top < 1:
        raise InputError(f"top is {options.top}; it must be 1 or more")
    members = folders.members_of(members, inside)
    several = members[0].several
    rows = np.mean([folders.probabilities_of(member, images) for member in members], axis=0)
    for path, probabilities in zip(images, rows, strict=True):
        best = probabilities.argsort()[::-1]
        if several and options.top is None:
            best = best[probabilities[best] > 0.5]
        else:
            best = best[: options.top or TOP]
        named = [(members[0].class_names[k], float(probabilities[k])) for k in best]
        told = ", ".join(f"{name} {probability:.1%}" for name, probability in named)
        said = told or "no class above 50%"
        classes = [{"class": name, "probability": probability} for name, probability in named]
        yield Told(f"{path}: {said}", file=path, classes=classes)


def evaluate(run: Run, source: data.Source, batch_size: int) -> Metrics:
    """The task's metrics and, where images may have several labels, the average precision of each."""
    found = measured(run, source, batch_size)
    if not run.task.several:
        return found
    return {**found, **by_class(found["AP"].compute(), run.about["class_names"])}


def evaluate_pretrained(
    members: Sequence[Run | Pretrained],
    dataset: str,
    batch_size: int,
    options: folders.Evaluate,
    split: str | None = None,
) -> Metrics:
    """Measures pretrained models, or the mean of several, on a folder of images; of the folder that a
    run was trained on, on those that were held out."""
    kind, _, folder = dataset.partition(":")
    if kind != "folder":
        raise InputError(
            f"dataset is {dataset!r}; pretrained models, and several runs together, are measured on a "
            "folder: give --dataset folder:PATH"
        )
    trained = (member for member in members if isinstance(member, Run))
    own = next((run for run in trained if run.config.dataset == data.sources.located(dataset)), None)
    held_out = None if own is None else own.held_out(split=split)
    members = folders.members_of(members, inside)
    if members[0].several:
        raise InputError("models: runs of several labels an image are measured one at a time")
    chosen = {"strict": options.strict, "split": split, "held_out": held_out}
    return folders.evaluate(members, folder, options.crops, batch_size=batch_size, **chosen)


def serve(member: Run | Pretrained, size: tuple[int, int] | None) -> Served:
    """The probabilities of a classifier."""
    return folders.served(*folders.members_of([member], inside), size)


def draw(run: Run) -> list[Path]:
    """What it says of its held-out images: `confusion.png` and `mistakes.png`, or `precision_recall.png`
    where they may have several labels."""
    predictions = predict_all(run.task, run.variables, run.held_out())
    if run.task.several:
        return pictures.draw_precision_recall(run.directory, predictions, run.about["class_names"])
    activation = weights.ACTIVATIONS[folders.activation(run.task)]
    found = ((batch, np.asarray(activation(scores))) for batch, scores in predictions)
    return pictures.draw_predictions(run.directory, found, run.about["class_names"])


def _teacher(config: Config, dataset: data.Dataset) -> Teacher | None:
    """The classifier to learn from, if there is one."""
    if config.teacher is None:
        return None
    loaded = read(*name_and_source(config.teacher), _of_run)
    return Teacher(loaded, dataset.class_names, config.teacher_weight, config.temperature)


def _of_run(directory: str) -> Pretrained:
    return inside(load_run(RECIPE, directory))


def _images_of(directory: str) -> Preprocessing:
    _, about = read_run(RECIPE, directory)
    return images.of_run(about)


def _about(
    dataset: data.Dataset,
    model: str,
    settings: Mapping[str, Any],
    wanted: Preprocessing | None = None,
) -> dict[str, Any]:
    """What a run remembers: the model, the classes, and the images, with the constants that the weights
    want, or else those of the dataset."""
    about = {
        "model": model,
        "settings": dict(settings),
        "class_names": dataset.class_names,
        "image_shape": dataset.image_shape,
    }
    if is_multi_label(dataset.train, dataset.num_classes):
        about["multi_label"] = True
    if wanted is not None:
        own = {"interpolation": wanted.interpolation, "mean": wanted.mean, "std": wanted.std}
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
    kind = MultiLabel if about.get("multi_label") else Classification
    return kind(model, mean=mean, std=std, loss_name=config.loss or kind.loss_name)


def _class_weights(config: Config, dataset: data.Dataset) -> tuple[float, ...] | None:
    if config.balance != "weights":
        return None
    return tuple(data.class_weights(dataset.train).tolist())


RECIPE = Recipe(
    name="classification",
    Config=Config,
    load=load,
    prepare=prepare,
    restore=restore,
    evaluate=evaluate,
    predict=predict,
    Predict=Predict,
    draw=draw,
    inside=inside,
    evaluate_pretrained=evaluate_pretrained,
    Evaluate=folders.Evaluate,
    serve=serve,
)
