"""Parameters drawn at once, so that a deep network is initialized in seconds.

XLA compiles the random numbers of each parameter as a program of their own: for NASNet-A mobile 357
such programs, which took 80 seconds of processor time to compile (jaxlib 0.10.2, CPU). Here each
distribution is drawn in one piece and cut into the parameters, which took 18.
"""

import functools
import itertools
import warnings
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend import core

# By their number of bounds: (key, shape, dtype, *bounds) -> array.
_DISTRIBUTIONS = {
    0: (jax.random.normal,),
    2: (
        jax.random.uniform,
        lambda key, shape, dtype, low, high: jax.random.truncated_normal(key, low, high, shape, dtype),
    ),
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
    but have the same distributions. They depend on the keys and on the order, sizes and types of the
    parameters, and on nothing else. Where JAX writes programs down in a way that is not understood
    here, `init` itself is called, with a warning.

    Args:
        init: such as Flax's `module.init`.
        rngs: a key, or keys by name.
        *args: arrays (only their shapes matter, if it is so for `init`).
    """
    with jax.disable_jit(False):  # a distribution is known by JAX's jitted function for it
        program, results = jax.make_jaxpr(init, return_shape=True)(rngs, *args)
        try:
            leaves = _drawn_at_once(program, rngs, args)
        except Exception as error:
            leaves, reason = None, f"{error!r} with JAX {jax.__version__}"
    if leaves is None:
        warnings.warn(
            f"parameters are drawn one by one, which compiles slowly: {reason}",
            RuntimeWarning,
            stacklevel=2,
        )
        return init(rngs, *args)
    return jax.tree.unflatten(jax.tree.structure(results), leaves)


def _drawn_at_once(program: Any, rngs: Any, args: tuple[Any, ...]) -> list[jax.Array]:
    """The results of a program, whose draws are cut from one for each distribution."""
    equations = _needed(program.jaxpr)
    find = functools.cache(_distribution)
    draws = {}
    for equation in equations:
        draw = _draw(equation)
        if draw is not None and find(draw) is not None:
            draws.setdefault(draw, []).append(equation.outvars[0])

    known = dict(zip(program.jaxpr.constvars, program.consts, strict=True))
    known |= zip(program.jaxpr.invars, jax.tree.leaves((rngs, *args)), strict=True)
    key = jax.tree.leaves(rngs)[0]
    for index, (draw, outs) in enumerate(draws.items()):
        _, _, dtype, *bounds = draw
        sizes = [out.aval.size for out in outs]
        pool = find(draw)(jax.random.fold_in(key, index), (sum(sizes),), dtype, *bounds)
        parts = jnp.split(pool, list(itertools.accumulate(sizes))[:-1])
        known |= {out: part.reshape(out.aval.shape) for out, part in zip(outs, parts, strict=True)}

    def value(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else known[atom]

    for equation in equations:
        if equation.outvars[0] not in known:
            params = equation.primitive.get_bind_params(equation.params)
            found = equation.primitive.bind(*map(value, equation.invars), **params)
            found = found if equation.primitive.multiple_results else [found]
            known |= zip(equation.outvars, found, strict=True)
    return [value(atom) for atom in program.jaxpr.outvars]


def _needed(jaxpr: Any) -> list[Any]:
    """The equations that the results depend on, in order: the forward pass is left out."""
    wanted, equations = set(_variables(jaxpr.outvars)), []
    for equation in reversed(jaxpr.eqns):
        if not wanted.isdisjoint(equation.outvars):
            wanted.update(_variables(equation.invars))
            equations.append(equation)
    return equations[::-1]


def _variables(atoms: Any) -> list[Any]:
    return [atom for atom in atoms if not isinstance(atom, core.Literal)]


def _draw(equation: Any) -> tuple[Any, ...] | None:
    """What may be a draw by one key: (function's name, key's type, type, *bounds), else None."""
    if not equation.invars or isinstance(equation.invars[0], core.Literal) or len(equation.outvars) != 1:
        return None
    (key, *bounds), (out,) = equation.invars, equation.outvars
    from_a_key = jnp.issubdtype(key.aval.dtype, jax.dtypes.prng_key) and key.aval.shape == ()
    if not from_a_key or not all(isinstance(bound, core.Literal) for bound in bounds):
        return None
    if not jnp.issubdtype(out.aval.dtype, jnp.floating):
        return None
    numbers = (float(bound.val) for bound in bounds)
    return equation.params.get("name"), key.aval.dtype, out.aval.dtype, *numbers


def _distribution(draw: tuple[Any, ...]) -> Callable[..., jax.Array] | None:
    """The distribution that JAX writes down as it did this draw; None if it is none of ours."""
    _, key, dtype, *bounds = draw
    for distribution in _DISTRIBUTIONS.get(len(bounds), ()):
        own = jax.make_jaxpr(lambda key, d=distribution: d(key, (2,), dtype, *bounds))
        equations = own(jax.ShapeDtypeStruct((), key)).jaxpr.eqns
        if len(equations) == 1 and _draw(equations[0]) == draw:
            return distribution
    return None
