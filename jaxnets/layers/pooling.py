"""Pooling over windows, bins and whole maps [N, H, W, C].

`max_pool` and `avg_pool` count windows and padding exactly as torch does. `lowering` decides how a
maximum is computed on each platform; for means no form was measured to be faster than XLA's own.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.dtypes import at_least_float32
from jaxnets.errors import InputError, unknown_name
from jaxnets.layers.geometry import (
    Padding,
    PaddingPairs,
    Pair,
    check_maps,
    pair,
    resolved_padding,
    windows_along,
)
from jaxnets.layers.lowering import max_of_windows


def max_pool(
    x: jax.Array,
    window: int | Pair,
    strides: int | Pair | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
) -> jax.Array:
    """The maximum of every window, without the padding.

    Args:
        x: [N, H, W, C].
        window: an int, or (height, width).
        strides: by default the window, so that windows do not overlap.
        padding: an int, a pair, a pair of (low, high) pairs, or "SAME" / "VALID" by name; at most
            half the window.
        ceil_mode: whether to add a last window that extends past the far edge, if it starts inside the
            input or the near padding.

    Returns:
        [N, H', W', C], of size floor((H + 2P - F) / S) + 1, or the ceiling.

    Raises:
        InputError: wrong rank or type, a window that does not fit, or padding beyond half of it.
    """
    window, strides, _, padded = checked_windows(x, window, strides, padding, ceil_mode)
    return max_of_windows(x, window, strides, padded)


def avg_pool(
    x: jax.Array,
    window: int | Pair,
    strides: int | Pair | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> jax.Array:
    """The mean of every window, summed in float32.

    Args:
        x: [N, H, W, C].
        window: an int, or (height, width).
        strides: by default the window.
        padding: as for `max_pool`.
        ceil_mode: as for `max_pool`. What lies past the padded edge is never counted.
        count_include_pad: whether the padding counts as zeros; otherwise the mean is over the pixels of
            the window that lie inside the input.

    Returns:
        [N, H', W', C] of x's type.

    Raises:
        InputError: as for `max_pool`.
    """
    window, strides, pads, padded = checked_windows(x, window, strides, padding, ceil_mode)
    sums = nn.pooling.pool(at_least_float32(x), 0.0, jax.lax.add, window, strides, padded)
    rows, columns = (
        _counts(*axis, count_include_pad)
        for axis in zip(x.shape[1:3], sums.shape[1:3], window, strides, pads, strict=True)
    )
    counts = rows[:, None] * columns[None, :]
    if np.all(counts == counts[0, 0]):
        counts = counts[:1, :1]  # the usual case: no array of counts in the compiled program
    return (sums / counts[None, :, :, None].astype(sums.dtype)).astype(x.dtype)


def lp_pool(
    x: jax.Array,
    p: float,
    window: int | Pair,
    strides: int | Pair | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
) -> jax.Array:
    """The L-p norm of every window, (sum |x|^p)^(1/p).

    Sermanet et al. 2012, "Convolutional Neural Networks Applied to House Numbers Digit
    Classification", section 2.2, without its Gaussian weights: p = 1 is a sum, p = inf the maximum.
    The gradient of a window of zeros is zero.

    Args:
        x: [N, H, W, C].
        p: at least 1; `math.inf` is allowed.
        window: an int, or (height, width).
        strides: by default the window.
        padding: of zeros, as for `max_pool`.
        ceil_mode: as for `max_pool`.

    Raises:
        InputError: p below 1, or as for `max_pool`.
    """
    if not p >= 1:
        raise InputError(f"p is {p}; an L-p norm wants p of at least 1")
    if math.isinf(p):
        return max_pool(jnp.abs(x), window, strides, padding, ceil_mode)
    window, strides, _, padded = checked_windows(x, window, strides, padding, ceil_mode)
    powers = jnp.abs(at_least_float32(x)) ** p
    sums = nn.pooling.pool(powers, 0.0, jax.lax.add, window, strides, padded)
    # The root has an infinite slope at 0, and 0 * inf would reach x as NaN.
    norms = jnp.where(sums > 0, jnp.where(sums > 0, sums, 1.0) ** (1 / p), 0.0)
    return norms.astype(x.dtype)


def global_avg_pool(x: jax.Array) -> jax.Array:
    """The mean of every map: [N, H, W, C] to [N, C]. InputError for a wrong rank or empty maps."""
    _check_not_empty(x)
    return jnp.mean(x, axis=(1, 2))


def global_max_pool(x: jax.Array) -> jax.Array:
    """The maximum of every map: [N, H, W, C] to [N, C]. InputError as for `global_avg_pool`."""
    _check_not_empty(x)
    return jnp.max(x, axis=(1, 2))


def adaptive_avg_pool(x: jax.Array, output_size: int | Pair) -> jax.Array:
    """Means over a grid of bins, whatever the input's size: [N, H, W, C] to [N, *output_size, C].

    Bin i covers the rows floor(i H / B) to ceil((i + 1) H / B), as in torch's AdaptiveAvgPool2d:
    bins overlap where B does not divide H, and repeat pixels where B exceeds H.

    Raises:
        InputError: wrong rank or type, empty maps, or a size below 1.
    """
    _check_not_empty(x)
    return _over_bins(at_least_float32(x), output_size, jnp.mean).astype(x.dtype)


def adaptive_max_pool(x: jax.Array, output_size: int | Pair) -> jax.Array:
    """Maxima over the bins of `adaptive_avg_pool`."""
    _check_not_empty(x)
    return _over_bins(x, output_size, jnp.max)


def spatial_pyramid_pool(
    x: jax.Array, levels: tuple[int, ...] = (1, 2, 4), op: str = "max"
) -> jax.Array:
    """Pooling over grids of several sizes, concatenated: [N, C * sum(l^2)].

    He et al. 2014, "Spatial Pyramid Pooling in Deep Convolutional Networks", section 2.2. The
    bins of a level are in row-major order, each with its C channels. The bins depart from the paper: its
    windows of ceil(H / l) at stride floor(H / l) do not give l bins for some sizes (a 7 x 7 map at level
    4); those of `adaptive_avg_pool` always do.

    Args:
        x: [N, H, W, C], of any size.
        levels: side of the grid at each level.
        op: "max" or "avg".

    Raises:
        InputError: an unknown op, or as for `adaptive_avg_pool`.
    """
    pools = {"max": adaptive_max_pool, "avg": adaptive_avg_pool}
    if op not in pools:
        raise unknown_name("pooling op", op, pools)
    return jnp.concatenate([pools[op](x, l).reshape(x.shape[0], -1) for l in levels], axis=-1)


def checked_windows(
    x: jax.Array,
    window: int | Pair,
    strides: int | Pair | None,
    padding: Padding,
    ceil_mode: bool,
) -> tuple[Pair, Pair, PaddingPairs, PaddingPairs]:
    """Window, strides, padding, and padding with what ceil mode adds, all checked and as pairs."""
    check_maps(x)
    window = pair(window, "window")
    strides = window if strides is None else pair(strides, "strides")
    pads = resolved_padding(padding, x.shape[1:3], window, strides)
    if any(2 * max(sides) > f for sides, f in zip(pads, window, strict=True)):
        raise InputError(
            f"padding {padding!r} exceeds half the window {window}, so that a window could hold "
            "padding alone; give less"
        )
    padded = []
    for size, f, s, (low, high) in zip(x.shape[1:3], window, strides, pads, strict=True):
        count = windows_along(size, f, s, (low, high), ceil_mode)
        padded.append((low, max(high, (count - 1) * s + f - size - low)))
    return window, strides, pads, tuple(padded)


def _counts(
    size: int, windows: int, window: int, stride: int, pads: Pair, include_pad: bool
) -> np.ndarray:
    """The number of pixels that count in each window along one axis, f32[windows]."""
    starts = np.arange(windows) * stride - pads[0]
    ends = np.minimum(starts + window, size + (pads[1] if include_pad else 0))
    return (ends - (starts if include_pad else np.maximum(starts, 0))).astype(np.float32)


def _over_bins(x: jax.Array, output_size: int | Pair, reduce: Callable[..., jax.Array]) -> jax.Array:
    """Reduces the bins of the height, then those of the width."""
    for axis, bins in zip((1, 2), pair(output_size, "output_size"), strict=True):
        size = x.shape[axis]
        if size % bins == 0:
            x = reduce(
                x.reshape(*x.shape[:axis], bins, size // bins, *x.shape[axis + 1 :]), axis=axis + 1
            )
            continue
        edges = [(i * size // bins, -(-(i + 1) * size // bins)) for i in range(bins)]
        slices = [jax.lax.slice_in_dim(x, a, b, axis=axis) for a, b in edges]
        x = jnp.stack([reduce(part, axis=axis) for part in slices], axis=axis)
    return x


def _check_not_empty(x: jax.Array) -> None:
    check_maps(x)
    if 0 in x.shape[1:3]:
        raise InputError(f"x has shape {x.shape}: the maps have shrunk to nothing; use larger images")
