"""How far each layer moved in the steps of a training run."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxnets.outputs import plain, save_figure

_BOUNDS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_COLORS = ("#1b2a6b", "#3f6fb5", "#a9cbe8", "#4caf50", "#f5a742", "#b5251b")


def plot_layer_ratios(
    ratios: Sequence[dict[str, float]], steps: Sequence[float], path: str | Path, unit: str = "step"
) -> None:
    """Draws the update-to-weight ratio of each layer over a run, a row a layer, sorted by name.

    The color tells the size; green is the band of 0.001 to 0.01 in which it is commonly wanted
    (CS231n, "Ratio of weights:updates"). Below, in blue, a layer hardly learns; above, in orange and
    red, its rate is high.

    Args:
        ratios: the ratios by layer, a dict for each record; a layer may be absent from some.
        steps: the step, or epoch, up to which each record goes; they rise.
        path: of the picture; its ending says the format.
        unit: what `steps` count.
    """
    from matplotlib.colors import BoundaryNorm, ListedColormap
    from matplotlib.figure import Figure

    layers = sorted({layer for record in ratios for layer in record}, key=_by_number)
    values = np.array([[record.get(layer, np.nan) for record in ratios] for layer in layers])
    colors = ListedColormap(_COLORS[1:-1]).with_extremes(under=_COLORS[0], over=_COLORS[-1], bad="0.85")
    label = 0.075 * max(map(len, layers))  # inches
    height = max(3.2, 1.3 + 0.19 * len(layers))
    figure = Figure(figsize=(7.5 + label, height), layout="constrained")
    axis = figure.subplots()
    edges = [steps[0] - (steps[1] - steps[0] if len(steps) > 1 else steps[0]), *steps]
    mesh = axis.pcolormesh(
        np.maximum(edges, 0),
        np.arange(len(layers) + 1),
        np.ma.masked_invalid(values),
        norm=BoundaryNorm(_BOUNDS, len(_COLORS) - 2),
        cmap=colors,
    )
    axis.invert_yaxis()
    axis.set_yticks(np.arange(len(layers)) + 0.5, [plain(name) for name in layers], fontsize=8)
    axis.set_xlabel(unit)
    axis.set_title("update-to-weight ratio of each layer")
    place = {"shrink": min(1, 5 / height), "aspect": 22, "anchor": (0, 1)}
    bar = figure.colorbar(mesh, ax=axis, extend="both", ticks=_BOUNDS, format="%g", **place)
    bar.set_label("|update| / |weights|\nwanted: 0.001 to 0.01 (green)")
    save_figure(figure, path, dpi=110)


def _by_number(name: str) -> list[str | int]:
    """So that block10 comes after block9."""
    return [int(part) if odd % 2 else part for odd, part in enumerate(re.split(r"(\d+)", name))]
