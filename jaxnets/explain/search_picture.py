"""What a search of hyperparameters found, as a map."""

from pathlib import Path
from typing import Any

import numpy as np

MARKERS = "osD^vP"  # of the stages
COLORS = "viridis"
RED = "tab:red"
LOST = {"marker": "x", "color": RED, "s": 35}
RING = {"marker": "o", "facecolors": "none", "edgecolors": RED, "linewidths": 2}


def plot_search(found: dict[str, Any], path: str | Path) -> None:
    """Draws every trial of a search where its hyperparameters lie, on logarithmic axes.

    A panel for the first hyperparameter (usually the learning rate) against each other one, or against
    what was measured where it is the only one. Colour is what was measured on the validation examples,
    the marker is the stage, a dashed frame the ranges that a later stage drew from. A candidate that
    was kept is drawn as the last stage it was trained in saw it. The worst quarter shares one colour,
    so that the differences among the good ones show.

    Args:
        found: `SearchResult.to_dict()`, or what `search.json` holds.
        path: of the picture; its ending says the format.
    """
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    monitor = found["monitor"]
    finished = [trial for trial in found["trials"] if trial["stopped"] is None]
    scores = [trial["measured"][monitor] for trial in finished]
    falls = monitor.endswith("loss")
    low, high = _color_range(scores, falls)
    first, *others = found["stages"][0]["space"]
    others = others or [None]
    figure = Figure(figsize=(2.2 + 5.2 * len(others), 6.2), layout="constrained")
    panels = figure.subplots(1, len(others), squeeze=False)[0]
    colors = {"cmap": f"{COLORS}_r" if falls else COLORS, "norm": Normalize(low, high)}
    for panel, other in zip(panels, others, strict=True):
        drawn = _draw(panel, found, first, other, colors)
        panel.set_xlabel(_words(first))
        panel.set_ylabel(_words(other) if other else f"validation {monitor}")
        panel.grid(alpha=0.3)
    form = "{x:.1%}" if monitor.startswith("top") else None
    ends = {(True, False): "min", (False, True): "max", (True, True): "both"}
    beyond = ends.get((low > min(scores, default=low), high < max(scores, default=high)), "neither")
    figure.colorbar(
        drawn, ax=list(panels), label=f"validation {monitor}", format=form, extend=beyond, pad=0.02
    )
    searched = " and ".join(map(_words, found["stages"][0]["space"]))
    count = len({trial["candidate"] for trial in found["trials"]})
    best = _best(found)
    title = [f"search of {searched}: {count} candidates"]
    if best:
        told = ", ".join(f"{_words(name)} {value:.3g}" for name, value in best["values"].items())
        title.append(f"best: {told}, validation {monitor} {best['measured'][monitor]:.4f}")
    figure.suptitle("\n".join(title), fontsize="medium")
    figure.legend(handles=_legend(found), loc="outside lower center", ncols=3, fontsize="small")
    figure.savefig(path, dpi=110)


def _draw(panel, found: dict[str, Any], first: str, other: str | None, colors: dict[str, Any]):
    """Fills one panel; returns what the colour bar is to explain."""
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
            _frame(panel, stage["space"][first], stage["space"][other], f"range of stage {number}")
    best = _best(found)
    if best:
        panel.scatter(*place([best]), s=260, zorder=20, **RING)
    return drawn


def _frame(panel, widths: list[float], heights: list[float], name: str) -> None:
    """A dashed frame around a range, named at its lower left corner."""
    (left, right), (bottom, top) = widths, heights
    corners = [left, right, right, left, left], [bottom, bottom, top, top, bottom]
    panel.plot(*corners, linestyle="--", color="tab:gray", linewidth=1.0, zorder=1)
    panel.annotate(
        name,
        (left, bottom),
        xytext=(2, 2),
        textcoords="offset points",
        fontsize="x-small",
        color="dimgray",
        zorder=1,
    )


def _legend(found: dict[str, Any]) -> list:
    """A handle for each kind of mark, in no colour of the colour bar."""
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
        handles.append(Line2D([], [], linestyle="--", color="tab:gray", label="range of a later stage"))
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


def _color_range(scores: list[float], falls: bool) -> tuple[float, float]:
    """From the quarter that is worst to the best; of losses the other way round."""
    if not scores:
        return 0.0, 1.0
    worst = float(np.quantile(scores, 0.75 if falls else 0.25))
    low, high = (min(scores), worst) if falls else (worst, max(scores))
    return (low, high) if low < high else (low - 1e-3, high + 1e-3)


def _words(name: str) -> str:
    return name.replace("_", " ")
