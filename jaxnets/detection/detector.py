"""What all detectors share: a pyramid of features on a backbone, and what they find, in fixed shapes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxnets.detection.anchoring import pyramid_anchors
from jaxnets.detection.boxes import clip
from jaxnets.detection.extents import Extent, bounded, extent_of
from jaxnets.detection.suppression import nms
from jaxnets.dtypes import at_least_float32
from jaxnets.errors import InputError
from jaxnets.layers.initialization import InitializedAtOnce
from jaxnets.models.published import IMAGENET_MEAN, IMAGENET_STD


@dataclass(frozen=True)
class Resizing:
    """The pictures that a detector was made for.

    Attributes:
        min_size: the shorter side is scaled to so many pixels,
        max_size: or the longer side to so many, whichever is smaller.
        mean, std: of each channel, in units of 0 to 1.
    """

    min_size: int = 800
    max_size: int = 1333
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


class Found(NamedTuple):
    """What is found in a batch, best first.

    Attributes:
        boxes: f32[N, k, 4], in pixels of the canvas.
        scores: f32[N, k].
        labels: i32[N, k].
        valid: bool[N, k], which of the k are there.
        masks: f32[N, k, M, M], probabilities within each box; None for detectors of boxes alone.
    """

    boxes: jax.Array
    scores: jax.Array
    labels: jax.Array
    valid: jax.Array
    masks: jax.Array | None = None


class Truths(NamedTuple):
    """What there is to find in a batch.

    Attributes:
        boxes: f32[N, M, 4], in pixels of the canvas.
        labels: i32[N, M].
        valid: bool[N, M], which of the M are there.
        masks: bool[N, M, H, W], or None.
    """

    boxes: jax.Array
    labels: jax.Array
    valid: jax.Array
    masks: jax.Array | None = None


class Pyramid(NamedTuple):
    """The maps [N, h, w, C] of a batch from fine to coarse, and what of them belongs to the pictures."""

    maps: Sequence[jax.Array]
    extent: Extent


Losses = dict[str, tuple[jax.Array, jax.Array]]
"""Each term's numerator f32[N] and denominator f32[N] by image: the term is the sum over the sum."""


class Detector(InitializedAtOnce):
    """A detector. Its parameters are those of its parts: `backbone`, `fpn` and its heads.

    Attributes:
        backbone: a module, `backbone(images, train) -> dict[str, Array]`.
        maps: the names of the maps that the pyramid is built on, from fine to coarse.
        fpn: see `FPN`.
        num_classes: the channels of its scores.
        first_label: what the first channel is called: 0 where labels are those of the publisher, as the
            channels are; -1 where the first is the background and labels count the classes from 0.
        score: detections of lower scores are dropped.
        iou: of two detections of a class that overlap by more, the better is kept.
        k: the most detections of a picture.
        input_size: (height, width, channels) to initialize it with.
        min_size: the shortest side of an image.
        resizing: of the pictures.
        class_names: by label; labels stand for themselves where there are none.
        model_name: what the registry calls it.
    """

    backbone: nn.Module
    maps: tuple[str, ...]
    fpn: nn.Module
    num_classes: int
    first_label: int = 0
    score: float = 0.05
    iou: float = 0.5
    k: int = 100
    input_size: tuple[int, int, int] = (800, 1344, 3)
    min_size: int = 32
    resizing: Resizing = Resizing()
    class_names: tuple[str, ...] = ()
    model_name: str = "the detector"

    @property
    def finds_masks(self) -> bool:
        """Whether it finds the pixels of objects beside their boxes."""
        return False

    def __call__(self, images: jax.Array, train: bool = False) -> Found:
        """Detections with the model's own thresholds, as `detect`.

        Args:
            images: float[N, H, W, C], normalized, whose pictures fill the canvas.
            train: must be False, as `losses` are what is trained on.
        """
        return self.detect(images)

    def pyramid(self, images: jax.Array, sizes: jax.Array | None, train: bool) -> Pyramid:
        """The features of images, as the heads read them.

        Raises:
            InputError: images of another rank or type.
        """
        if jnp.ndim(images) != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
            raise InputError(
                f"images: wanted float[N, H, W, C], got {images.dtype}{list(jnp.shape(images))}; "
                "jaxnets.detection.detect takes pictures of any kind"
            )
        images, extent = extent_of(images, sizes)
        with bounded(extent):
            maps = self.backbone(images, train)
            return Pyramid(self.fpn([maps[name] for name in self.maps], train), extent)

    def head(self, head: nn.Module, pyramid: Pyramid, **settings: Any) -> list[Any]:
        """What a head gives for each level, in float32 at least."""
        with bounded(pyramid.extent):
            found = [head(level, **settings) for level in pyramid.maps]
        return jax.tree.map(at_least_float32, found)


def anchors_of(
    pyramid: Pyramid, sizes: Sequence[Sequence[float]], ratios: Sequence[float]
) -> tuple[list[jax.Array], list[jax.Array]]:
    """The anchors f32[N, A, 4] of each level, and which lie in the pictures, bool[N, A]."""
    shapes = [level.shape[1:3] for level in pyramid.maps]
    parts = [pyramid.extent.of_map(shape) for shape in shapes]
    return jax.vmap(lambda parts, whole: pyramid_anchors(shapes, parts, whole, sizes, ratios))(
        parts, pyramid.extent.padded
    )


def flattened(maps: jax.Array, width: int) -> jax.Array:
    """Maps [N, h, w, A * width] of a head as [N, h * w * A, width]."""
    return maps.reshape(len(maps), -1, width)


def best_of_level(
    scores: jax.Array, boxes: Any, inside: jax.Array, least: float | jax.Array, most: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The best classes and places of a level of one picture, for one-stage detectors.

    Args:
        scores: f[A, K].
        boxes: `boxes(places i32[k]) -> f[k, 4]`.
        inside: bool[A], which places belong to the picture.
        least: scores must be above it.
        most: how many to take.

    Returns:
        Their boxes f[k, 4], scores f[k], -inf where there are no more, and channels i32[k].
    """
    allowed = (scores > least) & inside[:, None]
    found, index = jax.lax.top_k(
        jnp.where(allowed, scores, -jnp.inf).reshape(-1), min(most, scores.size)
    )
    index = index.astype(jnp.int32)
    return boxes(index // scores.shape[1]), found, index % scores.shape[1]


def suppressed(
    boxes: jax.Array, scores: jax.Array, channels: jax.Array, size: jax.Array, iou: Any, k: int
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The k best of a picture's detections, after non-maximum suppression within each class.

    Args:
        boxes: f[A, 4].
        scores: f[A], -inf for none.
        channels: i32[A].
        size: (height, width) of the picture, at whose borders boxes are cut.
        iou, k: as for `nms`.

    Returns:
        Boxes f[k, 4], scores f[k], channels i32[k] and valid bool[k].
    """
    boxes = clip(boxes, size)
    index, valid = nms(boxes, scores, iou, k, valid=jnp.isfinite(scores), labels=channels)
    return (
        jnp.where(valid[:, None], boxes[index], 0),
        jnp.where(valid, scores[index], 0),
        jnp.where(valid, channels[index], 0),
        valid,
    )
