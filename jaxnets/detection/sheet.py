"""What a detector finds in held-out pictures, drawn into a run's directory."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxnets.data.marking import marked
from jaxnets.detection.drawing import draw_precision_recall
from jaxnets.detection.evaluation import Image, pictures, ratio_of
from jaxnets.detection.task import Detection
from jaxnets.metrics.detection import coco_table
from jaxnets.outputs import plain, save_figure
from jaxnets.training.evaluation import Predictions

SHOWN, COLUMNS = 12, 3  # pictures
SURE = 0.5  # least score of what is drawn
SIDE = 384  # pixels to which a small picture is enlarged


def draw(task: Detection, predictions: Predictions, directory: Path) -> list[Path]:
    """Draws `detections.png`, the first pictures with their truth and with what was found, and
    `precision_recall.png`, of all.

    Args:
        task: which predicted.
        predictions: of `training.predict_all`.
        directory: where the pictures go.

    Returns:
        The pictures.
    """
    found, there, pairs = [], [], []
    for batch, row, own, truth in pictures(predictions):
        found.append(own)
        there.append(truth)
        if len(pairs) < SHOWN:
            height, width = batch["size"][row] if "size" in batch else batch["image"].shape[1:3]
            image, ratio = batch["image"][row][:height, :width], ratio_of(batch, row)
            pairs.append([_drawn(image, part, ratio) for part in (truth, own)])
    sheet, curves = directory / "detections.png", directory / "precision_recall.png"
    _draw_pairs(pairs, sheet)
    if not any(len(image["labels"]) for image in there):
        return [sheet]
    draw_precision_recall(coco_table(found, there), curves, task.model.class_names)
    return [sheet, curves]


def _drawn(image: np.ndarray, objects: Image, ratio: np.ndarray) -> np.ndarray:
    """A picture with objects, uint8[H, W, 3]."""
    if "scores" in objects:  # the best last, so that they lie on top
        kept = np.flatnonzero(objects["scores"] >= SURE)[::-1]
        objects = {name: values[kept] for name, values in objects.items()}
    if image.dtype != np.uint8:
        image = np.round(255 * image).astype(np.uint8)
    factor = max(1, SIDE // max(image.shape[:2]))
    boxes, masks = objects["boxes"] * ratio * factor, objects.get("masks")
    if masks is not None:
        height, width = image.shape[:2]
        masks = masks[:, :height, :width].repeat(factor, 1).repeat(factor, 2)
    image = np.broadcast_to(image, (*image.shape[:2], 3)).repeat(factor, 0).repeat(factor, 1)
    return marked(image, boxes, objects["labels"], masks, line=max(2, max(image.shape) // 200))


def _draw_pairs(pairs: Sequence[Sequence[np.ndarray]], path: Path) -> None:
    from matplotlib.figure import Figure

    rows = -(-len(pairs) // COLUMNS)
    figure = Figure(figsize=(5.2 * COLUMNS, 2.8 * rows), layout="constrained")
    panels = figure.subplots(rows, 2 * COLUMNS, squeeze=False).ravel()
    titles = ("there", f"found (score of {SURE} or more)")
    for number, panel in enumerate(panels):
        panel.set_axis_off()
        if number < 2 * len(pairs):
            panel.imshow(pairs[number // 2][number % 2])
        if number < 2 * COLUMNS:
            panel.set_title(plain(titles[number % 2]), fontsize=9)
    save_figure(figure, path)
