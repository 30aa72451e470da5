"""What a range test of the learning rate found, as a curve."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxnets.outputs import save_figure


def plot_finding(found: Mapping[str, Any], path: str | Path) -> None:
    """Draws the loss of each step of a range test, and its moving average, by the learning rate.

    Args:
        found: `RateFinding.to_dict()`, or what `finder.json` holds.
        path: of the picture; its ending says the format.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    panel = figure.subplots()
    rates, smoothed, suggestion = found["rates"], found["smoothed"], found["suggestion"]
    panel.plot(rates, found["losses"], color="lightgray", label="loss of a step")
    panel.plot(rates, smoothed, color="tab:blue", label="moving average")
    panel.axvline(suggestion, color="tab:red", linestyle="--", label=f"suggested: {suggestion:.2g}")
    least, most = min(smoothed), max(smoothed)
    panel.set_ylim(least - 0.1 * (most - least), most + 0.1 * (most - least))
    panel.set_xscale("log")
    panel.set_xlabel("learning rate")
    panel.set_ylabel("training loss")
    panel.grid(alpha=0.3)
    panel.legend()
    save_figure(figure, path, dpi=110)
