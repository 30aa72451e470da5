"""Parameters drawn at once, so that a deep network is initialized in seconds.

XLA compiles the random numbers of each parameter as a program of their own: for NASNet-A mobile 357
such programs, which took 80 seconds of processor time to compile (jaxlib 0.10.2, CPU). Here each
distribution is drawn in one piece and cut into the parameters, which took 18.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun
from jax.interpreters.partial_eval import dce_jaxpr

# How JAX calls its distributions in a jaxpr. Under another name a draw is left as it is: slower to
# compile, just as random.
_DISTRIBUTIONS = {
    "_normal": lambda key, size: jax.random.normal(key, (size,)),
    "_truncated_normal": lambda key, size, low, high: jax.random.truncated_normal(
        key, low, high, (size,)
    ),
    "_uniform": lambda key, size, low, high: jax.random.uniform(key, (size,), minval=low, maxval=high),
}


class InitializedAtOnce(nn.Module):
    """A module whose `init` compiles in seconds, however deep it is: see `initialize`."""

    @nn.nowrap
    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any:
        """Draws the variables, as Flax's `Module.init`, with one draw for each distribution."""
        return initialize(functools.partial(super().init, **kwargs), rngs, *args)


def initialize(init: Callable[..., Any], rngs: Any, *args: Any) -> Any:
    """What `init(rngs, *args)` gives, with one draw for all parameters of a distribution.

    The forward pass of `init` is traced, never computed. The values differ from those of `init` itself
    but have the same distributions. They depend on the keys and on the order and sizes of the
    parameters, and on nothing else.

    Args:
        init: such as Flax's `module.init`.
        rngs: a key, or keys by name.
        *args: arrays (only their shapes matter, if it is so for `init`).
    """
    jaxpr, tree, consts = _needed(init, rngs, *args)
    draws, others = {}, []
    for equation in jaxpr.eqns:
        bounds = equation.invars[1:]
        (*_, out) = equation.outvars
        if (
            equation.params.get("name") in _DISTRIBUTIONS
            and out.aval.dtype == jnp.float32
            and all(isinstance(bound, Literal) for bound in bounds)
        ):
            distribution = (equation.params["name"], *(float(bound.val) for bound in bounds))
            draws.setdefault(distribution, []).append(out)
        else:
            others.append(equation)

    key = jax.tree.leaves(rngs)[0]
    values = []
    for index, ((name, *bounds), outs) in enumerate(draws.items()):
        sizes = [out.aval.size for out in outs]
        pool = _DISTRIBUTIONS[name](jax.random.fold_in(key, index), sum(sizes), *bounds)
        parts = jnp.split(pool, list(itertools.accumulate(sizes))[:-1])
        values += [part.reshape(out.aval.shape) for part, out in zip(parts, outs, strict=True)]

    # What is left of the program takes the draws as arguments.
    drawn = [out for outs in draws.values() for out in outs]
    rest = jaxpr.replace(
        eqns=others,
        invars=[*jaxpr.invars, *drawn],
        debug_info=jaxpr.debug_info.with_unknown_names(),
    )
    leaves = jaxpr_as_fun(ClosedJaxpr(rest, consts))(*jax.tree.leaves((rngs, *args)), *values)
    return jax.tree.unflatten(tree, leaves)


def _needed(init: Callable[..., Any], *args: Any) -> tuple[Any, Any, list[Any]]:
    """The program of `init` without what its results do not need, their tree, and its constants."""
    closed, results = jax.make_jaxpr(init, return_shape=True)(*args)
    jaxpr, _ = dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars), instantiate=True)
    return jaxpr, jax.tree.structure(results), closed.consts
