"""Progressive resizing: images that are small at first and grow with the epochs."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp

from jaxnets.training.task import Batch

STAGES = 4  # sides at most, since each compiles a step of its own


def growing_sides(first: int, last: int, epochs: int) -> list[int]:
    """The side of the images in each epoch, from `first` to `last` in at most four equal stages, as
    EfficientNetV2 has it (Tan and Le 2021, arXiv:2104.00298, section 4.2).

    >>> growing_sides(128, 224, 8)
    [128, 128, 160, 160, 192, 192, 224, 224]
    """
    stages = min(STAGES, epochs)
    sides = [round(first + (last - first) * i / max(1, stages - 1)) for i in range(stages)]
    sides[-1] = last
    return [sides[epoch * stages // epochs] for epoch in range(epochs)]


def in_epoch(batch: Batch, sides: Sequence[int], epoch: int) -> Batch:
    """A batch on its devices, with its images scaled down to the side of an epoch."""
    image = batch["image"]
    small = _scaled(image, sides[min(epoch, len(sides) - 1)])
    return {**batch, "image": jax.device_put(small, image.sharding)}


@partial(jax.jit, static_argnames="side")
def _scaled(image: jax.Array, side: int) -> jax.Array:
    """Images [..., H, W, C] with a height of `side` pixels, bilinear with antialiasing."""
    *lead, height, width, channels = image.shape
    if side == height:
        return image
    shape = (*lead, side, round(side * width / height), channels)
    small = jax.image.resize(image.astype(jnp.float32), shape, "bilinear")
    return jnp.round(small).astype(image.dtype) if image.dtype == jnp.uint8 else small
