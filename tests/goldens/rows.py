"""Which rows of a table a maker of goldens is to make."""

import argparse
import sys
from collections.abc import Mapping
from typing import Any


def asked(description: str, table: str, rows: Mapping[str, Any]) -> list[str]:
    """The names on the command line; all of the table if there are none.

    Args:
        description: of the maker; its first line is that of `--help`.
        table: what the rows are called, for messages.
        rows: by name.
    """
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("names", nargs="*", help=f"rows of {table}; all of them if none")
    names = parser.parse_args().names or list(rows)
    if unknown := set(names) - set(rows):
        sys.exit(f"no such row in {table}: {', '.join(sorted(unknown))}")
    return names
