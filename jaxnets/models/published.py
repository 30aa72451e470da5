"""Public weights as data: what a family's `WEIGHTS` tells of each set, in a row.

Every measure is what the publisher claims for the images in the row; none was taken here. The images
that a set of weights wants belong to it as much as its numbers do, so they are in its row.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALVES = (0.5, 0.5, 0.5)
VGG_MEAN, VGG_STD = (123.68 / 255, 116.78 / 255, 103.94 / 255), (1 / 255,) * 3
TOP1 = "top-1"  # on ImageNet's validation images
BOX_AP, MASK_AP = "box AP", "mask AP"  # on COCO val2017
MIOU, PIXEL_ACCURACY = "mIoU", "pixel accuracy"  # of the classes of VOC on COCO val2017


class PublishedWeights(NamedTuple):
    """A set of public weights.

    Attributes:
        source: where it is, as `jaxnets.weights.sources` reads it.
        library: whose names its tensors have, a key of the family's `RENAMES`.
        architecture: what that library calls the model.
        claims: what the publisher measured, in percent, by the name of the measure.
        resize: the shorter side is scaled to so many pixels; then
        size: the middle is cut out, with sides of so many; None where nothing is cut away, and
        longest: the longer side is scaled to no more than so many; None for no limit.
        interpolation: "bilinear" or "bicubic", of the scaling.
        mean, std: of each channel, in units of 0 to 1.
        order: of the channels, "RGB" or "BGR"; `mean` and `std` are in it.
        license: as the publisher states it.
        settings: of `create_model`, with which the model computes what these weights were trained in.
    """

    source: str
    library: str
    architecture: str
    claims: Mapping[str, float]
    resize: int
    size: int | None
    interpolation: str
    longest: int | None = None
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    order: str = "RGB"
    license: str = "Apache-2.0"
    settings: Mapping[str, Any] = {}

    @property
    def file(self) -> str:
        """The last part of the source: the name under which it is published."""
        return self.source.rpartition(":")[2].rpartition("/")[2]

    @property
    def top1(self) -> float:
        """Claimed accuracy on ImageNet's validation images, in percent."""
        return self.claims[TOP1]

    @property
    def crop(self) -> float:
        """The part of the scaled image's shorter side that is kept."""
        return 1.0 if self.size is None else self.size / self.resize


def resized_side(size: int, crop: float) -> int:
    """Pixels of the shorter side, of which `size` are the part `crop`, rounded as timm does."""
    return math.floor(size / crop)


def timm(
    name: str,
    top1: float,
    *,
    size: int = 224,
    crop: float = 0.875,
    interpolation: str = "bicubic",
    **others: Any,
) -> PublishedWeights:
    """Of the hub's timm/`name`, where `name` is architecture.tag. `size` and `crop` are those for
    evaluation (timm's `test_input_size` and `test_crop_pct`, where it has them)."""
    return PublishedWeights(
        source=f"hf:timm/{name}",
        architecture=name.partition(".")[0],
        claims={TOP1: top1},
        resize=resized_side(size, crop),
        size=size,
        interpolation=interpolation,
        **{"library": "timm"} | others,
    )


def torchvision(
    file: str, architecture: str, top1: float, *, resize: int = 256, size: int = 224, **others: Any
) -> PublishedWeights:
    """Of torchvision's own files."""
    return PublishedWeights(
        source=f"torchvision:{file}",
        architecture=architecture,
        claims={TOP1: top1},
        resize=resize,
        size=size,
        interpolation="bilinear",
        **{"library": "torchvision", "license": "BSD-3-Clause"} | others,
    )


def torchvision_detector(
    file: str,
    architecture: str,
    box_ap: float,
    mask_ap: float | None = None,
    **others: Any,
) -> PublishedWeights:
    """Of torchvision's own files, for whole pictures of 800 x 1333 pixels at most."""
    return PublishedWeights(
        source=f"torchvision:{file}",
        architecture=architecture,
        claims={BOX_AP: box_ap} | ({} if mask_ap is None else {MASK_AP: mask_ap}),
        resize=800,
        longest=1333,
        size=None,
        interpolation="bilinear",
        **{"library": "torchvision", "license": "BSD-3-Clause"} | others,
    )


def torchvision_segmenter(
    file: str, architecture: str, miou: float, pixel_accuracy: float, **others: Any
) -> PublishedWeights:
    """Of torchvision's own files, for whole pictures whose shorter side has 520 pixels."""
    return PublishedWeights(
        source=f"torchvision:{file}",
        architecture=architecture,
        claims={MIOU: miou, PIXEL_ACCURACY: pixel_accuracy},
        resize=520,
        size=None,
        interpolation="bilinear",
        **{"library": "torchvision", "license": "BSD-3-Clause"} | others,
    )


_KERAS_MODES: dict[str, dict[str, Any]] = {
    "caffe": {
        "mean": (103.939 / 255, 116.779 / 255, 123.68 / 255),
        "std": (1 / 255, 1 / 255, 1 / 255),
        "order": "BGR",
    },
    "tf": {"mean": HALVES, "std": HALVES},
    "torch": {},
}


def keras(
    file: str, architecture: str, top1: float, mode: str, *, size: int = 224, **others: Any
) -> PublishedWeights:
    """Of Keras's applications. `mode` is that of their `preprocess_input`: "caffe" subtracts means in
    BGR, "tf" scales to -1 to 1, "torch" normalizes as torchvision."""
    return PublishedWeights(
        source=f"keras:{file}",
        library="keras",
        architecture=architecture,
        claims={TOP1: top1},
        resize=resized_side(size, 0.875),
        size=size,
        interpolation="bilinear",
        **_KERAS_MODES[mode],
        **others,
    )


def cadene(
    file: str, architecture: str, top1: float, *, resize: int = 256, size: int = 224, **others: Any
) -> PublishedWeights:
    """Of Cadene's collection, the pretrainedmodels package."""
    return PublishedWeights(
        source=f"cadene:{file}",
        library="cadene",
        architecture=architecture,
        claims={TOP1: top1},
        resize=resize,
        size=size,
        interpolation="bilinear",
        license="not stated",
        **others,
    )


def slim(
    file: str,
    architecture: str,
    top1: float,
    *,
    size: int = 224,
    bucket: str = "download.tensorflow.org/models",
    **others: Any,
) -> PublishedWeights:
    """Of TF-Slim's table. The images are those of its `inception_preprocessing`, which however scales
    them to a square without keeping their aspect ratio."""
    return PublishedWeights(
        source=f"slim:{bucket}/{file}",
        architecture=architecture,
        claims={TOP1: top1},
        resize=resized_side(size, 0.875),
        size=size,
        interpolation="bilinear",
        **{"library": "slim", "mean": HALVES, "std": HALVES} | others,
    )
