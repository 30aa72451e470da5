"""How convolutions are computed on a platform: the same values, by the operations that it does well.

XLA's CPU backend has fast kernels for plain convolutions and matrix products alone. What classic
networks are made of besides, depthwise and grouped convolutions above all, falls to loops that are
5 to 200 times slower than they need be, backward most of all. On a CPU such a convolution is here
written as plain ones. Everywhere else it stays XLA's own; the choice is made for the platform that
a program is compiled for, so that what is exported for several is right on each.

Forms are sums and products of the arguments, so `grad`, `vmap` and their nestings work as ever.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxnets.errors import unknown_name
from jaxnets.layers.geometry import PaddingPairs, Pair

LOWERINGS = ("auto", "native")

NHWC = ("NHWC", "HWIO", "NHWC")

# Groups are merged, though most of a merged kernel is then zeros: a plain convolution of fewer input
# channels leaves the CPU's vector units idle, and each one takes its time to compile.
LEAST_CHANNELS, MOST_CHANNELS = 16, 64
FEW_CONVOLUTIONS = 16

# Kept by JAX, for each thread, as a part of what a compiled program is cached by.
_lowering = jax.make_user_context("auto")

ConvForm = Callable[[jax.Array, jax.Array], jax.Array]


@contextlib.contextmanager
def lowering(kind: str) -> Iterator[None]:
    """Within `with lowering("native"):` layers are compiled as plain XLA operations.

    It holds for what is traced or run in the block, in this thread. JAX keeps programs compiled
    under either setting apart, so a function that was jitted outside is compiled anew inside and
    the other way round; what `.lower()` or `jax.export` has made stays what it was made as.

    Args:
        kind: "auto", the default: the fast form for the platform that is compiled for. "native":
            XLA's own operation on every platform.

    Raises:
        InputError: an unknown kind.
    """
    if kind not in LOWERINGS:
        raise unknown_name("lowering", kind, LOWERINGS)
    with _lowering(kind):
        yield


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[Pair],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: lax.ConvGeneralDilatedDimensionNumbers = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: lax.PrecisionLike = None,
    preferred_element_type: jax.typing.DTypeLike | None = None,
) -> jax.Array:
    """`jax.lax.conv_general_dilated`, fast on CPUs too; made for `nn.Conv(conv_general_dilated=)`.

    Arguments, result and errors are those of the function in `jax.lax`. Other forms are known for
    floating-point images [N, H, W, C] and kernels [H, W, in / groups, out] that are not dilated on
    the left: 1x1, depthwise and grouped convolutions.
    """
    native = functools.partial(
        lax.conv_general_dilated,
        window_strides=window_strides,
        padding=padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        batch_group_count=batch_group_count,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )
    plain = (
        jnp.ndim(lhs) == 4
        and jnp.ndim(rhs) == 4
        and lhs.dtype == rhs.dtype
        and jnp.issubdtype(lhs.dtype, jnp.floating)
        and preferred_element_type is None
        and batch_group_count == 1
        and math.prod(lhs_dilation or (1,)) == 1
        and lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
        == lax.conv_dimension_numbers(lhs.shape, rhs.shape, NHWC)
    )
    if not plain or _lowering.value == "native":
        return native(lhs, rhs)
    dilation = tuple(rhs_dilation or (1, 1))
    if isinstance(padding, str):
        spans = [(k - 1) * d + 1 for k, d in zip(rhs.shape[:2], dilation, strict=True)]
        padding = lax.padtype_to_pads(lhs.shape[1:3], spans, window_strides, padding)
    pads = tuple(tuple(side) for side in padding)
    cpu = _cpu_form(
        lhs.shape, rhs.shape, tuple(window_strides), pads, dilation, feature_group_count, precision
    )
    if cpu is None:
        return native(lhs, rhs)
    return lax.platform_dependent(lhs, rhs, cpu=cpu, default=native)


def max_of_windows(x: jax.Array, window: Pair, strides: Pair, pads: PaddingPairs) -> jax.Array:
    """The maximum of every window of x [N, H, W, C]: `flax.linen.max_pool`, fast on CPUs too.

    The gradient goes to a window's first maximum, row by row, on every platform.
    """
    native = functools.partial(nn.max_pool, window_shape=window, strides=strides, padding=pads)
    if _lowering.value == "native":
        return native(x)
    cpu = functools.partial(max_of_slices, window=window, strides=strides, pads=pads)
    return lax.platform_dependent(x, cpu=cpu, default=native)


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


def depthwise_conv(
    x: jax.Array, kernel: jax.Array, strides: Pair, pads: PaddingPairs, dilation: Pair
) -> jax.Array:
    """A depthwise convolution as a sum over the kernel's taps of shifted images, in float32 at least.

    Args:
        x: [N, H, W, C].
        kernel: [F, F, 1, C * m]; channel c gives the outputs c * m to (c + 1) * m.
        strides: over (height, width).
        pads: zeros around the image, ((top, bottom), (left, right)).
        dilation: the step between taps.

    Returns:
        [N, H', W', C * m] of x's type.
    """
    dtype, precise = x.dtype, jnp.promote_types(x.dtype, jnp.float32)
    x, kernel = x.astype(precise), kernel.astype(precise)
    x = jnp.repeat(x, kernel.shape[-1] // x.shape[-1], axis=-1)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    return _sum_of_taps(x, kernel, strides, dilation).astype(dtype)


def merged_grouped_conv(
    x: jax.Array,
    kernel: jax.Array,
    strides: Pair,
    pads: PaddingPairs,
    dilation: Pair,
    groups: int,
    precision: lax.PrecisionLike = None,
) -> jax.Array:
    """A grouped convolution as a few plain ones, each of several groups: their kernels, and zeros.

    Args:
        x: [N, H, W, in].
        kernel: [F, F, in / groups, out].
        strides: over (height, width).
        pads: zeros around the image, ((top, bottom), (left, right)).
        dilation: the step between taps.
        groups: how many; group g sees its share of the inputs and makes its share of the outputs.
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
        lax.conv_general_dilated(
            image_part,
            kernel_part,
            strides,
            pads,
            rhs_dilation=dilation,
            dimension_numbers=NHWC,
            precision=precision,
        )
        for image_part, kernel_part in zip(
            jnp.split(x, parts, axis=-1), jnp.split(kernel, parts, axis=-1), strict=True
        )
    ]
    return maps[0] if parts == 1 else jnp.concatenate(maps, axis=-1)


def max_of_slices(x: jax.Array, window: Pair, strides: Pair, pads: PaddingPairs) -> jax.Array:
    """Max pooling as maxima of strided slices, of columns and then of rows; see `max_of_windows`.

    XLA's own gradient searches every window again, a pixel at a time. Here it flows back through
    what won each comparison: the earlier of two equal numbers, and NaN over any number.
    """
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf)
    for axis in (2, 1):  # so that of equal pixels the upper row's wins, as in XLA's gradient
        size, stride = window[axis - 1], strides[axis - 1]
        stop = (x.shape[axis] - size) // stride * stride + 1
        first, *others = (lax.slice_in_dim(x, i, i + stop, stride, axis=axis) for i in range(size))
        x = functools.reduce(lambda a, b: jnp.where((a >= b) | (a != a), a, b), others, first)
    return x


def groups_to_merge(groups: int, channels: int) -> int:
    """How many groups of so many input channels share a plain convolution: a divisor of groups.

    The fewest that have 16 channels together; more, up to 64 channels, if that leaves at most 16
    convolutions.
    """
    for merged in (d for d in range(1, groups + 1) if groups % d == 0):
        few = groups // merged <= FEW_CONVOLUTIONS or merged * channels >= MOST_CHANNELS
        if merged * channels >= LEAST_CHANNELS and few:
            return merged
    return groups


def _cpu_form(
    image: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: Pair,
    pads: PaddingPairs,
    dilation: Pair,
    groups: int,
    precision: lax.PrecisionLike,
) -> ConvForm | None:
    """What beats XLA's own convolution of these shapes on a CPU; None where nothing is known to."""
    if min(low_or_high for sides in pads for low_or_high in sides) < 0:
        return None  # cropping: nothing in the library asks for it
    if groups == 1:
        if kernel[:2] == (1, 1) and not any(map(any, pads)):
            return functools.partial(conv_as_matmul, strides=strides, precision=precision)
        return None
    if groups == image[-1]:
        return functools.partial(depthwise_conv, strides=strides, pads=pads, dilation=dilation)
    return functools.partial(
        merged_grouped_conv,
        strides=strides,
        pads=pads,
        dilation=dilation,
        groups=groups,
        precision=precision,
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _sum_of_taps(x: jax.Array, kernel: jax.Array, strides: Pair, dilation: Pair) -> jax.Array:
    """Depthwise convolution of padded x [N, H, W, C] with kernel [F, F, 1, C]."""
    rows, columns = (
        (size - (k - 1) * d - 1) // s + 1
        for size, k, s, d in zip(x.shape[1:3], kernel.shape[:2], strides, dilation, strict=True)
    )
    (down, right), (height, width) = strides, kernel.shape[:2]
    return sum(
        x[:, i : i + (rows - 1) * down + 1 : down, j : j + (columns - 1) * right + 1 : right] * w
        for w, (i, j) in zip(
            kernel.reshape(height * width, -1), _offsets(height, width, dilation), strict=True
        )
    )


@functools.partial(_sum_of_taps.defjvp, symbolic_zeros=True)
def _sum_of_taps_jvp(strides, dilation, primals, tangents):
    (x, kernel), (dx, dkernel) = primals, tangents
    y = _sum_of_taps(x, kernel, strides, dilation)
    dy = []
    if not isinstance(dx, SymbolicZero):
        dy.append(_sum_of_taps(dx, kernel, strides, dilation))
    if not isinstance(dkernel, SymbolicZero):
        dy.append(_sum_of_taps_by_rows(x, dkernel, strides, dilation, y.shape))
    return y, sum(dy[1:], start=dy[0])


def _sum_of_taps_by_rows(
    x: jax.Array, kernel: jax.Array, strides: Pair, dilation: Pair, shape: tuple[int, ...]
) -> jax.Array:
    """`_sum_of_taps`, whose derivative by the kernel is a loop over rows of pixels.

    That derivative is a sum over all pixels for each tap. Summed tap by tap the image is read once
    for each, from memory; row by row, a row stays in cache for all taps, and what is summed up are
    rows of [W', C] numbers, which is what vector units do.
    """
    _, rows, columns, channels = shape
    (down, right), (height, width) = strides, kernel.shape[:2]
    taps = [jnp.broadcast_to(w, (columns, channels)) for w in kernel.reshape(height * width, channels)]
    span = (height - 1) * dilation[0] + 1

    @functools.partial(jax.checkpoint, prevent_cse=False)  # backward, read x again: keep no slices
    def row(x: jax.Array, taps: list[jax.Array], number: jax.Array) -> jax.Array:
        start = (number // rows, number % rows * down, 0, 0)
        pixels = lax.dynamic_slice(x, start, (1, span, *x.shape[2:]))[0]
        return sum(
            pixels[i, j : j + (columns - 1) * right + 1 : right] * w
            for w, (i, j) in zip(taps, _offsets(height, width, dilation), strict=True)
        )

    return lax.map(lambda number: row(x, taps, number), jnp.arange(shape[0] * rows)).reshape(shape)


def _offsets(height: int, width: int, dilation: Pair) -> list[Pair]:
    """Where each tap of a kernel lies, row by row."""
    return [(i * dilation[0], j * dilation[1]) for i in range(height) for j in range(width)]
