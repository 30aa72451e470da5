"""Checks of what the functions of `jaxnets.explain` are given: images and classes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxnets.errors import InputError


def check_images(images: Any) -> None:
    """Raises `InputError` unless images are float[N, H, W, C]."""
    shape = np.shape(images)
    if len(shape) != 4:
        hint = "; add the batch axis with images[None]" if len(shape) == 3 else ""
        raise InputError(f"images: wanted [N, H, W, C], got shape {shape}{hint}")
    dtype = getattr(images, "dtype", np.dtype(object))
    if not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(f"images: wanted floats, as the model reads them, got {dtype}")


def checked_classes(model: nn.Module, images: Any, classes: Any) -> jax.Array | None:
    """One class for each image, i32[N]; None for the class that the model scores highest.

    Raises:
        InputError: the images are not float[N, H, W, C], the model has no classes, or a class is out of
            range.
    """
    check_images(images)
    if model.num_classes == 0:
        raise InputError("model: it was made with num_classes=0 and scores no classes")
    if classes is None:
        return None
    shape = np.shape(classes)
    if shape not in ((), (len(images),)):
        raise InputError(f"classes: wanted one, or one for each of {len(images)} images, got {shape}")
    if not isinstance(classes, jax.core.Tracer):
        outside = [c for c in np.ravel(classes) if not 0 <= c < model.num_classes]
        if outside or not np.issubdtype(np.asarray(classes).dtype, np.integer):
            raise InputError(
                f"classes: {outside[0] if outside else classes} is not one of the model's "
                f"{model.num_classes}, which run from 0 to {model.num_classes - 1}"
            )
    return jnp.broadcast_to(jnp.asarray(classes, jnp.int32), (len(images),))


def scores_of(scores: jax.Array, classes: jax.Array | None) -> jax.Array:
    """The score of each image's class: f32[N] of f32[N, K]; the highest where `classes` is None."""
    if classes is None:
        classes = jnp.argmax(scores, axis=-1)
    return jnp.take_along_axis(scores, classes[:, None], axis=-1)[:, 0]
