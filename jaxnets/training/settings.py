"""Checks of what optimizers and schedules are made with."""

from collections.abc import Iterable
from typing import Any

import jax

from jaxnets.errors import InputError


def is_known(value: Any) -> bool:
    """Whether a number is concrete, and not traced."""
    return not isinstance(value, jax.core.Tracer)


def refuse_negative(argument: str, value: Any) -> None:
    """Raises an `InputError` for a number below 0, as far as it is known."""
    if is_known(value) and value < 0:
        raise InputError(f"{argument} is {value}; it must be 0 or more")


def refuse_unknown(argument: str, name: str, settings: Iterable[str], known: Iterable[str]) -> None:
    """Raises an `InputError` for a setting that an optimizer or schedule of this name does not have."""
    known = list(known)
    for setting in settings:
        if setting not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise InputError(f"{argument}: {name} has no setting {setting!r}; {has}")
