"""How a function of one example is run for a batch of them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

Function = Callable[..., jax.Array]


def one_by_one(function: Function) -> Function:
    """Has `jax.vmap` run a function for one example after the other on CPUs, elsewhere for all at once.

    A batched `lax.switch` computes every branch for every example and selects. Where examples come one
    by one, each computes its own branch alone, which on a CPU is several times faster; an accelerator
    wants few large operations.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> doubled = one_by_one(lambda x, wanted: jax.lax.cond(wanted, lambda x: 2 * x, lambda x: x, x))
        >>> jax.vmap(doubled)(jnp.arange(4.0), jnp.array([True, False, True, True]))
        Array([0., 1., 4., 6.], dtype=float32)

    Args:
        function: of arrays, to one array, without free variables that are traced.

    Returns:
        The same function, with gradients in reverse mode (they compute it once more).
    """
    mapped = jax.custom_batching.custom_vmap(function)

    @mapped.def_vmap
    def rule(count: int, batched: list[bool], *arguments: jax.Array) -> tuple[jax.Array, bool]:
        every = [
            own if has else jnp.broadcast_to(own, (count, *jnp.shape(own)))
            for own, has in zip(arguments, batched, strict=True)
        ]
        found = lax.platform_dependent(
            *every,
            cpu=lambda *every: lax.map(lambda own: function(*own), every),
            default=jax.vmap(function),
        )
        return found, True

    def forward(*arguments: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        return mapped(*arguments), arguments

    def backward(arguments: tuple[jax.Array, ...], gradient: jax.Array) -> tuple[jax.Array, ...]:
        return jax.vjp(function, *arguments)[1](gradient)

    differentiable = jax.custom_vjp(mapped)  # batching rules of one's own have no gradients
    differentiable.defvjp(forward, backward)
    return differentiable
