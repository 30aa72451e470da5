"""Plain convolutions (of one group) in forms that XLA's CPU backend computes fast.

It has fast kernels for matrix products, and for convolutions whose window is no larger than the image
and whose axes are in one order. Images are [N, H, W, C], kernels [H, W, in, out]. `choices` says which
form is taken.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxnets.dtypes import at_least_float32
from jaxnets.layers.choices import Shapes, Window, form_of, output_size, taps_that_meet
from jaxnets.layers.geometry import Pair

NHWC = ("NHWC", "HWIO", "NHWC")


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
    """A plain convolution in the form that `choices.CONVOLUTIONS` has for these shapes."""
    form = form_of(Shapes(x.shape, kernel.shape, window))
    if form == "product of pixels":
        return conv_as_matmul(x, kernel, window.strides, precision)
    forms = {
        "product of neighbors": conv_of_neighbors,
        "product for each tap": conv_of_taps,
        "padded first": padded_conv,
        "own gradients": quick_conv,
    }
    return forms[form](x, kernel, window, precision)


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def quick_conv(
    x: jax.Array, kernel: jax.Array, window: Window, precision: lax.PrecisionLike = None
) -> jax.Array:
    """XLA's own convolution, with gradients that XLA has fast kernels for.

    The fast kernels are for one order of the axes, and the gradients that JAX makes of a convolution
    have another. XLA brings the axes into order, but not in loops or branches, and `platform_dependent`
    is a branch for most of XLA's passes: there gradients took 7 to 50 times longer. Also, the kernel's
    gradient is a sum over images and pixels, of which JAX makes a convolution over images alone, with
    the pixels as its window: 2 to 4 times slower than `conv_of_columns` where maps are large.
    """
    return _xla_conv(x, kernel, window, precision)


@partial(quick_conv.defjvp, symbolic_zeros=True)
def _quick_conv_jvp(window, precision, primals, tangents):
    x, kernel = primals

    def by_image(dx):
        # In the backward pass inputs and outputs swap, so these axes are then in XLA's order.
        return _xla_conv(dx, kernel.swapaxes(2, 3), window, precision, ("NHWC", "HWOI", "NHWC"))

    def by_kernel(dkernel):
        # The backward pass keeps x, which is there anyway, and not the columns that are cut from it.
        columns = partial(conv_of_columns, window=window, precision=precision)
        return jax.checkpoint(columns, prevent_cse=False)(x, dkernel)

    y = quick_conv(x, kernel, window, precision)
    return y, sum_of_tangents(tangents, (by_image, by_kernel))


def conv_of_columns(
    x: jax.Array, kernel: jax.Array, window: Window, precision: lax.PrecisionLike = None
) -> jax.Array:
    """A plain convolution along the height alone, in which the neighbors of a column are channels.

    In the backward pass, the kernel's gradient is a convolution that sums over all columns of all
    images, with its axes in the order of XLA's fast kernels.

    Args:
        x: [N, H, W, in].
        kernel: [F, F, in, out].
        window: how the kernel goes over the image.
        precision: as in `jax.lax.dot_general`.

    Returns:
        [N, H', W', out].
    """
    (down, right), pads, (far, apart) = window
    (n, *_, channels), (height, width, _, out) = x.shape, kernel.shape
    rows, columns = output_size(Shapes(x.shape, kernel.shape, window))
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    reach = (columns - 1) * right + 1
    neighbors = [x[:, :, j * apart : j * apart + reach : right] for j in range(width)]
    x = jnp.concatenate(neighbors, axis=-1).transpose(3, 1, 0, 2)
    y = lax.conv_general_dilated(
        x.reshape(*x.shape[:2], n * columns),
        kernel.reshape(height, width * channels, out).swapaxes(0, 1),
        (down,),
        ((0, 0),),
        rhs_dilation=(far,),
        dimension_numbers=("CHN", "IHO", "HNC"),
        precision=precision,
    )
    return y.reshape(rows, n, columns, out).swapaxes(0, 1)


def padded_conv(
    x: jax.Array,
    kernel: jax.Array,
    window: Window,
    precision: lax.PrecisionLike = None,
) -> jax.Array:
    """`quick_conv` of an image that is padded first."""
    padded = jnp.pad(x, ((0, 0), *window.pads, (0, 0)))
    return quick_conv(padded, kernel, window._replace(pads=((0, 0), (0, 0))), precision)


def conv_of_neighbors(
    x: jax.Array,
    kernel: jax.Array,
    window: Window,
    precision: lax.PrecisionLike = None,
) -> jax.Array:
    """A plain convolution as one matrix product over the window of each output pixel (im2col).

    Taps of the kernel that only meet padding are left out: all but one for 3x3 on a 1x1 map.

    Args:
        x: [N, H, W, in].
        kernel: [F, F, in, out].
        window: how the kernel goes over the image.
        precision: as in `jax.lax.dot_general`.

    Returns:
        [N, H', W', out].
    """
    strides, pads, dilation = window
    shapes = Shapes(x.shape, kernel.shape, window)
    size, (tops, lefts) = output_size(shapes), map(_seeing, taps_that_meet(shapes))
    if not (tops and lefts):
        return jnp.zeros((x.shape[0], *size, kernel.shape[3]), x.dtype)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    spans = [(out - 1) * s + 1 for out, s in zip(size, strides, strict=True)]
    neighbors = jnp.concatenate(
        [
            x[:, i : i + spans[0] : strides[0], j : j + spans[1] : strides[1]]
            for i in (tap * dilation[0] for tap in tops)
            for j in (tap * dilation[1] for tap in lefts)
        ],
        axis=-1,
    )
    pixels = neighbors.reshape(-1, neighbors.shape[-1])
    seeing = kernel[tops.start : tops.stop, lefts.start : lefts.stop]
    y = jnp.matmul(pixels, seeing.reshape(pixels.shape[1], -1), precision=precision)
    return y.reshape(x.shape[0], *size, kernel.shape[3])


def conv_of_taps(
    x: jax.Array,
    kernel: jax.Array,
    window: Window,
    precision: lax.PrecisionLike = None,
) -> jax.Array:
    """A plain convolution of stride 1 as a matrix product for each tap, of the pixels that it meets.

    What a tap would read of the padding, most of it where taps are far apart, is neither read nor
    multiplied. Sums are in float32 at least.

    Args:
        x: [N, H, W, in].
        kernel: [F, F, in, out].
        window: how the kernel goes over the image.
        precision: as in `jax.lax.dot_general`.

    Returns:
        [N, H', W', out] of x's type.
    """
    dtype, x, kernel = x.dtype, at_least_float32(x), at_least_float32(kernel)
    shapes = Shapes(x.shape, kernel.shape, window)
    size, (rows, columns) = output_size(shapes), taps_that_meet(shapes)
    y = jnp.zeros((x.shape[0], *size, kernel.shape[3]), x.dtype)
    for i, (top, bottom, down) in enumerate(rows):
        for j, (left, right, across) in enumerate(columns):
            if top < bottom and left < right:
                pixels = x[:, top + down : bottom + down, left + across : right + across]
                found = jnp.matmul(pixels, kernel[i, j], precision=precision)
                around = (top, size[0] - bottom), (left, size[1] - right)
                y += jnp.pad(found, ((0, 0), *around, (0, 0)))
    return y.astype(dtype)


def sum_of_tangents(
    tangents: tuple[jax.Array | SymbolicZero, ...], maps: tuple[Callable[[jax.Array], jax.Array], ...]
) -> jax.Array:
    """The sum of linear maps of the image's and the kernel's tangent, without symbolic zeros."""
    found = [f(t) for f, t in zip(maps, tangents, strict=True) if not isinstance(t, SymbolicZero)]
    return sum(found[1:], start=found[0])


def _seeing(taps: list[tuple[int, int, int]]) -> range:
    """The taps along an axis from the first to the last that meet a pixel at any position."""
    meets = [tap for tap, (first, end, _) in enumerate(taps) if first < end]
    return range(meets[0], meets[-1] + 1) if meets else range(0)


def _xla_conv(
    x: jax.Array,
    kernel: jax.Array,
    window: Window,
    precision: lax.PrecisionLike,
    axes: tuple[str, str, str] = NHWC,
) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window.strides,
        window.pads,
        rhs_dilation=window.dilation,
        dimension_numbers=axes,
        precision=precision,
    )
