"""Decoding of image files into arrays of one shape, and handling of unreadable files."""

import logging
from os import PathLike
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image, ImageColor, ImageOps

from jaxnets.errors import InputError, unknown_name
from jaxnets.paths import shown

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
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


def check_background(color: str) -> None:
    """Checks that a color is one that Pillow knows, such as "white" or "#7f7f7f".

    Raises:
        InputError: it is not.
    """
    try:
        ImageColor.getrgb(color)
    except (ValueError, TypeError):
        raise InputError(
            f"background must be a color, such as 'white' or '#7f7f7f', got {color!r}"
        ) from None


def fit(
    image: Image.Image,
    size: int | None,
    channels: int,
    interpolation: str = "bilinear",
    background: str = "white",
) -> np.ndarray:
    """Converts an image to 8 bits and `channels` channels, and resizes it to a square of `size` pixels.

    The shorter side is scaled to `size` with one of Pillow's filters, which antialias when shrinking
    (except for "nearest"), and the longer side is center-cropped. Both happen in one resampling, so
    the crop may start between two pixels.

    Args:
        image: an image in any mode. A 16-bit image keeps its upper 8 bits, where Pillow would saturate;
            floats are taken as 0 to 1.
        size: side of the square, or None to keep the size.
        channels: 1 (gray) or 3 (RGB).
        interpolation: one of `INTERPOLATIONS`.
        background: the color behind what is transparent.

    Returns:
        uint8[size, size, channels].

    Raises:
        InputError: 32-bit integers, whose range nothing tells, or floats outside of 0 to 1.
    """
    image = _of_channels(image, channels, background)
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
        raise InputError(
            f"{shown(path)} cannot be read as a picture ({', '.join(FORMATS)}): {describe(error)}"
        ) from error


def decode(
    file: str | PathLike | IO[bytes],
    size: int | None,
    channels: int,
    interpolation: str = "bilinear",
    background: str = "white",
) -> np.ndarray:
    """Decodes a file in one of `FORMATS`, applies its EXIF orientation, and resizes it with `fit`.

    Of several frames it is the first. A JPEG of four times the size or more is shrunk to a half, a
    quarter or an eighth by its decoder, as far as twice the size is left, which is several times as
    fast; but not for "nearest", which takes pixels as they are.

    Raises:
        Exception: of nearly any type, if the file is broken.
    """
    with Image.open(file, formats=FORMATS) as image:
        if size is not None and interpolation != "nearest":
            image.draft(None, (2 * size, 2 * size))
        ImageOps.exif_transpose(image, in_place=True)
        return fit(image, size, channels, interpolation, background)


def decode_letterboxed(
    file: str | PathLike | IO[bytes],
    canvas: tuple[int, int],
    channels: int,
    interpolation: str = "bilinear",
    background: str = "white",
) -> tuple[np.ndarray, tuple[int, int], tuple[int, int]]:
    """Decodes a file as `decode` does, but scales the picture to fit in the upper left of a canvas.

    Args:
        file: the file.
        canvas: (height, width) in pixels.
        channels: 1 (gray) or 3 (RGB).
        interpolation: one of `INTERPOLATIONS`.
        background: the color behind what is transparent.

    Returns:
        uint8[H, W, channels], 0 right of the picture and below; the picture's (height, width) there;
        and its (height, width) in the file.

    Raises:
        Exception: of nearly any type, if the file is broken.
    """
    with Image.open(file, formats=FORMATS) as image:
        original = upright_size(image)
        if interpolation != "nearest":
            scale = min(2 * max(canvas) / max(image.size), 1)
            image.draft(None, (round(scale * image.width), round(scale * image.height)))
        ImageOps.exif_transpose(image, in_place=True)
        return *letterbox(image, original, canvas, channels, interpolation, background), original


def upright_size(image: Image.Image) -> tuple[int, int]:
    """The (height, width) of an image that was just opened, with its EXIF orientation applied."""
    lying = image.getexif().get(ExifTags.Base.Orientation, 1) > 4
    return image.size if lying else image.size[::-1]


def size_of(file: str | PathLike | IO[bytes]) -> tuple[int, int]:
    """The (height, width) of an image by its header; (1, 1) if it cannot be read."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            return upright_size(image)
    except Exception:  # Pillow's plugins raise nearly anything on a broken file.
        return 1, 1


def letterbox(
    image: Image.Image,
    original: tuple[int, int],
    canvas: tuple[int, int],
    channels: int,
    interpolation: str = "bilinear",
    background: str = "white",
) -> tuple[np.ndarray, tuple[int, int]]:
    """The canvas of `decode_letterboxed`, and the size of an image of `original` size on it."""
    scale = min(most / side for side, most in zip(original, canvas, strict=True))
    height, width = (
        min(max(round(side * scale), 1), most) for side, most in zip(original, canvas, strict=True)
    )
    image = _of_channels(image, channels, background)
    pixels = np.zeros((*canvas, channels), np.uint8)
    resized = np.asarray(image.resize((width, height), INTERPOLATIONS[interpolation]), np.uint8)
    pixels[:height, :width] = resized.reshape(height, width, channels)
    return pixels, (height, width)


def nearest(old: tuple[int, ...], new: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The rows i[H'] and columns i[W'] that a picture shows when it is scaled to the nearest pixel.

    A pixel shows the one that its center lies in, as Pillow's "nearest".

    Args:
        old: (height, width) of the picture.
        new: (height, width) that it is scaled to.
    """
    rows, columns = (
        np.minimum((np.arange(to) + 0.5) * (side / to), side - 1).astype(int)
        for side, to in zip(old, new, strict=True)
    )
    return rows, columns


def header_error(path: str) -> str | None:
    """Why the header of a file is not that of an image, or None if it is. Pixels are not read."""
    try:
        with Image.open(path, formats=FORMATS):
            return None
    except Exception as error:  # Pillow's plugins raise nearly anything on a broken file.
        return describe(error)


def describe(error: Exception) -> str:
    """Describes an error in one line."""
    return shown(" ".join(str(error).split())) or type(error).__name__


def _of_channels(image: Image.Image, channels: int, background: str) -> Image.Image:
    """An image as 8 bits of gray or RGB, over a background where it is transparent."""
    image = _of_eight_bits(image)
    if image.has_transparency_data:
        behind = Image.new("RGBA", image.size, background)
        image = Image.alpha_composite(behind, image.convert("RGBA"))
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _of_eight_bits(image: Image.Image) -> Image.Image:
    """An image of more than 8 bits a channel as a gray one of 8; others as they are."""
    if image.mode == "F":
        values = np.asarray(image)
        low, high = values.min(), values.max()
        if not (low >= 0 and high <= 1):
            raise InputError(f"it has float pixels from {low:g} to {high:g}; wanted 0 to 1")
        return Image.fromarray(np.round(values * 255).astype(np.uint8))
    if image.mode == "I":
        raise InputError("it has 32-bit integer pixels, of no known range; wanted 8 or 16 bits")
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image


class UnreadableImages:
    """Handles images that cannot be decoded: replaces them with zeros and warns once, or raises.

    Args:
        image_shape: shape of the zeros that replace such an image.
        strict: raise instead of replacing.
    """

    def __init__(self, image_shape: tuple[int, ...], strict: bool):
        self.image_shape = image_shape
        self.strict = strict
        self.named: set[str] = set()

    def stand_in(self, name: str, label: Any, error: Exception) -> dict[str, Any]:
        """Zeros of weight 0 for the image called `name`, with its label unless that is None.

        Raises:
            InputError: if strict.
        """
        if self.strict:
            raise InputError(
                f"cannot decode {shown(name)}: {describe(error)}; repair or remove it, "
                "or pass strict=False to give it weight 0"
            ) from error
        if name not in self.named:
            self.named.add(name)
            _logger.warning("cannot decode %s: %s; it gets weight 0", shown(name), describe(error))
        known = {} if label is None else {"label": label}
        return {"image": np.zeros(self.image_shape, np.uint8), **known, "weight": np.float32(0)}
