"""What a person sees while a run goes on: a live bar, and a row for each epoch."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

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
