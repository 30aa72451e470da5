"""What is printed for a person: names as they are, and what is being done, on terminals alone."""

import io
import json
import sys
from pathlib import Path

import numpy as np
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


def test_what_json_has_no_word_for_is_null_or_plain(capsys):
    found = {"nan": float("nan"), "array": np.float32([1, 2.5]), "count": np.int64(3), "there": True}
    console.print_document({**found, "path": Path("a"), "inf": [np.inf], "none": None})
    assert json.loads(capsys.readouterr().out) == {
        "nan": None, "array": [1, 2.5], "count": 3, "there": True, "path": "a", "inf": [None],
        "none": None,
    }  # fmt: skip


def test_a_table_is_folded_where_it_does_not_fit_and_loses_nothing(capsys, monkeypatch):
    table = Table(box=None, pad_edge=False)
    for heading, justify in (("name", "left"), ("number", "right"), ("words", "left")):
        table.add_column(heading, justify=justify, no_wrap=True)
    table.add_row("猫", "7", "no " * 30 + "end")
    table.add_row("a-long-name", "12,345", "")
    lines = console.folded(table, 24)
    assert lines[:3] == ["name         number", "  words", "猫                7"]
    assert lines[-1] == "a-long-name  12,345"
    assert max(map(len, lines)) <= 24
    assert " ".join(lines[3:-1]).split() == ["no"] * 30 + ["end"]
    monkeypatch.setenv("COLUMNS", "24")
    console.print_table(table)
    assert "no " * 30 + "end" in capsys.readouterr().out
    monkeypatch.setenv("FORCE_COLOR", "1")
    console.print_table(table)
    assert capsys.readouterr().out.splitlines() == lines
