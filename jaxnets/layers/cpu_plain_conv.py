"""Plain convolutions, of one group, written as what XLA's CPU backend does well.

It has fast kernels for matrix products, and for convolutions whose window is no larger than the image.
Images are [N, H, W, C], kernels [H, W, in, out]; `Window` is the rest.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnets.layers.geometry import PaddingPairs, Pair

NHWC = ("NHWC", "HWIO", "NHWC")
MOST_TAPS = 49


class Window(NamedTuple):
    """How a kernel goes over an image: each of the three over (height, width).

    Attributes:
        strides: from one window to the next.
        pads: zeros around the image, ((top, bottom), (left, right)).
        dilation: from one tap to the next.
    """

    strides: Pair
    pads: PaddingPairs
    dilation: Pair


def conv_as_matmul(
    x: jax.Array, kernel: jax.Array, strides: Pair, precision: lax.PrecisionLike = None
) -> jax.Array:
    """A 1x1 convolution without padding, as one matrix product over all pixels.

    Args:
        x: [N, H, W, in].
        kernel: [1, 1, in, out].
        strides: over (height, width).
        precision: as in `jax.lax.dot_general`.

    Returns:
        [N, H', W', out].
    """
    x = x[:, :: strides[0], :: strides[1]]
    pixels = x.reshape(math.prod(x.shape[:3]), x.shape[3])
    y = jnp.matmul(pixels, kernel[0, 0], precision=precision)
    return y.reshape(*x.shape[:3], kernel.shape[3])


def plain_conv(
    x: jax.Array,
    kernel: jax.Array,
    window: Window,
    precision: lax.PrecisionLike = None,
) -> jax.Array:
    """A plain convolution, in a form of `plain_form` or as XLA's own."""
    form = plain_form(x.shape, kernel.shape, window, precision)
    return form(x, kernel) if form else _xla_conv(x, kernel, window, precision)


def plain_form(
    image: tuple[int, ...],
    kernel: tuple[int, ...],
    window: Window,
    precision: lax.PrecisionLike = None,
) -> Callable[[jax.Array, jax.Array], jax.Array] | None:
    """How to compute a plain convolution of these shapes; None where XLA's own is as good.

    XLA has fast kernels only for windows that are no larger than the image, padding apart. The
    gradient by the image is a convolution of the output's gradient, and that by the kernel is one
    whose window is the output's gradient; so the output may be no smaller than the window, and no
    larger than the image. Else it is 20 to 200 times slower: small maps are then computed by
    neighbours, others padded first. A 1x1 convolution is a matrix product.
    """
    if kernel[:2] == (1, 1) and not any(map(any, window.pads)):
        return partial(conv_as_matmul, strides=window.strides, precision=precision)
    if is_small(image, kernel, window):
        return partial(conv_of_neighbours, window=window, precision=precision)
    if outgrows(image, kernel, window):
        return partial(padded_conv, window=window, precision=precision)
    return None


def padded_conv(
    x: jax.Array,
    kernel: jax.Array,
    window: Window,
    precision: lax.PrecisionLike = None,
) -> jax.Array:
    """XLA's own convolution of an image that is padded before."""
    padded = jnp.pad(x, ((0, 0), *window.pads, (0, 0)))
    return _xla_conv(padded, kernel, window._replace(pads=((0, 0), (0, 0))), precision)


def conv_of_neighbours(
    x: jax.Array,
    kernel: jax.Array,
    window: Window,
    precision: lax.PrecisionLike = None,
) -> jax.Array:
    """A plain convolution as one matrix product of all that an output pixel sees (im2col).

    Taps of the kernel that see nothing but padding are left out: of 3x3 on a 1x1 map all but one.

    Args:
        x: [N, H, W, in].
        kernel: [F, F, in, out].
        window: how the kernel goes over the image.
        precision: as in `jax.lax.dot_general`.

    Returns:
        [N, H', W', out].
    """
    strides, pads, dilation = window
    size = _output_size(x.shape, kernel.shape, window)
    tops, lefts = (
        _seeing(*axis)
        for axis in zip(x.shape[1:3], kernel.shape[:2], strides, pads, dilation, size, strict=True)
    )
    if not (tops and lefts):
        return jnp.zeros((x.shape[0], *size, kernel.shape[3]), x.dtype)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    spans = [(out - 1) * s + 1 for out, s in zip(size, strides, strict=True)]
    neighbours = jnp.concatenate(
        [
            x[:, i : i + spans[0] : strides[0], j : j + spans[1] : strides[1]]
            for i in (tap * dilation[0] for tap in tops)
            for j in (tap * dilation[1] for tap in lefts)
        ],
        axis=-1,
    )
    pixels = neighbours.reshape(-1, neighbours.shape[-1])
    seeing = kernel[tops.start : tops.stop, lefts.start : lefts.stop]
    y = jnp.matmul(pixels, seeing.reshape(pixels.shape[1], -1), precision=precision)
    return y.reshape(x.shape[0], *size, kernel.shape[3])


def outgrows(
    image: tuple[int, ...],
    kernel: tuple[int, ...],
    window: Window,
) -> bool:
    """Whether a convolution of these shapes gives more rows or more columns than the image has."""
    size = _output_size(image, kernel, window)
    return any(out > h for h, out in zip(image[1:3], size, strict=True))


def is_small(
    image: tuple[int, ...],
    kernel: tuple[int, ...],
    window: Window,
) -> bool:
    """Whether the image or the output is smaller than the window, which has few taps.

    With many taps (of a 16x16 patch, say) putting the neighbours together would take longer.
    """
    size = _output_size(image, kernel, window)
    smaller = any(f > min(h, out) for h, f, out in zip(image[1:3], kernel[:2], size, strict=True))
    return smaller and min(size) > 0 and math.prod(kernel[:2]) <= MOST_TAPS


def _seeing(length: int, window: int, stride: int, pad: Pair, dilation: int, out: int) -> range:
    """The taps along an axis from the first to the last that meet a pixel, wherever they lie."""
    meets = [
        tap
        for tap in range(window)
        if any(0 <= tap * dilation + i * stride - pad[0] < length for i in range(out))
    ]
    return range(meets[0], meets[-1] + 1) if meets else range(0)


def _xla_conv(
    x: jax.Array, kernel: jax.Array, window: Window, precision: lax.PrecisionLike
) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window.strides,
        window.pads,
        rhs_dilation=window.dilation,
        dimension_numbers=NHWC,
        precision=precision,
    )


def _output_size(
    image: tuple[int, ...],
    kernel: tuple[int, ...],
    window: Window,
) -> tuple[int, ...]:
    """The height and width of what a convolution of these shapes gives."""
    axes = zip(image[1:3], kernel[:2], *window, strict=True)
    return tuple((h + sum(p) - (f - 1) * d - 1) // s + 1 for h, f, s, p, d in axes)
