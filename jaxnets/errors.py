"""User errors.

Invalid input raises an `InputError`, whose message names the argument, its value, the expected values
and what to do. It is a `ValueError`, so scripts can catch it as one; the command line prints only the
message and exits with status 2.
"""

import difflib
from collections.abc import Iterable, Sequence


class InputError(ValueError):
    """An argument, a file or a batch that jaxnets cannot take."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for an unknown name, which suggests similar names.

    Args:
        kind: what the name stands for, in the user's terms (such as ``"model"``).
        name: the unknown name.
        known: all valid names.
    """
    known = sorted(known)
    lower = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)
    near = [lower[other] for other in close]
    hint = (
        f"did you mean {' or '.join(repr(n) for n in near)}?" if near else f"known: {', '.join(known)}"
    )
    return InputError(f"unknown {kind} {name!r}; {hint}")


def some(names: Sequence[str]) -> str:
    """The first few of many names.

    >>> some(["ant", "bee", "cat", "dog", "elk"])
    'ant, bee, cat, ... (5 in all)'
    """
    shown = ", ".join(names[:3])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 3 else shown
