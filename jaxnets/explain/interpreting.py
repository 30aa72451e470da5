"""An interpreter of jaxprs that differentiates ReLU by another rule.

Guided backpropagation and the deconvnet differ from the gradient only in what ReLU passes back. A jaxpr
keeps calls of `jax.nn.relu` by name; the interpreter replaces the derivative of these calls, and touches
neither the model nor any global state.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

RECTIFIERS = ("relu", "relu6")
"""Names that JAX gives to the functions that a `ReluRule` is for."""

GATES = ("hard_sigmoid", "hard_silu")
"""Names of functions that are no rectifiers, though JAX writes them with ReLU6."""

ReluRule = Callable[[Callable[[jax.Array], jax.Array], jax.Array, jax.Array], jax.Array]
"""`(relu, x, gradient of relu(x)) -> gradient of x`."""

_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "checkpoint": "jaxpr", "remat2": "jaxpr",
          "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}  # fmt: skip


def guided(relu: Callable, x: jax.Array, gradient: jax.Array) -> jax.Array:
    """Passes the gradient where both it and x are positive (Springenberg et al. 2014, section 3.4)."""
    return jax.vjp(relu, x)[1](jnp.maximum(gradient, 0))[0]


def rectified(relu: Callable, x: jax.Array, gradient: jax.Array) -> jax.Array:
    """Passes the gradient where it is positive, whatever x is (Zeiler and Fergus 2013, section 2.1)."""
    return jnp.maximum(gradient, 0)


def evaluate(
    jaxpr: Any,
    arguments: Sequence[Any],
    relu: ReluRule | None,
    added: Mapping[Any, jax.Array],
    wanted: Sequence[Any] | None = None,
) -> list[jax.Array]:
    """Interprets a jaxpr.

    Args:
        jaxpr: open or closed.
        arguments: one for each of its inputs.
        relu: the rule by which ReLU and ReLU6 are differentiated; None for their derivative.
        added: what is added to a variable of the jaxpr, before anything reads it.
        wanted: the variables whose values are returned; None for the jaxpr's outputs.
    """
    values = {}

    def write(variable, value):
        values[variable] = value + added[variable] if variable in added else value

    def read(atom):
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    consts = getattr(jaxpr, "consts", ())
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    for variable, value in zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *arguments), strict=True):
        write(variable, value)
    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        for variable, value in zip(equation.outvars, _outputs(equation, inputs, relu), strict=True):
            write(variable, value)
    return [read(atom) for atom in (jaxpr.outvars if wanted is None else wanted)]


def _outputs(equation: Any, inputs: Sequence[Any], relu: ReluRule | None) -> list[jax.Array]:
    """The outputs of an equation, with the rule for every ReLU inside it."""
    if relu is None or not _rectifies(equation):
        return _bound(equation, inputs, equation.params)
    if _is_rectifier(equation):
        return [_ruled(lambda x: _bound(equation, [x], equation.params)[0], relu)(*inputs)]
    inside = _CALLS.get(equation.primitive.name)
    if inside:
        return evaluate(equation.params[inside], inputs, relu, {})
    params = {name: _rewritten(value, relu) for name, value in equation.params.items()}
    return _bound(equation, inputs, params)


def _bound(equation: Any, inputs: Sequence[Any], params: Mapping[str, Any]) -> list[jax.Array]:
    bound = equation.primitive.get_bind_params(params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)  # before JAX 0.10.2, and now
    outputs = equation.primitive.bind(*functions, *inputs, **params)
    return outputs if equation.primitive.multiple_results else [outputs]


def _ruled(function: Callable, rule: ReluRule) -> Callable:
    """A function of one array, differentiated by a rule."""
    ruled = jax.custom_vjp(function)
    ruled.defvjp(lambda x: (function(x), x), lambda x, gradient: (rule(function, x, gradient),))
    return ruled


def _is_rectifier(equation: Any) -> bool:
    """Whether an equation calls ReLU: a jitted function of that name, perhaps with a custom rule."""
    if equation.primitive.name == "custom_jvp_call":
        inside = equation.params["call_jaxpr"].eqns
        return len(inside) == 1 and _is_rectifier(inside[0])
    return equation.primitive.name in ("jit", "pjit") and equation.params["name"] in RECTIFIERS


def _rectifies(equation: Any) -> bool:
    """Whether an equation is or contains a call of ReLU, at any depth."""
    if equation.params.get("name") in GATES:
        return False
    return _is_rectifier(equation) or any(
        _rectifies(inner) for jaxpr in core.jaxprs_in_params(equation.params) for inner in jaxpr.eqns
    )


def _rewritten(value: Any, relu: ReluRule) -> Any:
    """A parameter of an equation, such as the body of a scan, with the rule for ReLU in every jaxpr."""
    if isinstance(value, tuple):
        return tuple(_rewritten(item, relu) for item in value)
    if not isinstance(value, (core.ClosedJaxpr, core.Jaxpr)):
        return value
    shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype, weak_type=v.aval.weak_type)
              for v in getattr(value, "jaxpr", value).invars]  # fmt: skip
    rewritten = jax.make_jaxpr(lambda *arguments: evaluate(value, arguments, relu, {}))(*shapes)
    return rewritten if isinstance(value, core.ClosedJaxpr) else rewritten.jaxpr
