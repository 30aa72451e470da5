"""The images of a classifier's run: their size, how they are made, and how they are augmented."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxnets import data
from jaxnets.classification.config import Config
from jaxnets.config import parse_settings
from jaxnets.errors import InputError
from jaxnets.models import create_classifier
from jaxnets.training.growing import growing_sides
from jaxnets.weights import Preprocessing


def natural_shape(config: Config, wanted: Preprocessing | None) -> dict[str, Any]:
    """Side, channels and interpolation of the images: what the weights want, what the model insists
    on, or what it was made for where the images have no size of their own."""
    if wanted is not None:
        shape = {"channels": len(wanted.mean), "interpolation": wanted.interpolation}
        return shape if config.image_size else {"size": wanted.size, **shape}
    if config.model is None:
        return {}
    model = create_classifier(config.model, **parse_settings(config.settings))
    fixed = model.min_size == model.max_size
    if config.image_size or not (fixed or config.dataset.startswith(("folder:", "csv:", "records:"))):
        return {}
    return {"size": model.input_size[0]}


def of_run(about: Mapping[str, Any]) -> Preprocessing:
    """How a run has its images."""
    side, _, channels = about["image_shape"]
    constants = (np.broadcast_to(about[name], channels).tolist() for name in ("mean", "std"))
    mean, std = map(tuple, constants)
    return Preprocessing(side, side, about.get("interpolation", "bilinear"), mean, std)


def growing(config: Config, model: Any) -> list[int] | None:
    """The side of the training images in each epoch, where it grows."""
    first, last = config.sides
    if first == last:
        return None
    shapes = [
        jax.eval_shape(
            model.init, jax.random.key(0), np.zeros((1, side, side, model.input_size[2]), np.float32)
        )
        for side in (first, last)
    ]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"image_size is {config.image_size}, but {model.model_name}'s weights are for one size; "
            "give that"
        )
    return growing_sides(first, last, config.epochs)


def usual_augmentation(dataset: data.Dataset) -> str:
    """By the look of the images: gray ones may be of digits, which must not be flipped."""
    height, _, channels = dataset.image_shape
    if channels == 1:
        return "digits"
    return "cifar" if height <= 64 else "imagenet"


def mix(config: Config) -> Any:
    """The mixture of images as configured; None for none."""
    if config.mixup and config.cutmix:
        raise InputError("mixup and cutmix: give one of the two")
    if config.mixup:
        return data.augmentation.mixup(config.mixup)
    return data.augmentation.cutmix(config.cutmix) if config.cutmix else None
