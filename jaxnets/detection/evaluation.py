"""Average precision over a whole set, from what `training.predict_all` yields."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxnets.detection.detecting import pasted
from jaxnets.errors import InputError
from jaxnets.metrics import Metrics, Ratio
from jaxnets.metrics.detection import coco
from jaxnets.training.evaluation import Predictions

Image = dict[str, np.ndarray]

SHOWN = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")


def evaluate(predictions: Predictions) -> Metrics:
    """COCO's measures of boxes and, with a prefix `mask_`, of masks.

    Boxes are measured in pixels of the picture files. Masks are measured on the canvas, so that their
    strata of sizes are by the area in the file but overlaps by the canvas's pixels.

    Args:
        predictions: of `training.predict_all`. Pictures of weight 0 do not count.
    """
    return measures(*collected(predictions))


def collected(predictions: Predictions) -> tuple[list[Image], list[Image]]:
    """What was found and what there is, as `jaxnets.metrics.detection` takes them."""
    rows = [(found, there) for _, _, found, there in pictures(predictions)]
    return [found for found, _ in rows], [there for _, there in rows]


def pictures(predictions: Predictions) -> Iterator[tuple[Any, int, Image, Image]]:
    """Each picture that could be read: its batch, its row there, what was found, and what there is."""
    for batch, outputs in predictions:
        for row in np.flatnonzero(batch["weight"] > 0):
            yield batch, row, found_in(outputs, batch, row), truth_of(batch, row)


def measures(found: list[Image], there: list[Image]) -> Metrics:
    """COCO's measures of boxes and, where both have masks, of these with a prefix `mask_`.

    Raises:
        InputError: no images.
    """
    if not found:
        raise InputError("none of the pictures to measure by can be read; repair or replace them")
    boxes = coco(found, there, "box")
    measures = {name: boxes[name] for name in SHOWN}
    if "masks" in found[0] and "masks" in there[0]:
        masks = coco(found, there, "mask")
        measures |= {f"mask_{name}": masks[name] for name in SHOWN}
    return {name: Ratio(value, 1.0) for name, value in measures.items()}


def found_in(outputs: Any, batch: Any, row: int) -> Image:
    """What was found in a picture."""
    valid = outputs.valid[row]
    boxes = outputs.boxes[row][valid]
    image = {
        "boxes": boxes / ratio_of(batch, row),
        "scores": outputs.scores[row][valid],
        "labels": outputs.labels[row][valid],
    }
    if outputs.masks is not None:
        size = batch["image"].shape[1:3]
        own = zip(outputs.masks[row][valid], boxes, strict=True)
        masks = [pasted(mask, box, size) for mask, box in own]
        image["masks"] = np.stack(masks) if masks else np.zeros((0, *size), bool)
    return image


def truth_of(batch: Any, row: int) -> Image:
    """What there is to find in a picture."""
    valid = batch["valid"][row].astype(bool)
    names = {
        "label": "labels",
        "crowd": "crowd",
        "area": "area",
        "difficult": "difficult",
        "mask": "masks",
    }
    image = {theirs: batch[ours][row][valid] for ours, theirs in names.items() if ours in batch}
    return {"boxes": batch["box"][row][valid] / ratio_of(batch, row), **image}


def ratio_of(batch: Any, row: int) -> np.ndarray:
    """Pixels of the canvas for each of the file, along both axes, twice."""
    return np.tile(batch["ratio"][row], 2) if "ratio" in batch else np.ones(4, np.float32)
