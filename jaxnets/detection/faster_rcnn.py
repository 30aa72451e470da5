"""Faster R-CNN and Mask R-CNN on a feature pyramid.

Ren, He, Girshick and Sun 2015, "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal
Networks", arXiv:1506.01497; He, Gkioxari, Dollar and Girshick 2017, "Mask R-CNN", arXiv:1703.06870; Lin
et al. 2017, "Feature Pyramid Networks for Object Detection", arXiv:1612.03144. Version 2 is that of Li
et al. 2021, "Benchmarking Detection Transfer Learning with Vision Transformers", arXiv:2111.11429.

As torchvision has it: RoIAlign is not shifted by half a pixel, and the target of a mask is not rounded.
"""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from optax.losses import sigmoid_binary_cross_entropy

from jaxnets.detection import losses, matching
from jaxnets.detection.boxes import clip, decode, encode, iou
from jaxnets.detection.building import Settings, shared_parts, torchvision_rules
from jaxnets.detection.coco_names import class_names  # noqa: F401  (what public weights score)
from jaxnets.detection.detector import (
    Detector,
    Found,
    Pyramid,
    Truths,
    anchors_of,
    suppressed,
)
from jaxnets.detection.fpn import FPN
from jaxnets.detection.heads import BoxHead, BoxPredictor, MaskHead
from jaxnets.detection.proposals import RATIOS, RPNHead, best_proposals, proposed, rpn_losses
from jaxnets.detection.regions import pyramid_roi_align, roi_align
from jaxnets.dtypes import at_least_float32
from jaxnets.models import published
from jaxnets.models.settings import Count, takes_fields_of
from jaxnets.training.terms import Terms

PAPER = "Ren et al. 2015, arXiv:1506.01497 (masks: He et al. 2017, arXiv:1703.06870)"

_V2 = {"norm": "batch", "version": 2}
VARIANTS = {
    "faster_rcnn": {"norm": "batch"},
    "mask_rcnn": {"norm": "batch", "masks": True},
    "fasterrcnn_resnet50_fpn": {},
    "fasterrcnn_resnet50_fpn_v2": _V2,
    "maskrcnn_resnet50_fpn": {"masks": True},
    "maskrcnn_resnet50_fpn_v2": {**_V2, "masks": True},
}

_V1 = {"library": "torchvision_v1", "settings": {"epsilon": 0.0}}
WEIGHTS = {
    "fasterrcnn_resnet50_fpn": (
        published.torchvision_detector(
            "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", "fasterrcnn_resnet50_fpn", 37.0, **_V1
        ),
    ),
    "fasterrcnn_resnet50_fpn_v2": (
        published.torchvision_detector(
            "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth", "fasterrcnn_resnet50_fpn_v2", 46.7
        ),
    ),
    "maskrcnn_resnet50_fpn": (
        published.torchvision_detector(
            "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", "maskrcnn_resnet50_fpn", 37.9, 34.6, **_V1
        ),
    ),
    "maskrcnn_resnet50_fpn_v2": (
        published.torchvision_detector(
            "maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth", "maskrcnn_resnet50_fpn_v2", 47.4, 41.8
        ),
    ),
}

CODES = (10.0, 10.0, 5.0, 5.0)  # factors of the regression outputs
SHORTEST = 1e-2  # pixels of a side of a detection
POSITIVES = 0.25  # of the regions that are learned from, at most
POOLED, MASK_POOLED = 7, 14  # bins along each side of a region


class FasterRCNN(Detector):
    """A two-stage detector. Further parameters: `rpn`, `box_head`, `box_predictor`, `mask_head`.

    Attributes:
        rpn: see `RPNHead`.
        box_head, box_predictor: see `BoxHead` and `BoxPredictor`.
        mask_head: see `MaskHead`; None for Faster R-CNN.
        anchor_size: side of the smallest anchors, in pixels; each level doubles it.
        proposals: the most of each picture, of a level and in all.
        train_proposals: the same in training.
        samples: regions of a picture that are learned from.
    """

    rpn: nn.Module | None = None
    box_head: nn.Module | None = None
    box_predictor: nn.Module | None = None
    mask_head: nn.Module | None = None
    anchor_size: int = 32
    proposals: int = 1000
    train_proposals: int = 2000
    samples: int = 512

    @property
    def finds_masks(self) -> bool:
        """Whether it finds the pixels of objects beside their boxes."""
        return self.mask_head is not None

    def search(self, pyramid: Pyramid, score: Any, iou: Any, k: int) -> Found:
        boxes, valid = self.propose(pyramid, self.proposals)
        logits, deltas = self.regions(pyramid, boxes, train=False)

        def of_picture(logits, deltas, boxes, valid, size):
            scores = jax.nn.softmax(logits)[:, 1:]
            boxes = clip(decode(deltas[:, 1:], boxes[:, None], CODES), size)
            sides = boxes[..., 2:] - boxes[..., :2]
            allowed = (scores > score) & (sides >= SHORTEST).all(-1) & valid[:, None]
            scores = jnp.where(allowed, scores, -jnp.inf).reshape(-1)
            channels = jnp.broadcast_to(
                jnp.arange(1, logits.shape[1], dtype=jnp.int32)[None], allowed.shape
            )
            return suppressed(boxes.reshape(-1, 4), scores, channels.reshape(-1), size, iou, k)

        boxes, scores, channels, valid = jax.vmap(of_picture)(
            logits, deltas, boxes, valid, pyramid.extent.size
        )
        masks = None
        if self.finds_masks:
            masks = jax.nn.sigmoid(self.region_masks(pyramid, boxes, channels, train=False))
        return Found(boxes, scores, channels, valid, masks)

    def propose(self, pyramid: Pyramid, most: int) -> tuple[Array, Array]:
        """The best proposals of each picture, f32[N, most, 4], and which are there, bool[N, most]."""
        best = partial(best_proposals, most=most)
        return jax.vmap(best)(self._proposed(pyramid), pyramid.extent.size)

    def regions(self, pyramid: Pyramid, boxes: Array, train: bool) -> tuple[Array, Array]:
        """Logits f32[N, R, K] and regression outputs f32[N, R, K, 4] of regions f32[N, R, 4]."""
        found = self.box_head(self._pooled(pyramid, boxes, POOLED), train)
        found = map(at_least_float32, self.box_predictor(found))
        return tuple(x.reshape(*boxes.shape[:2], *x.shape[1:]) for x in found)

    def region_masks(self, pyramid: Pyramid, boxes: Array, channels: Array, train: bool) -> Array:
        """Logits f32[N, R, 28, 28] of the masks of regions f32[N, R, 4], each of one class i32[N, R]."""
        logits = self.mask_head(self._pooled(pyramid, boxes, MASK_POOLED), train)
        own = jnp.take_along_axis(logits, channels.reshape(-1, 1, 1, 1), axis=-1)[..., 0]
        return at_least_float32(own.reshape(*boxes.shape[:2], *own.shape[1:]))

    def losses(
        self, images: Array, sizes: Array | None, truths: Truths, key: Array, train: bool = True
    ) -> Terms:
        """The terms of the loss: of the proposals `objectness` and `rpn_box`, of the regions
        `classification`, `box` and, with masks, `mask`.

        Args:
            images, sizes: as for `detect`.
            truths: what there is to find; labels as users see them.
            key: for the draw of anchors and regions.
            train: whether batch normalization uses the statistics of the batch.
        """
        pyramid = self.pyramid(images, sizes, train)
        found = self._proposed(pyramid)
        rpn_key, region_key = jax.random.split(key)
        keys = jax.random.split(rpn_key, len(images))
        objectness, rpn_box = jax.vmap(rpn_losses)(found, truths.boxes, truths.valid, keys)

        best = partial(best_proposals, most=self.train_proposals)
        boxes, valid = jax.vmap(best)(jax.lax.stop_gradient(found), pyramid.extent.size)
        keys = jax.random.split(region_key, len(images))
        boxes, sampled, matched = jax.vmap(partial(_learned, count=self.samples))(
            boxes, valid, truths.boxes, truths.valid, keys
        )
        positive = sampled & (matched >= 0)
        aims, labels = (
            jnp.take_along_axis(x, matched.reshape(*matched.shape, *[1] * (x.ndim - 2)).clip(0), axis=1)
            for x in (truths.boxes, truths.labels)
        )
        channels = jnp.where(positive, labels - self.first_label, 0)
        logits, deltas = self.regions(pyramid, boxes, train)
        count = sampled.sum(1).astype(jnp.float32)
        entropy = -jnp.take_along_axis(jax.nn.log_softmax(logits), channels[..., None], axis=-1)[..., 0]
        own = jnp.take_along_axis(deltas, channels[..., None, None], axis=2)[:, :, 0]
        anchored = jnp.where(positive[..., None], boxes, jnp.array([0, 0, 1, 1], boxes.dtype))
        aims = jnp.where(positive[..., None], aims, anchored)
        off = losses.smooth_l1(own, encode(aims, anchored, CODES))
        each = jax.vmap(losses.summed)
        terms = {
            "objectness": objectness,
            "rpn_box": rpn_box,
            "classification": (each(entropy, sampled), count),
            "box": (each(off, positive), count),
        }
        if self.finds_masks:
            terms["mask"] = self._mask_loss(pyramid, boxes, positive, channels, matched, truths, train)
        return terms

    def _proposed(self, pyramid: Pyramid) -> Any:
        sizes = [(self.anchor_size * 2**level,) for level in range(len(pyramid.maps))]
        return proposed(self.head(self.rpn, pyramid), anchors_of(pyramid, sizes, RATIOS))

    def _pooled(self, pyramid: Pyramid, boxes: Array, size: int) -> Array:
        """The features [N * R, size, size, C] of regions f32[N, R, 4]."""
        maps = pyramid.maps[:-1]  # the top is for proposals alone
        parts = jnp.stack([pyramid.extent.of_map(own.shape[1:3]) for own in maps], axis=1)
        scales = [2.0**-level for level in range(2, 2 + len(maps))]
        pooled = jax.vmap(
            lambda maps, boxes, parts: pyramid_roi_align(
                maps, boxes, size, scales, extents=parts, canonical_size=7 * self.anchor_size
            )
        )(maps, boxes, parts)
        return pooled.reshape(-1, *pooled.shape[2:]).astype(maps[0].dtype)

    def _mask_loss(self, pyramid, boxes, positive, channels, matched, truths, train):
        """Binary cross entropy of the masks of the positive regions, of which there are few."""
        most = min(int(self.samples * POSITIVES), positive.shape[1])
        index = jax.vmap(lambda own: jnp.flatnonzero(own, size=most, fill_value=0))(positive)
        there = jnp.arange(most)[None] < positive.sum(1)[:, None]
        boxes = jnp.take_along_axis(boxes, index[..., None], axis=1)
        channels, matched = (jnp.take_along_axis(x, index, axis=1) for x in (channels, matched))
        logits = self.region_masks(pyramid, boxes, channels, train)

        def aim(masks, boxes, matched, size):
            def of_region(region):
                box, truth = region
                mask = masks[truth].astype(boxes.dtype)[..., None]
                aims = roi_align(mask, box[None], side, 1.0, sampling_ratio=0, extent=size)
                return aims[0, ..., 0]

            return jax.lax.map(of_region, (boxes, matched.clip(0)))

        side = logits.shape[-1]
        aims = jax.vmap(aim)(truths.masks, boxes, matched, pyramid.extent.size)
        entropy = sigmoid_binary_cross_entropy(logits, aims).mean((2, 3))
        return jax.vmap(losses.summed)(entropy, there), there.sum(1).astype(jnp.float32)


def _learned(
    proposals: Array, valid: Array, boxes: Array, there: Array, key: Array, count: int
) -> tuple:
    """The regions of a picture that are learned from: proposals, and what there is to find.

    Returns:
        f32[R, 4], which are there, bool[R], and the truth of each, i32[R], or -1; R is `count` at most.
    """
    regions, valid = jnp.concatenate([proposals, boxes]), jnp.concatenate([valid, there])
    matched = matching.match(iou(boxes, regions), 0.5, 0.5, valid=there)
    positive, negative = matching.sample(
        key, (matched >= 0) & valid, (matched < 0) & valid, count, POSITIVES
    )
    sampled = positive | negative
    most = min(count, len(regions))
    index = jnp.flatnonzero(sampled, size=most, fill_value=0)
    sampled = jnp.arange(most) < sampled.sum()
    return regions[index], sampled, jnp.where(sampled, matched[index], matching.BELOW)


@takes_fields_of(Settings)
def build(
    *,
    num_classes: Count = 91,
    version: Literal[1, 2] = 1,
    masks: bool = False,
    width: Count = 256,
    hidden: Count = 1024,
    anchor_size: Count = 32,
    proposals: Count = 1000,
    train_proposals: Count = 2000,
    samples: Count = 512,
    **settings: Any,
) -> FasterRCNN:
    """A Faster R-CNN, or with masks a Mask R-CNN, for pictures of any size.

    Args:
        num_classes: channels of scores, the background among them.
        version: 2 for normalization in the pyramid and the heads, and deeper heads.
        masks: whether there is a mask head.
        width: channels of the pyramid.
        hidden: units of the dense layers.
        anchor_size: side of the smallest anchors, in pixels; regions of 7 times it are read from the
            third level.
        proposals, train_proposals, samples: see `FasterRCNN`.
        **settings: see `building.Settings`.
    """
    second = version == 2
    return FasterRCNN(
        **shared_parts((4, 8, 16, 32), num_classes, Settings(**settings)),
        fpn=FPN(width, norm="batch" if second else None),
        rpn=RPNHead(depth=2 if second else 1),
        box_head=BoxHead(hidden, convs=4 if second else 0),
        box_predictor=BoxPredictor(num_classes),
        mask_head=MaskHead(num_classes, "batch" if second else None) if masks else None,
        anchor_size=anchor_size,
        proposals=proposals,
        train_proposals=train_proposals,
        samples=samples,
    )


_FIRST_DENSE = "(h7 w7 c) o -> o (c h7 w7)"


def _heads(old: bool) -> tuple[tuple[str, ...], ...]:
    rpn = "rpn.head.conv" if old else "rpn.head.conv.{i-1}.0"
    mask = "roi_heads.mask_head.mask_fcn{i}" if old else "roi_heads.mask_head.{i-1}.0"
    return (
        ("rpn/tower/conv{i}", rpn),
        ("rpn/objectness", "rpn.head.cls_logits"),
        ("rpn/deltas", "rpn.head.bbox_pred"),
        ("box_head/tower/conv{i}", "roi_heads.box_head.{i-1}.0"),
        ("box_head/tower/norm{i}", "roi_heads.box_head.{i-1}.1"),
        ("box_predictor/{layer}", "roi_heads.box_predictor.{layer}"),
        ("mask_head/tower/conv{i}", mask),
        ("mask_head/tower/norm{i}", "roi_heads.mask_head.{i-1}.1"),
        ("mask_head/conv5_mask", "roi_heads.mask_predictor.conv5_mask", "h w i o -> i o -h -w"),
        ("mask_head/mask_fcn_logits", "roi_heads.mask_predictor.mask_fcn_logits"),
    )


def _rules(model: FasterRCNN, old: bool = False) -> tuple:
    # The dense layer behind four convolutions is the sixth of their sequence.
    first = "5" if model.box_head.convs else "fc6"
    dense = (
        ("box_head/fc6", f"roi_heads.box_head.{first}", _FIRST_DENSE),
        ("box_head/fc7", "roi_heads.box_head.fc7"),
    )
    return torchvision_rules(4, *_heads(old), *dense, old=old)


RENAMES = {"torchvision": _rules, "torchvision_v1": partial(_rules, old=True)}
