"""Label maps of pictures of any size."""

import math
import numbers
from collections.abc import Mapping, Sequence
from functools import partial
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.data.pictures import as_bytes, check_colors, check_list, read
from jaxnets.data.waiting import tracked
from jaxnets.errors import InputError
from jaxnets.layers import resize_bilinear
from jaxnets.layers.geometry import pair
from jaxnets.layers.resizing import between
from jaxnets.models.resizing import Resizing
from jaxnets.segmentation.segmenter import Segmenter

_STRIP = 2**24  # scores in a picture's own size that are there at a time


def segment(
    model: Segmenter,
    variables: Mapping[str, Any],
    pictures: Sequence[str | PathLike | np.ndarray | Any],
    *,
    probabilities: bool = False,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    window: int | tuple[int, int] | None = None,
) -> list[np.ndarray]:
    """Says of each pixel of pictures which class it is of.

    Each picture is scaled as the model's `resizing` has it, with antialiasing, and its scores are
    resized bilinearly to its own size. The model is compiled once for each size of scaled pictures or,
    with a window, once.

    Args:
        model: a segmenter, of `jaxnets.load_pretrained` or `create_segmenter`.
        variables: its variables.
        pictures: paths, Pillow images, uint8[H, W, 3] or floats in 0 to 1.
        probabilities: gives the probability of each class instead of the label of the most probable.
        flip: takes the mean of the probabilities with those of the mirrored picture.
        scales: takes the mean of the probabilities over pictures scaled by these, further to `resizing`.
        window: a side, or a height and width: the model sees the scaled picture through a window of so
            many pixels, which moves by two thirds of its sides, and the scores of a pixel are the mean
            over the windows that it is in. Pictures that are smaller than it, or than the model takes,
            are padded with the mean color.

    Returns:
        For each picture, in its own size, i32[H, W] or, with `probabilities`, f32[H, W, K].

    Raises:
        InputError: a picture that cannot be read, no list of pictures, or scales or a window out of
            range.
    """
    check_list(pictures)
    check_colors(model)
    scales = _checked_scales(scales)
    window = None if window is None else pair(window, "window", model.min_size)
    variables = jax.tree.map(jnp.asarray, dict(variables))
    found = []
    for picture in tracked(pictures, len(pictures), "segmenting pictures"):
        pixels = _pixels(picture)
        size = pixels.shape[:2]
        maps = []
        for scale in scales:
            image = _normalized(_resized(pixels, _scaled_size(size, model.resizing, scale)), model)
            maps.append(_scores(model, variables, image, window))
            if flip:
                maps.append(_scores(model, variables, image[:, ::-1], window)[:, ::-1])
        found.append(np.array(_in_picture(tuple(maps), size, probabilities)))
    return found


def _checked_scales(scales: Any) -> tuple[float, ...]:
    several = isinstance(scales, Sequence | np.ndarray) and not isinstance(scales, str) and len(scales)
    if not several or not all(isinstance(x, numbers.Real) and 0 < x < math.inf for x in scales):
        raise InputError(f"scales is {scales!r}; wanted numbers above 0, such as (0.5, 1.0, 1.5)")
    return tuple(float(scale) for scale in scales)


def _pixels(picture: Any) -> np.ndarray:
    """A picture as uint8[H, W, 3] or, if it comes as an array of floats, f32 in 0 to 1."""
    pixels = read(picture)
    floats = isinstance(picture, np.ndarray | jax.Array) and picture.dtype != np.uint8
    return pixels if floats else as_bytes(pixels)


def _scaled_size(size: tuple[int, int], resizing: Resizing, scale: float = 1.0) -> tuple[int, int]:
    """The (height, width) to which a picture is scaled, rounded as torchvision's `resize` does.

    Unlike for detectors, the shorter side is exactly the wanted one.
    """
    short, long = sorted(size)
    least, most = (
        None if limit is None else max(1, round(scale * limit))
        for limit in (resizing.min_size, resizing.max_size)
    )
    if least is None and most is None:
        least = max(1, round(scale * short))
    if least is None or (most is not None and int(least * long / short) > most):
        sides = max(1, int(most * short / long)), most
    else:
        sides = least, int(least * long / short)
    return sides if size[0] <= size[1] else sides[::-1]


def _resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels scaled bilinearly with antialiasing by Pillow, whose bytes are rounded."""
    from PIL import Image

    if pixels.shape[:2] == size:
        return pixels
    planes = [pixels] if pixels.dtype == np.uint8 else [pixels[..., k] for k in range(3)]
    scaled = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(plane)).resize(size[::-1], Image.Resampling.BILINEAR)
        )
        for plane in planes
    ]
    return scaled[0] if len(scaled) == 1 else np.stack(scaled, -1)


def _normalized(pixels: np.ndarray, model: Segmenter) -> np.ndarray:
    """Pixels as f32[H, W, 3], as the model takes them."""
    if pixels.dtype == np.uint8:
        pixels = pixels.astype(np.float32) / np.float32(255)
    if model.resizing.order == "BGR":
        pixels = pixels[..., ::-1]
    mean, std = (np.asarray(x, np.float32) for x in (model.resizing.mean, model.resizing.std))
    return (pixels - mean) / std


def _scores(
    model: Segmenter, variables: Mapping[str, Any], image: np.ndarray, window: tuple[int, int] | None
) -> jax.Array | np.ndarray:
    """The logits f32[h, w, K] of an image f32[h, w, 3]."""
    height, width, channels = image.shape
    room = tuple(map(max, (height, width), window or (model.min_size,) * 2))
    padded = np.zeros((*room, channels), np.float32)
    padded[:height, :width] = image
    if window is None:
        return _logits(model, variables, padded[None])[0, :height, :width]
    total = np.zeros((*room, model.num_classes), np.float32)
    count = np.zeros((*room, 1), np.float32)
    for top in _starts(room[0], window[0]):
        for left in _starts(room[1], window[1]):
            part = slice(top, top + window[0]), slice(left, left + window[1])
            total[part] += np.asarray(_logits(model, variables, padded[part][None])[0])
            count[part] += 1
    return (total / count)[:height, :width]


def _starts(length: int, side: int) -> list[int]:
    """Where windows of a side begin along an axis, the last of which ends with it.

    >>> _starts(100, 45)
    [0, 30, 55]
    """
    stride = math.ceil(2 * side / 3)
    return [min(start, length - side) for start in range(0, length - side + stride, stride)]


@partial(jax.jit, static_argnames="model")
def _logits(model: Segmenter, variables: Mapping[str, Any], images: jax.Array) -> jax.Array:
    dtype = jax.tree.leaves(variables["params"])[0].dtype
    return model.apply(variables, images.astype(dtype))


@partial(jax.jit, static_argnames=("size", "probabilities"))
def _in_picture(maps: tuple[jax.Array, ...], size: tuple[int, int], probabilities: bool) -> jax.Array:
    """The labels i32[H, W] or the probabilities f32[H, W, K] of a picture from logits f32[h, w, K].

    Strips of rows are made one after the other: the scores of large pictures would fill the memory.
    """
    height, width = size
    rows = min(height, max(1, _STRIP // (width * maps[0].shape[-1])))
    strips = -(-height // rows)

    def along(before: int) -> tuple[np.ndarray, ...]:
        """The rows of a map between which those of each strip lie."""
        parts = between(before, height, align_corners=False)
        return tuple(
            np.pad(part, (0, strips * rows - height), "edge").reshape(strips, rows) for part in parts
        )

    def strip(places: Sequence[tuple[jax.Array, ...]]) -> jax.Array:
        found = []
        for scores, (low, high, share) in zip(maps, places, strict=True):
            share = share.astype(scores.dtype)[:, None, None]
            scores = scores[low] * (1 - share) + scores[high] * share
            scores = resize_bilinear(scores[None], (rows, width), align_corners=False)[0]
            found.append(jax.nn.softmax(scores) if probabilities or len(maps) > 1 else scores)
        mean = sum(found[1:], found[0]) / len(found)
        return mean if probabilities else jnp.argmax(mean, -1).astype(jnp.int32)

    strips = jax.lax.map(strip, [along(len(scores)) for scores in maps])
    return strips.reshape(-1, *strips.shape[2:])[:height]
