"""What all detectors share: a pyramid of features on a backbone, and what they find, in fixed shapes."""

from collections.abc import Callable, Sequence
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
from jaxnets.models.resizing import Resizing


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


CANDIDATES = 1000  # of each level of a one-stage detector, before suppression


class Detector(InitializedAtOnce):
    """A detector. Its parameters are those of its parts: `backbone`, `fpn` and its heads.

    A kind of detector has two methods more: `search(pyramid, score, iou, k) -> Found`, where labels are
    still channels, and `losses(images, sizes, truths, key, train) -> Terms`, see
    `jaxnets.training.terms`.

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

    def detect(
        self,
        images: jax.Array,
        sizes: jax.Array | None = None,
        *,
        score: float | jax.Array | None = None,
        iou: float | jax.Array | None = None,
        k: int | None = None,
    ) -> Found:
        """Finds objects.

        Args:
            images: float[N, H, W, C], normalized, with zeros beyond each picture.
            sizes: i32[N, 2], (height, width) of each picture; None for all of the canvas.
            score, iou, k: in place of the model's own.
        """
        score, iou, k = (
            own if given is None else given
            for given, own in ((score, self.score), (iou, self.iou), (k, self.k))
        )
        found = self.search(self.pyramid(images, sizes, train=False), score, iou, k)
        return found._replace(labels=found.labels + self.first_label)

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

    def head(self, head: nn.Module, pyramid: Pyramid) -> list[Any]:
        """What a head gives for each level, in float32 at least."""
        with bounded(pyramid.extent):
            found = [head(level) for level in pyramid.maps]
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
    return maps.reshape(maps.shape[0], -1, width)


def dense_search(
    pyramid: Pyramid,
    scores: Sequence[jax.Array],
    outputs: Sequence[jax.Array],
    anchors: tuple[list[jax.Array], list[jax.Array]],
    decode: Callable[[jax.Array, jax.Array], jax.Array],
    thresholds: tuple[Any, Any, int],
) -> Found:
    """`Detector.search` of one-stage detectors, which score every place of every level.

    Args:
        pyramid: of the pictures.
        scores: of each level, f32[N, A, K].
        outputs: of the regression, f32[N, A, 4].
        anchors: of `anchors_of`.
        decode: `decode(outputs f[k, 4], anchors f[k, 4]) -> boxes f[k, 4]`.
        thresholds: score, iou and k, as for `Detector.detect`.
    """
    least, iou, k = thresholds

    def of_level(scores, outputs, anchors, inside):
        """The best classes and places: boxes, scores, -inf where there are no more, and channels."""
        allowed = (scores > least) & inside[:, None]
        found, index = jax.lax.top_k(
            jnp.where(allowed, scores, -jnp.inf).reshape(-1), min(CANDIDATES, scores.size)
        )
        index = index.astype(jnp.int32)
        place = index // scores.shape[1]
        return decode(outputs[place], anchors[place]), found, index % scores.shape[1]

    def of_picture(levels, size):
        parts = zip(*(of_level(*level) for level in levels), strict=True)
        return suppressed(*map(jnp.concatenate, parts), size, iou, k)

    levels = list(zip(scores, outputs, *anchors, strict=True))
    return Found(*jax.vmap(of_picture)(levels, pyramid.extent.size))


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
