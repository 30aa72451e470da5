"""Resizing of maps, bilinear or to the nearest, as torch's `interpolate` does it."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.layers.geometry import Pair, check_maps, pair


def resize_bilinear(x: jax.Array, size: int | Pair, *, align_corners: bool) -> jax.Array:
    """Resizes maps by interpolating between the four nearest positions, without antialiasing.

    Unlike `jax.image.resize`, it reads four positions also where maps shrink, and can align corners.

    Args:
        x: [N, H, W, C].
        size: the new height and width, or a side.
        align_corners: whether the centers of the corners stay in place, as in TensorFlow 1 and Caffe's
            Interp; else the borders of the maps do, and positions beyond the outermost centers repeat
            these.

    Returns:
        [N, *size, C] of the same dtype.

    Raises:
        InputError: `x` is no maps of floats, or a size below 1.

    >>> resize_bilinear(jnp.array([0.0, 2.0]).reshape(1, 1, 2, 1), (1, 4), align_corners=False).ravel()
    Array([0. , 0.5, 1.5, 2. ], dtype=float32)
    """
    check_maps(x)
    for axis, after in enumerate(pair(size, "size"), start=1):
        if x.shape[axis] != after:
            x = _along(x, axis, after, align_corners)
    return x


def resize_nearest(x: jax.Array, size: Pair) -> jax.Array:
    """Resizes maps by repeating positions, as torch's "nearest" does.

    Args:
        x: [N, H, W, C].
        size: the new height and width.

    Returns:
        [N, *size, C]: each position is the one of `x` at its share of the way, rounded down.

    >>> resize_nearest(jnp.array([1.0, 2.0]).reshape(1, 1, 2, 1), (1, 3)).ravel()
    Array([1., 1., 2.], dtype=float32)
    """
    for axis, after in enumerate(size, start=1):
        before = x.shape[axis]
        if after == 2 * before:
            x = jnp.repeat(x, 2, axis)  # whose transpose is a sum, not a scatter
        elif after != before:
            scale = np.float32(before) / np.float32(after)  # rounded, as torch's
            places = np.floor(np.arange(after, dtype=np.float32) * scale).astype(int)
            x = jnp.take(x, np.minimum(places, before - 1), axis)
    return x


def between(
    before: int, after: int, align_corners: bool, dtype: type[np.floating] = np.float32
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two positions between which each new one lies along an axis, and the weight of the second.

    Computed in float64 from a scale in `dtype`, as torch rounds once.

    Returns:
        i64[after], i64[after] and dtype[after].
    """
    if align_corners:
        scale = dtype(before - 1) / dtype(max(after - 1, 1))
        places = np.arange(after) * np.float64(scale)
    else:
        scale = dtype(before) / dtype(after)
        places = np.maximum((np.arange(after) + 0.5) * np.float64(scale) - 0.5, 0)
    places = places.astype(dtype)
    low = np.minimum(places.astype(np.int64), before - 1)
    return low, np.minimum(low + 1, before - 1), places - low.astype(dtype)


def _along(x: jax.Array, axis: int, after: int, align_corners: bool) -> jax.Array:
    """Resizes an axis. Reading positions is fastest, but adding gradients up at positions is slow: the
    derivative is a product with the matrix of weights, whose transpose is one too."""
    dtype = np.float64 if x.dtype == np.float64 else np.float32
    low, high, share = between(x.shape[axis], after, align_corners, dtype)
    weights = np.zeros((after, x.shape[axis]), dtype)
    np.add.at(weights, (np.arange(after), low), 1 - share)
    np.add.at(weights, (np.arange(after), high), share)

    @jax.custom_jvp
    def read(x: jax.Array) -> jax.Array:
        second = jnp.asarray(share, x.dtype).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
        return jnp.take(x, low, axis) * (1 - second) + jnp.take(x, high, axis) * second

    @read.defjvp
    def read_and_multiply(
        primals: tuple[jax.Array], tangents: tuple[jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        (tangent,) = tangents
        matrix = jnp.asarray(weights, tangent.dtype)
        moved = jnp.tensordot(tangent, matrix, ((axis,), (1,)), precision=jax.lax.Precision.HIGHEST)
        return read(*primals), jnp.moveaxis(moved, -1, axis)

    return read(x)
