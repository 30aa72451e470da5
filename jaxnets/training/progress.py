"""Progress on the console: a live progress bar, and a row for each epoch."""

import contextlib
import itertools
from collections.abc import Mapping

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from jaxnets.console import PlainConsole
from jaxnets.metrics import Metric
from jaxnets.training.search_result import SearchResult, Space, Stage
from jaxnets.training.task import LOSS, Headline

_EPOCH = "epoch"
_OF_EVERY_RUN = (  # heading, key of the epoch's record, format
    ("update ratio", "update_ratio", "{:.1e}"),
    ("images/s", "images_per_second", "{:,.0f}"),
    ("data wait", "data_wait", "{:.1%}"),
    ("seconds", "seconds", "{:.1f}"),
)


class _Console(PlainConsole):
    """A console without which a run goes on, should its reader be gone."""

    def on_broken_pipe(self) -> None:
        with contextlib.suppress(SystemExit):
            super().on_broken_pipe()


class Reporter:
    """Shows the progress of a run on the console; with `enabled=False` it shows nothing.

    The progress bar is shown on a terminal only; the rows are also printed to a log file. A row has
    the loss and the task's headline metric, for the training and the test examples.
    """

    def __init__(
        self, epochs: int, steps_per_epoch: int, headline: Headline = LOSS, enabled: bool = True
    ):
        self._epochs, self._headline = epochs, headline
        self._console = _Console(quiet=not enabled, soft_wrap=True)
        self._columns = None
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}", markup=False),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not (enabled and self._console.is_terminal),
        )
        self._task = self._bar.add_task(_EPOCH, total=epochs * steps_per_epoch, numbers="compiling")

    def __enter__(self) -> "Reporter":
        self._bar.start()
        return self

    def __exit__(self, *error) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        self._console.print(text)

    def steps(self, record: dict, kinds: Mapping[str, Metric]) -> None:
        """Advances the bar to a record of steps; `kinds` defines how its metrics are printed."""
        shown = [f"loss {record['loss']:.4f}"]
        name, words = self._headline
        if name != LOSS.metric and name in record:
            shown.append(f"{words} {kinds[f'train_{name}'].form.format(record[name])}")
        shown.append(f"{record['images_per_second']:,.0f} images/s")
        self._bar.update(
            self._task,
            completed=record["step"],
            description=f"{_EPOCH} {record['epoch']}/{self._epochs}",
            numbers=", ".join(shown),
        )

    def epoch(self, record: dict, kinds: Mapping[str, Metric]) -> None:
        """Prints the row of an epoch, after a heading the first time."""
        if self._columns is None:
            measured = [
                (f"{part} {words}", f"{part}_{name}", kinds[f"{part}_{name}"].form)
                for part in ("train", "test")
                for name, words in dict.fromkeys((LOSS, self._headline))
                if f"{part}_{name}" in kinds
            ]
            columns = (*measured, *_OF_EVERY_RUN)
            self._columns = [column for column in columns if column[1] in record]
            if self._console.is_terminal:  # the last ones are in the run's directory too
                ends = itertools.accumulate((_width(name) for name, _, _ in self._columns), initial=7)
                fit = sum(end <= self._console.width for end in ends) - 1
                self._columns = self._columns[: max(1, fit)]
            heading = "".join(f"{name:>{_width(name)}}" for name, _, _ in self._columns)
            self._console.print(f"{_EPOCH:>7}{heading}", style="bold")
        cells = "".join(
            f"{form.format(record[key]):>{_width(name)}}" for name, key, form in self._columns
        )
        self._console.print(f"{record['epoch']:>7}{cells}")


def _width(heading: str) -> int:
    return max(13, len(heading) + 2)


class SearchReporter:
    """Shows the progress of a hyperparameter search: a bar and a result line for each stage."""

    def __init__(self, stages: int, enabled: bool = True):
        self._stages = stages
        self._console = _Console(quiet=not enabled, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not (enabled and self._console.is_terminal),
        )
        self._task, self._name = None, ""

    def __enter__(self) -> "SearchReporter":
        self._bar.start()
        return self

    def __exit__(self, *error) -> None:
        self._bar.stop()

    def begin(self, number: int, stage: Stage, space: Space, steps: int) -> None:
        """Prints the ranges of a stage, and starts its bar; `steps` is summed over candidates."""
        ranges = ", ".join(f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in space.items())
        epochs = "1 epoch" if stage.epochs == 1 else f"{stage.epochs} epochs"
        heading = (f"stage {number} of {self._stages}", "bold")
        told = f": {stage.candidates} candidates of {epochs}; {ranges}"
        self._console.print(Text.assemble(heading, told))
        self._name = f"stage {number}/{self._stages}"
        self._task = self._bar.add_task(f"{self._name}, compiling", total=steps)

    def advance(self, steps: int) -> None:
        self._bar.update(self._task, advance=steps, description=self._name)

    def end(self, result: SearchResult) -> None:
        """Prints the result of the latest stage."""
        self._bar.remove_task(self._task)
        trials = [trial for trial in result.trials if trial.stage == len(result.spaces)]
        given_up = sum(trial.outcome.stopped is not None for trial in trials)
        told = [f"{given_up} of {len(trials)} given up"] if given_up else []
        if given_up < len(trials):
            best = trials[0]
            values = ", ".join(f"{name} {value:.3g}" for name, value in best.values.items())
            score = result.form.format(best.outcome.measured[result.monitor])
            told.insert(0, f"best: {values} (held-out {result.monitor} {score})")
        self._console.print("  " + "; ".join(told))
