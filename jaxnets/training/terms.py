"""Losses that are ratios of sums over a whole batch, whatever number of devices it is spread over."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxnets.layers import DATA_AXIS, axis_is_bound

Terms = Mapping[str, tuple[jax.Array, jax.Array]]
"""Each term's numerator f32[N] and denominator f32[N] by example: the term is the sum over the sum."""


def over_batch(terms: Terms, weights: jax.Array) -> dict[str, jax.Array]:
    """Each term of a loss, over the examples of all replicas; where its denominator is 0, its numerator.

    A term is a ratio of sums over the batch. So that the mean over replicas, weighted by their examples,
    is the ratio over all of them, each divides by the denominator of all.

    Args:
        terms: numerators and denominators f32[N].
        weights: f32[N], of the examples.
    """

    def everywhere(value: jax.Array) -> jax.Array:
        return jax.lax.psum(value, DATA_AXIS) if axis_is_bound(DATA_AXIS) else value

    own = jnp.sum(weights)
    share = jnp.where(own > 0, everywhere(own) / jnp.where(own > 0, own, 1), 0)

    def value(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
        total = jnp.sum(jnp.where(weights > 0, numerator * weights, 0))
        count = everywhere(jnp.sum(denominator * weights))
        return total * share / jnp.where(count > 0, count, 1)

    return {name: value(*parts) for name, parts in terms.items()}
