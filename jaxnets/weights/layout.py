"""Rearrangement of the axes of an array, written as one line.

A layout names the axes before and after: "h w i o -> o i h w" takes the kernel of a convolution from
Flax to torch. Axes in parentheses are merged into one, the last of them fastest. A number after a name
is
the size of that axis, where the array does not determine it: "(h7 w7 c) o -> o (c h7 w7)". An axis "1"
is
on one side only: "i o -> o i 1 1". A minus reverses an axis: "h w i o -> i o -h -w". Read from right to
left, a layout is its inverse.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

_GROUP = re.compile(r"\((?P<axes>[^()]*)\)|(?P<axis>\S+)")
_AXIS = re.compile(r"-?(?P<name>[a-z]+(?P<size>\d*))")

KERNEL_LAYOUTS = {2: "i o -> o i", 4: "h w i o -> o i h w"}
"""Of kernels, by the number of axes: from Flax, Keras and TF-Slim to torch."""

Groups = list[list[str]]


@dataclass(frozen=True)
class LaidOut:
    """An array in another layout, in which NumPy reads it.

    Attributes:
        value: an array, or what NumPy can read, such as an array in a file.
        layout: from its own to the other.
    """

    value: Any
    layout: str

    @property
    def shape(self) -> tuple[int, ...]:
        return rearranged_shape(tuple(self.value.shape), self.layout)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        value = rearrange(np.asarray(self.value), self.layout)
        return value if dtype is None else value.astype(dtype, copy=False)


def rearrange(values: np.ndarray, layout: str) -> np.ndarray:
    """`values` with their axes as the right side of `layout` has them; a view where possible.

    Raises:
        ValueError: the shape is not one of the left side.
    """
    source, target = _sides(layout)
    sizes = _sizes(source, values.shape, layout)
    axes = [axis for group in source for axis in group]
    order = [axis for group in target for axis in group]
    values = values.reshape([sizes[axis] for axis in axes])
    values = values.transpose([axes.index(axis) for axis in order])
    turned = re.findall(r"-([a-z]+\d*)", layout)
    values = np.flip(values, [order.index(axis) for axis in turned])
    return values.reshape(_shape(target, sizes))


def rearranged_shape(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """The shape of an array of this shape after `rearrange`.

    Raises:
        ValueError: as for `rearrange`.
    """
    source, target = _sides(layout)
    return _shape(target, _sizes(source, shape, layout))


def reversed_layout(layout: str) -> str:
    """The inverse of a layout."""
    source, target = layout.split(" -> ")
    return f"{target} -> {source}"


def _sides(layout: str) -> tuple[Groups, Groups]:
    source, target = ([_axes(match) for match in _GROUP.finditer(s)] for s in layout.split(" -> "))
    return source, target


def _axes(group: re.Match) -> list[str]:
    """The names of a group's axes, sizes included; none for "1"."""
    if group["axis"] == "1":
        return []
    return [axis["name"] for axis in _AXIS.finditer(group["axes"] or group["axis"])]


def _sizes(groups: Groups, shape: tuple[int, ...], layout: str) -> dict[str, int]:
    """The size of each axis of an array of this shape."""
    misfit = ValueError(f"shape {tuple(shape)} is not one of the left side of {layout!r}")
    if len(groups) != len(shape):
        raise misfit
    sizes = {}
    for group, total in zip(groups, shape, strict=True):
        known = {axis: int(_AXIS.fullmatch(axis)["size"] or 0) for axis in group}
        unknown = [axis for axis, size in known.items() if not size]
        rest, remainder = divmod(total, math.prod(filter(None, known.values())))
        if remainder or (rest != 1 and len(unknown) != 1):
            raise misfit
        sizes |= known | dict.fromkeys(unknown, rest)
    return sizes


def _shape(groups: Groups, sizes: dict[str, int]) -> tuple[int, ...]:
    return tuple(math.prod(sizes[axis] for axis in group) for group in groups)
