import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets import layers
from jaxnets.errors import InputError

X = np.array([-7.0, -1.0, -0.25, 0.0, 0.5, 2.0, 9.0], np.float32)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("sigmoid", lambda v: 1 / (1 + math.exp(-v))),
        ("tanh", math.tanh),
        ("relu", lambda v: max(v, 0)),
        ("relu6", lambda v: min(max(v, 0), 6)),
        ("leaky_relu", lambda v: v if v > 0 else 0.01 * v),
        ("elu", lambda v: v if v > 0 else math.exp(v) - 1),
    ],
)
def test_activations_are_their_formulas(name, formula):
    expected = [formula(float(v)) for v in X]
    np.testing.assert_allclose(getattr(layers, name)(X), expected, rtol=1e-5, atol=1e-7)


def test_glu_gates_the_first_half_by_the_second():
    x = jnp.array([[1.0, -2.0, 0.0, 1.0]])
    np.testing.assert_allclose(layers.glu(x), [[0.5, -2 / (1 + math.exp(-1))]], rtol=1e-6)


def test_prelu_has_a_slope_for_each_channel_or_one_for_all():
    x = np.array([[-1.0, -1.0, 2.0], [4.0, -3.0, -2.0]], np.float32)
    own, shared = layers.PReLU(), layers.PReLU(shared=True)
    params = own.init(jax.random.key(0), x)["params"]
    assert params["alpha"].tolist() == [0.25] * 3
    assert shared.init(jax.random.key(0), x)["params"]["alpha"].tolist() == [0.25]
    alpha = jnp.array([0.1, 0.2, 0.3])
    expected = [[-0.1, -0.2, 2.0], [4.0, -0.6, -0.6]]
    np.testing.assert_allclose(own.apply({"params": {"alpha": alpha}}, x), expected, rtol=1e-6)
    slope = jax.grad(lambda a: own.apply({"params": {"alpha": a}}, x).sum())(alpha)
    np.testing.assert_allclose(slope, [-1, -4, -2])
    half = own.apply({"params": {"alpha": alpha}}, x.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16


def test_maxout_takes_the_largest_of_consecutive_channels():
    x = jnp.array([[1.0, 5.0, -3.0, -2.0, 0.0, -9.0]])
    assert layers.maxout(x, 2).tolist() == [[5, -2, 0]]
    assert layers.maxout(x, 3).tolist() == [[5, 0]]
    slope = jax.grad(lambda x: layers.maxout(x, 3).sum())(x)
    assert slope.tolist() == [[0, 1, 0, 0, 1, 0]]
    with pytest.raises(InputError, match="pieces 4 do not divide the 6 channels"):
        layers.maxout(x, 4)


@pytest.mark.parametrize(
    ("init", "fan", "gain"),
    [
        ("xavier_normal", (300 + 500) / 2, 1),
        ("xavier_uniform", (300 + 500) / 2, 1),
        ("he_normal", 300, 2),
        ("he_uniform", 300, 2),
    ],
)
def test_initializers_have_the_variance_of_their_papers(init, fan, gain):
    weights = getattr(layers, init)()(jax.random.key(0), (300, 500))
    assert np.var(weights) == pytest.approx(gain / fan, rel=0.02)
