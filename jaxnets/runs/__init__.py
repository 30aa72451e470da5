"""Training runs as a whole: from a flat configuration to a directory, and back from it.

`jaxnets train`, `eval`, `predict`, `caption`, `plots` and `search` are thin faces of what is here.
Scripts that need more freedom call `jaxnets.training.fit` themselves.
"""

from pathlib import Path
from typing import Literal

import jax

from jaxnets.config import Config, read_config
from jaxnets.errors import InputError
from jaxnets.runs import captioning, classification
from jaxnets.runs.captioning import CaptionRun, caption
from jaxnets.runs.classification import Run
from jaxnets.runs.fitting import fit
from jaxnets.runs.pictures import draw_history, draw_predictions
from jaxnets.runs.searching import search
from jaxnets.training import History

__all__ = ["CaptionRun", "Run", "caption", "draw_plots", "fit", "load_run", "search", "train"]

_TASKS = {"classification": classification, "captioning": captioning}


def train(config: Config, progress: bool = True) -> tuple[Path, History]:
    """Trains as configured, or goes on with a run; leaves everything in the run's directory.

    Args:
        config: how. With `resume`, everything that makes the numbers must be as it was.
        progress: show a bar and a row for each epoch.

    Returns:
        The directory and the history. In it: `config.json`, `checkpoints/`, `metrics.jsonl`,
        TensorBoard files and `curves.png`; with `plots` what `draw_plots` draws too, and of a
        captioner `vocabulary.json`.

    Raises:
        InputError: for anything in the configuration that does not fit.
    """
    directory, history = _TASKS[config.task].train(config, progress)
    if config.plots and jax.process_count() == 1:
        _draw_predictions(directory, "latest")  # the history is drawn already
    return directory, history


def load_run(
    directory: str | Path,
    step: int | Literal["latest", "best"] = "latest",
    task: Literal["classification", "captioning"] | None = None,
) -> Run | CaptionRun:
    """Reads a run's directory; nothing else is needed.

    Args:
        directory: that `train` made.
        step: which checkpoint: the "latest", the "best" by test accuracy (of captioners by exact
            sentences), or that of a step.
        task: what the run must have learned; None for either.

    Raises:
        InputError: if it holds no run, one of another task, or no such checkpoint.
    """
    config, _ = read_config(directory)
    if task not in (None, config.task):
        raise InputError(f"{directory} holds a run of {config.task}; wanted one of {task}")
    return _TASKS[config.task].load_run(Path(directory), step)


def draw_plots(directory: str | Path, step: int | Literal["latest", "best"] = "latest") -> list[Path]:
    """Draws the pictures of a run into its directory, and returns which: see `runs.pictures`.

    Those of what it predicts, on its held-out images, are for classifiers only.

    Raises:
        InputError: if the directory holds no run or no such checkpoint.
    """
    directory = Path(directory)
    return draw_history(directory) + _draw_predictions(directory, step)


def _draw_predictions(directory: Path, step: int | Literal["latest", "best"]) -> list[Path]:
    if read_config(directory)[0].task == "captioning":
        return []
    run = load_run(directory, step)
    return draw_predictions(directory, run.predict, run.held_out(), run.class_names)
