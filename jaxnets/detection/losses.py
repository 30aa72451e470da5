"""Losses of detectors, elementwise, as functions of logits or regression outputs and their targets."""

import jax
import jax.numpy as jnp
import optax


def smooth_l1(outputs: jax.Array, targets: jax.Array, beta: float = 1 / 9) -> jax.Array:
    """|d| - beta / 2, and d^2 / (2 beta) where |d| is less than beta (Girshick 2015, arXiv:1504.08083,
    equation 3, where beta is 1)."""
    return optax.losses.huber_loss(outputs, targets, delta=beta) / beta


def sigmoid_focal(
    logits: jax.Array, targets: jax.Array, alpha: float = 0.25, gamma: float = 2.0
) -> jax.Array:
    """Binary cross entropy that is weighed down where it is right already (Lin et al. 2017,
    arXiv:1708.02002, equation 5)."""
    return optax.losses.sigmoid_focal_loss(logits, targets, alpha=alpha, gamma=gamma)


def summed(values: jax.Array, where: jax.Array) -> jax.Array:
    """The sum of values f[A, ...] over the places bool[A] that count; the others may be anything."""
    where = where.reshape(*where.shape, *[1] * (values.ndim - where.ndim))
    return jnp.sum(jnp.where(where, values, 0))
