"""Pictures as detectors read them: scaled as torchvision does, on a canvas."""

import math
from typing import NamedTuple

import numpy as np

from jaxnets.detection.extents import DIVISOR
from jaxnets.layers.resizing import between
from jaxnets.models.resizing import Resizing


class Placed(NamedTuple):
    """A picture on a canvas.

    Attributes:
        image: f32[H, W, 3], normalized, zeros right and below of the picture.
        size: (height, width) of the picture on it.
        original: (height, width) of the picture itself.
    """

    image: np.ndarray
    size: tuple[int, int]
    original: tuple[int, int]


def scaled_size(size: tuple[int, int], resizing: Resizing) -> tuple[int, int]:
    """The (height, width) of a picture once it is scaled.

    >>> scaled_size((427, 640), Resizing())
    (800, 1199)
    """
    scale = min(resizing.min_size / min(size), resizing.max_size / max(size))
    return tuple(max(1, math.floor(side * scale)) for side in size)


def canvas_of(size: tuple[int, int], resizing: Resizing) -> tuple[int, int]:
    """The smallest of a few canvases that holds a picture: each of them is compiled once.

    Its sides are the shorter side, 4 / 3 of it or the longest, rounded up to multiples of 32.
    """
    low, high = resizing.min_size, resizing.max_size
    sides = [math.ceil(side / DIVISOR) * DIVISOR for side in (low, low * 4 / 3, high)]
    return tuple(min(side for side in sides if side >= own) for own in size)


def place(pixels: np.ndarray, resizing: Resizing, canvas: tuple[int, int] | None = None) -> Placed:
    """A picture f32[H, W, 3] in 0 to 1, normalized, scaled and put on a canvas.

    Args:
        pixels: of `jaxnets.data.pictures.read`.
        resizing: of the detector.
        canvas: None for the smallest of `canvas_of`.
    """
    original = pixels.shape[:2]
    size = scaled_size(original, resizing)
    canvas = canvas or canvas_of(size, resizing)
    mean, std = (np.asarray(x, np.float32) for x in (resizing.mean, resizing.std))
    image = np.zeros((*canvas, 3), np.float32)
    image[: size[0], : size[1]] = resized((pixels - mean) / std, size)
    return Placed(image, size, original)


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image f32[H, W, C] scaled bilinearly, without antialiasing, as torch's `interpolate`."""
    (top, bottom, down), (left, right, across) = (
        between(*axis, align_corners=False) for axis in zip(image.shape[:2], size, strict=True)
    )
    down, across = down[:, None, None], across[:, None]
    rows = image[:, left] * (1 - across) + image[:, right] * across
    return rows[top] * (1 - down) + rows[bottom] * down
