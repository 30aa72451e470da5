"""Paths as users write them, and as they can be printed."""

import os
from pathlib import Path


def expanded(path: str | os.PathLike) -> Path:
    """A path with the home directory in place of a leading ~; that of an unknown user stays as it is."""
    return Path(os.path.expanduser(path))


def name_and_source(text: str | os.PathLike) -> tuple[str, str | None]:
    """The two of NAME=SOURCE; the whole and None where it is no such pair, or is a path that exists.

    Example:
        >>> name_and_source("resnet50=weights.pth")
        ('resnet50', 'weights.pth')
    """
    text = os.fspath(text)
    name, equals, source = text.partition("=")
    return (name, source or None) if equals and not expanded(text).exists() else (text, None)


def shown(name: str | os.PathLike) -> str:
    r"""A file's name, or another text, as it can be printed on one line whatever its bytes are.

    Example:
        >>> print(shown("caf\udce9\n.png"))
        caf\udce9\n.png
    """
    characters = str(name)
    kept = "\u200c\u200d"  # the joiners of Indic and Persian letters, and of emoji
    return "".join(
        c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in characters
    )
