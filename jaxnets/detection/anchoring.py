"""Anchors: the boxes that a detector's outputs are relative to."""

from collections.abc import Sequence

import numpy as np


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
    root, side = np.sqrt(np.asarray(ratios, np.float32)), np.asarray(sizes, np.float32)
    heights, widths = (root[:, None] * side).ravel(), ((1 / root)[:, None] * side).ravel()
    base = np.round(np.stack([-widths, -heights, widths, heights], -1) / 2)
    y, x = np.meshgrid(np.arange(shape[0]) * strides[0], np.arange(shape[1]) * strides[1], indexing="ij")
    centers = np.stack([x, y, x, y], -1).reshape(-1, 1, 4)
    return (centers + base).reshape(-1, 4).astype(np.float32)
