"""Paths for Orbax, which looks for its files by patterns."""

import glob
from collections.abc import Iterator
from os import PathLike

from etils import epath

from jaxnets.errors import InputError


class LiteralPath(type(epath.Path())):
    """A path whose own characters are no pattern: Orbax finds what lies in a directory "data[v2]"."""

    def glob(self, pattern: str) -> Iterator["LiteralPath"]:
        return map(type(self), sorted(glob.glob(f"{glob.escape(str(self))}/{pattern}")))


def literal_path(directory: str | PathLike) -> LiteralPath:
    """A directory for Orbax, whatever it is called.

    Raises:
        InputError: TensorStore, which writes the arrays, cannot name it.
    """
    if "\\" in str(directory):
        raise InputError(f"{directory}: checkpoints cannot lie below a name with a backslash; rename it")
    return LiteralPath(directory)
