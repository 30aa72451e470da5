"""Reading of weights from Flax's files: trees of arrays in MessagePack, which holds data alone."""

from pathlib import Path
from typing import Any

from jaxnets.errors import InputError
from jaxnets.weights.files import start_of
from jaxnets.weights.unwrapping import flattened

FLAX = (".msgpack",)


def is_flax(path: Path) -> bool:
    """Whether a file begins with a map of a few entries, the first of them named by text."""
    start = start_of(path)
    named = len(start) > 1 and (0xA0 <= start[1] <= 0xBF or start[1] in (0xD9, 0xDA))
    return named and 0x81 <= start[0] <= 0x8F


def read_flax(path: Path) -> dict[str, Any]:
    """The arrays of a file that `flax.serialization.to_bytes` wrote, by name, as `flattened`.

    Raises:
        InputError: the file is missing, cut short or of another kind.
    """
    from flax.serialization import msgpack_restore

    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    try:
        tree = msgpack_restore(path.read_bytes())
    except Exception as error:  # msgpack and NumPy raise nearly anything on a broken file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path} is no whole file of Flax's ({reason}); fetch or write it again"
        ) from None
    tensors = flattened(tree) if isinstance(tree, dict) else {}
    if not tensors:
        raise InputError(f"{path} holds no arrays by name; wanted a tree of variables")
    return tensors
