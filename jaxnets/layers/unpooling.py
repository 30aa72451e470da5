"""Max pooling that remembers where its maxima were, and unpooling that puts values back there.

Such indices are the "switches" of Zeiler and Fergus 2013 (arXiv:1311.2901, section 2.1); SegNet's
decoder is made of them (Badrinarayanan et al. 2015, arXiv:1511.00561, section 3).
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.errors import InputError
from jaxnets.layers.geometry import Padding, Pair, check_maps, pair, window_taps
from jaxnets.layers.pooling import checked_windows


def max_pool_with_indices(
    x: jax.Array,
    window: int | Pair,
    strides: int | Pair | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """`max_pool`, and where in the map each maximum was found.

    Args:
        x: [N, H, W, C].
        window, strides, padding, ceil_mode: as for `max_pool`.

    Returns:
        The maxima [N, h, w, C], and i32[N, h, w, C]: y * W + x of each, in the map without its padding,
        as in torch. Of equal pixels the first is meant, row by row.

    Raises:
        InputError: as for `max_pool`.

    >>> maxima, indices = max_pool_with_indices(jnp.arange(6.0).reshape(1, 2, 3, 1), 2, ceil_mode=True)
    >>> indices.ravel()
    Array([4, 5], dtype=int32)
    """
    window, strides, pads, padded = checked_windows(x, window, strides, padding, ceil_mode)
    _, height, width, _ = x.shape
    edges = ((0, 0), *padded, (0, 0))
    taps = window_taps(jnp.pad(x, edges, constant_values=-jnp.inf), window, strides, ((0, 0), (0, 0)))
    # Where a window holds nothing but minus infinity, the padding would win: clipped, it points inside.
    rows, columns = (
        np.clip(np.arange(count)[None] * s + np.arange(f)[:, None] - low, 0, size - 1)
        for count, s, f, (low, _), size in zip(
            taps[0].shape[1:3], strides, window, pads, (height, width), strict=True
        )
    )
    places = [
        (row[:, None] * width + column[None])[None, :, :, None].astype(np.int32)
        for row in rows
        for column in columns
    ]
    best, index = taps[0], jnp.broadcast_to(places[0], taps[0].shape)
    for tap, place in zip(taps[1:], places[1:], strict=True):
        stays = (best >= tap) | (best != best)
        best, index = jnp.where(stays, best, tap), jnp.where(stays, index, place)
    return best, index


def max_unpool(
    x: jax.Array, indices: jax.Array, size: Pair, window: int | Pair | None = None
) -> jax.Array:
    """Puts each value where `max_pool_with_indices` found a maximum, and zeros elsewhere.

    It is torch's `max_unpool2d` with an `output_size`.

    Args:
        x: [N, h, w, C].
        indices: of `max_pool_with_indices`, i32[N, h, w, C]; those beyond the map are left out.
        size: height and width of the map that was pooled.
        window: of the pooling, if its strides were the window and it had no padding. It is several
            times faster to know that each index lies in a window of its own; values with an index
            elsewhere are left out. None for indices of any kind: where several are equal, as those of
            windows that overlap may be, one of their values stays, and which is not defined.

    Returns:
        [N, *size, C].

    Raises:
        InputError: wrong ranks or types, shapes that differ, or a window that does not fit the size.
    """
    check_maps(x)
    height, width = pair(size, "size")
    if indices.shape != x.shape or not jnp.issubdtype(indices.dtype, jnp.integer):
        raise InputError(
            f"indices: wanted integers of the shape of x, {x.shape}, got {indices.dtype}"
            f"{list(indices.shape)}; give what max_pool_with_indices gave"
        )
    if window is None:
        return _scattered(x, indices, (height, width))
    window = pair(window, "window")
    sides = list(zip((height, width), window, strict=True))
    if x.shape[1:3] not in (tuple(-(-h // f) for h, f in sides), tuple(h // f for h, f in sides)):
        raise InputError(
            f"x has {x.shape[1]} x {x.shape[2]} positions, and a map of {height} x {width} pooled by "
            f"{window[0]} x {window[1]} has others; give the size of the map before it was pooled"
        )
    y = _placed(x, indices, window, width)[:, :height, :width]
    return jnp.pad(y, ((0, 0), (0, height - y.shape[1]), (0, width - y.shape[2]), (0, 0)))


def _scattered(x: jax.Array, indices: jax.Array, size: Pair) -> jax.Array:
    """One write for each value."""

    def one_map(values: jax.Array, indices: jax.Array) -> jax.Array:
        zeros = jnp.zeros(size[0] * size[1], values.dtype)
        return zeros.at[indices.ravel()].set(values.ravel(), mode="drop").reshape(size)

    over_channels = jax.vmap(one_map, in_axes=-1, out_axes=-1)
    return jax.vmap(over_channels)(x, indices)


def _placed(x: jax.Array, indices: jax.Array, window: Pair, width: int) -> jax.Array:
    """For each tap of the windows the values that belong there; then the taps side by side.

    At 260 x 260 positions of 64 channels it takes a third of the time of writing each value, and so does
    its gradient (CPU).
    """
    images, rows, columns, channels = x.shape
    first = np.arange(rows)[:, None] * window[0] * width + np.arange(columns) * window[1]
    first = first.astype(indices.dtype)[None, :, :, None]
    lines = []
    for i in range(window[0]):
        steps = (np.array(i * width + j, indices.dtype) for j in range(window[1]))
        taps = [jnp.where(indices == first + step, x, jnp.zeros((), x.dtype)) for step in steps]
        lines.append(jnp.stack(taps, 3).reshape(images, rows, -1, channels))
    return jnp.stack(lines, 2).reshape(images, rows * window[0], -1, channels)
