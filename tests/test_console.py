"""What is printed for a person: names as they are, and what is being done, on terminals alone."""

import io
import sys

import pytest
from rich.table import Table

from jaxnets import console


@pytest.mark.parametrize("name", ["[side]", "[bold]x[/]", ":cat:", "[/]", "\\[a]"])
def test_names_are_no_markup(name):
    printed = io.StringIO()
    table = Table(name)
    table.add_row(name)
    plain = console.PlainConsole(file=printed, width=60)
    plain.print(name)
    plain.print(table)
    assert printed.getvalue().count(name) == 3


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "enabled", "shown"),
    [(Terminal, True, True), (Terminal, False, False), (io.StringIO, True, False)],
)
def test_a_terminal_alone_is_told_what_is_being_done(stream, enabled, shown, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", stream())
    with console.status("reading folder:data[v2]", enabled):
        pass

    assert ("reading folder:data[v2]" in sys.stderr.getvalue()) == shown
    assert bool(sys.stderr.getvalue()) == shown
