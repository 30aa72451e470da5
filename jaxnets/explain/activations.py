"""Filters and feature maps of layers, and the receptive field of a unit."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxnets.errors import InputError
from jaxnets.explain.arguments import check_images
from jaxnets.explain.tracing import check_layer, check_maps, run, trace

Variables = Mapping[str, Any]


def feature_maps(model: nn.Module, variables: Variables, images: jax.Array, layer: str) -> jax.Array:
    """The output of a layer, in evaluation.

    Args:
        model: a classifier of `jaxnets.create_model`.
        variables: its variables.
        images: float[N, H, W, C].
        layer: a name of `layer_shapes`.

    Returns:
        [N, h, w, c] of a convolution; other layers may have other shapes.

    Raises:
        InputError: images that do not fit the model, or an unknown layer.
    """
    check_images(images)
    return _output(model, variables, images, layer)


def filters(model: nn.Module, variables: Variables, images: Any, layer: str | None = None) -> jax.Array:
    """The kernels of a convolution, a filter for each output channel.

    Args:
        model: a classifier of `jaxnets.create_model`.
        variables: its variables.
        images: float[N, H, W, C], of which only the shape matters.
        layer: the path of a convolution, such as "backbone/conv1"; None for the first.

    Returns:
        [out, F, F, in]; a filter of the first convolution can be shown as an image.

    Raises:
        InputError: images that do not fit the model, or a layer that is not one of its convolutions.
    """
    traced = trace(model, variables, images)
    kernels = {}
    for name in traced.layers:
        leaf = variables["params"]
        for key in (*name.split("/"), "kernel"):
            leaf = leaf.get(key, {}) if isinstance(leaf, Mapping) else {}
        if np.ndim(leaf) == 4:
            kernels[name] = leaf
    if layer is None:
        layer = next(iter(kernels), None)
        if layer is None:
            raise InputError("model: it has no convolution, and so no filters")
    check_layer(traced, layer)
    if layer not in kernels:
        raise InputError(f"layer: {layer} is no convolution; name one, such as {next(iter(kernels))}")
    return jnp.moveaxis(jnp.asarray(kernels[layer]), -1, 0)


def receptive_field(
    model: nn.Module, variables: Variables, images: Any, layer: str, row: Any, column: Any
) -> jax.Array:
    """The box of pixels that a unit of a layer depends on, found by experiment.

    NaN propagates to every value that depends on it. The first k rows (or last rows, or columns) of the
    image are set to NaN, and the least k that reaches the unit is found by bisection. Nothing needs to
    be known of the network, and padding does not count. Algorithms that share work between positions,
    such as Winograd's on some GPUs, would widen the box.

    Args:
        model: a classifier of `jaxnets.create_model`.
        variables: its variables.
        images: float[N, H, W, C], of which only the shape matters.
        layer: a name of `layer_shapes`, of maps [N, h, w, c].
        row, column: the unit's position in the layer's maps; the box is that of all channels.

    Returns:
        i32[4]: left, top, right, bottom, where right and bottom are the first pixels outside.

    Raises:
        InputError: images that do not fit the model, an unknown layer or one without maps, a position
            outside them, or a unit that depends on no pixel.
    """
    check_images(images)
    traced = trace(model, variables, images)
    shape = check_maps(traced, layer)
    for name, place, size in (("row", row, shape[1]), ("column", column, shape[2])):
        if not isinstance(place, jax.core.Tracer) and not 0 <= place < size:
            raise InputError(
                f"{name} {place} is out of range: the maps of {layer} are {shape[1]} x {shape[2]}"
            )
    with jax.debug_nans(False):
        box, reached = _box(model, variables, tuple(images.shape[1:]), layer, row, column)
    if not isinstance(reached, jax.core.Tracer) and not reached:
        raise InputError(f"layer: no pixel reaches {layer} at row {row} and column {column}")
    return box


@partial(jax.jit, static_argnums=(0, 3))
def _output(model, variables, images, layer) -> jax.Array:
    traced = trace(model, variables, images)
    check_layer(traced, layer)
    return run(traced, variables, images)[1][layer]


@partial(jax.jit, static_argnums=(0, 2, 3))
def _box(model, variables, shape, layer, row, column) -> tuple[jax.Array, jax.Array]:
    height, width, channels = shape
    rows, columns = np.indices((height, width))
    depths = np.stack([columns, rows, width - 1 - columns, height - 1 - rows])  # from each edge
    sizes = jnp.array([width, height, width, height])
    blank = jnp.zeros((4, height, width, channels), jnp.float32)
    traced = trace(model, variables, blank)

    def reached(hidden):  # i32[4]: rows or columns of NaN from each edge
        images = jnp.where((depths < hidden[:, None, None])[..., None], jnp.nan, blank)
        outputs = run(traced, variables, images)[1][layer]
        return jnp.any(jnp.isnan(outputs[:, row, column]), axis=-1)

    def halve(_, ends):
        low, high = ends  # with `low` the unit is not reached, with `high` it is
        middle = (low + high) // 2
        hit = reached(middle)
        return jnp.where(hit, low, middle), jnp.where(hit, middle, high)

    # One more than all pixels counts as reached: the result where no pixel reaches the unit.
    steps = math.ceil(math.log2(max(height, width) + 1)) + 1
    _, depths_reached = jax.lax.fori_loop(0, steps, halve, (jnp.zeros_like(sizes), sizes + 1))
    left, top, right, bottom = depths_reached - 1
    box = jnp.stack([left, top, width - right, height - bottom])
    return box.astype(jnp.int32), jnp.all(depths_reached <= sizes)
