"""What a segmenter says of held-out pictures, drawn into a run's directory."""

from pathlib import Path

import numpy as np

from jaxnets.metrics.segmentation import confusion
from jaxnets.segmentation.drawing import draw_confusion, draw_sheet
from jaxnets.segmentation.task import Segmentation
from jaxnets.training.evaluation import Predictions

SHOWN = 12  # pictures


def draw(task: Segmentation, predictions: Predictions, directory: Path) -> list[Path]:
    """Draws `segmentations.png`, the first pictures with their truth and what was found, and
    `confusion.png`, of the pixels of all.

    Args:
        task: which predicted.
        predictions: of `training.predict_all`.
        directory: where the pictures go.

    Returns:
        The pictures.
    """
    count = task.model.num_classes
    names = task.model.class_names or None
    matrix, rows = np.zeros((count, count), np.int64), []
    for batch, scores in predictions:
        for row in np.flatnonzero(batch["weight"] > 0):
            truth, found = batch["segmentation"][row], scores[row].argmax(-1)
            matrix += confusion(truth, found, count)
            if len(rows) < SHOWN:
                height, width = batch["size"][row] if "size" in batch else truth.shape
                parts = (batch["image"][row], truth, found)
                rows.append(tuple(part[:height, :width] for part in parts))
    sheet, table = directory / "segmentations.png", directory / "confusion.png"
    draw_sheet(rows, sheet, names)
    draw_confusion(matrix, names, table)
    return [sheet, table]
