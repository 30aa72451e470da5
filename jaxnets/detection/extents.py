"""Pictures on larger canvases: a detector computes as if each were alone on its own.

A convolution pads a map with zeros. On a larger canvas what lies beyond a picture is zero before the
first layer, but no longer behind it, as layers add biases. So whatever reads across the border is shown
zeros there, in every layer: neither a larger canvas nor another picture of the batch changes a number.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxnets.data.resampling import inside

DIVISOR = 32
"""A picture is padded to sides that are multiples of it, which strides divide, as torchvision does."""


class Extent(NamedTuple):
    """The part of a canvas that belongs to each picture of a batch.

    Attributes:
        size: (height, width) of the pictures, i32[N, 2].
        padded: these rounded up to multiples of `DIVISOR`, i32[N, 2].
        canvas: (height, width) of the canvas.
    """

    size: jax.Array
    padded: jax.Array
    canvas: tuple[int, int]

    def of_map(self, shape: tuple[int, int]) -> jax.Array:
        """The (rows, columns) i32[N, 2] of a map of this (height, width) that belong to each picture."""
        strides = [_stride(long, short) for long, short in zip(self.canvas, shape, strict=True)]
        return -(-self.padded // jnp.array([strides], jnp.int32))

    def mask(self, shape: tuple[int, int]) -> jax.Array:
        """Which places of a map of this (height, width) belong to each picture, bool[N, h, w]."""
        return jax.vmap(lambda part: inside(part, shape))(self.of_map(shape))


def extent_of(images: jax.Array, sizes: jax.Array | None) -> tuple[jax.Array, Extent]:
    """Images on a canvas of sides that are multiples of `DIVISOR`, and the part that each picture fills.

    Args:
        images: float[N, H, W, C], zeros beyond each picture.
        sizes: i32[N, 2], (height, width) of each picture; None for all of the canvas.
    """
    count, height, width, _ = images.shape
    if sizes is None:
        sizes = jnp.broadcast_to(jnp.array([[height, width]], jnp.int32), (count, 2))
    below, right = -height % DIVISOR, -width % DIVISOR
    images = jnp.pad(images, ((0, 0), (0, below), (0, right), (0, 0)))
    sizes = sizes.astype(jnp.int32)
    padded = -(-sizes // DIVISOR) * DIVISOR
    return images, Extent(sizes, padded, (height + below, width + right))


@contextlib.contextmanager
def bounded(extent: Extent) -> Iterator[None]:
    """Within, every convolution reads zeros beyond the pictures, and group normalization leaves out what
    lies there. Statistics of batches, and squeeze-and-excitation, take it in."""

    def layer(call, args, kwargs, context):
        module = context.module
        if context.method_name == "__call__" and isinstance(module, nn.Conv | nn.GroupNorm):
            x = args[0]
            mask = extent.mask(x.shape[1:3])[..., None]
            if isinstance(module, nn.GroupNorm):
                kwargs = {**kwargs, "mask": jnp.broadcast_to(mask, x.shape)}
            elif max(module.kernel_size) > 1:
                args = (jnp.where(mask, x, jnp.zeros((), x.dtype)), *args[1:])
        return call(*args, **kwargs)

    with nn.intercept_methods(layer):
        yield


def _stride(long: int, short: int) -> int:
    """The power of 2 by which a map is shorter than the canvas; odd sides are rounded up."""
    stride = 1
    while -(-long // stride) > short:
        stride *= 2
    return stride
