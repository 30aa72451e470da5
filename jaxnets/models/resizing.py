"""The whole pictures that a model was made for."""

from dataclasses import dataclass

from jaxnets.models.published import IMAGENET_MEAN, IMAGENET_STD


@dataclass(frozen=True)
class Resizing:
    """How a model that takes whole pictures wants them.

    Attributes:
        min_size: the shorter side is scaled to so many pixels,
        max_size: or the longer side to so many, whichever is smaller; None for no limit. Where both are
            None, pictures keep their size.
        mean, std: of each channel, in units of 0 to 1.
        order: of the channels of images and constants, "RGB" or "BGR".
    """

    min_size: int | None = 800
    max_size: int | None = 1333
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    order: str = "RGB"
