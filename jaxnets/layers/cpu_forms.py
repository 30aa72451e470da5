"""Convolutions and pooling in forms that XLA's CPU backend computes fast.

That backend has fast kernels only for plain convolutions (`cpu_plain_conv`) and matrix products. Other
operations of classic networks become loops over single numbers, in the backward pass most of all. The
functions here give the values of XLA's own operations; `choices` says when they are taken. They consist
of sums, products and selections, so `grad`, `vmap`, forward mode and their nestings work as usual.

Images are [N, H, W, C], kernels [H, W, in / groups, out]; strides and dilations go over
(height, width), and pads are zeros around the image, ((top, bottom), (left, right)).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxnets.dtypes import at_least_float32
from jaxnets.layers.choices import Window, groups_to_merge, has_few_pixels
from jaxnets.layers.cpu_plain_conv import NHWC, conv_of_neighbors, plain_conv, sum_of_tangents
from jaxnets.layers.geometry import PaddingPairs, Pair


def depthwise_conv(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """A depthwise convolution as a sum over the kernel's taps of shifted images, in float32 at least.

    Args:
        x: [N, H, W, C].
        kernel: [F, F, 1, C * m]; channel c gives the outputs c * m to (c + 1) * m.
        window: how the kernel goes over the image.

    Returns:
        [N, H', W', C * m] of x's type.
    """
    dtype, x, kernel = x.dtype, at_least_float32(x), at_least_float32(kernel)
    x = jnp.repeat(x, kernel.shape[-1] // x.shape[-1], axis=-1)
    x = jnp.pad(x, ((0, 0), *window.pads, (0, 0)))
    return _sum_of_taps(x, kernel, window.strides, window.dilation).astype(dtype)


def merged_grouped_conv(
    x: jax.Array,
    kernel: jax.Array,
    window: Window,
    groups: int,
    precision: lax.PrecisionLike = None,
) -> jax.Array:
    """A grouped convolution as a few plain ones, each of several groups with zeros between them.

    Args:
        x: [N, H, W, in].
        kernel: [F, F, in / groups, out].
        window: how the kernel goes over the image.
        groups: number of groups; each reads its share of the inputs and gives its share of the outputs.
        precision: as in `jax.lax.conv_general_dilated`.

    Returns:
        [N, H', W', out].
    """
    height, width, channels, out = kernel.shape
    merged = groups_to_merge(groups, channels)
    parts = groups // merged
    # The kernels of merged groups on the diagonal: [F, F, merged x channels, parts x merged x out].
    by_group = kernel.reshape(height, width, 1, channels, parts, merged, out // groups)
    diagonal = jnp.eye(merged, dtype=bool)[:, None, None, :, None]
    kernel = jnp.where(diagonal, by_group, jnp.zeros((), kernel.dtype))
    kernel = kernel.reshape(height, width, merged * channels, out)
    maps = [
        plain_conv(image, weights, window, precision)
        for image, weights in zip(
            jnp.split(x, parts, axis=-1), jnp.split(kernel, parts, axis=-1), strict=True
        )
    ]
    return maps[0] if parts == 1 else jnp.concatenate(maps, axis=-1)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def quick_conv_transpose(
    x: jax.Array, kernel: jax.Array, strides: Pair, cuts: PaddingPairs
) -> jax.Array:
    """A transposed convolution: XLA's own for few pixels, else a plain one that gives whole strides.

    XLA's own is some 40 times slower where the kernel is larger than the image, and so is its gradient
    by any kernel; its gradient by the image is a plain convolution with a stride, and fast.

    Args:
        x: [N, H, W, in].
        kernel: [F, F, in, out]; turned by 180 degrees it is what every pixel pastes, as in Flax.
        strides: pixels between the pasted copies.
        cuts: pixels that are cut off the pasted map, ((top, bottom), (left, right)).

    Returns:
        [N, (H - 1) S + F - top - bottom, ..., out].
    """
    if has_few_pixels(x.shape, kernel.shape):
        return _xla_conv_transpose(x, kernel, strides, cuts)
    return _whole_strides(_pasted, x, kernel, strides, cuts)


@functools.partial(quick_conv_transpose.defjvp, symbolic_zeros=True)
def _quick_conv_transpose_jvp(strides, cuts, primals, tangents):
    x, kernel = primals

    def by_image(dx):
        if has_few_pixels(x.shape, kernel.shape):
            return _whole_strides(_pasted_by_matmul, dx, kernel, strides, cuts)
        return _xla_conv_transpose(dx, kernel, strides, cuts)

    def by_kernel(dkernel):
        return _whole_strides(_pasted_by_matmul, x, dkernel, strides, cuts)

    y = quick_conv_transpose(x, kernel, strides, cuts)
    return y, sum_of_tangents(tangents, (by_image, by_kernel))


def max_of_slices(x: jax.Array, window: Pair, strides: Pair, pads: PaddingPairs) -> jax.Array:
    """Max pooling as maxima of strided slices, of columns and then of rows; see `max_of_windows`.

    XLA's own gradient searches every window again, a pixel at a time. Here it flows back through the
    winner of each comparison: the first of two equal numbers, and NaN over any number.
    """
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf)
    for axis in (2, 1):  # so that of equal pixels the upper row's wins, as in XLA's gradient
        size, stride = window[axis - 1], strides[axis - 1]
        stop = (x.shape[axis] - size) // stride * stride + 1
        first, *others = (lax.slice_in_dim(x, i, i + stop, stride, axis=axis) for i in range(size))
        x = functools.reduce(lambda a, b: jnp.where((a >= b) | (a != a), a, b), others, first)
    return x


def _xla_conv_transpose(x: jax.Array, kernel: jax.Array, strides: Pair, cuts: PaddingPairs) -> jax.Array:
    spread = [(f - 1 - a, f - 1 - b) for f, (a, b) in zip(kernel.shape[:2], cuts, strict=True)]
    return lax.conv_transpose(x, kernel, strides, spread, dimension_numbers=NHWC)


def _whole_strides(
    paste: Callable[[jax.Array, jax.Array], jax.Array],
    x: jax.Array,
    kernel: jax.Array,
    strides: Pair,
    cuts: PaddingPairs,
) -> jax.Array:
    """A transposed convolution of stride S as one of stride 1, with S x S pixels as channels.

    An output pixel q S + r, r < S, is a sum over the kernel's taps r, r + S, ... and the input pixels
    q, q - 1, ... So a kernel that is ceil(F / S) wide pastes all S remainders r, without a product by
    zero between spread-out pixels.
    """
    (n, *size, channels), (*window, _, out) = x.shape, kernel.shape
    taps = [-(-f // s) for f, s in zip(window, strides, strict=True)]
    whole = [(0, t * s - f) for f, s, t in zip(window, strides, taps, strict=True)]
    kernel = jnp.pad(kernel[::-1, ::-1], (*whole, (0, 0), (0, 0)))
    kernel = kernel.reshape(taps[0], strides[0], taps[1], strides[1], channels, out)
    y = paste(x, kernel.transpose(0, 2, 4, 1, 3, 5).reshape(*taps, channels, -1))
    rows, columns = y.shape[1:3]
    y = y.reshape(n, rows, columns, *strides, out).transpose(0, 1, 3, 2, 4, 5)
    y = y.reshape(n, rows * strides[0], columns * strides[1], out)
    (top, bottom), (left, right) = cuts
    height, width = ((h - 1) * s + f for h, s, f in zip(size, strides, window, strict=True))
    return y[:, top : height - bottom, left : width - right]


def _pasted(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Every pixel of x [N, H, W, in] pastes the kernel [T, T, in, out] on [N, H + T - 1, ..., out]."""
    return plain_conv(x, kernel[::-1, ::-1], _full(kernel))


def _pasted_by_matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`_pasted` as one matrix product, of what an output sees or, if that is more, a pixel pastes."""
    (n, rows, columns, channels), (height, width, _, out) = x.shape, kernel.shape
    if channels <= out:
        return conv_of_neighbors(x, kernel[::-1, ::-1], _full(kernel))
    kernel = kernel.transpose(2, 0, 1, 3).reshape(channels, -1)
    copies = (x.reshape(-1, channels) @ kernel).reshape(n, rows, columns, height, width, out)
    return sum(
        jnp.pad(copies[:, :, :, i, j], ((0, 0), (i, height - 1 - i), (j, width - 1 - j), (0, 0)))
        for i in range(height)
        for j in range(width)
    )


def _full(kernel: jax.Array) -> Window:
    """The kernel over every place where it meets a pixel."""
    return Window((1, 1), tuple((f - 1, f - 1) for f in kernel.shape[:2]), (1, 1))


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _sum_of_taps(x: jax.Array, kernel: jax.Array, strides: Pair, dilation: Pair) -> jax.Array:
    """Depthwise convolution of padded x [N, H, W, C] with kernel [F, F, 1, C]."""
    rows, columns = (
        (h - (f - 1) * d - 1) // s + 1
        for h, f, s, d in zip(x.shape[1:3], kernel.shape[:2], strides, dilation, strict=True)
    )
    (down, right), (height, width) = strides, kernel.shape[:2]
    extent = (x.shape[0], (rows - 1) * down + 1, (columns - 1) * right + 1, x.shape[3])
    offsets = ((0, i * dilation[0], j * dilation[1], 0) for i in range(height) for j in range(width))
    return sum(
        lax.slice(x, start, [a + n for a, n in zip(start, extent, strict=True)], (1, down, right, 1)) * w
        for start, w in zip(offsets, kernel.reshape(height * width, 1, 1, 1, -1), strict=True)
    )


@functools.partial(_sum_of_taps.defjvp, symbolic_zeros=True)
def _sum_of_taps_jvp(strides, dilation, primals, tangents):
    x, kernel = primals
    y = _sum_of_taps(x, kernel, strides, dilation)

    def by_image(dx):
        return _sum_of_taps(dx, kernel, strides, dilation)

    def by_kernel(dkernel):
        return _sum_of_taps_by_rows(x, dkernel, strides, dilation, y.shape)

    return y, sum_of_tangents(tangents, (by_image, by_kernel))


def _sum_of_taps_by_rows(
    x: jax.Array, kernel: jax.Array, strides: Pair, dilation: Pair, shape: tuple[int, ...]
) -> jax.Array:
    """`_sum_of_taps`, whose derivative by the kernel is a loop over rows of pixels.

    That derivative is a sum over all pixels for each tap. Tap by tap, the image is read from memory once
    for each tap; row by row, a row stays in cache for all taps, and the sums are over rows of [W', C]
    numbers, which suits vector units.
    """
    _, rows, columns, channels = shape
    (down, right), (height, width) = strides, kernel.shape[:2]
    span = (height - 1) * dilation[0] + 1
    taps = [  # one above the other; each made as wide as a row by itself compiles a quarter quicker
        jnp.broadcast_to(kernel[:, j], (height, columns, channels)) for j in range(width)
    ]

    @functools.partial(jax.checkpoint, prevent_cse=False)  # backward, read x again: keep no slices
    def row(x: jax.Array, taps: list[jax.Array], number: jax.Array) -> jax.Array:
        start = (number // rows, number % rows * down, 0, 0)
        pixels = lax.dynamic_slice(x, start, (1, span, *x.shape[2:]))[0, :: dilation[0]]
        return sum(
            jnp.sum(pixels[:, j : j + (columns - 1) * right + 1 : right] * w, axis=0)
            for j, w in zip(range(0, width * dilation[1], dilation[1]), taps, strict=True)
        )

    return lax.map(lambda number: row(x, taps, number), jnp.arange(shape[0] * rows)).reshape(shape)
