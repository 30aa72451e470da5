"""Pictures of what a detector finds: boxes and masks over a picture, and precision over recall."""

import math
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np

from jaxnets.data import decoding
from jaxnets.data.marking import color_of, marked
from jaxnets.errors import InputError
from jaxnets.explain.precision_recall import ClassCurve, draw_classes, finish
from jaxnets.metrics.detection import CocoTable
from jaxnets.metrics.detection.coco import RECALLS
from jaxnets.metrics.detection.images import THRESHOLDS
from jaxnets.outputs import check_picture, save_figure

SMALL = 480  # pixels of the longer side, below which a picture is enlarged so that names can be read


def draw(picture: Any, found: Any, path: str | PathLike) -> None:
    """Draws what was found over a picture: boxes and masks, with names and scores.

    The result has the pixels of the picture. One that is smaller than 480 pixels is enlarged by a whole
    factor. Each label has a color of its own; the best detections lie on top.

    Args:
        picture: a file, a Pillow image, or uint8[H, W, 3 or 1].
        found: detections in pixels of the picture, as of `detect`: `boxes` f32[D, 4], `scores` f32[D],
            `labels` i32[D], `names`, and `masks` bool[D, H, W] or None.
        path: of the picture to write; its ending says the format.

    Raises:
        InputError: a picture that cannot be read, masks of another size, or a path that cannot be
            written.
    """
    from matplotlib.figure import Figure
    from PIL import Image, ImageDraw

    check_picture(path)
    pixels = _pixels(picture)
    height, width, _ = pixels.shape
    if found.masks is not None and np.shape(found.masks)[1:] != (height, width):
        raise InputError(
            f"found has masks of {list(np.shape(found.masks)[1:])}, and the picture is "
            f"{[height, width]}; give the picture that they were found in"
        )
    factor = max(1, math.ceil(SMALL / max(height, width)))
    line = max(2, factor * max(height, width) // 300)
    last_first = slice(None, None, -1)
    masks = None if found.masks is None else _enlarged(np.asarray(found.masks), factor)[last_first]
    boxes, labels = np.asarray(found.boxes)[last_first] * factor, np.asarray(found.labels)[last_first]
    pixels = _enlarged(pixels.transpose(2, 0, 1), factor).transpose(1, 2, 0)
    drawn = Image.fromarray(marked(pixels, boxes, labels, masks, line=line))
    told = [f"{name} {score:.2f}" for name, score in zip(found.names, found.scores, strict=True)]
    _write(ImageDraw.Draw(drawn), boxes, labels, told[last_first], line)

    # A hair more than the pixels, which matplotlib rounds down.
    figure = Figure(figsize=[(side + 0.01) / 100 for side in drawn.size], dpi=100)
    figure.figimage(np.asarray(drawn))
    save_figure(figure, path, dpi=100)


def _write(pen: Any, boxes: np.ndarray, labels: np.ndarray, told: Sequence[str], line: int) -> None:
    """Writes a text above each box, or in it where there is no room above."""
    import matplotlib
    from PIL import ImageFont

    size = max(12, 5 * line)
    font = ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)
    width, _ = pen.im.size
    for (left, top, *_), label, text in zip(boxes.tolist(), labels.tolist(), told, strict=True):
        wide, high = math.ceil(pen.textlength(text, font)) + 4, size + 4
        x = max(0, min(round(left), width - wide))
        y = round(top) - high if top >= high else max(0, round(top))
        color = color_of(label)
        dark = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] < 130
        pen.rectangle((x, y, x + wide - 1, y + high - 1), fill=color)
        pen.text((x + 2, y + 1), text, fill="white" if dark else "black", font=font)


def _pixels(picture: Any) -> np.ndarray:
    """A picture as uint8[H, W, 3]."""
    from PIL import Image

    if isinstance(picture, (str, PathLike)):
        return decoding.read_picture(picture, None, 3)
    if isinstance(picture, Image.Image):
        return decoding.fit(picture, None, 3)
    pixels = np.asarray(picture)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] not in (1, 3):
        raise InputError(
            f"picture: wanted a file, a Pillow image or uint8[H, W, 3], got {pixels.dtype}"
            f"{list(pixels.shape)}"
        )
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def _enlarged(planes: np.ndarray, factor: int) -> np.ndarray:
    """Planes [N, H, W], every pixel a square of so many."""
    return planes.repeat(factor, 1).repeat(factor, 2)


def draw_precision_recall(
    table: CocoTable, path: str | PathLike, class_names: Sequence[str] | None = None
) -> None:
    """Draws precision over recall: of the mean over classes by IoU threshold, and of each class.

    Of more than 20 classes, the ten best and the ten worst are named, and the others are gray.

    Args:
        table: of `jaxnets.metrics.detection.coco_table`.
        path: of the picture; its ending says the format.
        class_names: by label; None for the labels themselves.

    Raises:
        InputError: no class with a truth, or a path that cannot be written.
    """
    from matplotlib.figure import Figure

    check_picture(path)
    precision = table.precision[:, :, :, 0, -1]  # of all areas, with 100 detections
    known = np.flatnonzero(precision[0, 0] >= 0)
    if not len(known):
        raise InputError("table: no class has a truth, so there is no precision to draw")
    figure = Figure(figsize=(13.5, 5), layout="constrained")
    by_threshold, by_class = figure.subplots(1, 2)
    for number, threshold in enumerate(THRESHOLDS):
        curve = precision[number][:, known].mean(1)
        shade = str(0.75 * number / len(THRESHOLDS))
        by_threshold.plot(RECALLS, curve, color=shade, label=f"IoU {threshold:.2f}: {curve.mean():.3f}")
    by_threshold.set_title(f"mean of {len(known)} classes")
    finish(by_threshold)
    at_half, names = precision[0].mean(0), class_names
    labels = {k: int(table.classes[k]) for k in known}
    draw_classes(
        by_class,
        [
            ClassCurve(
                label=label,
                name=str(label) if names is None else names[label],
                recall=RECALLS,
                precision=precision[0, :, k],
                average=at_half[k],
            )
            for k, label in labels.items()
        ],
        "classes at IoU 0.5",
    )
    save_figure(figure, path)
