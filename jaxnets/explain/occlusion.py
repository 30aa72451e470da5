"""Attribution by occlusion."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxnets.errors import InputError
from jaxnets.explain.arguments import checked_classes, scores_of

Pair = tuple[int, int]


def occlusion(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    classes: Any = None,
    *,
    size: int | Pair,
    stride: int | Pair = 1,
    value: Any = 0.0,
    probability: bool | Callable[[jax.Array], jax.Array] = False,
    batch_size: int = 64,
) -> jax.Array:
    """The mean decrease of the score over all positions of an occluder that cover a pixel.

    Zeiler and Fergus 2013, "Visualizing and Understanding Convolutional Networks", section 4.2, slide a
    gray square over the image and draw the probability at each position; here each pixel has the mean
    decrease over the positions that cover it. Positions are `stride` pixels apart, from the upper left
    corner; the last ones may extend past the far edges, so that every pixel is covered.

    All positions are computed by one compiled program, in equal batches.

    Args:
        model: a classifier of `jaxnets.create_model`.
        variables: its variables.
        images: float[N, H, W, C].
        classes: an int, i32[N], or None for the class that each image scores highest.
        size: of the occluder in pixels, an int or (height, width).
        stride: pixels from one position to the next, an int or (rows, columns).
        value: of the occluder's pixels: a number, or one for each channel. For normalized images 0 is
            the mean color.
        probability: measure the probability of the class instead of its score: True for softmax, or a
            function from scores to probabilities, such as `jax.nn.sigmoid`.
        batch_size: approximate number of images computed at a time.

    Returns:
        f32[N, H, W]: positive where the covered pixels support the class.

    Raises:
        InputError: images that do not fit the model, a class that is out of range, an occluder larger
            than the image, or a stride that leaves pixels uncovered.
    """
    classes = checked_classes(model, images, classes)
    size, stride = _pair(size), _pair(stride)
    height, width = images.shape[1:3]
    if size[0] > height or size[1] > width or min(size) < 1:
        raise InputError(
            f"size: an occluder of {size[0]} x {size[1]} does not fit into images of {height} x {width} "
            "pixels; give one of at least 1 and at most that"
        )
    if not (1 <= stride[0] <= size[0] and 1 <= stride[1] <= size[1]):
        raise InputError(
            f"stride: {stride[0]} x {stride[1]} must be at least 1 and at most the occluder's "
            f"{size[0]} x {size[1]}, or pixels are left out"
        )
    if np.shape(value) not in ((), (1,), images.shape[-1:]):
        raise InputError(f"value has shape {np.shape(value)}; wanted a number, or one for each channel")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; give at least 1")
    activation = probability if callable(probability) else jax.nn.softmax if probability else None
    options = (size, stride, activation, batch_size)
    return _occlusion(model, variables, images, classes, value, *options)


@partial(jax.jit, static_argnums=(0, 5, 6, 7, 8))
def _occlusion(
    model, variables, images, classes, value, size, stride, activation, batch_size
) -> jax.Array:
    count, height, width, _ = images.shape
    down, right = _covered(height, size[0], stride[0]), _covered(width, size[1], stride[1])
    rows, columns = (places.ravel() for places in np.indices((len(down), len(right))))
    # A last position covers nothing, so that one program computes the uncovered images too.
    rows, columns = np.append(rows, len(down)), np.append(columns, 0)
    together = max(1, batch_size // count)
    batches = math.ceil(len(rows) / together)
    places = [jnp.asarray(np.resize(numbers, (batches, together))) for numbers in (rows, columns)]
    covered_rows = jnp.asarray(np.pad(down, ((0, 1), (0, 0))))

    def scores(place):
        cover = covered_rows[place[0]][:, :, None] & jnp.asarray(right)[place[1]][:, None, :]
        covered = jnp.where(cover[:, None, :, :, None], jnp.asarray(value, images.dtype), images)
        logits = model.apply(variables, covered.reshape(-1, *images.shape[1:]), train=False)
        return (logits if activation is None else activation(logits)).reshape(together, count, -1)

    found = jax.lax.map(scores, places)
    found = found.reshape(batches * together, count, -1)[: len(rows)]
    if classes is None:
        classes = jnp.argmax(found[-1], axis=-1)
    left = jax.vmap(scores_of, in_axes=(0, None))(found, classes)  # [places + 1, N]
    falls = (left[-1:] - left[:-1]).T.reshape(count, len(down), len(right))
    sums = jnp.einsum("nrc,rh,cw->nhw", falls, down.astype(falls.dtype), right.astype(falls.dtype))
    return sums / (down.sum(0)[None, :, None] * right.sum(0)[None, None, :]).astype(falls.dtype)


def _covered(length: int, size: int, stride: int) -> np.ndarray:
    """bool[places, length]: the pixels of a row or column that are covered at each position."""
    starts = np.arange(math.ceil((length - size) / stride) + 1)[:, None] * stride
    pixels = np.arange(length)
    return (pixels >= starts) & (pixels < starts + size)


def _pair(value: int | Pair) -> Pair:
    return tuple(value) if isinstance(value, tuple | list) else (value, value)
