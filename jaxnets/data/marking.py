"""Boxes, masks and label maps drawn into the pixels of a picture."""

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


def label_colors(labels: np.ndarray) -> np.ndarray:
    """A color for each label of a map, those that Pascal VOC's palette has: black for 0, cream for 255.

    The bits of a label are dealt out to red, green and blue in turn, the lowest as the highest of each.

    Example:
        >>> import numpy as np
        >>> label_colors(np.array([[0, 1, 15, 255]])).tolist()
        [[[0, 0, 0], [128, 0, 0], [192, 128, 128], [224, 224, 192]]]

    Args:
        labels: int[...], at least 0; below 2^24 their colors differ.

    Returns:
        uint8[..., 3].
    """
    labels = np.asarray(labels).astype(np.int64)[..., None]
    channels, colors = np.arange(3), 0
    for bit in range(8):
        colors = colors | ((labels >> (3 * bit + channels)) & 1) << (7 - bit)
    return colors.astype(np.uint8)


def colored(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A picture uint8[H, W, 3] under a translucent label map int[H, W], in the colors of its labels."""
    return (image * 0.5 + label_colors(labels) * 0.5).astype(np.uint8)


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
