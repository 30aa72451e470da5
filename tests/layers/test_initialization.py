"""Drawing all parameters at once changes neither their shapes nor their distributions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.extend.core import jaxprs_in_params

from jaxnets.layers import initialization
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
        return (
            x + self.param("alpha", nn.initializers.constant(0.25), (64,), jnp.float32)[None, None, None]
        )


NET = Net()
init = partial(initialize, NET.init)


def fresh():
    """`init`, which JAX has not traced before."""
    return partial(initialize, NET.init)


@pytest.fixture(scope="module")
def drawn():
    return jax.jit(init)(jax.random.key(0), IMAGES)


def kernel(variables, name):
    return np.asarray(variables["params"][name]["kernel"])


def draws_in(jaxpr):
    """The number of draws in a program, wherever they are."""
    inside = (draws_in(inner) for e in jaxpr.eqns for inner in jaxprs_in_params(e.params))
    return sum(e.primitive.name == "random_bits" for e in jaxpr.eqns) + sum(inside)


def draws_of(init):
    return draws_in(jax.make_jaxpr(init)(jax.random.key(0), IMAGES).jaxpr)


def test_tree_shapes_and_types_are_those_of_flax(drawn):
    def described(tree):
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)

    assert described(drawn) == described(jax.eval_shape(NET.init, jax.random.key(0), IMAGES))


def test_each_distribution_is_drawn_once():
    assert draws_of(NET.init) == 5
    assert draws_of(init) == 3


def test_x64_changes_neither_types_nor_values(drawn):
    with jax.enable_x64(True):
        again = jax.jit(init)(jax.random.key(0), IMAGES)
    assert {leaf.dtype for leaf in jax.tree.leaves(again)} == {np.dtype(np.float32)}
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), drawn, again)


@pytest.mark.slow
def test_where_jax_writes_draws_down_in_another_way_flax_draws(monkeypatch):
    def unknown_layout(equation):
        raise AttributeError("invars")

    flax = jax.jit(NET.init)(jax.random.key(0), IMAGES)
    monkeypatch.setattr(initialization, "_draw", unknown_layout)
    with pytest.warns(RuntimeWarning, match="drawn one by one.*invars"):
        drawn = jax.jit(fresh())(jax.random.key(0), IMAGES)
    jax.tree.map(np.testing.assert_array_equal, drawn, flax)


def test_where_jax_has_lost_a_name_flax_draws(monkeypatch):
    monkeypatch.delattr(initialization.core, "Literal")
    with pytest.warns(RuntimeWarning, match="drawn one by one.*Literal"):
        assert draws_of(fresh()) == 5


def test_draws_of_other_functions_are_left_alone(monkeypatch):
    monkeypatch.setattr(initialization, "_DISTRIBUTIONS", {})
    assert draws_of(fresh()) == 5
    assert_distributed(jax.jit(fresh())(jax.random.key(0), IMAGES))


def test_an_error_of_init_itself_is_raised_as_it_is():
    with pytest.raises(TypeError, match="positional arguments"):
        initialize(NET.init, jax.random.key(0), IMAGES, IMAGES, IMAGES)


def test_without_jit_the_values_are_the_same(drawn):
    with jax.disable_jit():
        again = init(jax.random.key(0), IMAGES)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), drawn, again)


def test_kernels_follow_their_distributions(drawn):
    assert_distributed(drawn)


def assert_distributed(drawn):
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
