"""What the measures of detections share: images as arrays that are checked, overlaps and curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxnets.errors import InputError

Detections = Sequence[Mapping[str, Any]]
THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of IoU


def box_iou(boxes: np.ndarray, others: np.ndarray, *, extra: float = 0.0) -> np.ndarray:
    """The intersection over union f64[D, M] of boxes f[D, 4] and f[M, 4]; 0 where both are empty.

    Args:
        boxes: (x1, y1, x2, y2).
        others: likewise.
        extra: added to every width and height: 1 for boxes that include their last pixel.
    """
    inter = intersection(boxes, others, extra)
    union = area_of(boxes, extra)[:, None] + area_of(others, extra)[None] - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def area_of(boxes: np.ndarray, extra: float = 0.0) -> np.ndarray:
    """The area f64[D] of boxes f[D, 4]."""
    return (boxes[:, 2] - boxes[:, 0] + extra) * (boxes[:, 3] - boxes[:, 1] + extra)


def intersection(boxes: np.ndarray, others: np.ndarray, extra: float = 0.0) -> np.ndarray:
    """The area f64[D, M] that boxes f[D, 4] and f[M, 4] share."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.prod(np.maximum(high - low + extra, 0), -1)


def curve(hits: np.ndarray, positives: int) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision f64[D] after each detection."""
    right, wrong = np.cumsum(hits, dtype=float), np.cumsum(~hits, dtype=float)
    return right / positives, right / (right + wrong)


def only(image: dict, label: int) -> dict:
    """The detections or truths of one class."""
    chosen = image["labels"] == label
    return {name: values[chosen] for name, values in image.items()}


def checked(predictions: Detections, truths: Detections, kind: str) -> tuple[list[dict], list[dict]]:
    """The images as arrays, with everything filled in that may be left out."""
    if len(predictions) != len(truths):
        raise InputError(
            f"predictions has {len(predictions)} images and truths {len(truths)}; give one each"
        )
    found = [
        _image(image, f"predictions[{k}]", kind, {"scores": float})
        for k, image in enumerate(predictions)
    ]
    there = []
    for k, image in enumerate(truths):
        true = _image(image, f"truths[{k}]", kind, {})
        count = len(true["labels"])
        for name in ("crowd", "difficult"):
            true[name] = np.asarray(image.get(name, np.zeros(count)), bool)
        area = true["masks"].sum((1, 2)) if kind == "mask" else area_of(true["boxes"])
        true["area"] = np.asarray(image.get("area", area), float)
        for name in ("crowd", "difficult", "area"):
            if true[name].shape != (count,):
                raise InputError(
                    f"truths[{k}] has {count} labels and {name} of shape {true[name].shape}"
                )
        there.append(true)
    return found, there


def _image(image: Mapping[str, Any], where: str, kind: str, more: dict[str, type]) -> dict:
    names = {"boxes": float, "labels": int, **more} if kind == "box" else {"labels": int, **more}
    if missing := [
        name for name in (*names, *(["masks"] if kind == "mask" else [])) if name not in image
    ]:
        raise InputError(f"{where} has no {missing[0]}; it has {', '.join(image)}")
    arrays = {name: np.asarray(image[name], dtype) for name, dtype in names.items()}
    if kind == "box":
        arrays["boxes"] = arrays["boxes"].reshape(-1, 4)
    else:
        masks = np.asarray(image["masks"], bool)
        arrays["masks"] = masks if masks.ndim == 3 else masks.reshape(len(arrays["labels"]), 0, 0)
    lengths = {name: len(values) for name, values in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(
            f"{where} has {', '.join(f'{n} {name}' for name, n in lengths.items())}; give one each"
        )
    if not np.isfinite(arrays.get("scores", 0.0)).all():
        raise InputError(f"{where} has a score that is not finite; leave it out")
    return arrays
