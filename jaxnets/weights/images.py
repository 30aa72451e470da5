"""Preprocessing of images: scaled, cropped and normalized as the weights were trained.

Scaling is Pillow's, with antialiasing and in 8 bits, as in the references. Bilinear interpolation of the
four nearest pixels, which many programs call by the same name, changes probabilities by several percent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import numpy as np
from PIL import Image

from jaxnets.data import decoding
from jaxnets.data.decoding import INTERPOLATIONS
from jaxnets.errors import InputError, unknown_name
from jaxnets.models.published import IMAGENET_MEAN, IMAGENET_STD, PublishedWeights, resized_side

CROPS = {"center": 1, "flip": 2, "ten": 10}  # views of each image

Picture = Image.Image | np.ndarray | str | PathLike


@dataclass(frozen=True)
class Preprocessing:
    """A function from pictures to the input of a model.

    Attributes:
        resize: pixels of the shorter side after scaling; the longer side keeps the aspect ratio, rounded
            down.
        size: side of the center crop in pixels.
        interpolation: one of `INTERPOLATIONS`.
        mean, std: of each channel, for pixels in 0 to 1. Their number is that of the channels: for one,
            pictures are converted to gray.
        order: of the channels, "RGB" or "BGR"; `mean` and `std` are in it.

    Raises:
        InputError: for an interpolation or an order that is unknown, or a crop larger than the scaled
            picture.
    """

    resize: int
    size: int
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    order: str = "RGB"

    def __post_init__(self):
        if self.interpolation not in INTERPOLATIONS:
            raise unknown_name("interpolation", self.interpolation, INTERPOLATIONS)
        if self.order not in ("RGB", "BGR"):
            raise unknown_name("order of channels", self.order, ("RGB", "BGR"))
        if self.size > self.resize:
            raise InputError(
                f"size is {self.size}, but the shorter side is scaled to {self.resize}; give no more"
            )

    def __call__(self, picture: Picture) -> np.ndarray:
        """The center crop of a picture, normalized: f32[size, size, C].

        Args:
            picture: a Pillow image or an array uint8[H, W, C], taken as they are; or the path of a
                file (PNG, JPEG, WebP, BMP, TIFF, GIF), turned upright as its EXIF says and, where it is
                transparent, on white.

        Raises:
            InputError: the file cannot be read.
        """
        return self.normalize(self.crops(picture)[0])

    def crops(self, picture: Picture, kind: str = "center") -> np.ndarray:
        """uint8[V, size, size, C]: views of the scaled picture, not normalized, channels in RGB.

        Args:
            picture: as for a call.
            kind: "center", the middle (V = 1); "flip", and its mirror image (2); "ten", the middle and
                the four corners and their mirror images (Krizhevsky et al. 2012, section 4.1).

        Raises:
            InputError: the kind is unknown, or the file cannot be read.
        """
        if kind not in CROPS:
            raise unknown_name("kind of crops", kind, CROPS)
        image = self._scaled(_decoded(picture, len(self.mean)))
        down, right = image.shape[0] - self.size, image.shape[1] - self.size
        corners = [(round(down / 2), round(right / 2))]
        if kind == "ten":
            corners += [(0, 0), (0, right), (down, 0), (down, right)]
        views = [image[top : top + self.size, left : left + self.size] for top, left in corners]
        if kind != "center":
            views += [view[:, ::-1] for view in views]
        return np.stack(views)

    def normalize(self, images: Any) -> Any:
        """Normalizes uint8[..., C] to f32[..., C], by NumPy or, for a `jax.Array`, by JAX."""
        values = images.astype(np.float32) / np.float32(255)
        if self.order == "BGR":
            values = values[..., ::-1]
        ones = (1,) * (values.ndim - 1)
        mean, std = (np.array(own, np.float32).reshape(*ones, -1) for own in (self.mean, self.std))
        return (values - mean) / std

    def of_channels(self, channels: int) -> "Preprocessing":
        """The same for another number of channels; for 1, the constants are averaged."""
        if channels == 1:
            mean, std = (float(np.mean(self.mean)),), (float(np.mean(self.std)),)
            return replace(self, mean=mean, std=std, order="RGB")
        mean, std = (
            tuple(values[i % len(values)] for i in range(channels)) for values in (self.mean, self.std)
        )
        return replace(self, mean=mean, std=std)

    def _scaled(self, image: np.ndarray) -> np.ndarray:
        height, width, channels = image.shape
        shorter = min(height, width)
        size = [int(self.resize * side / shorter) for side in (width, height)]
        flat = image[:, :, 0] if channels == 1 else image
        scaled = Image.fromarray(flat).resize(size, INTERPOLATIONS[self.interpolation])
        return np.asarray(scaled).reshape(size[1], size[0], channels)


def of_published(row: PublishedWeights) -> Preprocessing | None:
    """The preprocessing of public weights with which their publisher states the accuracy; None for
    those of whole pictures, which their model scales itself."""
    if row.size is None:
        return None
    return Preprocessing(row.resize, row.size, row.interpolation, row.mean, row.std, row.order)


def of_hub(config: Mapping[str, Any]) -> Preprocessing | None:
    """The preprocessing in a hub repository's `config.json`, as timm writes it; None where it has none.

    Sizes for testing, with which timm states its accuracies, take precedence.
    """
    about = config.get("pretrained_cfg") or config
    shape = about.get("test_input_size") or about.get("input_size")
    if not shape:
        return None
    crop = about.get("test_crop_pct") or about.get("crop_pct") or 0.875
    if about.get("crop_mode", "center") != "center":
        raise InputError(f"crop_mode is {about['crop_mode']!r}, which is not known; wanted 'center'")
    return Preprocessing(
        resized_side(shape[-1], crop),
        shape[-1],
        about.get("interpolation", "bicubic"),
        tuple(about.get("mean", IMAGENET_MEAN)),
        tuple(about.get("std", IMAGENET_STD)),
    )


def _decoded(picture: Picture, channels: int) -> np.ndarray:
    """uint8[H, W, C] of any picture."""
    if isinstance(picture, Image.Image):
        return decoding.fit(picture, None, channels)
    if isinstance(picture, np.ndarray):
        if picture.ndim != 3 or picture.dtype != np.uint8 or picture.shape[2] != channels:
            raise InputError(
                f"picture: wanted uint8[H, W, {channels}], got {picture.dtype}{list(picture.shape)}"
            )
        return picture
    return decoding.read_picture(picture, None, channels)
