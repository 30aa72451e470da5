"""Range checks for the parameters of augmentations."""

from collections.abc import Sequence

from jaxnets.errors import InputError


def within(name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Checks that `value` is in [low, high].

    Raises:
        InputError: it is not.
    """
    if not low <= value <= high:
        wanted = f"at least {low}" if high == float("inf") else f"from {low} to {high}"
        raise InputError(f"{name} must be {wanted}, got {value}")


def interval(name: str, value: Sequence[float], low: float, high: float = float("inf")) -> None:
    """Checks that `value` is a pair (a, b) with a <= b, both in [low, high].

    Raises:
        InputError: it is not.
    """
    if len(value) != 2 or value[0] > value[1]:
        raise InputError(f"{name} must be two numbers, the smaller first, got {value}")
    within(name, value[0], low, high)
    within(name, value[1], low, high)
