"""Another rule for ReLU, wherever in a function it is called."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnets.explain.interpreting import evaluate, guided, rectified

X = jnp.array([-2.0, -1.0, 1.0, 2.0, 8.0])
SIGNS = jnp.array([1.0, -1.0, 1.0, -1.0, 1.0])  # the gradient that comes back to ReLU


@jax.custom_vjp
def with_own_rule(x):
    return nn.relu(x) * SIGNS


with_own_rule.defvjp(lambda x: (with_own_rule(x), None), lambda _, gradient: (gradient,))

PLACES = {
    "plain": lambda x: nn.relu(x) * SIGNS,
    "jit": jax.jit(lambda x: jax.nn.relu(x) * SIGNS),
    "vmap": lambda x: jax.vmap(nn.relu)(x) * SIGNS,
    "checkpoint": jax.checkpoint(lambda x: nn.relu(x) * SIGNS),
    "cond": lambda x: lax.cond(x.sum() > 0, lambda x: nn.relu(x) * SIGNS, lambda x: x, x),
    "scan": lambda x: lax.scan(lambda c, _: (nn.relu(c) * SIGNS, None), x, None, length=1)[0],
    "custom_vjp": with_own_rule,
}


def gradient(function, rule):
    jaxpr = jax.make_jaxpr(function)(X)
    return jax.jit(jax.grad(lambda x: evaluate(jaxpr, [x], rule, {})[0].sum()))(X)


@pytest.mark.parametrize("place", PLACES)
def test_relu_is_found_wherever_it_is_called(place):
    function = PLACES[place]
    np.testing.assert_array_equal(gradient(function, guided), [0, 0, 1, 0, 1])
    np.testing.assert_array_equal(gradient(function, rectified), [1, 0, 1, 0, 1])
    np.testing.assert_array_equal(gradient(function, None), jax.grad(lambda x: function(x).sum())(X))


def test_relu6_is_a_relu_and_other_activations_keep_their_derivative():
    np.testing.assert_array_equal(gradient(lambda x: nn.relu6(x) * SIGNS, guided), [0, 0, 1, 0, 0])
    np.testing.assert_array_equal(gradient(lambda x: nn.relu6(x) * SIGNS, rectified), [1, 0, 1, 0, 1])
    for other in (nn.softplus, nn.silu, nn.tanh, nn.leaky_relu, nn.gelu):
        wanted = jax.jit(jax.grad(lambda x: (other(x) * SIGNS).sum()))(X)  # noqa: B023
        found = gradient(lambda x: other(x) * SIGNS, guided)  # noqa: B023
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_values_and_other_custom_derivatives_stay():
    @jax.custom_jvp
    def double(x):
        return 2 * x

    double.defjvp(lambda primals, tangents: (2 * primals[0], 5 * tangents[0]))

    def function(x):
        return double(nn.relu(x)) + jnp.cumsum(x)

    jaxpr = jax.make_jaxpr(function)(X)
    np.testing.assert_array_equal(evaluate(jaxpr, [X], guided, {})[0], function(X))
    np.testing.assert_array_equal(gradient(function, guided), [5, 4, 8, 7, 6])
