"""Pictures given by a user, for models that take them whole."""

import logging
from collections.abc import Sequence
from os import PathLike
from typing import Any

import jax
import numpy as np

from jaxnets.data import decoding
from jaxnets.errors import InputError

_logger = logging.getLogger("jaxnets")


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


def as_bytes(pixels: np.ndarray) -> np.ndarray:
    """Floats in 0 to 1 as uint8, those that a file had."""
    return np.rint(255 * pixels).astype(np.uint8)


def read_if_whole(path: str | PathLike) -> np.ndarray | None:
    """A picture as of `read`; None for a file that cannot be read, which a warning names."""
    try:
        return read(path)
    except InputError as error:
        _logger.warning("%s; it is left out", error)
        return None


def check_list(pictures: Sequence[Any] | Any) -> None:
    """Checks that pictures come as a list.

    Raises:
        InputError: it is one picture.
    """
    one = isinstance(pictures, np.ndarray | jax.Array) and pictures.ndim < 4
    if one or isinstance(pictures, str | PathLike) or hasattr(pictures, "convert"):
        raise InputError("pictures: got one; wanted a list of them, such as [picture]")


def check_colors(model: Any) -> None:
    """Checks that a model takes pictures in color.

    Raises:
        InputError: its images have another number of channels.
    """
    channels = model.input_size[2]
    if channels != 3:
        raise InputError(
            f"model: it takes images of {channels} channels, and pictures have 3; call model.apply"
        )
