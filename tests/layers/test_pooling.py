import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnets import layers
from jaxnets.errors import InputError

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def starts_by_hand(size, window, stride, padding, ceil_mode):
    """Where windows start, in pixels of the input: torch's rules, told as a walk."""
    starts, at = [], -padding
    while at + window <= size + padding:
        starts.append(at)
        at += stride
    covered = starts[-1] + window if starts else -math.inf
    if ceil_mode and at < size and covered < size + padding and at - stride + window < size + padding:
        starts.append(at)
    return starts


def pool_by_hand(x, window, strides, padding, ceil_mode, summary):
    """Every window's pixels inside the input, and its area on the padded input, to `summary`."""
    rows, columns = (
        starts_by_hand(*axis, ceil_mode)
        for axis in zip(x.shape[1:3], window, strides, padding, strict=True)
    )
    out = np.zeros((len(x), len(rows), len(columns), x.shape[-1]))
    for (r, top), (c, left) in ((a, b) for a in enumerate(rows) for b in enumerate(columns)):
        ends = top + window[0], left + window[1]
        pixels = x[:, max(top, 0) : ends[0], max(left, 0) : ends[1]]
        area = (min(ends[0], x.shape[1] + padding[0]) - top) * (
            min(ends[1], x.shape[2] + padding[1]) - left
        )
        out[:, r, c] = summary(pixels, area)
    return out


@st.composite
def poolings(draw):
    window = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    padding = tuple(draw(st.integers(0, w // 2)) for w in window)
    size = tuple(draw(st.integers(max(1, w - 2 * p), 9)) for w, p in zip(window, padding, strict=True))
    strides = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    return size, window, strides, padding, draw(st.booleans())


@settings(max_examples=25, deadline=None)
@given(poolings(), st.booleans())
def test_max_and_avg_pool_match_windows_walked_by_hand(pooling, count_include_pad):
    size, *arguments = pooling
    x = normal(2, *size, 3)

    @jax.jit
    def both(x):
        mean = layers.avg_pool(x, *arguments, count_include_pad=count_include_pad)
        return layers.max_pool(x, *arguments), mean

    def mean_by_hand(pixels, area):
        inside = pixels.shape[1] * pixels.shape[2]
        return pixels.sum((1, 2)) / (area if count_include_pad else inside)

    largest, mean = both(x)
    expected = pool_by_hand(x, *arguments, lambda pixels, area: pixels.max((1, 2)))
    np.testing.assert_array_equal(largest, expected.astype(np.float32))
    np.testing.assert_allclose(mean, pool_by_hand(x, *arguments, mean_by_hand), atol=1e-5)


def test_ceil_mode_leaves_out_a_window_that_starts_in_the_far_padding():
    x = jnp.arange(1.0, 6.0).reshape(1, 5, 1, 1)
    # Windows of 2 at stride 3 with padding 1 start at -1, 2 and 5; 5 is beyond the input.
    assert layers.max_pool(x, (2, 1), (3, 1), (1, 0), ceil_mode=True).ravel().tolist() == [1, 4]
    # Without padding they start at 0 and 3; windows of 3 at stride 3: the last hangs over.
    assert layers.max_pool(x, (3, 1), ceil_mode=True).ravel().tolist() == [3, 5]
    assert layers.max_pool(x, (3, 1)).ravel().tolist() == [3]
    # What hangs over is not counted even where padding is.
    assert layers.avg_pool(x, (3, 1), ceil_mode=True).ravel().tolist() == [2, 4.5]


def test_ceil_mode_takes_a_window_larger_than_the_map_when_less_than_a_stride_hangs_over():
    x = jnp.asarray([3.0, 5.0]).reshape(1, 2, 1, 1)
    assert layers.max_pool(x, (3, 1), (2, 1), ceil_mode=True).ravel().tolist() == [5]
    with pytest.raises(InputError, match="does not fit"):
        layers.max_pool(x, (3, 1), (1, 1), ceil_mode=True)


def test_strides_are_the_window_unless_given_and_padding_may_be_lopsided_or_named():
    x = normal(1, 6, 6, 2)

    @jax.jit
    def pooled(x):
        return (
            layers.max_pool(x, 2),
            layers.max_pool(x, 3, 2, ((0, 1), (0, 1))),
            layers.max_pool(x, 3, 2, "SAME"),
            layers.avg_pool(x, 3, 2, "SAME", count_include_pad=False),
        )

    halved, lopsided, named, mean = pooled(x)
    np.testing.assert_array_equal(halved, x.reshape(1, 3, 2, 3, 2, 2).max((2, 4)))
    np.testing.assert_array_equal(named, lopsided)
    np.testing.assert_array_equal(lopsided[0, 2, 2], x[0, 4:, 4:].max((0, 1)))
    np.testing.assert_allclose(mean[0, 2, 2], x[0, 4:, 4:].mean((0, 1)), rtol=1e-5)


def test_gradients_under_jit_and_vmap():
    x = normal(3, 2, 5, 5, 2)

    def slope(pool):
        return jax.jit(jax.vmap(jax.grad(lambda x: jnp.sum(pool(x)))))(x)

    # A pixel of the average gets 1 / 9 from each of the windows that hold it.
    held = np.array([1, 2, 1, 2, 1])
    expected = np.broadcast_to((held[:, None] * held)[:, :, None] / 9, x.shape)
    averages = slope(lambda x: layers.avg_pool(x, 3, 2, 1))
    np.testing.assert_allclose(averages, expected, rtol=1e-5)

    # A pixel of the maximum gets 1 from each window that it wins.
    wins = np.zeros_like(x)
    for at in np.ndindex(3, 2, 3, 3, 2):
        rows, columns = (slice(max(2 * i - 1, 0), 2 * i + 2) for i in at[2:4])
        window = x[at[0], at[1], rows, columns, at[4]]
        row, column = np.unravel_index(window.argmax(), window.shape)
        wins[at[0], at[1], rows.start + row, columns.start + column, at[4]] += 1
    np.testing.assert_array_equal(slope(lambda x: layers.max_pool(x, 3, 2, 1)), wins)


def test_averages_of_bfloat16_are_summed_in_float32():
    x = jnp.ones((1, 32, 32, 1), jnp.bfloat16)  # beyond 256 a sum of ones in bfloat16 stands still

    @jax.jit
    def means(x):
        return (
            layers.avg_pool(x, 32),
            layers.adaptive_avg_pool(x, 1),
            layers.adaptive_avg_pool(x, 3),
            layers.global_avg_pool(x),
            layers.lp_pool(x, 1, 32) / 1024,
        )

    for mean in means(x):
        assert mean.dtype == jnp.bfloat16
        np.testing.assert_array_equal(np.asarray(mean, np.float32), 1)
    assert jax.eval_shape(lambda x: layers.max_pool(x, 2), x).dtype == jnp.bfloat16


def test_global_pools_reduce_the_map():
    x = normal(2, 3, 4, 5)
    np.testing.assert_allclose(layers.global_avg_pool(x), x.mean((1, 2)), atol=1e-6)
    np.testing.assert_array_equal(layers.global_max_pool(x), x.max((1, 2)))


@pytest.mark.parametrize("p", [1, 1.5, 2, 3, math.inf])
def test_lp_pool_is_the_norm_of_every_window(p):
    x = normal(2, 5, 6, 3)
    arguments = ((2, 3), (1, 2), (1, 1), True)

    def norm(pixels, area):
        return np.linalg.norm(pixels.reshape(len(x), -1, 3), ord=p, axis=1)

    expected = pool_by_hand(x, *arguments, norm)
    np.testing.assert_allclose(layers.lp_pool(x, p, *arguments), expected, rtol=1e-5)


def test_lp_pool_has_a_finite_gradient_at_zero():
    x = np.zeros((1, 2, 4, 1), np.float32)
    x[0, 0, 2] = 3.0

    @jax.jit
    def slopes(x):
        return [jax.grad(lambda x, p=p: jnp.sum(layers.lp_pool(x, p, 2)))(x) for p in (1, 1.5, 2, 3)]

    of_sums, *others = slopes(x)
    for slope in others:
        np.testing.assert_allclose(slope, x / 3, atol=1e-6)
    np.testing.assert_array_equal(of_sums[:, :, :2], 0)


@settings(max_examples=12, deadline=None)
@given(st.tuples(st.integers(1, 9), st.integers(1, 9)), st.tuples(st.integers(1, 7), st.integers(1, 7)))
def test_adaptive_pools_match_bins_cut_by_hand(size, grid):
    x = normal(2, *size, 2)
    means, largest = np.zeros((2, *grid, 2)), np.zeros((2, *grid, 2), np.float32)
    for r, c in np.ndindex(*grid):
        rows, columns = (
            slice(math.floor(i * n / b), math.ceil((i + 1) * n / b))
            for i, n, b in zip((r, c), size, grid, strict=True)
        )
        means[:, r, c] = x[:, rows, columns].mean((1, 2))
        largest[:, r, c] = x[:, rows, columns].max((1, 2))
    pools = layers.adaptive_avg_pool, layers.adaptive_max_pool
    actual = jax.jit(lambda x: [pool(x, grid) for pool in pools])(x)
    np.testing.assert_allclose(actual[0], means, atol=1e-6)
    np.testing.assert_array_equal(actual[1], largest)


def test_spatial_pyramid_has_one_length_for_all_sizes_and_keeps_bins_in_order():
    for size in ((13, 13), (7, 10), (3, 2)):
        pyramid = jax.eval_shape(layers.spatial_pyramid_pool, jnp.zeros((2, *size, 5)))
        assert pyramid.shape == (2, 5 * (1 + 4 + 16))
    x = normal(1, 4, 4, 3)
    pyramid = layers.spatial_pyramid_pool(x, (1, 2), op="avg")
    bins = [x[0, r : r + 2, c : c + 2].mean((0, 1)) for r in (0, 2) for c in (0, 2)]
    np.testing.assert_allclose(pyramid[0], [*x[0].mean((0, 1)), *np.ravel(bins)], atol=1e-6)
    np.testing.assert_array_equal(layers.spatial_pyramid_pool(x)[0, :3], x[0].max((0, 1)))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


WINDOWS = ((2, 3), (1, 2), (1, 1))


def response(x, weights):
    """w . window of the zero-padded input by hand; weights [2, 3, 1 or C]."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows, columns = padded.shape[1] - 1, (padded.shape[2] - 3) // 2 + 1
    out = np.zeros((len(x), rows, columns, x.shape[-1]))
    for r, c in np.ndindex(rows, columns):
        out[:, r, c] = (padded[:, r : r + 2, 2 * c : 2 * c + 3] * weights).sum((1, 2))
    return out


@pytest.mark.parametrize("channels", [1, 4])
def test_mixed_gated_and_tree_pools_match_their_formulas(channels):
    x = normal(2, 4, 7, 4)
    per_channel = channels > 1
    largest = pool_by_hand(x, *WINDOWS, False, lambda pixels, area: pixels.max((1, 2)))
    mean = pool_by_hand(x, *WINDOWS, False, lambda pixels, area: pixels.sum((1, 2)) / area)

    logit = normal(channels)
    mixed = layers.MixedPool(*WINDOWS, per_channel=per_channel)
    share = sigmoid(logit)
    np.testing.assert_allclose(
        jax.jit(mixed.apply)({"params": {"logit": logit}}, x),
        share * largest + (1 - share) * mean,
        atol=1e-5,
    )

    gate = normal(2, 3, channels)
    gated = layers.GatedPool(*WINDOWS, per_channel=per_channel)
    share = sigmoid(response(x, gate))
    np.testing.assert_allclose(
        jax.jit(gated.apply)({"params": {"gate": gate}}, x),
        share * largest + (1 - share) * mean,
        atol=1e-5,
    )

    leaves, gates = normal(4, 2, 3, channels), normal(3, 2, 3, channels)
    tree = layers.TreePool(*WINDOWS, levels=3, per_channel=per_channel)
    leaf = [response(x, v) for v in leaves]
    root, left, right = (sigmoid(response(x, w)) for w in gates)
    expected = root * (left * leaf[0] + (1 - left) * leaf[1]) + (1 - root) * (
        right * leaf[2] + (1 - right) * leaf[3]
    )
    params = {"leaves": leaves, "gates": gates}
    np.testing.assert_allclose(jax.jit(tree.apply)({"params": params}, x), expected, atol=1e-5)


@pytest.mark.slow
def test_learned_pools_begin_between_maximum_and_average():
    x = normal(1, 6, 6, 3)
    windows = x.reshape(1, 3, 2, 3, 2, 3)
    half = (windows.max((2, 4)) + windows.mean((2, 4))) / 2
    for module in (layers.MixedPool(2), layers.GatedPool(2)):
        output, _ = jax.jit(module.init_with_output)(jax.random.key(0), x)
        np.testing.assert_allclose(output, half, atol=1e-6)
    tree = layers.TreePool(2, levels=3, per_channel=True)
    params = jax.jit(tree.init)(jax.random.key(0), x)["params"]
    assert params["leaves"].shape == (4, 2, 2, 3)
    assert params["gates"].shape == (3, 2, 2, 3)
    slopes = jax.jit(jax.grad(lambda p: jnp.sum(tree.apply({"params": p}, x) ** 2)))(params)
    # Every node learns; with equal leaves the gates would not.
    assert all(np.abs(node).max() > 0.01 for s in slopes.values() for node in s)


X = jnp.zeros((1, 4, 4, 3))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: layers.max_pool(X, 5), "window of 5 does not fit into 4 pixels"),
        (lambda: layers.avg_pool(X, (2, 7), padding=(0, 1)), "window of 7 does not fit"),
        (lambda: layers.max_pool(X, 3, padding=2), "half the window"),
        (lambda: layers.max_pool(X[0], 2), r"\[N, H, W, C\]"),
        (lambda: layers.avg_pool(X.astype(jnp.uint8), 2), "uint8"),
        (lambda: layers.max_pool(X, 0), "window is 0"),
        (lambda: layers.max_pool(X, 2, strides=0), "strides is 0"),
        (lambda: layers.max_pool(X, 2, padding="FULL"), "unknown padding"),
        (lambda: layers.lp_pool(X, 0.5, 2), "p is 0.5"),
        (lambda: layers.global_avg_pool(X[0]), "shape"),
        (lambda: layers.global_avg_pool(X[:, :0]), "shrunk to nothing"),
        (lambda: layers.adaptive_avg_pool(X, 0), "output_size is 0"),
        (lambda: layers.spatial_pyramid_pool(X, op="mean"), "pooling op 'mean'"),
        (lambda: layers.TreePool(2, levels=1).init(jax.random.key(0), X), "levels is 1"),
    ],
)
def test_bad_arguments_are_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
