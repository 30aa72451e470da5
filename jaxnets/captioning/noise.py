"""Random choices of each training step: the caption of each image, word noise, and recoloring."""

import jax
import jax.numpy as jnp

from jaxnets.captioning.vocabulary import PAD
from jaxnets.data import augmentation
from jaxnets.data.color import random_channel_mix


def choose(key: jax.Array, captions: jax.Array) -> jax.Array:
    """Draws one of the captions of each image, i32[N, T]."""
    given = jnp.any(captions != PAD, axis=-1)
    number = jax.random.categorical(key, jnp.where(given, 0.0, -jnp.inf))
    # A padded example has no captions; use the first row.
    number = jnp.where(jnp.any(given, axis=1), number, 0)
    return jnp.take_along_axis(captions, number[:, None, None], axis=1)[:, 0]


def with_word_noise(key: jax.Array, captions: jax.Array, rate: float) -> jax.Array:
    """Replaces each word of captions i32[N, T], with probability `rate`, by that of another caption."""
    order_key, key = jax.random.split(key)
    others = jax.random.permutation(order_key, captions)
    return jnp.where(jax.random.bernoulli(key, rate, captions.shape), others, captions)


def recolored(key: jax.Array, images: jax.Array, rate: float) -> tuple[jax.Array, jax.Array]:
    """Mixes the colors of images f32[N, H, W, C], each with probability `rate`.

    Returns:
        The images, and which of them were recolored, bool[N].
    """
    choice_key, key = jax.random.split(key)
    chosen = jax.random.bernoulli(choice_key, rate, (len(images),))
    mixed = augmentation.apply(key, {"image": images}, random_channel_mix(p=1))["image"]
    return jnp.where(chosen[:, None, None, None], mixed, images), chosen
