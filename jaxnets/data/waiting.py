"""What is shown of work that may take long, before a run has a progress bar of its own."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")

PATIENCE = 2.0  # seconds of silence


def tracked(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """Passes items on and shows, on stderr, how far they are once they have taken two seconds.

    On a terminal it is a bar, which vanishes at the end; elsewhere, such as in a log, a single line.

    Args:
        items: what is waited for.
        total: how many there are.
        what: what is done with them, such as "reading headers".
    """
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    task = bar.add_task(what, total=total)
    begin, shown = time.monotonic(), False
    try:
        for count, item in enumerate(items):
            if not shown and time.monotonic() - begin > PATIENCE:
                shown = True
                if console.is_terminal:
                    bar.start()
                else:
                    console.print(f"{what}: {count:,} of {total:,} so far")
            if shown:
                bar.update(task, completed=count)
            yield item
    finally:
        if shown and console.is_terminal:
            bar.stop()
