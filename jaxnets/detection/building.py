"""Backbones for detectors, by the strides of their maps; and the names that torchvision has for them."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict

from jaxnets.detection.coco_names import class_names
from jaxnets.errors import InputError
from jaxnets.layers import NORMS
from jaxnets.models import Classifier, create_classifier, feature_info
from jaxnets.models.published import IMAGENET_MEAN, IMAGENET_STD
from jaxnets.models.resizing import Resizing
from jaxnets.models.resnet import backbone_rules
from jaxnets.models.settings import Count, NonNegative

NO_SETTINGS = FrozenDict()
SIDE = 256  # of an image by which the maps of a backbone are looked at


@dataclass(frozen=True)
class Settings:
    """What the `build` of every kind of detector takes beside its own settings.

    Attributes:
        backbone: a classifier of `jaxnets.list_models()`.
        norm, epsilon: of the backbone's normalizations.
        backbone_settings: further settings of the backbone.
        first_label: what the first channel is called; see `Detector`.
        min_size, max_size, mean, std: of the pictures; see `Resizing`.
    """

    backbone: str = "resnet50"
    norm: Literal[NORMS] = "frozen"
    epsilon: NonNegative = 1e-5
    backbone_settings: Any = NO_SETTINGS
    first_label: Literal[-1, 0] = 0
    min_size: Count = 800
    max_size: Count = 1333
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


def shared_parts(strides: Sequence[int], num_classes: int, settings: Settings) -> dict[str, Any]:
    """The fields of `Detector` that all kinds have, but for the pyramid.

    Args:
        strides: of the backbone's maps, from fine to coarse.
        num_classes: channels of scores.
        settings: as of `build`.

    Raises:
        InputError: as of `backbone_of`.
    """
    own = settings.backbone, strides, settings.norm, settings.epsilon, settings.backbone_settings
    backbone, maps, smallest = backbone_of(*own)
    return {
        "backbone": backbone,
        "maps": maps,
        "num_classes": num_classes,
        "first_label": settings.first_label,
        "class_names": class_names(num_classes) if settings.first_label == 0 else (),
        "min_size": smallest,
        "resizing": Resizing(settings.min_size, settings.max_size, settings.mean, settings.std),
    }


def backbone_of(
    name: str, strides: Sequence[int], norm: str, epsilon: float, settings: Mapping[str, Any]
) -> tuple[nn.Module, tuple[str, ...], int]:
    """A classifier's backbone, the names of its last maps of these strides, and its smallest image.

    Args:
        name: of any model that has maps of these strides.
        strides: from fine to coarse.
        norm, epsilon: of its normalizations, for families that leave the choice; "batch" and 1e-5 for
            those that do not.
        settings: further ones of `jaxnets.create_model`.

    Raises:
        InputError: as of `create_model`, or a model without a map of one of the strides, or
            whose maps are smaller than the picture by its stride.
    """
    own = {} if norm == "batch" else {"norm": norm}
    own |= {} if epsilon == 1e-5 else {"epsilon": epsilon}
    model = create_classifier(name, num_classes=0, **own, **settings)
    by_stride = {stride: name for name, (_, stride) in feature_info(model).items()}
    if missing := [stride for stride in strides if stride not in by_stride]:
        raise InputError(
            f"backbone: {name} has maps of strides {', '.join(map(str, sorted(by_stride)))} and none of "
            f"{', '.join(map(str, missing))}; give another, such as 'resnet50'"
        )
    maps = tuple(by_stride[stride] for stride in strides)
    rows = _rows(model)
    if any(rows[own] * stride != SIDE for own, stride in zip(maps, strides, strict=True)):
        raise InputError(
            f"backbone: the maps of {name} lack the picture's borders, which its convolutions do not "
            "pad; give another, such as 'resnet50'"
        )
    return model.backbone, maps, model.min_size


@functools.cache
def _rows(model: Classifier) -> dict[str, int]:
    """How many rows each map of an image of `SIDE` x `SIDE` has; nothing is computed."""
    images = jax.ShapeDtypeStruct((1, SIDE, SIDE, model.input_size[2]), jnp.float32)
    maps, _ = jax.eval_shape(model.backbone.init_with_output, jax.random.key(0), images)
    return {name: value.shape[1] for name, value in maps.items()}


def torchvision_rules(levels: int, *heads: tuple[str, ...], old: bool = False) -> tuple:
    """The rules of torchvision's names for a detector on a ResNet.

    Args:
        levels: of the pyramid that come from the backbone.
        *heads: the rules of its heads.
        old: whether names are those of files of before 2022, in which a convolution of the pyramid was
            not yet one of a convolution and a normalization.
    """
    within = "" if old else ".0"
    fpn = [
        rule
        for level in range(1, levels + 1)
        for kind in ("inner", "layer")
        for rule in (
            (f"fpn/{kind}{level}_conv", f"backbone.fpn.{kind}_blocks.{level - 1}{within}"),
            (f"fpn/{kind}{level}_bn", f"backbone.fpn.{kind}_blocks.{level - 1}.1"),
        )
    ]
    return (
        *backbone_rules("backbone.body"),
        *fpn,
        ("fpn/{top}", "backbone.fpn.extra_blocks.{top}"),
        *heads,
    )
