"""What a person sees while a run goes on: a live bar, and a row for each epoch."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaxnets.training.search_result import SearchResult, Space, Stage, as_text

_EPOCH = "epoch"
_SHOWN = (  # heading, key of the epoch's record, format
    ("train loss", "train_loss", "{:.4f}"),
    ("train acc", "train_top1", "{:.2%}"),
    ("test loss", "test_loss", "{:.4f}"),
    ("test acc", "test_top1", "{:.2%}"),
    ("test exact", "test_exact", "{:.2%}"),
    ("update ratio", "update_ratio", "{:.1e}"),
    ("images/s", "images_per_second", "{:,.0f}"),
    ("data wait", "data_wait", "{:.1%}"),
    ("seconds", "seconds", "{:.1f}"),
)


class Reporter:
    """Shows the run on the console; with `enabled=False` it shows nothing.

    The bar is live on a terminal and left out of a log file; the rows are printed in both.
    """

    def __init__(self, epochs: int, steps_per_epoch: int, enabled: bool = True):
        self._epochs, self._steps_per_epoch = epochs, steps_per_epoch
        self._console = Console(quiet=not enabled, highlight=False, soft_wrap=True)
        self._columns = None
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
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

    def steps(self, record: dict) -> None:
        """Moves the bar to a record of steps."""
        shown = [f"loss {record['loss']:.4f}"]
        if "top1" in record:
            shown.append(f"acc {record['top1']:.1%}")
        shown.append(f"{record['images_per_second']:,.0f} images/s")
        self._bar.update(
            self._task,
            completed=record["step"],
            description=f"{_EPOCH} {record['epoch']}/{self._epochs}",
            numbers=", ".join(shown),
        )

    def epoch(self, record: dict) -> None:
        """Prints the row of an epoch, under a heading the first time."""
        if self._columns is None:
            self._columns = [column for column in _SHOWN if column[1] in record]
            heading = "".join(f"{name:>14}" for name, _, _ in self._columns)
            self._console.print(f"[bold]{_EPOCH:>7}{heading}[/bold]")
        cells = "".join(f"{form.format(record[key]):>14}" for _, key, form in self._columns)
        self._console.print(f"{record['epoch']:>7}{cells}")


class SearchReporter:
    """Shows a search of hyperparameters: a bar for each stage, and a line on what it found."""

    def __init__(self, stages: int, enabled: bool = True):
        self._stages = stages
        self._console = Console(quiet=not enabled, highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
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
        """Says what a stage draws from, and starts its bar of so many steps of one candidate."""
        ranges = ", ".join(f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in space.items())
        epochs = "1 epoch" if stage.epochs == 1 else f"{stage.epochs} epochs"
        self._console.print(
            f"[bold]stage {number} of {self._stages}[/bold]: {stage.candidates} candidates of {epochs}; "
            f"{ranges}"
        )
        self._name = f"stage {number}/{self._stages}"
        self._task = self._bar.add_task(f"{self._name}, compiling", total=steps)

    def advance(self, steps: int) -> None:
        self._bar.update(self._task, advance=steps, description=self._name)

    def end(self, result: SearchResult) -> None:
        """Says what the last stage found."""
        self._bar.remove_task(self._task)
        trials = [trial for trial in result.trials if trial.stage == len(result.spaces)]
        given_up = sum(trial.outcome.stopped is not None for trial in trials)
        told = [f"{given_up} of {len(trials)} given up"] if given_up else []
        if given_up < len(trials):
            best = trials[0]
            values = ", ".join(f"{name} {value:.3g}" for name, value in best.values.items())
            score = as_text(result.monitor, best.outcome.measured[result.monitor])
            told.insert(0, f"best: {values} (held-out {result.monitor} {score})")
        self._console.print("  " + "; ".join(told))
