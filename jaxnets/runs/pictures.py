"""The pictures of what a training run has recorded, drawn into its directory."""

from pathlib import Path

from jaxnets import training
from jaxnets.explain import plot_curves, plot_layer_ratios
from jaxnets.training import Headline
from jaxnets.training.parallel import is_main_process
from jaxnets.training.ratios import RATIO


def draw_history(directory: Path, headline: Headline) -> list[Path]:
    """Draws what a run has recorded: `curves.png` and, of one with `plots`, `update_ratios.png`.

    Args:
        directory: of the run.
        headline: the metric that it is judged by.

    Returns:
        The pictures; none before the first record, and in other processes than the main one.
    """
    history = training.read_history(directory)
    if not history.steps or not is_main_process():
        return []
    drawn = [directory / "curves.png"]
    plot_curves(history.steps, history.epochs, drawn[0], headline.metric, headline.words)
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
