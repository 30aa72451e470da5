"""What a search of hyperparameters found, as a map."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxnets.outputs import save_figure

MARKERS = "osD^vP"  # of the stages
COLORS = "viridis"
LINES = ("-.", ":", "--")  # around the ranges of stages: 2 is dashed, 3 is dash-dotted
ACCURACIES = (0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 1.0)
LEAST_ERROR = 0.002  # an error of 0 has no logarithm
RED = "tab:red"
LOST = {"marker": "x", "color": RED, "s": 35}
RING = {"marker": "o", "facecolors": "none", "edgecolors": RED, "linewidths": 2}


def plot_search(found: dict[str, Any], path: str | Path) -> None:
    """Draws every trial of a search where its hyperparameters lie, on logarithmic axes.

    A panel for the first hyperparameter (usually the learning rate) against each other one, or against
    what was measured where it is the only one. Color is what was measured on the held-out examples,
    the marker is the stage, a dashed frame the ranges that a later stage drew from. A candidate that
    was kept is drawn as the last stage it was trained in saw it. Colors go by the logarithm of the
    error or of the loss, so that the differences among the good ones show.

    Args:
        found: `SearchResult.to_dict()`, or what `search.json` holds.
        path: of the picture; its ending says the format.
    """
    from matplotlib.figure import Figure

    monitor = found["monitor"]
    first, *others = found["stages"][0]["space"]
    others = others or [None]
    figure = Figure(figsize=(2.2 + 5.2 * len(others), 6.2), layout="constrained")
    panels = figure.subplots(1, len(others), squeeze=False)[0]
    scores = [t["measured"][monitor] for t in found["trials"] if t["stopped"] is None]
    colors, bar = _colors(found, scores)
    for panel, other in zip(panels, others, strict=True):
        drawn = _draw(panel, found, first, other, colors)
        panel.set_xlabel(_words(first))
        panel.set_ylabel(_words(other) if other else f"held-out {monitor}")
        panel.grid(alpha=0.3)
    figure.colorbar(drawn, ax=list(panels), label=f"held-out {monitor}", pad=0.02, **bar)
    searched = " and ".join(map(_words, found["stages"][0]["space"]))
    count = len({trial["candidate"] for trial in found["trials"]})
    best = _best(found)
    title = [f"search of {searched}: {count} candidates"]
    if best:
        told = ", ".join(f"{_words(name)} {value:.3g}" for name, value in best["values"].items())
        score = found["form"].format(best["measured"][monitor])
        title.append(f"best: {told}, held-out {monitor} {score}")
    figure.suptitle("\n".join(title), fontsize="medium")
    figure.legend(handles=_legend(found), loc="outside lower center", ncols=3, fontsize="small")
    save_figure(figure, path, dpi=110)


def _draw(panel, found: dict[str, Any], first: str, other: str | None, colors: dict[str, Any]):
    """Fills one panel; returns what the color bar is to explain."""
    monitor, stages = found["monitor"], found["stages"]
    last_stage = {trial["candidate"]: trial["stage"] for trial in found["trials"]}

    def place(trials: list[dict]) -> tuple[list[float], list[float]]:
        heights = [t["values"][other] if other else t["measured"][monitor] for t in trials]
        return [trial["values"][first] for trial in trials], heights

    panel.set_xscale("log")
    panel.set_xlim(_with_margin(stages[0]["space"][first]))
    lost = [trial for trial in found["trials"] if trial["stopped"] is not None]
    if other:
        panel.set_yscale("log")
        panel.set_ylim(_with_margin(stages[0]["space"][other]))
        panel.scatter(*place(lost), **LOST)
    else:  # they have no height: at the foot
        at = [trial["values"][first] for trial in lost]
        panel.scatter(at, [0.02] * len(at), transform=panel.get_xaxis_transform(), **LOST)
    for number, stage in enumerate(stages, start=1):
        if "space" not in stage:
            continue
        shown = [
            t
            for t in found["trials"]
            if t["stage"] == number == last_stage[t["candidate"]] and t["stopped"] is None
        ]
        score = np.array([trial["measured"][monitor] for trial in shown], float)
        drawn = panel.scatter(
            *place(shown),
            c=score,
            marker=MARKERS[(number - 1) % len(MARKERS)],
            s=40 + 15 * number,
            edgecolors="black",
            linewidths=0.6,
            zorder=2 + number,
            **colors,
        )
        if other and number > 1:
            (left, right), (bottom, top) = (stage["space"][name] for name in (first, other))
            corners = [left, right, right, left, left], [bottom, bottom, top, top, bottom]
            panel.plot(*corners, **_frame(number))
    best = _best(found)
    if best:
        panel.scatter(*place([best]), s=260, zorder=20, **RING)
    return drawn


def _frame(number: int) -> dict[str, Any]:
    """How the ranges of a stage are framed."""
    line = LINES[number % len(LINES)]
    return {"linestyle": line, "color": "dimgray", "linewidth": 1.1, "zorder": 1}


def _legend(found: dict[str, Any]) -> list:
    """A handle for each kind of mark, in no color of the color bar."""
    from matplotlib.lines import Line2D

    def handle(label: str, **style) -> Line2D:
        return Line2D([], [], linestyle="none", label=label, **style)

    handles = []
    for number, stage in enumerate(found["stages"], start=1):
        epochs = "1 epoch" if stage["epochs"] == 1 else f"{stage['epochs']} epochs"
        style = {"marker": MARKERS[(number - 1) % len(MARKERS)], "color": "lightgray"}
        handles.append(
            handle(f"stage {number}, {epochs}", markeredgecolor="black", markersize=6 + number, **style)
        )
    if _best(found):
        handles.append(handle("best", marker="o", color="none", markersize=12, markeredgecolor=RED))
    if any(trial["stopped"] is not None for trial in found["trials"]):
        handles.append(handle("given up: it diverged", marker="x", color=RED))
    if len(found["stages"]) > 1 and len(found["stages"][0]["space"]) > 1:
        handles += [
            Line2D([], [], label=f"range of stage {number}", **_frame(number))
            for number in range(2, len(found["stages"]) + 1)
        ]
    return handles


def _best(found: dict[str, Any]) -> dict[str, Any] | None:
    """The last trial of the best candidate."""
    trials = [trial for trial in found["trials"] if trial["candidate"] == found["best"]]
    finished = [trial for trial in trials if trial["stopped"] is None]
    return finished[-1] if finished else None


def _with_margin(ends: list[float]) -> tuple[float, float]:
    """A range and a twentieth of its width more on either side, in log."""
    low, high = ends
    margin = (high / low) ** 0.05
    return low / margin, high * margin


def _colors(found: dict[str, Any], scores: list[float]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Color map and scale of the marks, and ticks of the color bar: the better the brighter."""
    from matplotlib.colors import FuncNorm, LogNorm, Normalize

    low, high = (min(scores), max(scores)) if scores else (0.1, 0.9)
    if low == high:
        low, high = 0.99 * low, 1.01 * high + 1e-3
    if found["lower_is_better"]:
        norm = LogNorm(low, high) if low > 0 else Normalize(low, high)
        return {"cmap": f"{COLORS}_r", "norm": norm}, {}
    if not found["form"].endswith("%}"):
        return {"cmap": COLORS, "norm": Normalize(low, high)}, {}
    scale = (lambda s: -np.log1p(LEAST_ERROR - s), lambda y: 1 + LEAST_ERROR - np.exp(-y))
    ticks = [tick for tick in ACCURACIES if low <= tick <= high]
    norm = FuncNorm(scale, low, min(high, 1.0))
    return {"cmap": COLORS, "norm": norm}, {"ticks": ticks, "format": _percent}


def _words(name: str) -> str:
    return name.replace("_", " ")


def _percent(value: float, _: int = 0) -> str:
    return f"{100 * value:.3g}%"
