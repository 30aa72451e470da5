"""Classifiers with weights: measured on folders of images, alone or averaged, on one view or several;
asked of pictures, and handed on."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any, Literal

import jax
import numpy as np

from jaxnets import weights
from jaxnets.classification.task import Classification
from jaxnets.data.folder import FolderSource, read_held_out
from jaxnets.errors import InputError, unknown_name
from jaxnets.metrics import Mean, Metrics, Share, Sum, in_top_k
from jaxnets.models import Classifier
from jaxnets.runs.recipe import Run, Served
from jaxnets.training import predict_all
from jaxnets.weights import Preprocessing, Pretrained, imagenet
from jaxnets.weights.images import CROPS


@dataclass(frozen=True)
class Evaluate:
    """Of pretrained classifiers: on a folder of images."""

    crops: Literal["center", "flip", "ten"] = "center"
    """Views of each image whose probabilities are averaged; of pretrained models."""
    strict: bool = False
    """Refuse an unreadable image, instead of leaving it out."""


@dataclass(frozen=True)
class Member:
    """A classifier with weights: what tells the probabilities of its classes.

    Attributes:
        pretrained: the model, its weights and its images.
        several: whether an image may have several classes.
    """

    pretrained: Pretrained
    several: bool = False

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.pretrained.class_names

    @property
    def preprocessing(self) -> Preprocessing:
        """What images the weights want; `InputError` where nothing tells."""
        return weights.preprocessing_of(self.pretrained)

    def predict(self, variables: Any, batch: dict[str, Any]) -> jax.Array:
        """The mean probabilities f32[N, K] of views [N, V, H, W, C]."""
        views = batch["image"]
        images = self.preprocessing.normalize(views.reshape(-1, *views.shape[2:]))
        scores = self.pretrained.model.apply(variables, images)
        probabilities = weights.ACTIVATIONS[self.pretrained.activation](scores)
        return probabilities.reshape(*views.shape[:2], -1).mean(axis=1)


def members_of(models: Sequence[Run | Pretrained], inside: Callable[[Run], Pretrained]) -> list[Member]:
    """Runs and pretrained models as what can be averaged.

    Raises:
        InputError: they have different classes, or one is no classifier.
    """
    members = [
        Member(inside(model), model.task.several) if isinstance(model, Run) else Member(model)
        for model in models
    ]
    first = members[0]
    for member in members:
        if not isinstance(member.pretrained.model, Classifier):
            name = member.pretrained.model.model_name
            raise InputError(f"models: {name} is no classifier; give one, or the directory of a run")
        if member.pretrained.model.num_classes == 0:
            raise InputError(f"models: {member.pretrained.origin} has no head and scores no classes")
        if member.class_names != first.class_names:
            raise InputError(
                f"models: {member.pretrained.origin} has other classes than {first.pretrained.origin}; "
                "average models of the same classes"
            )
        if member.several != first.several:
            raise InputError(
                f"models: one of {member.pretrained.origin} and {first.pretrained.origin} gives an "
                "image a single class, the other several; average models of one kind"
            )
    return members


def activation(task: Classification) -> str:
    """What turns the scores of a task into probabilities, one of `weights.ACTIVATIONS`."""
    return "sigmoid" if task.loss_name == "bce" else "softmax"


def evaluate(
    members: Sequence[Member],
    folder: str | PathLike,
    crops: str = "center",
    *,
    batch_size: int = 128,
    strict: bool = False,
    split: str | None = None,
    held_out: FolderSource | None = None,
) -> Metrics:
    """Measures classifiers with weights, alone or together, on a folder of images such as ImageNet's.

    The probabilities of all views of an image (Krizhevsky et al. 2012, section 4.1) and then of all
    members are averaged. All devices share each batch.

    Args:
        members: classifiers of the same classes. Each sees the images as its own weights want them.
        folder: with a sub-folder a class, called as the members' classes are or, for ImageNet's, by
            their WordNet identifiers. Some of the classes will do. See `read_held_out` for which images
            are taken.
        crops: the views: "center"; "flip", with its mirror image; or "ten".
        batch_size: images at a time, of each of which there are 1, 2 or 10 views.
        strict: refuse an unreadable image, instead of leaving it out.
        split: which part of the folder, as for `read_held_out`.
        held_out: the images to take instead, with labels of the members' classes.

    Returns:
        `images`, how many were measured, `loss` (cross entropy), `top1` and, where there are more than
        five classes, `top5`.

    Raises:
        InputError: the folder, the split or its classes are unknown.
    """
    if crops not in CROPS:
        raise unknown_name("kind of crops", crops, CROPS)
    first = members[0]
    if held_out is None:
        names, paths, labels = read_held_out(folder, strict, split)
        labels = class_indices(names, first.class_names)[labels]
    else:
        paths, labels = held_out.paths, held_out.labels
    sums = []
    for member in members:
        images = member.preprocessing
        shape = (CROPS[crops], images.size, images.size, len(images.mean))
        cut = functools.partial(images.crops, kind=crops)
        source = FolderSource(
            paths, labels, member.class_names, decode=cut, image_shape=shape, strict=strict
        )
        variables = member.pretrained.variables
        predictions = predict_all(member, variables, source, batch_size=batch_size)
        parts = [(rows, batch["weight"]) for batch, rows in predictions]
        probabilities, counted = (np.concatenate(column) for column in zip(*parts, strict=True))
        sums.append(probabilities)
    mean = np.mean(sums, axis=0)
    own = mean[np.arange(len(labels)), labels]
    results = {
        "images": Sum(counted.sum()),
        "loss": Mean.of(-np.log(np.maximum(own, 1e-30)), counted),
        "top1": Share.of(in_top_k(mean, labels, 1), counted),
    }
    if mean.shape[1] > 5:
        results["top5"] = Share.of(in_top_k(mean, labels, 5), counted)
    return results


def probabilities_of(member: Member, pictures: Sequence[str | PathLike]) -> np.ndarray:
    """Probabilities f32[N, K] of the classes of pictures.

    Args:
        member: with weights.
        pictures: as for `jaxnets.weights.Preprocessing`.

    Raises:
        InputError: a picture cannot be read, or nothing tells what images the weights want.
    """
    predict, variables = jax.jit(member.predict), member.pretrained.variables
    views = (member.preprocessing.crops(picture)[None] for picture in pictures)
    return np.concatenate([np.asarray(predict(variables, {"image": own})) for own in views])


def served(member: Member, size: tuple[int, int] | None) -> Served:
    """The probabilities of a member, as they are handed on, for images of this (height, width)."""
    images, model = member.preprocessing, member.pretrained.model
    height, width = size or (images.size, images.size)
    color = "gray" if len(images.mean) == 1 else "RGB"
    scaled = f"scaled to {images.resize} ({images.interpolation}, with antialiasing)"
    return Served(
        run=lambda variables, pixels: member.predict(variables, {"image": pixels[:, None]}),
        variables=member.pretrained.variables,
        image_shape=(height, width, len(images.mean)),
        name=model.model_name,
        images=f"the middle of a picture in {color} whose shorter side is {scaled}",
        outputs=f"probabilities f32[N, {model.num_classes}] of the classes",
        about={"class_names": member.class_names, "preprocessing": asdict(images)},
    )


def class_indices(folders: Sequence[str], class_names: Sequence[str]) -> np.ndarray:
    """The class int[K] that each folder's name means."""
    known = {name: index for index, name in enumerate(class_names)}
    if len(class_names) in (1000, 1001) and tuple(class_names) == imagenet.class_names(len(class_names)):
        known |= {identifier: known[name] for identifier, name in imagenet.classes().items()}
    unknown = [name for name in folders if name not in known]
    if unknown:
        raise InputError(
            f"dataset: the model has no class {unknown[0]!r}; wanted folders called as its classes "
            f"({', '.join(list(known)[:3])} ...)"
            + (" or by WordNet identifiers (n01440764 ...)" if len(known) > len(class_names) else "")
        )
    return np.array([known[name] for name in folders])
