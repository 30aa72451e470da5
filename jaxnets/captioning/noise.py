"""What is drawn anew for each step of training: the sentence of an image, words, colors."""

import jax
import jax.numpy as jnp

from jaxnets.captioning.vocabulary import PAD
from jaxnets.data import augmentation
from jaxnets.data.color import random_channel_mix


def choose(key: jax.Array, captions: jax.Array) -> jax.Array:
    """One of the sentences of each image, i32[N, T]."""
    given = jnp.any(captions != PAD, axis=-1)
    number = jax.random.categorical(key, jnp.where(given, 0.0, -jnp.inf))
    # An example of padding has none to choose from; the first will do.
    number = jnp.where(jnp.any(given, axis=1), number, 0)
    return jnp.take_along_axis(captions, number[:, None, None], axis=1)[:, 0]


def with_word_noise(key: jax.Array, captions: jax.Array, rate: float) -> jax.Array:
    """Sentences i32[N, T] in which a share of the words is another sentence's."""
    order_key, key = jax.random.split(key)
    others = jax.random.permutation(order_key, captions)
    return jnp.where(jax.random.bernoulli(key, rate, captions.shape), others, captions)


def recolored(key: jax.Array, images: jax.Array, rate: float) -> tuple[jax.Array, jax.Array]:
    """Images f32[N, H, W, C], a share of them with mixed colors, and which these are, bool[N]."""
    choice_key, key = jax.random.split(key)
    chosen = jax.random.bernoulli(choice_key, rate, (len(images),))
    mixed = augmentation.apply(key, {"image": images}, random_channel_mix(p=1))["image"]
    return jnp.where(chosen[:, None, None, None], mixed, images), chosen
