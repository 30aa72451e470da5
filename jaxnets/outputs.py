"""Files that are asked for: refused before the work that fills them, and pictures with plain text."""

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxnets.errors import InputError


def check_path(path: str | os.PathLike, endings: Iterable[str] = ()) -> None:
    """Checks that a file can be written.

    Args:
        path: of the file; it may be there already.
        endings: those that it may have, such as ".png"; any where there are none.

    Raises:
        InputError: another ending, a directory, no directory to write it into, or no permission.
    """
    path, endings = Path(path), sorted(endings)
    if endings and path.suffix.lower() not in endings:
        raise InputError(f"output: {path} must end in {', '.join(endings)}")
    if path.is_dir():
        raise InputError(f"output: {path} is a directory; name a file")
    if not path.parent.is_dir():
        raise InputError(f"output: there is no directory {path.parent}; make it first")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(f"output: {path} cannot be written; you have no permission to")


def check_picture(path: str | os.PathLike) -> None:
    """Checks that a picture can be written, as `check_path`."""
    from matplotlib.figure import Figure

    check_path(path, (f".{kind}" for kind in Figure().canvas.get_supported_filetypes()))


def save_figure(figure: Any, path: str | os.PathLike, dpi: int = 120) -> None:
    """Writes a figure of matplotlib.

    Raises:
        InputError: as of `check_picture`, or a picture that cannot be drawn.
    """
    check_picture(path)
    try:
        with warnings.catch_warnings():
            # A letter that no font has is drawn as a box, which says it too.
            warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
            figure.savefig(path, dpi=dpi)
    except ValueError as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}") from error


def plain(text: str) -> str:
    """Text for matplotlib that is drawn as it is: a name may hold the dollars of a formula.

    Bytes of a name that are no text are written as such: no font has them.

    Example:
        >>> plain("from $5 to $7")
        'from \\\\$5 to \\\\$7'
    """
    return text.encode("utf-8", "backslashreplace").decode().replace("$", r"\$")
