from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxnets import layers
from jaxnets.errors import InputError

TORCH = np.load(Path(__file__).parents[1] / "goldens/data/unpooling.npz")  # make_unpooling_goldens.py
NAMES = sorted({key.rpartition(" ")[0] for key in TORCH})
RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def pooled_by_hand(x, window, strides, padding, shape):
    """The first maximum of every window and its place, walked window by window."""
    maxima, indices = np.zeros(shape, x.dtype), np.zeros(shape, np.int32)
    for n, y, x_, c in np.ndindex(shape):
        best = None
        for i in range(y * strides[0] - padding[0], y * strides[0] - padding[0] + window[0]):
            for j in range(x_ * strides[1] - padding[1], x_ * strides[1] - padding[1] + window[1]):
                inside = 0 <= i < x.shape[1] and 0 <= j < x.shape[2]
                if inside and (best is None or x[n, i, j, c] > best):
                    best = maxima[n, y, x_, c] = x[n, i, j, c]
                    indices[n, y, x_, c] = i * x.shape[2] + j
    return maxima, indices


@st.composite
def poolings(draw):
    window = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = tuple(draw(st.integers(0, w // 2)) for w in window)
    size = tuple(draw(st.integers(w, 8)) for w in window)
    strides = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    return size, window, strides, padding, draw(st.booleans())


@settings(max_examples=10, deadline=None)
@given(poolings(), st.booleans())
def test_maxima_and_indices_are_those_of_windows_walked_by_hand(pooling, ties):
    size, window, strides, padding, ceil_mode = pooling
    x = normal(2, *size, 2)
    x = np.round(x) if ties else x

    @jax.jit
    def pool(x):
        arguments = x, window, strides, padding, ceil_mode
        return *layers.max_pool_with_indices(*arguments), layers.max_pool(*arguments)

    maxima, indices, without = pool(x)
    np.testing.assert_array_equal(maxima, without)
    wanted = pooled_by_hand(x, window, strides, padding, maxima.shape)
    np.testing.assert_array_equal(maxima, wanted[0])
    np.testing.assert_array_equal(indices, wanted[1])
    assert indices.dtype == jnp.int32


@pytest.mark.parametrize("name", NAMES)
def test_pooling_and_unpooling_equal_torchs(name):
    window, strides, padding, (ceil_mode, _) = map(tuple, TORCH[f"{name} arguments"].tolist())
    x = TORCH[f"{name} x"].astype(np.float32)
    maxima, indices = layers.max_pool_with_indices(x, window, strides, padding, bool(ceil_mode))
    np.testing.assert_array_equal(maxima, TORCH[f"{name} maxima"])
    np.testing.assert_array_equal(indices, TORCH[f"{name} indices"])
    if f"{name} unpooled" in TORCH:
        size = x.shape[1:3]
        unpooled = layers.max_unpool(maxima, indices, size)
        np.testing.assert_array_equal(unpooled, TORCH[f"{name} unpooled"])
        if padding == (0, 0):
            quickly = layers.max_unpool(maxima, indices, size, window)
            np.testing.assert_array_equal(quickly, TORCH[f"{name} unpooled"])


@pytest.mark.slow
def test_a_chain_of_odd_maps_comes_back_to_the_size_of_the_picture():
    x = normal(1, 360, 480, 1)
    sizes, places = [], []
    for _ in range(5):
        sizes.append(x.shape[1:3])
        x, indices = layers.max_pool_with_indices(x, 2, ceil_mode=True)
        places.append(indices)
    assert sizes == [(360, 480), (180, 240), (90, 120), (45, 60), (23, 30)]
    assert x.shape[1:3] == (12, 15)
    largest = np.sort(np.ravel(x))
    for size, indices in zip(sizes[::-1], places[::-1], strict=True):
        y = layers.max_unpool(x, indices, size, 2)
        np.testing.assert_array_equal(y, layers.max_unpool(x, indices, size))
        x = y
    assert x.shape == (1, 360, 480, 1)
    np.testing.assert_array_equal(np.sort(x[x != 0]), largest)


@pytest.mark.parametrize("window", [None, 2])
def test_unpooling_undoes_pooling_where_the_maxima_were(window):
    x = normal(2, 7, 9, 3)
    maxima, indices = layers.max_pool_with_indices(x, 2, ceil_mode=True)
    y = np.asarray(layers.max_unpool(maxima, indices, (7, 9), window))
    np.testing.assert_array_equal(y[y != 0], x[y != 0])
    assert np.sum(y != 0) == maxima.size


@pytest.mark.parametrize("window", [pytest.param(None, marks=pytest.mark.slow), 2])
def test_gradients_are_exact(window, double_precision):
    x, weights = RNG.normal(size=(2, 5, 7, 2)), RNG.normal(size=(2, 5, 7, 2))

    def there_and_back(x):
        maxima, indices = layers.max_pool_with_indices(x, 2, ceil_mode=True)
        return jnp.sum(weights * layers.max_unpool(maxima**2, indices, (5, 7), window))

    check_grads(there_and_back, (x,), 1, eps=1e-6)
    maxima, indices = layers.max_pool_with_indices(x, 2, ceil_mode=True)
    there = np.asarray(layers.max_unpool(jnp.ones_like(maxima), indices, (5, 7)))
    np.testing.assert_allclose(jax.grad(there_and_back)(x), 2 * x * there * weights, rtol=1e-12)


def test_of_equal_values_the_first_gets_the_gradient_as_of_max_pool():
    x = jnp.round(normal(1, 6, 6, 2))
    mine = jax.grad(lambda x: jnp.sum(layers.max_pool_with_indices(x, 2)[0] ** 2))(x)
    np.testing.assert_array_equal(mine, jax.grad(lambda x: jnp.sum(layers.max_pool(x, 2) ** 2))(x))


@pytest.mark.parametrize("window", [None, 2])
def test_under_vmap_and_jit_it_is_what_it_is_for_each(window):
    def there_and_back(x):
        maxima, indices = layers.max_pool_with_indices(x, 2, ceil_mode=True)
        return layers.max_unpool(maxima, indices, x.shape[1:3], window)

    x = normal(3, 2, 5, 6, 2)
    together = jax.jit(jax.vmap(there_and_back))(x)
    np.testing.assert_array_equal(together, jnp.stack([there_and_back(each) for each in x]))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("window", [None, 2])
def test_types_stay_whatever_the_promotion(dtype, window):
    strict = jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise")
    with jax.enable_x64(dtype == "float64"), strict[0], strict[1]:
        maxima, indices = layers.max_pool_with_indices(jnp.ones((1, 3, 4, 2), dtype), 2, ceil_mode=True)
        assert (maxima.dtype, indices.dtype) == (jnp.dtype(dtype), jnp.int32)
        assert layers.max_unpool(maxima, indices, (3, 4), window).dtype == jnp.dtype(dtype)


def test_a_window_of_minus_infinities_has_an_index_inside_the_map():
    x = jnp.full((1, 5, 5, 1), -jnp.inf)
    _, indices = layers.max_pool_with_indices(x, 3, 2, 1)
    assert np.all((indices >= 0) & (indices < 25))


def test_what_is_wrong_is_said():
    maxima, indices = layers.max_pool_with_indices(jnp.ones((1, 4, 4, 1)), 2)
    with pytest.raises(InputError, match=r"indices: wanted integers of the shape of x"):
        layers.max_unpool(maxima, indices[:, :1], (4, 4))
    with pytest.raises(InputError, match=r"2 x 2 positions, and a map of 7 x 4 pooled by 2 x 2"):
        layers.max_unpool(maxima, indices, (7, 4), 2)
    with pytest.raises(InputError, match=r"wanted \[N, H, W, C\]"):
        layers.max_pool_with_indices(jnp.ones((4, 4)), 2)
