"""Augmentations of pictures with objects: scale jitter, and crops that keep some of the objects.

Both show the moved picture in the upper left of the image and set the example's `size`. All shapes stay.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxnets.data import checks
from jaxnets.data import example as examples
from jaxnets.data.example import Augmentation, Example
from jaxnets.data.geometry import whole_number, zoom_in
from jaxnets.data.movement import move, size_of
from jaxnets.data.resampling import Size

_ROUNDS, _TRIALS = 8, 40  # least overlaps that are drawn until a crop is found, and crops for each


def scale_jitter(scale: tuple[float, float] = (0.1, 2.0)) -> Augmentation:
    """Resizes the picture by a random factor, and crops what does not fit the image.

    Large scale jitter (Ghiasi et al. 2021, "Simple Copy-Paste", arXiv:2012.07177, section 3), as
    torchvision's ScaleJitter and then FixedSizeCrop: with a factor of 1 the whole picture just fits the
    image. The place of the crop is uniform; a picture that is smaller lies in the upper left.

    Args:
        scale: minimum and maximum factor, which is uniform.

    Raises:
        InputError: factors that are not positive, or in the wrong order.
    """
    checks.interval("scale", scale, 1e-3)

    def augment(key: jax.Array, example: Example) -> Example:
        examples.check(example)
        draws = jax.random.uniform(key, (3,), jnp.float32)
        size, canvas = size_of(example), _canvas(example)
        sides = _stacked(size)
        factor = scale[0] + (scale[1] - scale[0]) * draws[0]
        scaled = jnp.maximum(jnp.floor(sides * (_largest(sides, canvas) * factor)), 1)
        shown = jnp.minimum(scaled, canvas)
        left_out = (scaled - shown).astype(jnp.int32)
        start = whole_number(draws[1:], left_out + 1).astype(jnp.float32)
        back = sides / scaled  # pixels of the picture per pixel of the result
        return move(example, zoom_in(start * back, shown * back, size, _whole(shown)))

    return augment


def iou_crop(
    scale: tuple[float, float] = (0.3, 1.0),
    ratio: tuple[float, float] = (0.5, 2.0),
    overlaps: Sequence[float] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
) -> Augmentation:
    """Crops the picture so that an object is in it to some degree (SSD, Liu et al. 2016, section 2.2).

    As torchvision's RandomIoUCrop: one of `overlaps` is drawn, and up to 40 crops until one holds the
    center of an object whose IoU with the crop is at least that; if there is none, another overlap is
    drawn. An overlap of 1 stands for the whole picture. Objects whose center is outside are removed. The
    crop is then resized to the largest size that fits the image. Departure: after eight overlaps, or
    without objects, the picture stays whole.

    Args:
        scale: minimum and maximum of the crop's height and width, each a fraction of the picture's.
        ratio: minimum and maximum width / height of the crop.
        overlaps: least IoUs of an object and the crop.

    Raises:
        InputError: a parameter out of range.
    """
    checks.interval("scale", scale, 1e-3, 1)
    checks.interval("ratio", ratio, 1e-3)
    for overlap in overlaps:
        checks.within("overlaps", overlap, 0, 1)

    def augment(key: jax.Array, example: Example) -> Example:
        examples.check(example)
        size, canvas = size_of(example), _canvas(example)
        sides = _stacked(size)
        boxes = example.get("box", jnp.zeros((0, 4), jnp.float32))
        counted = example.get("valid", jnp.ones(len(boxes), bool))
        counted &= ~example.get("crowd", jnp.zeros(len(boxes), bool))
        crops, whole, fits = _drawn(key, sides, boxes, counted, scale, ratio, overlaps)

        found = whole | fits.any(1)
        first = jnp.argmax(found)
        crop = crops[first, jnp.argmax(fits[first])]
        crop = jnp.where(found.any() & ~whole[first], crop, jnp.concatenate([0 * sides, sides]))
        start, extent = crop[:2], crop[2:] - crop[:2]
        new = jnp.clip(jnp.round(extent * _largest(extent, canvas)), 1, canvas)
        moved = move(example, zoom_in(start, extent, size, _whole(new)))
        if "valid" in moved and "box" in moved:
            moved["valid"] &= _holds(crop, boxes)
            moved["box"] = jnp.where(moved["valid"][:, None], moved["box"], 0)
        return moved

    return augment


def _drawn(
    key: jax.Array,
    sides: jax.Array,
    boxes: jax.Array,
    counted: jax.Array,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    overlaps: Sequence[float],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Crops f32[R, T, 4] (top, left, bottom, right), rounds without a crop bool[R], crops that fit."""
    choice_key, crop_key = jax.random.split(key)
    least = jax.random.choice(choice_key, jnp.array(overlaps, jnp.float32), (_ROUNDS,))
    draws = jax.random.uniform(crop_key, (2, _ROUNDS, _TRIALS, 2), jnp.float32)
    sides = sides[None, None]
    extent = jnp.floor(sides * (scale[0] + (scale[1] - scale[0]) * draws[0]))
    start = jnp.floor((sides - extent) * draws[1])
    crops = jnp.concatenate([start, start + extent], -1)
    height, width = extent[..., 0], extent[..., 1]
    fits = (width >= ratio[0] * height) & (width <= ratio[1] * height) & (width > 0) & (height > 0)

    held = _holds(crops, boxes) & counted[None, None]
    ends = boxes[None, None, :, 3:1:-1], boxes[None, None, :, 1::-1]
    shared = jnp.minimum(crops[..., None, 2:], ends[0]) - jnp.maximum(crops[..., None, :2], ends[1])
    inter = jnp.prod(jnp.maximum(shared, 0), -1)
    area = jnp.prod(boxes[:, 2:] - boxes[:, :2], -1)
    union = (height * width)[..., None] + area[None, None] - inter
    meets = held & (inter >= least[:, None, None] * union)
    return crops, least >= 1, fits & meets.any(-1)


def _holds(crops: jax.Array, boxes: jax.Array) -> jax.Array:
    """Whether crops f32[..., 4] hold the centers of boxes f32[M, 4], bool[..., M]."""
    middle = (boxes[:, 1::-1] + boxes[:, 3:1:-1]) / 2
    middle = middle.reshape((1,) * (crops.ndim - 1) + middle.shape)
    return ((crops[..., None, :2] < middle) & (middle < crops[..., None, 2:])).all(-1)


def _canvas(example: Example) -> jax.Array:
    return jnp.array(example["image"].shape[:2], jnp.float32)


def _stacked(size: Size) -> jax.Array:
    return jnp.stack([jnp.float32(side) for side in size])


def _largest(sides: jax.Array, canvas: jax.Array) -> jax.Array:
    """The largest factor at which a picture fits."""
    return jnp.min(canvas / sides)


def _whole(sides: jax.Array) -> Size:
    height, width = sides.astype(jnp.int32)
    return height, width
