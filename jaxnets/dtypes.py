"""Floating-point types that hold under every setting of JAX's type promotion."""

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp


def at_least_float32(x: jax.Array) -> jax.Array:
    """`x` as float32, for sums and statistics that bfloat16 is too coarse for; float64 stays.

    >>> at_least_float32(jnp.ones(3, jnp.bfloat16)).dtype
    dtype('float32')
    """
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


@contextlib.contextmanager
def implicit_promotion() -> Iterator[None]:
    """For calls of libraries that promote ranks and types implicitly, whatever JAX is set to."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield
