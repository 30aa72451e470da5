"""The images that activate a unit most, and the projection of its activations back to pixels."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxnets.errors import InputError
from jaxnets.explain.arguments import check_images
from jaxnets.explain.interpreting import rectified
from jaxnets.explain.tracing import check_unit, run, trace

Variables = Mapping[str, Any]


class Projection(NamedTuple):
    """Of `deconvnet`.

    Attributes:
        strengths: f32[N], the unit's strongest activation in each image.
        positions: i32[N, 2], the (row, column) of that activation in its map.
        pixels: f32[N, H, W, C], the projection, of both signs.
    """

    strengths: jax.Array
    positions: jax.Array
    pixels: jax.Array


def deconvnet(
    model: nn.Module, variables: Variables, images: jax.Array, layer: str, unit: int
) -> Projection:
    """Projects a unit's strongest activation in each image back to pixels.

    Zeiler and Fergus 2013, "Visualizing and Understanding Convolutional Networks", section 2.1: all
    other activations are set to zero, and the remaining one passes back through the transposed layers.
    Pooling puts it where the maximum was (the "switches"), and ReLU passes positive values, whatever its
    input was. That equals the gradient by another rule for ReLU, times the activation. All other layers
    keep their gradient, local response normalization too, which the paper's deconvnet leaves out.

    Args:
        model: a classifier of `jaxnets.create_model`.
        variables: its variables.
        images: float[N, H, W, C].
        layer: a name of `layer_shapes`.
        unit: a channel of its maps, or a unit of a dense layer.

    Raises:
        InputError: images that do not fit the model, or an unknown layer or unit.
    """
    check_images(images)
    return _deconvnet(model, variables, images, layer, unit)


def top_images(
    model: nn.Module,
    variables: Variables,
    images: jax.Array,
    layer: str,
    unit: int,
    count: int = 9,
    *,
    batch_size: int = 64,
) -> tuple[jax.Array, jax.Array]:
    """The images with the largest activations of a unit, each at its strongest position.

    Args:
        model, variables, layer, unit: as for `deconvnet`.
        images: float[N, H, W, C].
        count: number of images to return.
        batch_size: number of images computed at a time.

    Returns:
        Their indices i32[count] and the unit's activations f32[count], in descending order.

    Raises:
        InputError: `count` is out of range, or as for `deconvnet`.
    """
    check_images(images)
    if not 1 <= count <= len(images):
        raise InputError(
            f"count is {count}; wanted 1 to the number of images, and there are {len(images)} images"
        )
    strengths = _strengths(model, variables, images, layer, unit, min(batch_size, len(images)))
    strengths, numbers = jax.lax.top_k(strengths, count)
    return numbers, strengths


@partial(jax.jit, static_argnums=(0, 3, 4))
def _deconvnet(model, variables, images, layer, unit) -> Projection:
    traced = trace(model, variables, images)
    check_unit(traced, layer, unit)
    shape = traced.layers[layer]

    def activations(images):
        return run(traced, variables, images, relu=rectified)[1][layer]

    outputs, pull = jax.vjp(activations, images)
    places = outputs[..., unit].reshape(shape[0], -1)  # a dense layer's unit has one place
    best = jnp.argmax(places, axis=1)
    strengths = jnp.max(places, axis=1)
    alone = jax.nn.one_hot(best, places.shape[1], dtype=outputs.dtype) * strengths[:, None]
    (pixels,) = pull(jnp.zeros_like(outputs).at[..., unit].set(alone.reshape(shape[:-1])))
    columns = shape[2] if len(shape) == 4 else 1
    positions = jnp.stack([best // columns, best % columns], axis=1)
    return Projection(strengths, positions.astype(jnp.int32), pixels)


@partial(jax.jit, static_argnums=(0, 3, 4, 5))
def _strengths(model, variables, images, layer, unit, batch_size) -> jax.Array:
    """f32[N], a unit's strongest activation in each image."""
    count = len(images)
    batches = -(-count // batch_size)
    images = jnp.resize(images, (batches * batch_size, *images.shape[1:]))
    images = images.reshape(batches, batch_size, *images.shape[1:])
    traced = trace(model, variables, images[0])
    check_unit(traced, layer, unit)

    def strongest(images):
        outputs = run(traced, variables, images)[1][layer]
        return jnp.max(outputs[..., unit].reshape(batch_size, -1), axis=1)

    return jax.lax.map(strongest, images).reshape(-1)[:count]
