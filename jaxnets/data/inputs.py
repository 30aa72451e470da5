"""Preprocessing of batches, shared by all tasks on images."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.data import augmentation, checks
from jaxnets.data.augmentation import Augmentation
from jaxnets.data.whitening import normalize, to_float
from jaxnets.errors import InputError


def augmented(key: jax.Array, batch: Mapping[str, Any], augment: Augmentation | None) -> dict[str, Any]:
    """A batch with its images as f32 in [0, 1], and every example augmented with its own key.

    float64 images stay float64 where nothing is augmented.
    """
    images = to_float(jnp.asarray(batch["image"]))
    if augment is None:
        return {**batch, "image": images}
    return augmentation.apply(key, {**batch, "image": images.astype(jnp.float32)}, augment)


def normalized(
    images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...], params: Any = None
) -> jax.Array:
    """Normalizes images [N, H, W, C], uint8 or f32 in [0, 1], to (image - mean) / std.

    The result has the dtype of `params`, in which the model then computes; f32 if None.
    """
    images = normalize(to_float(jnp.asarray(images)), mean, std)
    return images if params is None else images.astype(jax.tree.leaves(params)[0].dtype)


def weights_of(batch: Mapping[str, Any]) -> jax.Array:
    """The weight of each example, f32[N]; 1 if the batch has no weights."""
    if batch.get("weight") is not None:
        return batch["weight"]
    return jnp.ones(len(next(iter(batch.values()))), jnp.float32)


def check_constants(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Checks the constants of the normalization.

    Raises:
        InputError: a standard deviation of 0 or less.
    """
    if min(std) <= 0:
        raise InputError(f"std is {std}; every number must be above 0")


def check_images(images: Any, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Checks, on the host, that images are [N, H, W, C] with as many channels as there are constants,
    and that their pixels are uint8, or floats in [0, 1].

    Raises:
        InputError: another shape, type or range, channels that come first, or constants for another
            number of channels.
    """
    shape = np.shape(images)
    checks.pixels(np.asarray(images))
    if len(shape) != 4:
        raise InputError(f"image has shape {shape}; wanted [N, H, W, C]")
    if shape[1] in (1, 3) and min(shape[2:]) > 4:
        raise InputError(f"image has shape {shape}, with its channels first; wanted [N, H, W, C]")
    if not {len(mean), len(std)} <= {1, shape[-1]}:
        raise InputError(
            f"image has {shape[-1]} channels, but mean has {len(mean)} entries and std {len(std)}; give "
            "one number, or one per channel"
        )
