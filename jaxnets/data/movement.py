"""Movements of pixels: one description that moves an image together with its boxes, masks and label map.

A geometric augmentation draws a `Movement`, and `move` applies it to all entries of an example.
Points are (down, right), in pixels from the center of the picture, which is that of the image unless an
example's `size` says that its picture is only the upper left of it. The center of a pixel is at
index - (size - 1) / 2, and a box coordinate at coordinate - size / 2, which is consistent.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.data import example as examples
from jaxnets.data.example import Augmentation, Example
from jaxnets.data.resampling import Size, cut, cut_image, nearest, warp

Points = tuple[jax.Array, jax.Array]

LEAST_SIDE = 1.0
"""An object whose moved box is less than this many pixels wide or high is removed."""

_EDGE_POINTS = 16  # points on each edge of a box; straight edges need only corners, a lens bends them
_HALVINGS = 26  # bisection steps; more are beyond the precision of float32


class Movement(NamedTuple):
    """A mapping of pixels, as two functions ``(rows, columns) -> (rows, columns)``.

    Attributes:
        back: maps a point of the moved picture to the point of the picture that is shown there.
        forth: its inverse, maps a point of the picture to its position in the moved picture.
        resample: moves an image f32[H, W, C], if something does it better than `warp`: a translation
            by whole pixels is a copy, and a resize weights the pixels at the edges correctly. What it
            leaves outside the moved picture is made black.
        size: (height, width) of the moved picture in the upper left of the image; None if it stays.
    """

    back: Callable[[jax.Array, jax.Array], Points]
    forth: Callable[[jax.Array, jax.Array], Points]
    resample: Callable[[jax.Array], jax.Array] | None = None
    size: Size | None = None


def moving(draw: Callable[[jax.Array, Any, Any], Movement]) -> Augmentation:
    """Makes an augmentation from a function that draws a movement.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> upside_down = moving(lambda key, height, width: axis_aligned((-1, 1), (0, 0)))
        >>> example = {"image": jnp.zeros((4, 6, 1)), "box": jnp.array([[1.0, 0.0, 3.0, 1.5]])}
        >>> upside_down(jax.random.key(0), example)["box"].tolist()
        [[1.0, 2.5, 3.0, 4.0]]

    Args:
        draw: ``draw(key, height, width) -> Movement`` for a picture of this size: two numbers or, of an
            example with a `size`, two scalars i32[].

    Returns:
        The augmentation ``augment(key, example) -> example``, which raises `InputError` if its
        argument is not an example.
    """

    def augment(key: jax.Array, example: Example) -> Example:
        examples.check(example)
        return move(example, draw(key, *size_of(example)))

    return augment


def size_of(example: Example) -> Size:
    """The (height, width) of an example's picture: its `size`, or that of the whole image."""
    if "size" in example:
        return example["size"][0], example["size"][1]
    return example["image"].shape[:2]


def move(example: Example, movement: Movement) -> Example:
    """Applies a movement to all entries of an example.

    The image is resampled bilinearly and filled with black. Masks and label maps are resampled to the
    nearest pixel and filled with False and `IGNORE`. Boxes become the boxes of the moved masks or,
    without masks, the bounding boxes of the moved boxes, clipped to the picture. If a box is then less
    than `LEAST_SIDE` wide or high, it becomes zeros and its object is not `valid`.

    Args:
        example: as in `jaxnets.data.example`. Entries without a position in the image are unchanged.
        movement: the movement of its pixels.

    Returns:
        The moved example, with `valid` if it has boxes or masks, and `size` if the movement has one.
    """
    image, size = example["image"], size_of(example)
    shape, new = image.shape[:2], size if movement.size is None else movement.size
    moved = {**example, "image": move_image(image, movement, size)}
    if movement.size is not None:
        moved["size"] = jnp.stack([jnp.asarray(side, jnp.int32) for side in new])
    places = movement.back(*centers(shape, new))

    def planes(name: str, fill: int) -> jax.Array:
        return cut(nearest(example[name], *places, size, fill), new, fill)

    if "segmentation" in example:
        moved["segmentation"] = planes("segmentation", examples.IGNORE)
    if "mask" in example:
        moved["mask"] = planes("mask", 0)
        box = boxes_of_masks(moved["mask"])
    elif "box" in example:
        box = move_boxes(example["box"], movement, size)
    else:
        return moved
    valid = ((box[:, 2:] - box[:, :2]) >= LEAST_SIDE).all(axis=1)
    if "valid" in example:
        valid &= example["valid"]
    moved["valid"] = valid
    if "box" in example:
        moved["box"] = jnp.where(valid[:, None], box, 0)
    return moved


def move_image(image: jax.Array, movement: Movement, size: Size | None = None) -> jax.Array:
    """Applies a movement to an image f32[H, W, C] in [0, 1], and fills with black.

    Args:
        image: the image.
        movement: the movement of its picture's pixels.
        size: (height, width) of the picture; None for the whole image.
    """
    shape = image.shape[:2]
    size = shape if size is None else size
    new = size if movement.size is None else movement.size
    if movement.resample is not None:
        found = movement.resample(image)
    else:
        found = warp(image, *movement.back(*centers(shape, new)), size)
    return cut_image(found, new)


def move_boxes(box: jax.Array, movement: Movement, size: Size) -> jax.Array:
    """The bounding boxes of moved boxes, clipped to the moved picture.

    Args:
        box: f32[M, 4], in pixels: left, top, right, bottom.
        movement: the movement of the pixels.
        size: (height, width) of the picture, in pixels.

    Returns:
        f32[M, 4]. Boxes outside of the picture have a side of length 0.
    """
    height, width = map(jnp.float32, size)
    new_height, new_width = map(jnp.float32, size if movement.size is None else movement.size)
    # Points around a box, as fractions of its height and width.
    share = np.arange(_EDGE_POINTS, dtype=np.float32) / _EDGE_POINTS
    zero, one = np.zeros_like(share), np.ones_like(share)
    down = np.concatenate([zero, share, one, 1 - share])[None]
    across = np.concatenate([share, one, 1 - share, zero])[None]
    left, top, right, bottom = (side[:, None] for side in box.astype(jnp.float32).T)
    # Interpolated as weighted means, which are exact at the corners.
    rows, columns = movement.forth(
        top * (1 - down) + bottom * down - height / 2,
        left * (1 - across) + right * across - width / 2,
    )
    rows = jnp.clip(rows + new_height / 2, 0, new_height)
    columns = jnp.clip(columns + new_width / 2, 0, new_width)
    return jnp.stack([columns.min(1), rows.min(1), columns.max(1), rows.max(1)], axis=1)


def boxes_of_masks(mask: jax.Array) -> jax.Array:
    """The bounding boxes of masks.

    Args:
        mask: bool[M, H, W], or float in [0, 1], where 0.5 and above belongs to the object.

    Returns:
        f32[M, 4], in pixels: left, top, right, bottom, the last two exclusive; zeros for an empty mask.
    """
    mask = mask if mask.dtype == bool else mask >= 0.5

    def ends(taken):
        return jnp.argmax(taken, axis=1), taken.shape[1] - jnp.argmax(taken[:, ::-1], axis=1)

    (top, bottom), (left, right) = ends(mask.any(axis=2)), ends(mask.any(axis=1))
    box = jnp.stack([left, top, right, bottom], axis=1).astype(jnp.float32)
    return jnp.where(mask.any(axis=(1, 2))[:, None], box, 0)


def axis_aligned(
    scale: tuple[jax.Array | float, jax.Array | float],
    offset: tuple[jax.Array | float, jax.Array | float],
    resample: Callable[[jax.Array], jax.Array] | None = None,
    size: Size | None = None,
) -> Movement:
    """The movement of a flip, crop, resize or translation, which treats each axis separately.

    Args:
        scale: (down, right); a point p of the moved image shows the point ``scale * p + offset``, so
            values below 1 enlarge and -1 flips.
        offset: (down, right), in pixels.
        resample: as in `Movement`.
        size: as in `Movement`.
    """
    return Movement(
        back=lambda rows, columns: (rows * scale[0] + offset[0], columns * scale[1] + offset[1]),
        forth=lambda rows, columns: ((rows - offset[0]) / scale[0], (columns - offset[1]) / scale[1]),
        resample=resample,
        size=size,
    )


def affine(
    *,
    degrees: jax.Array | float = 0.0,
    translation: jax.Array | tuple[float, float] = (0.0, 0.0),
    shear: jax.Array | float = 0.0,
    stretch: jax.Array | tuple[float, float] = (1.0, 1.0),
) -> Movement:
    """Stretches, shears, rotates and translates, in this order, about the center of the image.

    Args:
        degrees: angle of the rotation, counterclockwise as seen in the image.
        translation: (down, right), in pixels.
        shear: slant of vertical lines, in degrees; a positive angle moves points below the center to
            the right.
        stretch: (vertical, horizontal) factors; above 1 to enlarge.
    """
    turn = jnp.deg2rad(jnp.asarray(degrees, jnp.float32))
    cosine, sine = jnp.cos(turn), jnp.sin(turn)
    slant = jnp.tan(jnp.deg2rad(jnp.asarray(shear, jnp.float32)))

    # Written out instead of a 3x3 matrix times all pixels, which jaxlib 0.10.2 can miscompile on CPU.
    def back(rows, columns):
        rows, columns = rows - translation[0], columns - translation[1]
        rows, columns = sine * columns + cosine * rows, cosine * columns - sine * rows
        columns = columns - slant * rows
        return rows / stretch[0], columns / stretch[1]

    def forth(rows, columns):
        rows, columns = rows * stretch[0], columns * stretch[1]
        columns = columns + slant * rows
        rows, columns = cosine * rows - sine * columns, sine * rows + cosine * columns
        return rows + translation[0], columns + translation[1]

    return Movement(back, forth)


def lens(strength: jax.Array | float, height: jax.Array | int, width: jax.Array | int) -> Movement:
    """Radial lens distortion, which moves points from radius r (1 + strength r^2) to radius r.

    The first term of Brown's model ("Close-range camera calibration", 1971).

    Args:
        strength: from -1/3 to 1/3; positive for barrel distortion, which pulls in the corners and
            leaves them black, negative for pincushion distortion. The radius is 1 at the corners of
            the image.
        height: height of the image, in pixels.
        width: width of the image, in pixels.
    """
    height, width = jnp.float32(height), jnp.float32(width)
    corner = jnp.maximum(((height - 1) ** 2 + (width - 1) ** 2) / 4, 1)

    def back(rows, columns):
        factor = 1 + strength * (rows**2 + columns**2) / corner
        return rows * factor, columns * factor

    def forth(rows, columns):
        wanted = jnp.sqrt((rows**2 + columns**2) / corner)

        def halve(_, bounds):
            low, high = bounds
            middle = (low + high) / 2
            short = middle * (1 + strength * middle**2) < wanted
            return jnp.where(short, middle, low), jnp.where(short, high, middle)

        bounds = jnp.zeros_like(wanted), jnp.ones_like(wanted)
        radius, _ = jax.lax.fori_loop(0, _HALVINGS, halve, bounds)
        # Beyond the corners nothing is visible, and a pincushion has no inverse: extrapolate linearly.
        radius = jnp.where(wanted > 1 + strength, wanted / (1 + strength), radius)
        factor = jnp.where(wanted > 0, radius / jnp.where(wanted > 0, wanted, 1), 1)
        return rows * factor, columns * factor

    return Movement(back, forth)


def centers(shape: tuple[int, int], size: Size) -> Points:
    """The centers of an image's pixels, f32[H, W] each, as seen from the center of its picture."""
    rows, columns = (
        jnp.arange(side, dtype=jnp.float32) - (jnp.float32(own) - 1) / 2
        for side, own in zip(shape, size, strict=True)
    )
    return jnp.meshgrid(rows, columns, indexing="ij")
