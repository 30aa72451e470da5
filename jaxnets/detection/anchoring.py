"""Anchors: the boxes that a detector's outputs are relative to."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.data.resampling import inside


def anchors(
    shape: tuple[int, int],
    strides: tuple[int, int],
    sizes: Sequence[float],
    ratios: Sequence[float] = (0.5, 1.0, 2.0),
) -> np.ndarray:
    """The anchors of a feature map (Ren et al. 2015, arXiv:1506.01497, section 3.1.1), as torchvision's.

    They are centered on the multiples of the strides. Their corners are rounded, relative to the center.

    Args:
        shape: (height, width) of the map.
        strides: pixels of the picture between its rows, and between its columns.
        sizes: the square roots of the areas, in pixels of the picture.
        ratios: of height to width.

    Returns:
        f32[height * width * A, 4], where A = len(ratios) * len(sizes). Of one place, all sizes of the
        first ratio come first; the places go row by row.
    """
    y, x = np.meshgrid(np.arange(shape[0]) * strides[0], np.arange(shape[1]) * strides[1], indexing="ij")
    centers = np.stack([x, y, x, y], -1).reshape(-1, 1, 4)
    return (centers + base_anchors(sizes, ratios)).reshape(-1, 4).astype(np.float32)


def base_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> np.ndarray:
    """The anchors f32[A, 4] of the place at the origin, as for `anchors`."""
    root, side = np.sqrt(np.asarray(ratios, np.float32)), np.asarray(sizes, np.float32)
    heights, widths = (root[:, None] * side).ravel(), ((1 / root)[:, None] * side).ravel()
    return np.round(np.stack([-widths, -heights, widths, heights], -1) / 2)


def pyramid_anchors(
    shapes: Sequence[tuple[int, int]],
    extents: Sequence[tuple[jax.Array, jax.Array]],
    extent: tuple[jax.Array, jax.Array],
    sizes: Sequence[Sequence[float]],
    ratios: Sequence[float],
) -> tuple[list[jax.Array], list[jax.Array]]:
    """The anchors of all levels of a picture that fills part of its maps.

    The stride of a level is the picture's side over that of its part of the map, rounded down.

    Args:
        shapes: (height, width) of each map.
        extents: (rows, columns) i32[] of each map that belong to the picture.
        extent: (rows, columns) i32[] of the picture itself.
        sizes: of the anchors of each level.
        ratios: as for `anchors`.

    Returns:
        For each level f32[height * width * A, 4], and which belong to the picture, bool[...].
    """
    boxes, there = [], []
    for (height, width), (rows, columns), own in zip(shapes, extents, sizes, strict=True):
        base = base_anchors(own, ratios)
        y = jnp.arange(height) * (extent[0] // rows)
        x = jnp.arange(width) * (extent[1] // columns)
        y, x = jnp.meshgrid(y.astype(jnp.float32), x.astype(jnp.float32), indexing="ij")
        centers = jnp.stack([x, y, x, y], -1).reshape(-1, 1, 4)
        boxes.append((centers + base[None]).reshape(-1, 4))
        there.append(jnp.repeat(inside((rows, columns), (height, width)).reshape(-1), len(base)))
    return boxes, there
