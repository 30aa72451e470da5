"""The lowering of convolutions and pooling on each platform: the same values, by the fastest known form.

On a CPU many are up to 170 times faster in the forms of `cpu_forms` than as XLA's own operations;
`choices` is the table of when each form is taken. On other platforms they stay XLA's own, except for max
pooling on CUDA. The platform is the one that a program is compiled for, not the one that it is traced
on, so a program that is exported for several platforms has the form of each.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxnets.errors import unknown_name
from jaxnets.layers.choices import MAX_BY_SLICES, Shapes, Window, form_of
from jaxnets.layers.cpu_forms import (
    depthwise_conv,
    max_of_slices,
    merged_grouped_conv,
    quick_conv_transpose,
)
from jaxnets.layers.cpu_plain_conv import NHWC, plain_conv
from jaxnets.layers.geometry import PaddingPairs, Pair

LOWERINGS = ("auto", "native")

# JAX keeps it for each thread, and as a part of the key of its compilation cache.
_lowering = jax.make_user_context("auto")

ConvForm = Callable[[jax.Array, jax.Array], jax.Array]


@contextlib.contextmanager
def lowering(kind: str) -> Iterator[None]:
    """Within `with lowering("native"):` layers are compiled as plain XLA operations.

    It applies to what is traced or run in the block, in this thread. JAX caches programs of either
    setting apart, so a function that was jitted outside is compiled again inside, and vice versa. The
    results of `.lower()` and `jax.export` keep the setting that they were made under.

    Args:
        kind: "auto", the default, for the fastest known form on the platform that is compiled for;
            "native" for XLA's own operation on every platform.

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

    Arguments, result and errors are those of the function in `jax.lax`. The forms of `choices` are for
    floating-point images [N, H, W, C] and kernels [H, W, in / groups, out] without dilation on the left.
    """
    native = partial(
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
    window = Window(tuple(window_strides), pads, dilation)
    return _conv_by_platform(lhs, rhs, window, feature_group_count, precision)


def conv_transpose(x: jax.Array, kernel: jax.Array, strides: Pair, cuts: PaddingPairs) -> jax.Array:
    """A transposed convolution of x [N, H, W, in] with kernel [F, F, in, out].

    As `jax.lax.conv_transpose`, fast on CPUs too, except for the padding: `cuts`, ((top, bottom),
    (left, right)), is what is cut off the (H - 1) S + F pixels on which copies of the kernel are pasted.
    """
    spread = [(f - 1 - a, f - 1 - b) for f, (a, b) in zip(kernel.shape[:2], cuts, strict=True)]
    native = partial(lax.conv_transpose, strides=strides, padding=spread, dimension_numbers=NHWC)
    if _lowering.value == "native":
        return native(x, kernel)
    if strides == (1, 1) and min(map(min, spread)) >= 0:
        return conv_general_dilated(x, kernel, strides, spread, dimension_numbers=NHWC)
    cpu = partial(quick_conv_transpose, strides=strides, cuts=cuts)
    return lax.platform_dependent(x, kernel, cpu=cpu, default=native)


def max_of_windows(x: jax.Array, window: Pair, strides: Pair, pads: PaddingPairs) -> jax.Array:
    """The maximum of every window of x [N, H, W, C]: `flax.linen.max_pool`, fast on CPUs and on CUDA.

    The gradient goes to a window's first maximum, row by row, on every platform.
    """
    native = partial(nn.max_pool, window_shape=window, strides=strides, padding=pads)
    if _lowering.value == "native":
        return native(x)
    slices = partial(max_of_slices, window=window, strides=strides, pads=pads)
    return lax.platform_dependent(x, **dict.fromkeys(MAX_BY_SLICES, slices), default=native)


# Under `jit`, so that convolutions of equal shapes are traced and differentiated once: a form consists
# of many operations, and NASNet has hundreds of convolutions.
@partial(jax.jit, static_argnames=("window", "groups", "precision"))
def _conv_by_platform(
    image: jax.Array, kernel: jax.Array, window: Window, groups: int, precision: lax.PrecisionLike
) -> jax.Array:
    native = partial(
        lax.conv_general_dilated,
        window_strides=window.strides,
        padding=window.pads,
        rhs_dilation=window.dilation,
        dimension_numbers=NHWC,
        feature_group_count=groups,
        precision=precision,
    )
    cpu = _cpu_form(Shapes(image.shape, kernel.shape, window, groups), precision)
    if cpu is None:
        return native(image, kernel)
    return lax.platform_dependent(image, kernel, cpu=cpu, default=native)


def _cpu_form(shapes: Shapes, precision: lax.PrecisionLike) -> ConvForm | None:
    """The form of `choices.CONVOLUTIONS`; None for XLA's own."""
    form = form_of(shapes)
    if form == "native":
        return None
    if form == "sum of taps":
        return partial(depthwise_conv, window=shapes.window)
    if form == "merged groups":
        return partial(
            merged_grouped_conv, window=shapes.window, groups=shapes.groups, precision=precision
        )
    return partial(plain_conv, window=shapes.window, precision=precision)
