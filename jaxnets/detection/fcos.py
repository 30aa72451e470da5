"""FCOS. Tian, Shen, Chen and He 2019, "FCOS: Fully Convolutional One-Stage Object Detection",
arXiv:1904.01355, with the improvements of its second version (arXiv:2006.09214), as torchvision has it:
sampling of centers, the centerness beside the regression, and the geometric mean as the score.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from optax.losses import sigmoid_binary_cross_entropy

from jaxnets.detection import losses
from jaxnets.detection.boxes import area, giou
from jaxnets.detection.building import Settings, shared_parts, torchvision_rules
from jaxnets.detection.coco_names import class_names  # noqa: F401  (what public weights score)
from jaxnets.detection.detector import (
    Detector,
    Found,
    Pyramid,
    Truths,
    anchors_of,
    dense_search,
    flattened,
)
from jaxnets.detection.fpn import FPN
from jaxnets.detection.heads import NORMAL, PRIOR, ConvTower
from jaxnets.layers import Conv
from jaxnets.models import published
from jaxnets.models.settings import Count, takes_fields_of
from jaxnets.training.terms import Terms

PAPER = "Tian et al. 2019, arXiv:1904.01355"

VARIANTS = {"fcos": {"norm": "batch"}, "fcos_resnet50_fpn": {}}

WEIGHTS = {
    "fcos_resnet50_fpn": (
        published.torchvision_detector(
            "fcos_resnet50_fpn_coco-99b0c9b7.pth", "fcos_resnet50_fpn", 39.2, library="torchvision_v1"
        ),
    ),
}

RADIUS = 1.5  # strides from the center of a box, within which a place is to find it
REACH = 4, 8  # strides to the farthest side of a box, between which a level is to find it


class ScoreHead(nn.Module):
    """Logits [N, H, W, K] of each place (Tian et al. 2019, figure 2)."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = ConvTower(4, norm="group", use_bias=True, name="tower")(x)
        bias = nn.initializers.constant(PRIOR)
        settings = {"padding": 1, "kernel_init": NORMAL, "bias_init": bias}
        return Conv(self.num_classes, 3, name="outputs", **settings)(x)


class RegressionHead(nn.Module):
    """Distances [N, H, W, 4] to the left, top, right and bottom, in strides, and logits of the
    centerness [N, H, W, 1]."""

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        x = ConvTower(4, norm="group", use_bias=True, name="tower")(x)
        settings = {"padding": 1, "kernel_init": NORMAL}
        distances = nn.relu(Conv(4, 3, name="distances", **settings)(x))
        return distances, Conv(1, 3, name="centerness", **settings)(x)


class FCOS(Detector):
    """A one-stage detector without anchors. Further parameters: `scores` and `regression`.

    Attributes:
        scores: see `ScoreHead`.
        regression: see `RegressionHead`.
        stride: pixels between the places of the finest level.
    """

    scores: nn.Module | None = None
    regression: nn.Module | None = None
    stride: int = 8

    def search(self, pyramid: Pyramid, score: Any, iou: Any, k: int) -> Found:
        logits, distances, centerness = self._outputs(pyramid)
        scores = [
            jnp.sqrt(jax.nn.sigmoid(own) * jax.nn.sigmoid(center))
            for own, center in zip(logits, centerness, strict=True)
        ]
        anchors = self._anchors(pyramid)
        return dense_search(pyramid, scores, distances, anchors, _boxes, (score, iou, k))

    def losses(
        self, images: Array, sizes: Array | None, truths: Truths, key: Array, train: bool = True
    ) -> Terms:
        """The terms of the loss: `classification`, `box` and `centerness` (equation 2).

        Args:
            images, sizes: as for `detect`.
            truths: what there is to find; labels as users see them.
            key: not used, as nothing is drawn.
            train: whether batch normalization uses the statistics of the batch.
        """
        pyramid = self.pyramid(images, sizes, train)
        joined = partial(jnp.concatenate, axis=1)
        outputs = map(joined, self._outputs(pyramid))
        levels, inside = self._anchors(pyramid)
        anchors, inside = joined(levels), joined(inside)
        counts = [own.shape[1] for own in levels]
        low = np.repeat(np.float32([0, *[REACH[0]] * (len(counts) - 1)]), counts)
        high = np.repeat(np.float32([*[REACH[1]] * (len(counts) - 1), np.inf]), counts)

        def of_picture(logits, distances, centerness, anchors, inside, boxes, labels, valid):
            truth, positive = _matched(anchors, low, high, boxes, valid)
            positive &= inside
            channels = jax.nn.one_hot(labels[truth] - self.first_label, self.num_classes)
            focal = losses.sigmoid_focal(logits, jnp.where(positive[:, None], channels, 0))
            aims = jnp.where(positive[:, None], boxes[truth], anchors)
            off = 1 - giou(_boxes(distances, anchors), aims)
            sides = _distances(anchors, aims)
            near = jnp.minimum(sides[:, :2], sides[:, 2:])
            center = jnp.sqrt(jnp.prod(near / jnp.maximum(sides[:, :2], sides[:, 2:]), -1))
            entropy = sigmoid_binary_cross_entropy(centerness[:, 0], center)
            return (
                losses.summed(focal, inside),
                losses.summed(off, positive),
                losses.summed(entropy, positive),
                positive.sum().astype(jnp.float32),
            )

        *terms, count = jax.vmap(of_picture)(*outputs, anchors, inside, *truths[:3])
        names = ("classification", "box", "centerness")
        return {name: (term, count) for name, term in zip(names, terms, strict=True)}

    def _outputs(self, pyramid: Pyramid) -> tuple[list[Array], list[Array], list[Array]]:
        """Logits, distances and logits of the centerness of each level, [N, A, ...]."""
        logits = [flattened(x, self.num_classes) for x in self.head(self.scores, pyramid)]
        distances, centerness = zip(*self.head(self.regression, pyramid), strict=True)
        return (
            logits,
            [flattened(x, 4) for x in distances],
            [flattened(x, 1) for x in centerness],
        )

    def _anchors(self, pyramid: Pyramid) -> tuple[list[Array], list[Array]]:
        """Of each place a square whose side is the stride of its level."""
        sides = [(self.stride * 2**level,) for level in range(len(pyramid.maps))]
        return anchors_of(pyramid, sides, (1.0,))


def _places(anchors: Array) -> tuple[Array, Array]:
    """The centers f32[A, 2] and the sides f32[A, 1] of the squares of places."""
    return (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:3] - anchors[:, :1]


def _boxes(distances: Array, anchors: Array) -> Array:
    """The boxes f32[A, 4] at these distances, in strides, from the centers of places."""
    center, side = _places(anchors)
    distances = distances * side
    return jnp.concatenate([center - distances[:, :2], center + distances[:, 2:]], -1)


def _distances(anchors: Array, boxes: Array) -> Array:
    """From the centers of places to the sides of boxes, f32[A, 4]."""
    center, _ = _places(anchors)
    return jnp.concatenate([center - boxes[:, :2], boxes[:, 2:] - center], -1)


def _matched(anchors: Array, low: Array, high: Array, boxes: Array, valid: Array) -> tuple:
    """The truth that each place is to find, i32[A], the smallest of several, and whether it has one."""
    center, side = _places(anchors)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    near = jnp.abs(center[:, None] - middle[None]).max(-1) < RADIUS * side
    sides = jnp.concatenate(
        [center[:, None] - boxes[None, :, :2], boxes[None, :, 2:] - center[:, None]], -1
    )
    farthest = sides.max(-1)
    reach = (farthest > (low * side[:, 0])[:, None]) & (farthest < (high * side[:, 0])[:, None])
    found = near & (sides.min(-1) > 0) & reach & valid[None]
    areas = jnp.where(found, area(boxes)[None], jnp.inf)
    return areas.argmin(1).astype(jnp.int32), found.any(1)


@takes_fields_of(Settings)
def build(
    *,
    num_classes: Count = 91,
    width: Count = 256,
    stride: Count = 8,
    **settings: Any,
) -> FCOS:
    """An FCOS for pictures of any size.

    Args:
        num_classes: channels of scores; torchvision's count the background, whose channel is not used.
        width: channels of the pyramid and the heads, a multiple of 32.
        stride: pixels that a distance of 1 stands for on the finest level; each level doubles it.
        **settings: see `building.Settings`.
    """
    return FCOS(
        **shared_parts((8, 16, 32), num_classes, Settings(**settings)),
        fpn=FPN(width, top="convs"),
        scores=ScoreHead(num_classes),
        regression=RegressionHead(),
        stride=stride,
        score=0.2,
        iou=0.6,
    )


def _towers() -> list[tuple[str, str]]:
    """The convolutions, normalizations and ReLUs of a tower are numbered through."""
    return [
        (f"{ours}/tower/{kind}{i + 1}", f"head.{head}_head.conv.{3 * i + at}")
        for ours, head in (("scores", "classification"), ("regression", "regression"))
        for i in range(4)
        for at, kind in enumerate(("conv", "norm"))
    ]


_HEADS = (
    *_towers(),
    ("scores/outputs", "head.classification_head.cls_logits"),
    ("regression/distances", "head.regression_head.bbox_reg"),
    ("regression/centerness", "head.regression_head.bbox_ctrness"),
)
RENAMES = {
    "torchvision": torchvision_rules(3, *_HEADS),
    "torchvision_v1": torchvision_rules(3, *_HEADS, old=True),
}
