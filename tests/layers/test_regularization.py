import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets import layers
from jaxnets.errors import InputError

KEY = jax.random.key(3)
X = np.random.default_rng(0).normal(size=(4000, 2, 3)).astype(np.float32)


def dropped(module, x, variables=None, key=KEY):
    return module.apply(variables or {}, x, deterministic=False, rngs={"dropout": key})


@pytest.mark.parametrize("module", [layers.Dropout(0.3), layers.DropPath(0.3)])
def test_deterministic_is_the_identity_and_asks_for_no_key(module):
    np.testing.assert_array_equal(module.apply({}, X, deterministic=True), X)


def test_drop_path_drops_whole_examples_and_scales_the_rest():
    y = np.asarray(dropped(layers.DropPath(0.3), X))
    gone = (y == 0).all((1, 2))
    assert gone.mean() == pytest.approx(0.3, abs=0.03)
    np.testing.assert_allclose(y[~gone], X[~gone] / 0.7, rtol=1e-6)
    again = dropped(layers.DropPath(0.3), X)
    np.testing.assert_array_equal(again, y)
    other = dropped(layers.DropPath(0.3), X, key=jax.random.key(4))
    assert (np.asarray(other == 0).all((1, 2)) != gone).any()


def test_drop_path_at_the_ends_of_its_range():
    np.testing.assert_array_equal(layers.DropPath(0.0, deterministic=False).apply({}, X), X)
    np.testing.assert_array_equal(dropped(layers.DropPath(1.0), X), np.zeros_like(X))
    half = dropped(layers.DropPath(0.5), jnp.asarray(X, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16


def test_drop_path_gradient_flows_only_through_the_kept():
    x = X[:8]
    slope = jax.grad(lambda x: dropped(layers.DropPath(0.5), x).sum())(x)
    kept = np.asarray(dropped(layers.DropPath(0.5), np.ones_like(x)))
    assert 0 < kept.mean() < 2
    np.testing.assert_array_equal(slope, kept)


def test_dropout_drops_units_and_scales_the_rest():
    y = np.asarray(dropped(layers.Dropout(0.3), X))
    assert (y == 0).mean() == pytest.approx(0.3, abs=0.02)
    np.testing.assert_allclose(y[y != 0], X[y != 0] / 0.7, rtol=1e-6)


def test_linear_decay_rule():
    np.testing.assert_allclose(layers.drop_path_rates(0.5, 5), [0.1, 0.2, 0.3, 0.4, 0.5])
    assert layers.drop_path_rates(0.0, 3) == (0, 0, 0)
    assert layers.drop_path_rates(0.2, 0) == ()


def test_drop_connect_drops_weights_for_each_example_by_itself():
    layer = layers.DropConnect(5, rate=0.4)
    x = np.ones((3000, 1), np.float32)
    kernel, bias = jnp.arange(1.0, 6.0)[None], jnp.full((5,), 100.0)
    v = {"params": {"kernel": kernel, "bias": bias}}
    np.testing.assert_allclose(layer.apply(v, x, deterministic=True), x @ kernel + bias[None])
    y = np.asarray(dropped(layer, x, v)) * 0.6
    # One weight and one bias meet in each output: four possible sums, independently drawn.
    with_weight = np.isin(np.round(y), np.arange(1, 6)) | (np.round(y) > 100)
    with_bias = y > 99
    for present in (with_weight, with_bias):
        np.testing.assert_allclose(present.mean(0), 0.6, atol=0.04)
        assert np.corrcoef(present[:, 0], present[:, 1])[0, 1] == pytest.approx(0, abs=0.06)
    assert np.corrcoef(with_weight[:, 0], with_bias[:, 0])[0, 1] == pytest.approx(0, abs=0.06)
    np.testing.assert_allclose(y[:, 2], 3 * with_weight[:, 2] + 100 * with_bias[:, 2], rtol=1e-5)


def test_drop_connect_has_the_parameters_of_a_dense_layer():
    layer = layers.DropConnect(5, rate=0.0, deterministic=False)
    params = layer.init(KEY, X)["params"]
    assert jax.tree.map(jnp.shape, params) == {"kernel": (3, 5), "bias": (5,)}
    y = layer.apply({"params": params}, X[:7])
    np.testing.assert_allclose(y, X[:7] @ params["kernel"], rtol=1e-4, atol=1e-5)
    bare = layers.DropConnect(5, rate=0.5, use_bias=False, deterministic=True)
    assert set(bare.init(KEY, X)["params"]) == {"kernel"}


def test_penalties_add_up_every_leaf():
    params = {"a": jnp.array([1.0, -2.0], jnp.float32), "b": {"c": jnp.array([[3.0]], jnp.bfloat16)}}
    for penalty, total, slope in ((layers.l1_penalty, 6, [1, -1]), (layers.l2_penalty, 14, [2, -4])):
        value, gradient = jax.jit(jax.value_and_grad(penalty))(params)
        assert (value, value.dtype) == (total, jnp.float32)
        np.testing.assert_array_equal(gradient["a"], slope)
    assert layers.l1_penalty({}) == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: dropped(layers.DropPath(1.5), X), "rate is 1.5"),
        (lambda: layers.DropConnect(5, rate=1.0).init(KEY, X, deterministic=True), "rate is 1.0"),
        (lambda: layers.drop_path_rates(-0.1, 3), "max_rate is -0.1"),
    ],
)
def test_bad_rates_are_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
