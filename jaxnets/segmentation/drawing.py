"""Pictures of label maps: over a picture, beside their truth, and which class was taken for which."""

import math
from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any

import numpy as np

from jaxnets.data.example import IGNORE
from jaxnets.data.marking import colored, label_colors
from jaxnets.data.pictures import as_bytes, read
from jaxnets.errors import InputError
from jaxnets.explain import plot_confusion
from jaxnets.outputs import check_picture, plain, save_figure

SMALL = 480  # pixels of the longer side, below which a picture is enlarged so that its legend fits
_DPI = 100
_LISTED = 30  # classes in a legend
_TRIPLES = 2  # side by side in a sheet
_WIDTH = 2.4  # of each of their pictures, in inches


def draw(
    picture: Any, labels: np.ndarray, path: str | PathLike, class_names: Sequence[str] | None = None
) -> None:
    """Draws a label map translucently over its picture, beside a legend of the classes that are there.

    The legend tells the share of the picture of each class, the largest first. The picture keeps its
    pixels; one that is smaller than 480 pixels is enlarged by a whole factor. Each label has the color
    that Pascal VOC gives it, and 255, for pixels to ignore, is cream.

    Args:
        picture: a path, a Pillow image, uint8[H, W, 3] or floats in 0 to 1.
        labels: i[H, W], as of `segment`.
        path: of the picture to write; its ending says the format.
        class_names: by label, such as the model's `class_names`; labels without a name stand for
            themselves.

    Raises:
        InputError: a picture that cannot be read, labels of another size or below 0, or a path that
            cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    check_picture(path)
    drawn = _overlaid(picture, labels)
    factor = max(1, math.ceil(SMALL / max(drawn.shape[:2])))
    drawn = drawn.repeat(factor, 0).repeat(factor, 1)
    height, width, _ = drawn.shape
    size = 0.72 * max(12, max(height, width) // 60)  # of letters, in points
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    handles = _handles(np.asarray(labels), class_names)
    legend = figure.legend(handles=handles, loc="upper left", fontsize=size, frameon=False)
    figure.draw_without_rendering()
    extent = legend.get_window_extent(canvas.get_renderer())
    # A hair more than the pixels, which matplotlib rounds down.
    sides = width + math.ceil(extent.width) + 2 * size, max(height, math.ceil(extent.height) + 2 * size)
    sides = [math.floor(side) for side in sides]
    figure.set_size_inches([(side + 0.01) / _DPI for side in sides])
    figure.figimage(drawn, 0, sides[1] - height)
    legend.set_bbox_to_anchor((width / sides[0], 1.0))
    save_figure(figure, path, dpi=_DPI)


def draw_sheet(
    rows: Iterable[tuple[Any, np.ndarray, np.ndarray]],
    path: str | PathLike,
    class_names: Sequence[str] | None = None,
) -> None:
    """Draws pictures beside their label maps, the true one and the one that was found.

    Args:
        rows: triples of a picture, as of `draw`, its labels i[H, W], and those found i[H, W].
        path: of the picture to write; its ending says the format.
        class_names: by label; labels without a name stand for themselves.

    Raises:
        InputError: as of `draw`.
    """
    from matplotlib.figure import Figure

    check_picture(path)
    shown, there = [], []
    for picture, truth, found in rows:
        shown.append([as_bytes(read(picture)), _overlaid(picture, truth), _overlaid(picture, found)])
        there += [np.ravel(truth), np.ravel(found)]
    lines = max(1, math.ceil(len(shown) / _TRIPLES))
    tallest = max((triple[0].shape[0] / triple[0].shape[1] for triple in shown), default=1)
    sides = 3 * _WIDTH * _TRIPLES, 0.8 + (0.1 + _WIDTH * min(tallest, 2)) * lines
    figure = Figure(figsize=sides, layout="constrained")
    panels = figure.subplots(lines, 3 * _TRIPLES, squeeze=False).ravel()
    for number, panel in enumerate(panels):
        panel.set_axis_off()
        triple, which = divmod(number, 3)
        if triple < len(shown):
            panel.imshow(shown[triple][which], interpolation="nearest")
        if triple < _TRIPLES:
            panel.set_title(("picture", "there", "found")[which], fontsize=9)
    if there:
        handles = _handles(np.concatenate(there), class_names, shares=False)
        figure.legend(handles=handles, loc="outside lower center", ncols=8, fontsize=8, frameon=False)
    save_figure(figure, path)


def draw_confusion(
    confusion: np.ndarray, class_names: Sequence[str] | None, path: str | PathLike
) -> None:
    """Draws how many pixels of each class were taken for each, as shares of the true class.

    Args:
        confusion: [K, K], of `jaxnets.metrics.segmentation.confusion`.
        class_names: K of them; None or none of them for the labels themselves.
        path: of the picture to write; its ending says the format.

    Raises:
        InputError: a confusion of another shape, or a path that cannot be written.
    """
    names = class_names or [str(label) for label in range(len(confusion))]
    plot_confusion(np.asarray(confusion), names, path, unit="pixels")


def _overlaid(picture: Any, labels: Any) -> np.ndarray:
    """A picture half under the colors of its labels, uint8[H, W, 3].

    Raises:
        InputError: labels of another size, of no integers or below 0.
    """
    pixels, labels = as_bytes(read(picture)), np.asarray(labels)
    if labels.shape != pixels.shape[:2]:
        raise InputError(
            f"labels have shape {list(labels.shape)}, and the picture is {list(pixels.shape[:2])}; give "
            "the picture that they are of"
        )
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        raise InputError(f"labels: wanted integers from 0, got {labels.dtype} from {labels.min():g}")
    return colored(pixels, labels)


def _handles(labels: np.ndarray, class_names: Sequence[str] | None, shares: bool = True) -> list[Any]:
    """The entries of a legend of the labels that are there, with their shares and by these, or by
    label."""
    from matplotlib.patches import Patch

    there, counts = np.unique(labels, return_counts=True)
    order = np.argsort(-counts, kind="stable") if shares else np.arange(len(there))
    handles = []
    for label, count in zip(there[order].tolist(), counts[order].tolist(), strict=True):
        text = _name(label, class_names)
        if shares:
            share = count / labels.size
            text += "  <0.1%" if share < 0.001 else f"  {share:.1%}"
        color = label_colors(np.array(label)) / 255
        handles.append(Patch(facecolor=color, edgecolor="0.5", linewidth=0.5, label=plain(text)))
    if len(handles) > _LISTED:
        more = Patch(facecolor="none", label=f"and {len(handles) - _LISTED + 1} more")
        handles[_LISTED - 1 :] = [more]
    return handles


def _name(label: int, class_names: Sequence[str] | None) -> str:
    if label == IGNORE:
        return "ignored"
    return class_names[label] if class_names and label < len(class_names) else str(label)
