"""Drawing all parameters at once changes neither their shapes nor their distributions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxnets.layers.initialization import initialize

IMAGES = jnp.zeros((1, 8, 8, 3))


class Net(nn.Module):
    """A parameter of every kind: three distributions, two scales of one of them, and constants."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(64, (3, 3), kernel_init=nn.initializers.he_normal(), name="he")(x)
        x = nn.Conv(64, (3, 3), kernel_init=nn.initializers.he_normal(), name="he_again")(x)
        x = nn.BatchNorm(use_running_average=True, name="norm")(x)
        x = nn.Dense(50, kernel_init=nn.initializers.normal(0.01), name="normal")(x)
        x = nn.Dense(64, kernel_init=nn.initializers.xavier_uniform(), name="xavier")(x)
        x = nn.Dense(64, kernel_init=nn.initializers.normal(0.5), name="wide")(x)
        return x + self.param("alpha", nn.initializers.constant(0.25), (64,))


NET = Net()
init = functools.partial(initialize, NET.init)


@pytest.fixture(scope="module")
def drawn():
    return jax.jit(init)(jax.random.key(0), IMAGES)


def kernel(variables, name):
    return np.asarray(variables["params"][name]["kernel"])


def draws_in(function):
    """The draws in the program of a function of a key."""
    equations = jax.make_jaxpr(function)(jax.random.key(0)).eqns
    names = [equation.params.get("name") for equation in equations]
    return sorted(name for name in names if name in ("_normal", "_truncated_normal", "_uniform"))


def test_tree_shapes_and_types_are_those_of_flax(drawn):
    def described(tree):
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)

    assert described(drawn) == described(jax.eval_shape(NET.init, jax.random.key(0), IMAGES))


def test_each_distribution_is_drawn_once():
    flax = ["_normal", "_normal", "_truncated_normal", "_truncated_normal", "_uniform"]
    assert draws_in(lambda key: NET.init(key, IMAGES)) == flax
    assert draws_in(lambda key: init(key, IMAGES)) == ["_normal", "_truncated_normal", "_uniform"]


def test_kernels_follow_their_distributions(drawn):
    deviations = {
        "he_again": np.sqrt(2 / (9 * 64)),
        "normal": 0.01,
        "xavier": np.sqrt(2 / (50 + 64)),
        "wide": 0.5,
    }
    for name, deviation in deviations.items():
        values = kernel(drawn, name)
        assert values.std() == pytest.approx(deviation, rel=0.06), name
        assert abs(values.mean()) < 4 * deviation / np.sqrt(values.size), name
    # The truncated normal ends at two deviations of the normal it was cut from.
    cut = 2 * np.sqrt(2 / (9 * 64)) / 0.87962566103423978
    assert 0.98 * cut < np.abs(kernel(drawn, "he_again")).max() <= 1.0001 * cut
    bound = np.sqrt(6 / (50 + 64))
    assert 0.99 * bound < np.abs(kernel(drawn, "xavier")).max() <= bound


def test_constants_are_left_alone(drawn):
    assert (np.asarray(drawn["params"]["alpha"]) == 0.25).all()
    assert (np.asarray(drawn["params"]["norm"]["scale"]) == 1).all()
    assert (np.asarray(drawn["batch_stats"]["norm"]["var"]) == 1).all()


def test_no_two_parameters_share_values(drawn):
    values = np.concatenate([kernel(drawn, name).ravel() for name in ("he", "he_again")])
    scale = np.concatenate(
        [np.full(kernel(drawn, "he").size, np.sqrt(27 / 2)), np.full(9 * 64 * 64, np.sqrt(288))]
    )
    # 24 bits of randomness give a few chance repetitions among 38,592 values, not thousands.
    assert len(np.unique(values * scale)) > 0.99 * values.size


def test_the_key_alone_decides(drawn):
    again = jax.jit(init)({"params": jax.random.key(0)}, IMAGES + 1)
    jax.tree.map(np.testing.assert_array_equal, drawn, again)
    other = jax.jit(init)(jax.random.key(1), IMAGES)
    assert not np.isclose(kernel(other, "he"), kernel(drawn, "he")).all(axis=(0, 1, 2)).any()


def test_an_ensemble_is_its_members_drawn_one_by_one(drawn):
    keys = jnp.stack([jax.random.key(5), jax.random.key(0)])
    ensemble = jax.jit(jax.vmap(init, in_axes=(0, None)))(keys, IMAGES)
    for ours, single in zip(jax.tree.leaves(ensemble), jax.tree.leaves(drawn), strict=True):
        np.testing.assert_allclose(ours[1], single, rtol=1e-6, atol=1e-7)


def test_old_style_keys_give_the_same():
    old, new = (jax.jit(init)(key, IMAGES) for key in (jax.random.PRNGKey(3), jax.random.key(3)))
    jax.tree.map(np.testing.assert_array_equal, old, new)
