"""Class activation maps by gradients."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxnets.errors import InputError
from jaxnets.explain.arguments import checked_classes, scores_of
from jaxnets.explain.tracing import check_maps, deepest_maps, is_read, run, trace


def grad_cam(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    classes: Any = None,
    layer: str | None = None,
) -> jax.Array:
    """Grad-CAM: the sum of a layer's maps, each weighted by its mean gradient, rectified.

    Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization", section 3, equations 1 and 2.

    Args:
        model: a classifier of `jaxnets.create_model`.
        variables: its variables.
        images: float[N, H, W, C].
        classes: an int, i32[N], or None for the class that each image scores highest.
        layer: a name of `layer_shapes`, of maps; None for the deepest feature map of more than one
            pixel.

    Returns:
        f32[N, h, w] at the layer's resolution, at least 0, in units of the score.

    Raises:
        InputError: images that do not fit the model, an unknown class or layer, or a layer that has no
            maps or that the scores do not depend on.
    """
    classes = checked_classes(model, images, classes)
    return _grad_cam(model, variables, images, classes, layer)


@partial(jax.jit, static_argnums=(0, 4))
def _grad_cam(model, variables, images, classes, layer) -> jax.Array:
    traced = trace(model, variables, images)
    layer = deepest_maps(traced, only_read=True) if layer is None else layer
    check_maps(traced, layer)
    if not is_read(traced, layer):
        raise InputError(f"layer: the scores do not depend on {layer}; name another, or a module")
    nothing = jnp.zeros(traced.layers[layer], images.dtype)

    def total(added):
        scores, layers = run(traced, variables, images, added={layer: added})
        return jnp.sum(scores_of(scores, classes)), layers[layer]

    gradient, maps = jax.grad(total, has_aux=True)(nothing)
    weights = jnp.mean(gradient, axis=(1, 2), keepdims=True)
    return jnp.maximum(jnp.sum(weights * maps, axis=-1), 0)
