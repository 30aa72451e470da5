"""Decoding of image files into arrays of one shape, and handling of unreadable files."""

import logging
from os import PathLike
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps

from jaxnets.errors import InputError, unknown_name

FORMATS = ("PNG", "JPEG")
INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}

_logger = logging.getLogger("jaxnets")


def check_shape_options(size: int | None, channels: int) -> None:
    """Checks that `size` is None or a positive integer, and that `channels` is 1 or 3.

    Raises:
        InputError: either is invalid.
    """
    if size is not None and (not isinstance(size, int) or size < 1):
        raise InputError(f"size must be a positive number of pixels, got {size!r}")
    if channels not in (1, 3):
        raise InputError(f"channels must be 1 (gray) or 3 (RGB), got {channels!r}")


def check_interpolation(name: str) -> None:
    """Checks that an interpolation is one of `INTERPOLATIONS`.

    Raises:
        InputError: it is not.
    """
    if name not in INTERPOLATIONS:
        raise unknown_name("interpolation", name, INTERPOLATIONS)


def fit(
    image: Image.Image, size: int | None, channels: int, interpolation: str = "bilinear"
) -> np.ndarray:
    """Converts an image to 8 bits and `channels` channels, and resizes it to a square of `size` pixels.

    The shorter side is scaled to `size` with one of Pillow's filters, which antialias when shrinking
    (except for "nearest"), and the longer side is center-cropped. Both happen in one resampling, so
    the crop may start between two pixels. Transparency is dropped.

    Args:
        image: an image in any mode. A 16-bit image keeps its upper 8 bits, where Pillow would saturate.
        size: side of the square, or None to keep the size.
        channels: 1 (gray) or 3 (RGB).
        interpolation: one of `INTERPOLATIONS`.

    Returns:
        uint8[size, size, channels].
    """
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert("L" if channels == 1 else "RGB")
    if size is not None:
        image = ImageOps.fit(image, (size, size), INTERPOLATIONS[interpolation])
    return np.array(image, np.uint8).reshape(image.height, image.width, channels)


def read_picture(path: str | PathLike, size: int | None, channels: int) -> np.ndarray:
    """Decodes an image file given by the user; see `decode`.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return decode(path, size, channels)
    except Exception as error:  # Pillow's plugins raise nearly anything on a broken file
        raise InputError(f"{path} cannot be read as a PNG or JPEG picture: {describe(error)}") from error


def decode(
    file: str | IO[bytes], size: int | None, channels: int, interpolation: str = "bilinear"
) -> np.ndarray:
    """Decodes a PNG or JPEG file, applies its EXIF orientation, and resizes it with `fit`.

    Raises:
        Exception: of nearly any type, if the file is broken.
    """
    with Image.open(file, formats=FORMATS) as image:
        return fit(ImageOps.exif_transpose(image), size, channels, interpolation)


def header_error(path: str) -> str | None:
    """Why the header of a file is not that of a PNG or JPEG, or None if it is. Pixels are not read."""
    try:
        with Image.open(path, formats=FORMATS):
            return None
    except Exception as error:  # Pillow's plugins raise nearly anything on a broken file.
        return describe(error)


def describe(error: Exception) -> str:
    """Describes an error in one line."""
    return " ".join(str(error).split()) or type(error).__name__


class UnreadableImages:
    """Handles images that cannot be decoded: replaces them with zeros and warns once, or raises.

    Args:
        image_shape: shape of the zeros that replace such an image.
        strict: raise instead of replacing.
    """

    def __init__(self, image_shape: tuple[int, int, int], strict: bool):
        self.image_shape = image_shape
        self.strict = strict
        self.named: set[str] = set()

    def stand_in(self, name: str, label: Any, error: Exception) -> dict[str, Any]:
        """Zeros of weight 0 for the image called `name`; without a label where it is None.

        Raises:
            InputError: if strict.
        """
        if self.strict:
            raise InputError(
                f"cannot decode {name}: {describe(error)}; repair or remove it, "
                "or pass strict=False to give it weight 0"
            ) from error
        if name not in self.named:
            self.named.add(name)
            _logger.warning("cannot decode %s: %s; it gets weight 0", name, describe(error))
        known = {} if label is None else {"label": np.int32(label)}
        return {"image": np.zeros(self.image_shape, np.uint8), **known, "weight": np.float32(0)}
