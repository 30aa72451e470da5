"""Consoles for text that holds names of users: "[side]" and ":cat:" are names there, not markup."""

import contextlib
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.text import Text


class PlainConsole(Console):
    """A rich console that prints text and the cells of tables as they are."""

    def __init__(self, **options: Any):
        super().__init__(markup=False, emoji=False, highlight=False, **options)


@contextlib.contextmanager
def status(text: str, enabled: bool = True) -> Iterator[None]:
    """Shows what is being done for as long as it takes, on a terminal's standard error; elsewhere
    nothing."""
    console = PlainConsole(stderr=True)
    if not (enabled and console.is_terminal):
        yield
        return
    with console.status(Text(text)):
        yield
