"""`resize_bilinear` is torch's `interpolate`, by its documented formula and by its recorded answers."""

import math
from pathlib import Path

import draw
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnets.errors import InputError
from jaxnets.layers import resize_bilinear

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "data" / "resizing.npz")

side = st.integers(1, 40)
size = st.tuples(side, side)


def matrix(before, after, align_corners):
    """What each new position takes of each old one, f64[after, before], as torch documents it."""
    weights = np.zeros((after, before))
    for i in range(after):
        if align_corners:
            place = i * (before - 1) / (after - 1) if after > 1 else 0.0
        else:
            place = max((i + 0.5) * before / after - 0.5, 0.0)
        low = min(math.floor(place), before - 1)
        weights[i, low] += 1 - (place - low)
        weights[i, min(low + 1, before - 1)] += place - low
    return weights


def resized(x, after, align_corners):
    rows, columns = (
        matrix(before, new, align_corners) for before, new in zip(x.shape[1:3], after, strict=True)
    )
    return np.einsum("ih,jw,nhwc->nijc", rows, columns, x)


def transposed(gradient, before, align_corners):
    rows, columns = (
        matrix(old, new, align_corners) for old, new in zip(before, gradient.shape[1:3], strict=True)
    )
    return np.einsum("ih,jw,nijc->nhwc", rows, columns, gradient)


def with_gradient(x, weights, align_corners):
    out, back = jax.vjp(lambda x: resize_bilinear(x, weights.shape[1:3], align_corners=align_corners), x)
    return out, *back(weights)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("row", range(len(GOLDENS["sizes"])))
def test_recorded_answers_of_torch(row, align_corners):
    before, after = (tuple(map(int, size)) for size in GOLDENS["sizes"][row])
    key = f"{row} {'aligned' if align_corners else 'borders'}"
    x = draw.uniform(f"maps {before}", (1, *before, 1), -1, 1)
    weights = draw.uniform(f"weights {after}", (1, *after, 1), -1, 1)
    single = resize_bilinear(jnp.asarray(x), after, align_corners=align_corners)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, GOLDENS[f"{key} float32"], rtol=0, atol=1e-6)
    with jax.enable_x64(True):
        double, gradient = with_gradient(
            x.astype(np.float64), jnp.asarray(weights, jnp.float64), align_corners
        )
        assert double.dtype == gradient.dtype == jnp.float64
        np.testing.assert_allclose(double, GOLDENS[f"{key} float64"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(gradient, GOLDENS[f"{key} gradient"], rtol=0, atol=1e-11)


@settings(max_examples=6, deadline=None)
@given(before=size, after=size, align_corners=st.booleans())
def test_any_size_is_resized_by_torchs_formula(before, after, align_corners):
    rng = np.random.default_rng(0)
    x, weights = rng.uniform(-1, 1, (2, *before, 3)), rng.uniform(-1, 1, (2, *after, 3))
    with jax.enable_x64(True):
        out, gradient = with_gradient(jnp.asarray(x), jnp.asarray(weights), align_corners)
    np.testing.assert_allclose(out, resized(x, after, align_corners), rtol=0, atol=1e-12)
    wanted = transposed(weights, before, align_corners)
    np.testing.assert_allclose(gradient, wanted, rtol=0, atol=1e-11)
    # In float32 places are rounded, as torch's own are, to 40 * 2 ** -24 of a position.
    out = resize_bilinear(jnp.asarray(x, jnp.float32), after, align_corners=align_corners)
    np.testing.assert_allclose(out, resized(x, after, align_corners), rtol=0, atol=2e-5)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param((5, 7), (9, 13), marks=pytest.mark.slow),
        ((9, 13), (5, 7)),
        pytest.param((1, 4), (6, 1), marks=pytest.mark.slow),
    ],
)
def test_gradient_is_the_transpose_under_every_transformation(before, after, align_corners):
    rng = np.random.default_rng(1)
    x, tangent = (jnp.asarray(rng.normal(size=(3, 2, *before, 2)), jnp.float32) for _ in range(2))
    weights = jnp.asarray(rng.normal(size=(3, 2, *after, 2)), jnp.float32)

    def resize(x):
        return resize_bilinear(x, after, align_corners=align_corners)

    out, moved = jax.jit(jax.vmap(lambda x, t: jax.jvp(resize, (x,), (t,))))(x, tangent)
    for i in range(3):
        np.testing.assert_allclose(out[i], resized(x[i], after, align_corners), atol=1e-5)
        np.testing.assert_allclose(moved[i], resized(tangent[i], after, align_corners), atol=1e-5)

    def energy(x, weights):
        return jnp.sum(weights * resize(x) ** 2) / 2

    gradients = jax.jit(jax.vmap(jax.grad(energy)))(x, weights)
    for i in range(3):
        wanted = transposed(weights[i] * out[i], before, align_corners)
        np.testing.assert_allclose(gradients[i], wanted, atol=1e-5)
    # Forward over reverse: what the squares above curve.
    curved = jax.jvp(jax.grad(lambda x: energy(x, weights[0])), (x[0],), (tangent[0],))[1]
    wanted = transposed(weights[0] * moved[0], before, align_corners)
    np.testing.assert_allclose(curved, wanted, atol=1e-5)


def test_bfloat16_stays_bfloat16():
    x = jnp.asarray(np.random.default_rng(2).uniform(-1, 1, (1, 9, 6, 2)), jnp.bfloat16)
    weights = jnp.ones((1, 17, 4, 2), jnp.bfloat16)
    out, gradient = with_gradient(x, weights, False)
    assert out.dtype == gradient.dtype == jnp.bfloat16
    wide = np.asarray(x, np.float64)
    out, gradient = (np.asarray(value, np.float64) for value in (out, gradient))
    np.testing.assert_allclose(out, resized(wide, (17, 4), False), atol=0.02)
    wanted = transposed(np.ones((1, 17, 4, 2)), (9, 6), False)
    np.testing.assert_allclose(gradient, wanted, rtol=0.01, atol=0.02)


def test_maps_that_shrink_are_not_smoothed():
    x = jnp.asarray(np.random.default_rng(3).uniform(-1, 1, (1, 30, 24, 2)), jnp.float32)
    out = resize_bilinear(x, (10, 8), align_corners=False)
    np.testing.assert_array_equal(out, x[:, 1::3, 1::3])  # the middle one of three by three
    smoothed = jax.image.resize(x, (1, 10, 8, 2), "linear")
    assert np.abs(out - smoothed).max() > 0.3
    plain = jax.image.resize(x, (1, 10, 8, 2), "linear", antialias=False)
    np.testing.assert_allclose(out, plain, atol=1e-6)


def test_aligned_corners_stay_and_borders_do_not():
    x = jnp.asarray(np.random.default_rng(4).uniform(-1, 1, (1, 5, 6, 1)), jnp.float32)
    aligned = resize_bilinear(x, (9, 16), align_corners=True)
    np.testing.assert_allclose(aligned[:, ::8, ::15], x[:, ::4, ::5], atol=1e-6)
    np.testing.assert_allclose(aligned[:, ::2, ::3], x, atol=1e-6)
    other = resize_bilinear(x, (9, 16), align_corners=False)
    assert np.abs(aligned - other).max() > 0.1


def test_a_side_stands_for_both_and_the_same_size_changes_nothing():
    x = jnp.asarray(np.random.default_rng(5).uniform(-1, 1, (2, 4, 7, 1)), jnp.float32)
    np.testing.assert_array_equal(
        resize_bilinear(x, 6, align_corners=False), resize_bilinear(x, (6, 6), align_corners=False)
    )
    for align_corners in (False, True):
        assert resize_bilinear(x, (4, 7), align_corners=align_corners) is x


@pytest.mark.parametrize(
    ("x", "size"),
    [(jnp.zeros((4, 4, 1)), 3), (jnp.zeros((1, 4, 4, 1), int), 3), (jnp.zeros((1, 4, 4, 1)), (0, 3))],
)
def test_what_is_no_maps_or_no_size_is_refused(x, size):
    with pytest.raises(InputError):
        resize_bilinear(x, size, align_corners=False)
