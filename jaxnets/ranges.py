"""What values a configuration may have: ranges of numbers, and types."""

import math
import types
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, Union, get_args, get_origin

from jaxnets.errors import InputError


@dataclass(frozen=True)
class Range:
    """The finite numbers from `low` to `high`.

    Example:
        >>> momentum = Range(0, 1, below=True)
        >>> 0.9 in momentum, 1 in momentum, float("nan") in momentum
        (True, False, False)
        >>> str(momentum)
        'at least 0 and below 1'

    Attributes:
        low, high: its ends.
        above: whether `low` itself is not in it.
        below: whether `high` itself is not in it.
    """

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: Any) -> bool:
        inside = self.low < value if self.above else self.low <= value
        return inside and (
            value < self.high if self.below or math.isinf(self.high) else value <= self.high
        )

    def __str__(self) -> str:
        low = f"above {self.low}" if self.above else f"at least {self.low}"
        if math.isinf(self.high):
            return low
        return f"{low} and {'below' if self.below else 'at most'} {self.high}"


COUNTS = Range(1, 2**31 - 1)  # as many as an i32 can count
SEEDS = Range(0, 2**32 - 1)
SIDES = Range(1, 2**16 - 1)  # of images, in pixels; JPEG files have no larger ones


def refuse_outside(name: str, value: Any, wanted: Range) -> None:
    """Raises an `InputError` for a number that is not in its range; None is allowed."""
    if value is not None and value not in wanted:
        raise InputError(f"{name} is {value}; it must be {wanted}")


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type that an annotation names.

    Example:
        >>> fits(1, float | None), fits(None, float | None), fits("1", float | None)
        (True, True, False)
        >>> fits(("a", "b"), tuple[str, ...]), fits((1,), tuple[str, ...])
        (True, False)

    Args:
        value: anything.
        kind: a type, a union of them, a Literal, or a tuple of values of one type.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if origin is tuple and parts[1:] == (...,):
        sequence = isinstance(value, Sequence) and not isinstance(value, str)
        return sequence and all(fits(part, parts[0]) for part in value)
    if kind in (int, float):
        number = Integral if kind is int else Real
        return isinstance(value, number) and not isinstance(value, bool)
    if origin is not None or not isinstance(kind, type):
        return True  # of a configuration of one's own; more is not known of it
    return isinstance(value, kind)
