"""Curves of precision over recall, one a class."""

from collections.abc import Sequence
from os import PathLike
from typing import Any, NamedTuple

import numpy as np

from jaxnets.data.marking import color_of
from jaxnets.outputs import check_picture, plain, save_figure

_NAMED = 20  # classes with a color of their own


class ClassCurve(NamedTuple):
    """How precise what is found of a class is at each recall.

    Attributes:
        label: the number of the class, for its color.
        name: of the class.
        recall, precision: f64[P], in the order of recall.
        average: average precision.
    """

    label: int
    name: str
    recall: np.ndarray
    precision: np.ndarray
    average: float


def plot_precision_recall(curves: Sequence[ClassCurve], path: str | PathLike) -> None:
    """Draws precision over recall of each class.

    Of more than 20 classes, the ten best and the ten worst are named, and the others are gray.

    Args:
        curves: one a class.
        path: of the picture; its ending says the format.

    Raises:
        InputError: a path that cannot be written.
    """
    from matplotlib.figure import Figure

    check_picture(path)
    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axis = figure.subplots()
    mean = np.mean([curve.average for curve in curves]) if curves else np.nan
    draw_classes(axis, curves, f"mean average precision {mean:.3f}")
    save_figure(figure, path)


def draw_classes(axis: Any, curves: Sequence[ClassCurve], title: str) -> None:
    """The curves of classes and their legend in an axis of Matplotlib's."""
    best_first = sorted(curves, key=lambda curve: -curve.average)
    few, half = len(best_first) <= _NAMED, _NAMED // 2
    named = best_first if few else best_first[:half] + best_first[-half:]
    for curve in () if few else best_first[half:-half]:
        axis.plot(curve.recall, curve.precision, color="0.85", linewidth=0.8)
    for curve in named:
        color = [value / 255 for value in color_of(curve.label)]
        told = plain(f"{curve.name}: {curve.average:.3f}")
        axis.plot(curve.recall, curve.precision, color=color, label=told)
    axis.set_title(title if few else f"{title}: ten best, ten worst of {len(curves)}")
    finish(axis)


def finish(axis: Any) -> None:
    """Names and limits of an axis of precision over recall, and its legend beside it."""
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
