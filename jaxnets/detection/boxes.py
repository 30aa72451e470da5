"""Boxes: overlaps, regression targets and formats.

A box is ``(x1, y1, x2, y2)`` in pixels unless said otherwise; sets of boxes are arrays [..., N, 4].
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxnets.errors import unknown_name

MOST_GROWTH = math.log(1000 / 16)  # of a side by regression; Ren et al. 2015's code

_FORMATS = ("xyxy", "xywh", "cxcywh")


def area(boxes: jax.Array) -> jax.Array:
    """The area f[..., N] of boxes f[..., N, 4]."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou(boxes: jax.Array, others: jax.Array) -> jax.Array:
    """Intersection over union of every box with every other.

    Args:
        boxes: f[N, 4].
        others: f[M, 4].

    Returns:
        f[N, M]; 0 where both boxes are empty.

    Example:

        >>> iou(jnp.array([[0.0, 0.0, 2.0, 2.0]]), jnp.array([[1.0, 0.0, 3.0, 2.0]]))
        Array([[0.33333334]], dtype=float32)
    """
    inter, union = _inter_and_union(boxes[:, None], others[None])
    return _ratio(inter, union)


def giou(boxes: jax.Array, others: jax.Array) -> jax.Array:
    """Generalized IoU of pairs of boxes (Rezatofighi et al. 2019, arXiv:1902.09630, algorithm 1).

    Args:
        boxes: f[..., 4].
        others: f[..., 4].

    Returns:
        f[...], from -1 to 1: the IoU minus the share of the smallest enclosing box that neither
        covers.
    """
    inter, union = _inter_and_union(boxes, others)
    low = jnp.minimum(boxes[..., :2], others[..., :2])
    high = jnp.maximum(boxes[..., 2:], others[..., 2:])
    around = jnp.prod(jnp.maximum(high - low, 0), -1)
    return _ratio(inter, union) - _ratio(around - union, around)


def encode(
    boxes: jax.Array, anchors: jax.Array, weights: tuple[float, float, float, float] = (1, 1, 1, 1)
) -> jax.Array:
    """Regression targets of boxes relative to anchors (Girshick et al. 2014, appendix C).

    Args:
        boxes: f[..., 4], with sides above 0.
        anchors: f[..., 4], with sides above 0.
        weights: factors of dx, dy, dw and dh.

    Returns:
        f[..., 4]: the shift of the center in sides of the anchor, and the log of the ratio of sides.
    """
    (x, y, w, h), (ax, ay, aw, ah) = _centers(boxes), _centers(anchors)
    deltas = ((x - ax) / aw, (y - ay) / ah, jnp.log(w / aw), jnp.log(h / ah))
    return jnp.stack(deltas, -1) * _last_axis(weights, boxes)


def decode(
    deltas: jax.Array, anchors: jax.Array, weights: tuple[float, float, float, float] = (1, 1, 1, 1)
) -> jax.Array:
    """Boxes from regression outputs: the inverse of `encode`.

    Args:
        deltas: f[..., 4]. dw and dh are clamped from above, so that exp cannot overflow.
        anchors: f[..., 4].
        weights: as for `encode`.

    Returns:
        f[..., 4].
    """
    ax, ay, aw, ah = _centers(anchors)
    dx, dy, dw, dh = jnp.moveaxis(deltas / _last_axis(weights, deltas), -1, 0)
    x, y = dx * aw + ax, dy * ah + ay
    half_w = 0.5 * jnp.exp(jnp.minimum(dw, MOST_GROWTH)) * aw
    half_h = 0.5 * jnp.exp(jnp.minimum(dh, MOST_GROWTH)) * ah
    return jnp.stack([x - half_w, y - half_h, x + half_w, y + half_h], -1)


def clip(boxes: jax.Array, size: tuple[int, int] | jax.Array) -> jax.Array:
    """Boxes f[..., 4] cut at the borders of a picture of `size` (height, width)."""
    height, width = size[0], size[1]
    return jnp.clip(boxes, 0, _last_axis([width, height, width, height], boxes))


def convert(boxes: jax.Array, source: str, target: str) -> jax.Array:
    """Boxes [..., 4] from one format to another.

    Args:
        boxes: in the format `source`.
        source: "xyxy" (corners), "xywh" (corner and sides) or "cxcywh" (center and sides).
        target: likewise.

    Raises:
        InputError: an unknown format.

    Example:

        >>> convert(jnp.array([10.0, 20.0, 30.0, 40.0]), "xywh", "xyxy")
        Array([10., 20., 40., 60.], dtype=float32)
    """
    for name in (source, target):
        if name not in _FORMATS:
            raise unknown_name("format of boxes", name, _FORMATS)
    first, second = boxes[..., :2], boxes[..., 2:]
    if source == "xyxy":
        low, sides = first, second - first
    else:
        low, sides = first if source == "xywh" else first - second / 2, second
    if target == "xyxy":
        return jnp.concatenate([low, low + sides], -1)
    return jnp.concatenate([low if target == "xywh" else low + sides / 2, sides], -1)


def _last_axis(values: Sequence[float | jax.Array], boxes: jax.Array) -> jax.Array:
    """Four values for the last axis of boxes f[..., 4], in their type and rank."""
    row = jnp.stack([jnp.asarray(value, boxes.dtype) for value in values])
    return row.reshape(*[1] * (boxes.ndim - 1), 4)


def _centers(boxes: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    x1, y1, x2, y2 = jnp.moveaxis(boxes, -1, 0)
    return x1 + 0.5 * (x2 - x1), y1 + 0.5 * (y2 - y1), x2 - x1, y2 - y1


def _inter_and_union(boxes: jax.Array, others: jax.Array) -> tuple[jax.Array, jax.Array]:
    low = jnp.maximum(boxes[..., :2], others[..., :2])
    high = jnp.minimum(boxes[..., 2:], others[..., 2:])
    sides = jnp.maximum(high - low, 0)
    inter = sides[..., 0] * sides[..., 1]
    return inter, area(boxes) + area(others) - inter


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    """part / whole, and 0 of nothing, with a gradient that is finite there."""
    some = whole > 0
    return jnp.where(some, part / jnp.where(some, whole, 1), 0)
