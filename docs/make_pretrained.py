"""Writes the tables of docs/pretrained.md anew, each behind the comment that names its task.

Command: python docs/make_pretrained.py
"""

import re
from pathlib import Path

from jaxnets.models import list_models, published_weights
from jaxnets.models.published import PublishedWeights

PAGE = Path(__file__).parent / "pretrained.md"

_TABLE = re.compile(r"(?P<comment><!-- weights: (?P<task>\w+) -->\n\n)(\|.*\n)*")
_OF_CROPS = ("model", "claimed top-1", "pixels", "crop", "interpolation", "license", "source")
_OF_WHOLE_PICTURES = ("model", "claimed", "pixels", "license", "source")


def current(text: str) -> str:
    """The page with its tables as they should be."""
    return _TABLE.sub(lambda found: found["comment"] + _table(found["task"]), text)


def _table(task: str) -> str:
    names = list_models(pretrained=True, task=task)
    rows = [(name, row) for name in names for row in published_weights(name)]
    headings = _OF_WHOLE_PICTURES if rows[0][1].size is None else _OF_CROPS
    lines = ["| " + " | ".join(headings) + " |", "|---" * len(headings) + "|"]
    lines += [_line(name, row) for name, row in rows]
    return "\n".join([*lines, ""])


def _line(name: str, row: PublishedWeights) -> str:
    if row.size is None:
        claims = ", ".join(f"{value:.1f} {measure}" for measure, value in row.claims.items())
        images = f"{row.resize}" if row.longest is None else f"{row.resize} x {row.longest}"
    else:
        claims = f"{row.top1:.2f}"
        images = f"{row.size} | {row.crop:.3f} | {row.interpolation}"
    return f"| `{name}` | {claims} | {images} | {row.license} | `{row.source}` |"


if __name__ == "__main__":
    PAGE.write_text(current(PAGE.read_text()))
