"""What a user did wrong, said in a line or two.

Every mistake that a user can make raises an `InputError` whose text names the argument, what came,
what was wanted and what to do. It is a `ValueError`, so scripts may catch it as one; the command
line prints its text alone and exits with status 2.
"""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """An argument, a file or a batch that jaxnets cannot take."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is not in a table: it offers the nearest ones.

    Args:
        kind: what the name stands for, as the user calls it (``"model"``).
        name: what came.
        known: every name that would have been right.
    """
    known = sorted(known)
    lower = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)
    near = [lower[other] for other in close]
    hint = (
        f"did you mean {' or '.join(repr(n) for n in near)}?" if near else f"known: {', '.join(known)}"
    )
    return InputError(f"unknown {kind} {name!r}; {hint}")
