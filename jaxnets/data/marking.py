"""Boxes and masks drawn into the pixels of a picture."""

import colorsys
from typing import Any

import numpy as np

_GOLDEN = 0.618034  # of the circle of hues; multiples of it keep apart


def color_of(label: int) -> tuple[int, int, int]:
    """A color for a label, RGB from 0 to 255: always the same, and unlike that of its neighbors.

    Example:
        >>> color_of(0)
        (255, 64, 64)
    """
    value = (1.0, 0.75, 0.9)[label // 8 % 3]
    red, green, blue = colorsys.hsv_to_rgb(label * _GOLDEN % 1, 0.75, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def marked(
    image: np.ndarray, boxes: Any, labels: Any, masks: Any = None, *, line: int = 1
) -> np.ndarray:
    """A picture with boxes, and translucent masks below them, in the colors of their labels.

    Args:
        image: uint8[H, W, 3].
        boxes: f[M, 4], xyxy in pixels; later ones lie above.
        labels: i[M].
        masks: bool[M, H, W], or None.
        line: width of the lines in pixels.

    Returns:
        uint8[H, W, 3].
    """
    from PIL import Image, ImageDraw

    image = image.copy()
    for label, mask in zip(labels, () if masks is None else masks, strict=False):
        image[mask] = image[mask] * 0.5 + np.array(color_of(int(label))) * 0.5
    picture = Image.fromarray(image)
    pen = ImageDraw.Draw(picture)
    for label, (left, top, right, bottom) in zip(labels, np.asarray(boxes).tolist(), strict=True):
        first, last = (round(left), round(top)), (round(right) - 1, round(bottom) - 1)
        last = max(first[0], last[0]), max(first[1], last[1])
        pen.rectangle((first, last), outline=color_of(int(label)), width=line)
    return np.array(picture)
