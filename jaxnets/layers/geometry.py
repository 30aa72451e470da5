"""The geometry of a sliding window: kernel sizes, strides, paddings, and how many windows fit.

Convolution and pooling take the same forms of arguments; here they become pairs over (height,
width) once, and here they are checked. All but the last functions is Python on static sizes.
"""

import operator

import jax
import jax.numpy as jnp
from jax import lax

from jaxnets.errors import InputError, unknown_name

Pair = tuple[int, int]
PaddingPairs = tuple[Pair, Pair]
Padding = int | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]] | str

PADDING_NAMES = ("SAME", "VALID")


def pair(value: int | tuple[int, int], name: str, at_least: int = 1) -> Pair:
    """An int or a pair over (height, width) as a pair.

    Args:
        value: what the user gave.
        name: the argument's name, for the error.
        at_least: the smallest size allowed.

    Raises:
        InputError: it is neither an int nor two ints, or one of them is too small.
    """
    values = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    try:
        values = tuple(operator.index(v) for v in values)
    except TypeError:
        values = ()
    if len(values) != 2 or min(values) < at_least:
        raise InputError(f"{name} is {value!r}; give an int or two, each at least {at_least}")
    return values


def padding_pairs(padding: Padding) -> PaddingPairs | str:
    """Any form of padding as ((top, bottom), (left, right)); "SAME" and "VALID" stay names.

    Args:
        padding: an int (all four sides), a pair of ints (height, width: each on both sides), a
            pair of (low, high) pairs, or the name "SAME" or "VALID".

    Raises:
        InputError: an unknown name, a negative size or another form.
    """
    if isinstance(padding, str):
        if padding not in PADDING_NAMES:
            raise unknown_name("padding", padding, PADDING_NAMES)
        return padding
    sides = padding if isinstance(padding, (tuple, list)) else (padding, padding)
    if len(sides) != 2:
        raise InputError(
            f"padding is {padding!r}; give an int, two ints (height, width), "
            "((top, bottom), (left, right)), 'SAME' or 'VALID'"
        )
    return tuple(pair(side, "padding", at_least=0) for side in sides)


def resolved_padding(padding: Padding, size: Pair, window: Pair, strides: Pair) -> PaddingPairs:
    """Like `padding_pairs`, with the names worked out for a map of `size` (height, width)."""
    pads = padding_pairs(padding)
    if isinstance(pads, str):
        pads = tuple(lax.padtype_to_pads(size, window, strides, pads))
    return pads


def same_padding(kernel_size: int | Pair, dilation: int | Pair = 1) -> PaddingPairs:
    """The symmetric padding with which a convolution of stride 1 keeps the size of its input.

    Raises:
        InputError: for an even kernel, which has no symmetric one.
    """
    spans = window_span(kernel_size, dilation)
    if any(span % 2 == 0 for span in spans):
        raise InputError(
            f"kernel_size {kernel_size} with dilation {dilation} covers {spans[0]}x{spans[1]} "
            "pixels; only an odd span has a symmetric same padding: give explicit pairs"
        )
    return tuple(((span - 1) // 2, (span - 1) // 2) for span in spans)


def full_padding(kernel_size: int | Pair, dilation: int | Pair = 1) -> PaddingPairs:
    """The padding of a full convolution: every position where kernel and input overlap at all.

    At stride 1 the output has size W + F - 1.
    """
    return tuple((span - 1, span - 1) for span in window_span(kernel_size, dilation))


def window_span(kernel_size: int | Pair, dilation: int | Pair = 1) -> Pair:
    """How many pixels a dilated kernel covers, (F - 1) d + 1, over (height, width)."""
    kernel_size, dilation = pair(kernel_size, "kernel_size"), pair(dilation, "dilation")
    return tuple((k - 1) * d + 1 for k, d in zip(kernel_size, dilation, strict=True))


def windows_along(size: int, window: int, stride: int, pads: Pair, ceil_mode: bool = False) -> int:
    """How many windows fit along one axis.

    floor((size + low + high - window) / stride) + 1; with `ceil_mode` the division rounds up, but
    a last window that would start beyond the input and its low padding is left out (torch's rule).

    Raises:
        InputError: not one window fits.
    """
    low, high = pads
    room = size + low + high - window
    count = (room + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (count - 1) * stride >= size + low:
        count -= 1
    if count < 1:
        raise InputError(
            f"a window of {window} does not fit into {size} pixels with padding ({low}, {high}); "
            "the map is too small here: use larger images or a smaller window"
        )
    return count


def window_taps(x: jax.Array, window: Pair, strides: Pair, pads: PaddingPairs) -> list[jax.Array]:
    """The windows of x [N, H, W, C], tap by tap: height * width arrays [N, H', W', C].

    Tap (i, j) comes at i * width + j and holds, for every window, its pixel (i, j).

    Raises:
        InputError: a window does not fit.
    """
    rows, columns = (
        windows_along(*axis) for axis in zip(x.shape[1:3], window, strides, pads, strict=True)
    )
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    return [
        padded[
            :,
            i : i + (rows - 1) * strides[0] + 1 : strides[0],
            j : j + (columns - 1) * strides[1] + 1 : strides[1],
        ]
        for i in range(window[0])
        for j in range(window[1])
    ]


def over_channels(vector: jax.Array, x: jax.Array) -> jax.Array:
    """A number for each channel, [C], with the rank of x [..., C], so that nothing is promoted."""
    return jnp.expand_dims(vector, tuple(range(x.ndim - 1)))


def check_maps(x: jax.Array, name: str = "x") -> None:
    """Raises InputError unless `x` is floating and has the shape [N, H, W, C]."""
    if jnp.ndim(x) != 4:
        raise InputError(
            f"{name} has shape {jnp.shape(x)}; wanted [N, H, W, C] (add a batch axis with x[None])"
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(f"{name} is {x.dtype}; wanted floating point: convert it first")
