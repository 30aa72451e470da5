"""What a classifier says of held-out images, drawn into a run's directory."""

import heapq
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from jaxnets.classification.multilabel import gathered
from jaxnets.explain import Mistake, plot_confusion, plot_mistakes
from jaxnets.explain.precision_recall import ClassCurve, plot_precision_recall
from jaxnets.metrics import average_precision, precision_recall
from jaxnets.training.evaluation import Predictions

WORST = 25  # mistakes that are shown


def draw_predictions(
    directory: Path,
    predictions: Iterable[tuple[dict, np.ndarray]],
    class_names: Sequence[str],
) -> list[Path]:
    """Draws what a classifier says of held-out images: `confusion.png` and `mistakes.png`.

    The mistakes are the 25 of which it was most sure.

    Args:
        directory: where the pictures go.
        predictions: batches of `image` uint8[N, H, W, C], `label` and `weight`, and the probabilities
            f32[N, K] of each.
        class_names: K of them.

    Returns:
        The pictures.
    """
    matrix = np.zeros((len(class_names), len(class_names)), int)
    worst: list[tuple[float, int, Mistake]] = []
    number = itertools.count()  # of two as sure the earlier; and mistakes themselves have no order
    for batch, probabilities in predictions:
        there = np.flatnonzero(batch["weight"] > 0)
        said, truth = probabilities.argmax(-1), batch["label"]
        np.add.at(matrix, (truth[there], said[there]), 1)
        for k in there[said[there] != truth[there]]:
            sure = float(probabilities[k, said[k]])
            mistake = Mistake(batch["image"][k].copy(), int(truth[k]), int(said[k]), sure)
            heapq.heappush(worst, (sure, -next(number), mistake))
            if len(worst) > WORST:
                heapq.heappop(worst)
    confusion, sheet = directory / "confusion.png", directory / "mistakes.png"
    plot_confusion(matrix, class_names, confusion)
    wrong, total = int(matrix.sum() - np.trace(matrix)), int(matrix.sum())
    shown = f", the {len(worst)} it was surest of" if wrong > len(worst) else ""
    title = f"{wrong:,} of {total:,} images wrong{shown}"
    plot_mistakes([mistake for *_, mistake in sorted(worst, reverse=True)], class_names, sheet, title)
    return [confusion, sheet]


def draw_precision_recall(
    directory: Path, predictions: Predictions, class_names: Sequence[str]
) -> list[Path]:
    """Draws `precision_recall.png`, of a classifier of images of several labels.

    Args:
        directory: where the picture goes.
        predictions: of `training.predict_all`.
        class_names: K of them; those without an image are left out.
    """
    scores, labels = gathered(predictions)
    averages, curves = average_precision(scores, labels), precision_recall(scores, labels)
    classes = [
        ClassCurve(k, name, *curves[k], averages[k])
        for k, name in enumerate(class_names)
        if len(curves[k][0])
    ]
    path = directory / "precision_recall.png"
    plot_precision_recall(classes, path)
    return [path]
