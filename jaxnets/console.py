"""What is printed: text that holds names of users ("[side]" and ":cat:" are names there, not markup),
tables, and documents for programs."""

import contextlib
import json
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
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


def print_table(table: Table) -> None:
    """Prints a table whose cells are text, of which nothing is cut: in a pipe as wide as it is, and on a
    terminal that is too narrow folded."""
    console, width = PlainConsole(), natural_width(table)
    if console.is_terminal and console.width < width:
        console.print("\n".join(folded(table, console.width)), soft_wrap=True)
    else:
        PlainConsole(width=width).print(table)


def natural_width(table: Table) -> int:
    """The width of a table in which no cell is wrapped."""
    return PlainConsole(width=10_000).measure(table).maximum


def folded(table: Table, width: int) -> list[str]:
    """The lines of a table in which the columns that do not fit beside the first ones lie below them.

    Args:
        table: of cells that are text.
        width: of the lines; a cell that is wider is wrapped between its words.

    Example:
        >>> table = Table(Column("model"), Column("input"), Column("paper"))
        >>> table.add_row("lenet5", "32x32x1", "LeCun et al. 1998")
        >>> print(*folded(table, 24), sep="\\n")
        model   input
          paper
        lenet5  32x32x1
          LeCun et al. 1998
    """
    groups, taken = [[]], 0
    for column in table.columns:
        own = max(map(cell_len, _cells(table, column)))
        if groups[-1] and taken + own > width:
            groups.append([])
        taken = own + 2 + (taken if groups[-1] else 2 * (len(groups) > 1))
        groups[-1].append((column, own))
    lines = []
    for row in range(len(_cells(table, table.columns[0]))):
        for number, group in enumerate(groups):
            texts = [(_cells(table, column)[row], column, own) for column, own in group]
            padded = (
                " " * (own - cell_len(text)) + text
                if column.justify == "right"
                else text + " " * (own - cell_len(text))
                for text, column, own in texts
            )
            line, indent = "  ".join(padded).rstrip(), "  " * (number > 0)
            if len(group) == 1:
                lines += textwrap.wrap(
                    line.strip(),
                    width,
                    initial_indent=indent,
                    subsequent_indent=indent + "  ",
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            elif line:
                lines.append(indent + line)
    return lines


def print_document(document: Any) -> None:
    """Prints a document in JSON. Numbers that are not finite become null."""
    print(json.dumps(_plain(document), indent=2, allow_nan=False))


def _plain(value: Any) -> Any:
    """A value as JSON has it: NumPy's numbers and arrays, named tuples and paths as plain ones."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(name): _plain(own) for name, own in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(own) for own in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, bool | int | float | None) else str(value)


def _cells(table: Table, column: Column) -> list[str]:
    """The texts of a column, from its heading to its footer."""
    footer = [column.footer] if table.show_footer else []
    return [str(cell) for cell in (column.header, *column.cells, *footer)]
