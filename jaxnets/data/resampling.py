"""Reading pictures at other places than their pixels.

A picture fills the upper left of its image, and the image is black elsewhere. Its size is two numbers,
or two scalars i32[] that are known only when the program runs.
"""

import jax
import jax.numpy as jnp

Size = tuple[jax.Array | int, jax.Array | int]


def inside(size: Size, shape: tuple[int, int]) -> jax.Array:
    """Which pixels of an image of this shape are of a picture of (height, width), bool[H, W]."""
    rows, columns = (jnp.arange(side, dtype=jnp.int32) for side in shape)
    return (rows < size[0])[:, None] & (columns < size[1])[None]


def cut(planes: jax.Array, size: Size, fill: int) -> jax.Array:
    """Planes [..., H, W] with `fill` wherever there is no picture of (height, width)."""
    shape = planes.shape[-2:]
    if fills(size, shape):
        return planes
    return jnp.where(inside(size, shape), planes, jnp.asarray(fill, planes.dtype))


def cut_image(image: jax.Array, size: Size) -> jax.Array:
    """An image [H, W, C] that is black around its picture of (height, width)."""
    shape = image.shape[:2]
    return image if fills(size, shape) else jnp.where(inside(size, shape)[..., None], image, 0)


def surrounded(image: jax.Array, size: Size) -> jax.Array:
    """An image [H, W, C] with the mean of each channel of its picture around the picture."""
    count = jnp.float32(size[0]) * jnp.float32(size[1])
    mean = image.sum((0, 1), keepdims=True) / jnp.maximum(count, 1).astype(image.dtype)
    return jnp.where(inside(size, image.shape[:2])[..., None], image, mean)


def fills(size: Size, shape: tuple[int, int]) -> bool:
    """Whether it is known, before the program runs, that a picture fills its image."""
    return all(isinstance(side, int) for side in size) and tuple(size) == tuple(shape)


def zoomed(image: jax.Array, zoom: jax.Array, start: jax.Array, size: Size) -> jax.Array:
    """Resizes a picture and cuts off what lies above and to the left of `start`, antialiased.

    The edges read what is beside them in the picture, as Pillow's ``resize(box=...)``; what is around
    it has no weight.

    Args:
        image: f32[H, W, C] in [0, 1].
        zoom: f32[2], factors of the height and the width, above 1 to enlarge.
        start: f32[2], row and column of the picture that come to the upper left.
        size: (height, width) of the picture.

    Returns:
        f32[H, W, C].
    """

    def scaled(planes):
        return jax.image.scale_and_translate(planes, planes.shape, (0, 1), zoom, -zoom * start, "linear")

    if fills(size, image.shape[:2]):
        return jnp.clip(scaled(image), 0, 1)
    weight = inside(size, image.shape[:2])[..., None].astype(image.dtype)
    both = scaled(jnp.concatenate([image, weight], -1))
    return jnp.clip(both[..., :-1] / jnp.maximum(both[..., -1:], 1e-6), 0, 1)


def warp(image: jax.Array, rows: jax.Array, columns: jax.Array, size: Size) -> jax.Array:
    """Samples a picture at arbitrary points, bilinearly.

    Args:
        image: f32[H, W, C] in [0, 1].
        rows: f32[h, w], down from the center of the picture, in pixels.
        columns: f32[h, w], to the right of the center. Points outside the picture are black.
        size: (height, width) of the picture in the upper left of the image, which is black elsewhere.

    Returns:
        f32[h, w, C].
    """
    height, width = map(jnp.float32, size)
    # Framed with black, which is read wherever a point is further out.
    framed = jnp.pad(image, ((1, 1), (1, 1), (0, 0)))
    rows = jnp.clip(rows + (height + 1) / 2, 0, height + 1)
    columns = jnp.clip(columns + (width + 1) / 2, 0, width + 1)
    top, left = jnp.minimum(jnp.floor(rows), height), jnp.minimum(jnp.floor(columns), width)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    top, left = top.astype(jnp.int32), left.astype(jnp.int32)

    def read(row: jax.Array) -> jax.Array:
        return (1 - right) * framed[row, left] + right * framed[row, left + 1]

    found = ((1 - down) * read(top) + down * read(top + 1)).astype(image.dtype)
    return jnp.clip(found, 0, 1)  # the four weights may sum to an ulp more than 1


def nearest(planes: jax.Array, rows: jax.Array, columns: jax.Array, size: Size, fill: int) -> jax.Array:
    """Samples label maps or masks at arbitrary points, from the pixel that contains each point.

    Args:
        planes: [..., H, W] of any dtype.
        rows: f32[h, w], down from the center of the picture, in pixels.
        columns: f32[h, w], to the right of the center.
        size: (height, width) of the picture in the upper left of the planes.
        fill: value of points outside the picture.

    Returns:
        [..., h, w] of the same dtype.
    """
    inside, rows, columns = _pixels(rows, columns, size)
    return jnp.where(inside, planes[..., rows, columns], jnp.asarray(fill, planes.dtype))


def nearest_image(image: jax.Array, rows: jax.Array, columns: jax.Array, size: Size) -> jax.Array:
    """As `nearest`, of an image f32[H, W, C], and black outside its picture."""
    inside, rows, columns = _pixels(rows, columns, size)
    return jnp.where(inside[..., None], image[rows, columns], 0)


def _pixels(rows: jax.Array, columns: jax.Array, size: Size) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Which points are inside a picture, and the row and column of the pixel of each, or of the next."""
    height, width = map(jnp.float32, size)
    rows, columns = jnp.floor(rows + height / 2), jnp.floor(columns + width / 2)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    rows = jnp.clip(rows, 0, height - 1).astype(jnp.int32)
    columns = jnp.clip(columns, 0, width - 1).astype(jnp.int32)
    return inside, rows, columns
