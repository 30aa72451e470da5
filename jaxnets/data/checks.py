"""Checks of what users give: the parameters of augmentations, pixels and labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnets.errors import InputError

FURTHEST = 16.0  # from 0, of float pixels: more than any normalization gives, less than 0 to 255 has


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


def pixels(images: Any) -> None:
    """Checks, on the host, that images are uint8, or floats that may be in [0, 1] or normalized.

    Raises:
        InputError: they have another type, or floats beyond 16, which are taken for 0 to 255.
    """
    dtype = images.dtype
    if dtype == np.uint8:
        return
    if dtype.kind != "f" and dtype.name != "bfloat16":
        many = "objects, such as of several shapes" if dtype.kind == "O" else str(dtype)
        raise InputError(f"image has pixels of {many}; wanted uint8, or floats in 0 to 1")
    if images.size == 0:
        return
    low, high = float(images.min()), float(images.max())
    if not (low >= -FURTHEST and high <= FURTHEST):
        raise InputError(
            f"image has floats from {low:g} to {high:g}; wanted 0 to 1: divide by 255, or give uint8"
        )


def labels(values: Any, num_classes: int | None = None) -> np.ndarray:
    """Labels as an array of whole numbers, which are checked on the host.

    Args:
        values: int of any shape.
        num_classes: K; None to allow any.

    Raises:
        InputError: other values than whole numbers, or some that are not from 0 to K - 1.
    """
    try:
        array = np.asarray(values)
    except ValueError:
        raise InputError("label: there are several shapes; wanted one number for each image") from None
    if array.size and array.dtype.kind not in "iub":
        raise InputError(
            f"label is {array.dtype}, such as {str(array.flat[0])!r}; wanted whole numbers (int), which "
            "count the classes from 0"
        )
    if num_classes is not None:
        outside = array[(array < 0) | (array >= num_classes)]
        if outside.size:
            raise InputError(
                f"label {outside[0]} is out of range: there are {num_classes} classes, so labels run "
                f"from 0 to {num_classes - 1}"
            )
    return array
