"""The region proposal network. Ren, He, Girshick and Sun 2015, "Faster R-CNN", arXiv:1506.01497,
section 3.1, on a feature pyramid (Lin et al. 2017, arXiv:1612.03144, section 4.1), as torchvision's."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax
from optax.losses import sigmoid_binary_cross_entropy

from jaxnets.detection import losses, matching
from jaxnets.detection.boxes import clip, decode, encode, iou
from jaxnets.detection.detector import flattened
from jaxnets.detection.heads import NORMAL, ConvTower
from jaxnets.detection.suppression import nms
from jaxnets.layers import Conv

RATIOS = (0.5, 1.0, 2.0)
OVERLAP = 0.7  # above which the worse of two proposals of a level is dropped
SHORTEST = 1e-3  # pixels of a side of a proposal
SAMPLES, POSITIVES = 256, 0.5  # anchors of a picture that are learned from, and most that are positive


class RPNHead(nn.Module):
    """Objectness and regression outputs of three anchors at each place.

    Attributes:
        depth: of the 3x3 convolutions before them.
    """

    depth: int = 1

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Maps [N, H, W, C] to logits [N, H, W, 3] and regression outputs [N, H, W, 3 * 4]."""
        x = ConvTower(self.depth, name="tower")(x)
        outputs = [(len(RATIOS), "objectness"), (4 * len(RATIOS), "deltas")]
        return tuple(Conv(width, 1, kernel_init=NORMAL, name=name)(x) for width, name in outputs)


class Proposed(NamedTuple):
    """The outputs of the head for a picture, by level.

    Attributes:
        logits: f32[A] of each level.
        deltas: f32[A, 4] of each level.
        anchors: f32[A, 4] of each level.
        inside: bool[A] of each level, which belong to the picture.
    """

    logits: list[Array]
    deltas: list[Array]
    anchors: list[Array]
    inside: list[Array]


def proposed(outputs: list[tuple[Array, Array]], anchors: tuple[list[Array], list[Array]]) -> Proposed:
    """The outputs of the head for a batch, in the order of the anchors."""
    logits = [flattened(logits, 1)[..., 0] for logits, _ in outputs]
    return Proposed(logits, [flattened(deltas, 4) for _, deltas in outputs], *anchors)


def best_proposals(found: Proposed, size: Array, most: int) -> tuple[Array, Array]:
    """The proposals of a picture, best first.

    Args:
        found: of the picture.
        size: its (height, width), i32[2].
        most: of each level, by score, and then in all, after non-maximum suppression within levels.

    Returns:
        f32[most, 4], and which of them are there, bool[most].
    """
    parts = []
    for level, (logits, deltas, anchors, inside) in enumerate(zip(*found, strict=True)):
        top, index = lax.top_k(jnp.where(inside, logits, -jnp.inf), min(most, len(logits)))
        parts.append((decode(deltas[index], anchors[index]), top, jnp.full_like(index, level)))
    boxes, logits, levels = map(jnp.concatenate, zip(*parts, strict=True))
    boxes = clip(boxes, size)
    valid = jnp.isfinite(logits) & (boxes[:, 2:] - boxes[:, :2] >= SHORTEST).all(1)
    scores = jax.nn.sigmoid(logits)
    index, valid = nms(boxes, scores, OVERLAP, most, valid=valid, labels=levels)
    return jnp.where(valid[:, None], boxes[index], 0), valid


def rpn_losses(found: Proposed, boxes: Array, valid: Array, key: Array) -> tuple[Any, Any]:
    """The losses of the network for a picture (equation 1).

    Args:
        found: of the picture.
        boxes: f32[M, 4], what there is to find.
        valid: bool[M], which of them are there.
        key: for the draw of anchors.

    Returns:
        The numerator and the denominator of the objectness and of the regression.
    """
    logits, deltas, anchors, inside = map(jnp.concatenate, found)
    overlaps = jnp.where(inside[None], iou(boxes, anchors), -1)
    matched = matching.match(overlaps, 0.3, 0.7, valid=valid, keep_best=True)
    positive, negative = (matched >= 0) & inside, (matched == matching.BELOW) & inside
    positive, negative = matching.sample(key, positive, negative, SAMPLES, POSITIVES)
    sampled = positive | negative
    count = sampled.sum().astype(jnp.float32)
    entropy = sigmoid_binary_cross_entropy(logits, positive.astype(logits.dtype))
    aims = jnp.where(positive[:, None], boxes[jnp.maximum(matched, 0)], anchors)
    off = losses.smooth_l1(deltas, encode(aims, anchors))
    return (losses.summed(entropy, sampled), count), (losses.summed(off, positive), count)
