import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets import layers
from jaxnets.errors import InputError

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def random_params(module, x):
    v = jax.eval_shape(module.init, jax.random.key(0), x)
    return jax.tree.map(lambda a: RNG.normal(size=a.shape).astype(np.float32), v["params"])


def dense(x, layer):
    return x @ layer["kernel"][0, 0] + layer["bias"]


@pytest.mark.parametrize("gate", [jax.nn.sigmoid, jax.nn.hard_sigmoid])
def test_squeeze_excite_scales_channels_by_the_gate(gate):
    x = normal(2, 3, 4, 8)
    module = layers.SqueezeExcite(reduction=3, gate=gate)
    p = random_params(module, x)
    assert p["fc1"]["kernel"].shape == (1, 1, 8, 2)
    assert p["fc2"]["kernel"].shape == (1, 1, 2, 8)
    hidden = np.maximum(dense(x.mean((1, 2)), p["fc1"]), 0)
    scale = np.asarray(gate(dense(hidden, p["fc2"])))
    y = jax.jit(module.apply)({"params": p}, x)
    np.testing.assert_allclose(y, x * scale[:, None, None], rtol=1e-4, atol=1e-5)


def test_squeeze_excite_takes_a_width_and_follows_bfloat16():
    x = jnp.ones((1, 2, 2, 8), jnp.bfloat16)
    module = layers.SqueezeExcite(width=5)
    params = random_params(module, x.astype(jnp.float32))
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params)
    assert half["fc1"]["kernel"].shape == (1, 1, 8, 5)
    assert jax.eval_shape(module.apply, {"params": half}, x).dtype == jnp.bfloat16


def non_local_by_hand(x, p, mode):
    batch, height, width, channels = x.shape
    y = np.zeros(x.shape, np.float64)
    for n in range(batch):
        flat = x[n].reshape(-1, channels).astype(np.float64)
        theta, phi, g = (dense(flat, p[name]) for name in ("theta", "phi", "g"))
        positions = len(flat)
        f = np.zeros((positions, positions))
        for i, j in np.ndindex(positions, positions):
            if mode == "concatenation":
                f[i, j] = max(p["concatenation"] @ np.concatenate([theta[i], phi[j]]), 0)
            else:
                f[i, j] = theta[i] @ phi[j]
        if mode == "embedded_gaussian":
            f = np.exp(f)
            f /= f.sum(1, keepdims=True)
        else:
            f /= positions
        y[n] = dense(f @ g, p["out"]).reshape(height, width, channels)
    return x + y


@pytest.mark.parametrize("mode", ["embedded_gaussian", "dot_product", "concatenation"])
def test_non_local_block_by_hand(mode):
    x = 0.5 * normal(2, 3, 2, 6)
    module = layers.NonLocalBlock(mode, width=4)
    p = random_params(module, x)
    y = jax.jit(module.apply)({"params": p}, x)
    np.testing.assert_allclose(y, non_local_by_hand(x, p, mode), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["embedded_gaussian", "dot_product", "concatenation"])
def test_non_local_block_starts_as_the_identity_and_can_learn(mode):
    x = normal(2, 4, 4, 6)
    module = layers.NonLocalBlock(mode)
    y, v = jax.jit(module.init_with_output)(jax.random.key(0), x)
    np.testing.assert_array_equal(y, x)
    assert v["params"]["g"]["kernel"].shape == (1, 1, 6, 3)
    slope = jax.jit(jax.grad(lambda v: jnp.sum(module.apply(v, x) ** 2)))(v)
    assert np.abs(slope["params"]["out"]["kernel"]).max() > 0
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), v)
    assert jax.eval_shape(module.apply, half, x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


X = jnp.zeros((1, 4, 4, 8))


@pytest.mark.parametrize(
    ("module", "x", "words"),
    [
        (layers.SqueezeExcite(16), X, "squeezing 8 channels by reduction 16"),
        (layers.SqueezeExcite(2), X[0], "x has shape"),
        (layers.NonLocalBlock("gaussian"), X, "did you mean 'embedded_gaussian'"),
        (layers.NonLocalBlock(), X[0], "x has shape"),
    ],
)
def test_bad_arguments_are_named(module, x, words):
    with pytest.raises(InputError, match=words):
        module.init(jax.random.key(0), x)
