"""Pooling with parameters: mixed, gated and tree (Lee, Gallagher and Tu 2016).

"Generalizing Pooling Functions in Convolutional Neural Networks: Mixed, Gated, and Tree",
sections 3.1 and 3.2. Windows, strides and padding are those of `pooling`. Each module holds one
set of parameters for the layer or, with `per_channel`, one for each channel; those are two of the
paper's options.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnets.errors import InputError
from jaxnets.layers.geometry import Padding, Pair, over_channels, pair, window_taps
from jaxnets.layers.pooling import avg_pool, checked_windows, max_pool


class MixedPool(nn.Module):
    """a max + (1 - a) avg with a learned share a, the same for every window (section 3.1).

    Departure: we learn the logit of a (parameter `logit`, at first 0), which keeps a in (0, 1).
    """

    window: int | Pair
    strides: int | Pair | None = None
    padding: Padding = 0
    per_channel: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [N, H, W, C] to [N, H', W', C]; InputError as for `max_pool`."""
        arguments = (self.window, self.strides, self.padding)
        largest, mean = max_pool(x, *arguments), avg_pool(x, *arguments)
        channels = x.shape[-1] if self.per_channel else 1
        logit = self.param("logit", nn.initializers.zeros, (channels,), jnp.float32)
        return _blend(over_channels(logit.astype(x.dtype), x), largest, mean)


class GatedPool(nn.Module):
    """a max + (1 - a) avg where a = sigmoid(w . window) answers to each window (section 3.1).

    Parameter `gate` f32[F, F, 1 or C], at first 0, so that the layer begins half and half.
    """

    window: int | Pair
    strides: int | Pair | None = None
    padding: Padding = 0
    per_channel: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [N, H, W, C] to [N, H', W', C]; InputError as for `max_pool`."""
        arguments = (self.window, self.strides, self.padding)
        largest, mean = max_pool(x, *arguments), avg_pool(x, *arguments)
        shape = (*pair(self.window, "window"), x.shape[-1] if self.per_channel else 1)
        gate = self.param("gate", nn.initializers.zeros, shape, jnp.float32)
        return _blend(_respond(_taps(x, *arguments), gate), largest, mean)


class TreePool(nn.Module):
    """A binary tree of learned pooling filters, joined by gates (section 3.2).

    A leaf is v . window; an inner node is s left + (1 - s) right with s = sigmoid(w . window). The
    nodes are counted as in a heap: the children of node i are 2 i + 1 and 2 i + 2.

    Parameters: `leaves` f32[2^(levels - 1), F, F, 1 or C] and `gates` f32[2^(levels - 1) - 1, F, F,
    1 or C]. Our choice, as the paper names none: gates start at 0 and the leaves around an average,
    normal with mean and standard deviation 1 / F^2 (equal leaves would learn alike for ever).

    Attributes:
        levels: of the tree, the leaves' included: 2 (two leaves, one gate) or more.
    """

    window: int | Pair
    strides: int | Pair | None = None
    padding: Padding = 0
    levels: int = 2
    per_channel: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [N, H, W, C] to [N, H', W', C].

        Raises:
            InputError: fewer than 2 levels, or as for `max_pool`.
        """
        if self.levels < 2:
            raise InputError(f"levels is {self.levels}; a tree wants at least 2")
        taps = _taps(x, self.window, self.strides, self.padding)
        leaves = 2 ** (self.levels - 1)
        shape = (*pair(self.window, "window"), x.shape[-1] if self.per_channel else 1)
        filters = self.param("leaves", _around_average, (leaves, *shape), jnp.float32)
        gates = self.param("gates", nn.initializers.zeros, (leaves - 1, *shape), jnp.float32)

        def value(node: int) -> jax.Array:
            if node >= leaves - 1:
                return _respond(taps, filters[node - (leaves - 1)])
            return _blend(_respond(taps, gates[node]), value(2 * node + 1), value(2 * node + 2))

        return value(0)


def _around_average(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    height, width = shape[1:3]
    return (1 + jax.random.normal(key, shape, dtype)) / (height * width)


def _taps(
    x: jax.Array, window: int | Pair, strides: int | Pair | None, padding: Padding
) -> list[jax.Array]:
    window, strides, pads, _ = checked_windows(x, window, strides, padding, ceil_mode=False)
    return window_taps(x, window, strides, pads)


def _respond(taps: list[jax.Array], weights: jax.Array) -> jax.Array:
    """w . window for every window and channel: taps k x [N, H', W', C], weights [F, F, 1 or C]."""
    weights = weights.reshape(len(taps), -1).astype(taps[0].dtype)
    return sum(tap * over_channels(w, tap) for tap, w in zip(taps, weights, strict=True))


def _blend(logit: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
    share = jax.nn.sigmoid(logit)
    return share * first + (1 - share) * second
