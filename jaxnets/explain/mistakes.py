"""What a classifier gets wrong: the confusion matrix, and a contact sheet of its worst mistakes."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxnets.errors import InputError
from jaxnets.outputs import plain, save_figure

_NAMED = 40  # classes up to which each has its row and its name
_COUNTED = 20  # and up to which each cell has its number
_PAIRS = 20  # of classes that are listed where there are more
_COLUMNS = 5


class Mistake(NamedTuple):
    """An image that was taken for another class.

    Attributes:
        image: uint8[H, W, 1 or 3].
        truth: its class.
        said: the class it was taken for.
        probability: of the class it was taken for.
    """

    image: np.ndarray
    truth: int
    said: int
    probability: float


def plot_confusion(
    matrix: np.ndarray, class_names: Sequence[str], path: str | Path, unit: str = "images"
) -> None:
    """Draws how often each class was taken for each.

    The color is the share among the images of the true class. Up to 20 classes the numbers of images
    stand in the cells, or the shares if a number has more than five digits; up to 40 every class is
    named; of more the most frequent confusions are listed.

    Args:
        matrix: float[K, K], counts: row = true class, column = predicted class.
        class_names: K of them.
        path: of the picture; its ending says the format.
        unit: what was counted, in the plural.

    Raises:
        InputError: another shape.
    """
    from matplotlib.figure import Figure

    count = len(class_names)
    matrix = np.asarray(matrix)
    if matrix.shape != (count, count) or not count:
        raise InputError(f"matrix has shape {matrix.shape}; wanted ({count}, {count}), one a class")
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    if count <= _NAMED:
        names = [_wrapped(name, 30) for name in class_names]
        label = 0.085 * max(len(line) for name in names for line in name.splitlines())  # inches
        lines = max(name.count("\n") + 1 for name in names)
        cell = max(0.5 if count <= _COUNTED else 0.28, 0.15 * lines)
        side = max(3.0, cell * count)
        figure = Figure(figsize=(side + label + 1.8, side + label + 1.0), layout="constrained")
        axis = figure.subplots()
        axis.set_xticks(range(count), names, rotation=90 if label > side / count else 0, fontsize=8)
        axis.set_yticks(range(count), names, fontsize=8)
        for row, column in np.argwhere(matrix > 0) if count <= _COUNTED else ():
            color = "white" if shares[row, column] > 0.5 else "black"
            long = matrix.max() >= 1e5
            text = f"{shares[row, column]:.1%}" if long else f"{matrix[row, column]:.0f}"
            axis.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    else:
        figure = Figure(figsize=(17, 8.5), layout="constrained")
        axis, listed = figure.subplots(1, 2, width_ratios=(1, 0.55))
        _list_confusions(listed, matrix, shares, class_names, unit)
    # The square root brings out rare confusions. Without smoothing no cell is lost among others.
    mesh = axis.imshow(np.sqrt(shares), vmin=0, vmax=1, cmap="Blues", interpolation="nearest")
    right = np.trace(matrix) / max(matrix.sum(), 1)
    axis.set_title(f"confusion: {right:.2%} of {matrix.sum():,.0f} {unit} right")
    axis.set_xlabel("predicted class" if count <= _NAMED else "predicted class, by number")
    axis.set_ylabel("true class" if count <= _NAMED else "true class, by number")
    bar = figure.colorbar(mesh, ax=axis, shrink=0.9)
    ticks = (0, 0.01, 0.05, 0.2, 0.5, 1)
    bar.set_ticks(np.sqrt(ticks), labels=[f"{tick:.0%}" for tick in ticks])
    bar.set_label(f"share of the {unit} of the true class")
    save_figure(figure, path, dpi=130)


def plot_mistakes(
    mistakes: Sequence[Mistake], class_names: Sequence[str], path: str | Path, title: str = ""
) -> None:
    """Draws images that were taken for another class, in the order given, with both classes.

    Args:
        mistakes: the worst first.
        class_names: K of them.
        path: of the picture; its ending says the format.
        title: above all.
    """
    from matplotlib.figure import Figure

    titles = [
        f"true: {_wrapped(class_names[m.truth], 22)}\n"
        f"said: {_wrapped(f'{class_names[m.said]} ({m.probability:.1%})', 22)}"
        for m in mistakes
    ]
    columns = min(_COLUMNS, max(2, len(mistakes)))
    rows = max(1, math.ceil(len(mistakes) / columns))
    lines = max((text.count("\n") + 1 for text in titles), default=1)
    height, width, _ = mistakes[0].image.shape if mistakes else (1, 4, 1)
    cell = 2 * height / width + 0.17 * lines
    figure = Figure(figsize=(2.1 * columns, 0.5 + rows * cell), layout="constrained")
    figure.suptitle(plain(title))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, mistake, text in zip(axes, mistakes, titles, strict=False):
        axis.imshow(np.broadcast_to(mistake.image, (*mistake.image.shape[:2], 3)))
        axis.set_title(text, fontsize=8)
    save_figure(figure, path, dpi=110)


def _list_confusions(
    axis, matrix: np.ndarray, shares: np.ndarray, class_names: Sequence[str], unit: str
) -> None:
    """The most frequent confusions as bars."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    pairs = [pair for pair in zip(*np.unravel_index(order, wrong.shape), strict=True) if wrong[pair]]
    names = [
        f"{_wrapped(class_names[truth], 48)}\n→ {_wrapped(class_names[said], 48)}"
        for truth, said in pairs
    ]
    axis.barh(range(len(pairs)), [wrong[pair] for pair in pairs], color="tab:orange")
    axis.set_yticks(range(len(pairs)), names, fontsize=7)
    axis.invert_yaxis()
    axis.set_title("most frequent confusions: true → predicted")
    axis.set_xlabel(unit)
    for place, pair in enumerate(pairs):
        axis.text(
            wrong[pair], place, f" {wrong[pair]:.0f} ({shares[pair]:.0%})", va="center", fontsize=7
        )
    axis.margins(x=0.2)


def _wrapped(text: str, width: int) -> str:
    return plain("\n".join(textwrap.wrap(text, width)) or text)
