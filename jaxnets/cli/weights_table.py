"""The table of public weights, for a terminal and a pipe."""

from collections.abc import Sequence

from rich.table import Table

from jaxnets.console import PlainConsole
from jaxnets.models import published_weights
from jaxnets.models.published import PublishedWeights

Row = tuple[str, PublishedWeights]


def print_weights(names: Sequence[str]) -> None:
    """Prints a line for each set of weights; on a terminal that is too narrow, two shorter ones."""
    rows = [(name, row) for name in names for row in published_weights(name)]
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "claimed", "pixels", "crop", "interpolation", "license", "weights"):
        justify = "right" if heading in ("claimed", "pixels", "crop") else "left"
        table.add_column(heading, justify=justify, no_wrap=True)
    for name, row in rows:
        claimed = ", ".join(_claims(row))
        numbers = claimed, _pixels(row), f"{row.crop:.3f}"
        table.add_row(name, *numbers, row.interpolation, row.license, row.source)
    console = PlainConsole()
    width = PlainConsole(width=1000).measure(table).maximum
    if console.is_terminal and console.width < width:
        _print_narrow(console, rows)
    else:
        PlainConsole(width=width).print(table)  # a source cut short is of no use


def _print_narrow(console: PlainConsole, rows: Sequence[Row]) -> None:
    wide = max(len(name) for name, _ in rows)
    line = f"{{:{wide}}}  {{:>12}}  {{:>8}}  {{:>5}}  {{}}"
    console.print(line.format("model", "claimed", "pixels", "crop", "license"))
    for name, row in rows:
        claim = _claims(row)[0]
        console.print(line.format(name, claim, _pixels(row), f"{row.crop:.3f}", row.license))
        console.print(f"  {row.source}", soft_wrap=True)


def _claims(row: PublishedWeights) -> list[str]:
    return [f"{value:.2f} {measure}" for measure, value in row.claims.items()]


def _pixels(row: PublishedWeights) -> str:
    return str(row.size or (f"{row.resize}-{row.longest}" if row.longest else row.resize))
