"""Detection in pictures of any size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import Any

import jax
import numpy as np

from jaxnets.data.pictures import check_colors, check_list, read
from jaxnets.detection import pictures as reading
from jaxnets.detection.detector import Detector, Found
from jaxnets.detection.suppression import rounded_down
from jaxnets.errors import InputError

OBJECT = 0.5  # least probability of a mask's pixel


@dataclass(frozen=True)
class Detections:
    """The objects found in a picture, best first.

    Attributes:
        boxes: f32[D, 4], left, top, right and bottom in pixels of the picture.
        scores: f32[D].
        labels: i32[D].
        masks: bool[D, H, W], the pixels of each object; None for detectors of boxes alone.
        names: of their classes.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None
    names: tuple[str, ...]


def detect(
    model: Detector,
    variables: Mapping[str, Any],
    pictures: Sequence[str | PathLike | np.ndarray | Any],
    *,
    score: float | None = None,
    iou: float | None = None,
    k: int | None = None,
) -> list[Detections]:
    """Finds the objects in pictures.

    Each picture is scaled as the model's `resizing` has it, and put on one of a few canvases, for each
    of which the model is compiled once. What is found depends neither on the canvas nor on the others.

    Args:
        model: a detector, of `jaxnets.load_pretrained` or `create_detector`.
        variables: its variables.
        pictures: paths, Pillow images, uint8[H, W, 3] or floats in 0 to 1.
        score: detections of lower scores are dropped; None for the model's own threshold.
        iou: of two detections of a class that overlap by more, the better is kept; None for the model's
            own.
        k: the most in a picture; None for the model's own.

    Returns:
        What was found in each picture.

    Raises:
        InputError: a picture that cannot be read, no list of pictures, or a threshold out of range.
    """
    check_list(pictures)
    check_colors(model)
    for name, value in (("score", score), ("iou", iou)):
        if value is not None and not 0 <= value <= 1:
            raise InputError(f"{name} is {value}; it must be from 0 to 1")
    if k is not None and k < 1:
        raise InputError(f"k is {k}; it must be 1 or more")
    iou = None if iou is None else rounded_down(iou, np.float32)
    variables = jax.tree.map(jax.numpy.asarray, dict(variables))
    return [_detected(model, variables, picture, score, iou, k) for picture in pictures]


def _detected(
    model: Detector, variables: Mapping[str, Any], picture: Any, score: Any, iou: Any, k: int | None
) -> Detections:
    placed = reading.place(read(picture), model.resizing)
    sizes = np.array([placed.size], np.int32)
    found = jax.device_get(_found(model, variables, placed.image[None], sizes, score, iou, k))
    return in_picture(jax.tree.map(lambda part: part[0], found), placed, model.class_names)


@partial(jax.jit, static_argnames=("model", "k"))
def _found(model, variables, images, sizes, score, iou, k) -> Found:
    return model.apply(variables, images, sizes, score=score, iou=iou, k=k, method="detect")


def in_picture(found: Found, placed: reading.Placed, class_names: Sequence[str]) -> Detections:
    """What was found on a canvas, in pixels of the picture.

    Args:
        found: of one picture, without the axis of the batch, on the host.
        placed: where the picture is on the canvas.
        class_names: by label.
    """
    ratio = np.array(placed.original, np.float32) / np.array(placed.size, np.float32)
    boxes = found.boxes[found.valid] * ratio[[1, 0, 1, 0]]
    labels = found.labels[found.valid]
    masks = None
    if found.masks is not None:
        own = zip(found.masks[found.valid], boxes, strict=True)
        masks = [pasted(mask, box, placed.original) for mask, box in own]
        masks = np.stack(masks) if masks else np.zeros((0, *placed.original), bool)
    names = tuple(class_names[label] if class_names else str(label) for label in labels)
    return Detections(boxes, found.scores[found.valid], labels, masks, names)


def pasted(mask: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixels of an object, bool[H, W], from its mask f32[M, M] within a box f32[4]: `paste_masks` of
    one, of which only the box is computed."""
    side, (height, width) = len(mask) + 2, size
    growth = np.float32(side / len(mask))
    center, half = (box[:2] + box[2:]) * np.float32(0.5), (box[2:] - box[:2]) * np.float32(0.5) * growth
    low, high = (center - half).astype(np.int64), (center + half).astype(np.int64)
    (left, top), (columns, rows) = low, np.maximum(high - low + 1, 1)
    whole = reading.resized(np.pad(mask, 1)[..., None], (int(rows), int(columns)))[..., 0]
    pixels = np.zeros(size, bool)
    y1, x1, y2, x2 = max(top, 0), max(left, 0), min(top + rows, height), min(left + columns, width)
    if y1 < y2 and x1 < x2:
        pixels[y1:y2, x1:x2] = whole[y1 - top : y2 - top, x1 - left : x2 - left] >= OBJECT
    return pixels
