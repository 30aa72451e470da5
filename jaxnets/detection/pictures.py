"""Pictures as detectors read them: scaled as torchvision does, on a canvas."""

import math
from os import PathLike
from typing import Any, NamedTuple

import numpy as np

from jaxnets.data import decoding
from jaxnets.detection.detector import Resizing
from jaxnets.detection.extents import DIVISOR
from jaxnets.errors import InputError


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


def read(picture: str | PathLike | np.ndarray | Any) -> np.ndarray:
    """A picture as f32[H, W, 3] in 0 to 1.

    Args:
        picture: a path, a Pillow image, uint8[H, W, 3] or floats in 0 to 1; gray ones, [H, W] or
            [H, W, 1], are repeated.

    Raises:
        InputError: a file that cannot be read, or an array of another shape or type.
    """
    if isinstance(picture, str | PathLike):
        return decoding.read_picture(picture, None, 3).astype(np.float32) / np.float32(255)
    if hasattr(picture, "convert"):  # of Pillow
        picture = picture.convert("RGB")
    pixels = np.asarray(picture)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3) or not pixels.size:
        raise InputError(
            f"pictures: an array has shape {list(np.shape(picture))}; wanted [H, W, 3], or a path"
        )
    if pixels.dtype == np.uint8:
        pixels = pixels.astype(np.float32) / np.float32(255)
    elif pixels.dtype.kind != "f" or pixels.min() < 0 or pixels.max() > 1:
        raise InputError(
            f"pictures: an array of {pixels.dtype} from {pixels.min():g} to {pixels.max():g}; wanted "
            "uint8, or floats from 0 to 1"
        )
    return np.broadcast_to(pixels.astype(np.float32), (*pixels.shape[:2], 3))


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
        pixels: of `read`.
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
    (top, bottom, down), (left, right, across) = map(_between, image.shape[:2], size)
    down, across = down[:, None, None], across[:, None]
    rows = image[:, left] * (1 - across) + image[:, right] * across
    return rows[top] * (1 - down) + rows[bottom] * down


def _between(before: int, after: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two pixels between which each new one lies along an axis, and the weight of the second.

    Computed in float64 from a scale in float32, as torch rounds once.
    """
    scale = np.float64(np.float32(before) / np.float32(after))
    places = np.maximum((np.arange(after) + 0.5) * scale - 0.5, 0).astype(np.float32)
    low = np.minimum(places.astype(np.int64), before - 1)
    return low, np.minimum(low + 1, before - 1), places - low.astype(np.float32)
