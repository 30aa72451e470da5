"""The pictures of a training run, drawn into its directory."""

import heapq
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jaxnets import data, training
from jaxnets.explain import Mistake, plot_confusion, plot_curves, plot_layer_ratios, plot_mistakes
from jaxnets.training.parallel import is_main_process
from jaxnets.training.ratios import RATIO

WORST = 25  # mistakes that are shown


def draw_history(directory: Path) -> list[Path]:
    """Draws what a run has recorded: `curves.png` and, of one with `plots`, `update_ratios.png`.

    Returns:
        The pictures; none before the first record, and in other processes than the main one.
    """
    history = training.read_history(directory)
    if not history.steps or not is_main_process():
        return []
    drawn = [directory / "curves.png"]
    plot_curves(history.steps, history.epochs, drawn[0])
    layers = [
        {name.removeprefix(RATIO): value for name, value in record.items() if name.startswith(RATIO)}
        for record in history.steps
    ]
    if any(layers):
        drawn.append(directory / "update_ratios.png")
        first = history.epochs[0] if history.epochs else {"step": 1, "epoch": 1}
        per_unit = first["step"] / first["epoch"]
        places = [record["step"] / per_unit for record in history.steps]
        plot_layer_ratios(layers, places, drawn[1], unit="epoch" if history.epochs else "step")
    return drawn


def draw_predictions(
    directory: Path,
    predict: Callable[[np.ndarray], np.ndarray],
    source: data.Source,
    class_names: Sequence[str],
    *,
    batch_size: int = 128,
) -> list[Path]:
    """Draws what a classifier says of held-out images: `confusion.png` and `mistakes.png`.

    The mistakes are the 25 of which it was most sure.

    Args:
        directory: where the pictures go.
        predict: probabilities f32[N, K] for images uint8[N, H, W, C].
        source: the images with their labels.
        class_names: K of them.
        batch_size: images at a time.

    Returns:
        The pictures.
    """
    matrix = np.zeros((len(class_names), len(class_names)), int)
    worst: list[tuple[float, int, Mistake]] = []
    number = itertools.count()  # of two as sure the earlier; and mistakes themselves have no order
    for batch in data.eval_batches(source, batch_size):
        probabilities = predict(batch["image"])
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
