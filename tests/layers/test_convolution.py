import flax.linen as nn
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


def conv_by_hand(x, kernel, strides, pads, groups=1, dilation=(1, 1)):
    x = np.pad(x, ((0, 0), *pads, (0, 0)))
    height, width, per_group, features = kernel.shape
    rows = (x.shape[1] - (height - 1) * dilation[0] - 1) // strides[0] + 1
    columns = (x.shape[2] - (width - 1) * dilation[1] - 1) // strides[1] + 1
    out = np.zeros((len(x), rows, columns, features), np.float64)
    for o in range(features):
        first = o // (features // groups) * per_group
        for r in range(rows):
            for c in range(columns):
                for i in range(height):
                    for j in range(width):
                        row, column = r * strides[0] + i * dilation[0], c * strides[1] + j * dilation[1]
                        pixel = x[:, row, column, first : first + per_group]
                        out[:, r, c, o] += pixel @ kernel[i, j, :, o]
    return out


def apply(module, x, **params):
    return module.apply({"params": params}, x)


def shapes(module, x):
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    return jax.tree.map(lambda a: a.shape, variables["params"])


@settings(max_examples=15, deadline=None)
@given(
    size=st.tuples(st.integers(5, 8), st.integers(5, 8)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 4]),
)
def test_conv_matches_loops(size, kernel, strides, pads, dilation, groups):
    x, weights, bias = normal(2, *size, 4), normal(*kernel, 4 // groups, 8), normal(8)
    conv = layers.Conv(8, kernel, strides, pads, groups=groups, dilation=dilation)
    expected = conv_by_hand(x, weights, strides, pads, groups, (dilation, dilation)) + bias
    np.testing.assert_allclose(apply(conv, x, kernel=weights, bias=bias), expected, atol=2e-5)


def test_conv_is_flax_conv_with_its_parameters():
    conv = layers.Conv(6, (3, 5), name="conv1")
    assert isinstance(conv, nn.Conv)
    assert conv.name == "conv1"
    x = jnp.zeros((1, 8, 8, 2))
    assert shapes(conv, x) == {"kernel": (3, 5, 2, 6), "bias": (6,)}
    assert set(shapes(layers.Conv(6, 3, use_bias=False), x)) == {"kernel"}


@pytest.mark.parametrize(
    ("padding", "pads"),
    [
        (2, ((2, 2), (2, 2))),
        ((0, 1), ((0, 0), (1, 1))),
        (((1, 0), (0, 2)), ((1, 0), (0, 2))),
        ("VALID", ((0, 0), (0, 0))),
        ("SAME", ((0, 1), (0, 1))),  # 6 pixels, window 3, stride 2: one too few, at the far edge
    ],
)
def test_every_form_of_padding_means_what_it_says(padding, pads):
    x, kernel = normal(1, 6, 6, 2), normal(3, 3, 2, 3)
    conv = layers.Conv(3, 3, 2, padding, use_bias=False)
    expected = conv_by_hand(x, kernel, (2, 2), pads)
    np.testing.assert_allclose(apply(conv, x, kernel=kernel), expected, atol=1e-5)
    by_product = layers.conv_by_im2col(x, kernel, 2, padding)
    np.testing.assert_allclose(by_product, expected, atol=1e-5)


def test_same_padding_keeps_and_full_padding_grows_the_map():
    assert layers.same_padding((3, 7)) == ((1, 1), (3, 3))
    assert layers.same_padding(3, dilation=4) == ((4, 4), (4, 4))
    assert layers.full_padding((3, 2)) == ((2, 2), (1, 1))
    x, kernel = normal(1, 5, 5, 1), normal(3, 3, 1, 1)
    same = layers.conv_by_im2col(x, kernel, padding=layers.same_padding(3))
    assert same.shape == (1, 5, 5, 1)
    full = layers.conv_by_im2col(x, kernel[::-1, ::-1], padding=layers.full_padding(3))
    # A full convolution is the product of polynomials: with the kernel flipped back it commutes.
    swapped = layers.conv_by_im2col(
        kernel.reshape(1, 3, 3, 1), x.reshape(5, 5, 1, 1)[::-1, ::-1], padding=4
    )
    assert full.shape == (1, 7, 7, 1)
    np.testing.assert_allclose(full, swapped, atol=1e-5)


def test_conv_starts_as_he_normal_of_the_fan_in_of_its_group():
    conv = layers.Conv(256, 3, groups=2)
    kernel = jax.jit(conv.init)(jax.random.key(0), jnp.zeros((1, 4, 4, 64)))["params"]["kernel"]
    assert np.var(kernel) == pytest.approx(2 / (9 * 32), rel=0.03)
    assert np.mean(kernel) == pytest.approx(0, abs=1e-3)


def test_gradient_by_matrix_product_is_that_of_conv():
    x, kernel, upstream = normal(2, 7, 6, 3), normal(3, 2, 3, 4), normal(2, 4, 4, 4)
    conv = layers.Conv(4, (3, 2), 2, 1, use_bias=False)

    def by_conv(x, kernel):
        return jnp.sum(apply(conv, x, kernel=kernel) * upstream)

    def by_product(x, kernel):
        return jnp.sum(layers.conv_by_im2col(x, kernel, 2, 1) * upstream)

    @jax.jit
    def both(x, kernel):
        return [jax.grad(by, (0, 1))(x, kernel) for by in (by_product, by_conv)]

    actual, expected = both(x, kernel)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, atol=1e-5)


def test_im2col_lists_a_window_by_row_column_channel():
    x = np.arange(2 * 3 * 3 * 2, dtype=np.float32).reshape(2, 3, 3, 2)
    rows = layers.im2col(x, 2)
    assert rows.shape == (2, 2, 2, 8)
    np.testing.assert_array_equal(rows[1, 0, 1], x[1, 0:2, 1:3].reshape(-1))


@pytest.mark.parametrize(
    ("kernel", "strides", "padding"),
    [
        ((4, 4), (2, 2), (1, 1)),
        ((2, 3), (2, 1), (0, 2)),
        ((3, 1), (2, 3), (1, 0)),
        ((2, 2), (1, 1), (1, 1)),
    ],
)
def test_conv_transpose_pastes_turned_kernels(kernel, strides, padding):
    x, weights, bias = normal(2, 4, 5, 3), normal(*kernel, 3, 2), normal(2)
    sizes = [(n - 1) * s + k for n, s, k in zip((4, 5), strides, kernel, strict=True)]
    canvas = np.zeros((2, *sizes, 2))
    for r in range(4):
        for c in range(5):
            pasted = np.einsum("ni,hwio->nhwo", x[:, r, c], weights[::-1, ::-1])
            top, left = r * strides[0], c * strides[1]
            canvas[:, top : top + kernel[0], left : left + kernel[1]] += pasted
    (p, q), (height, width) = padding, sizes
    expected = canvas[:, p : height - p, q : width - q] + bias
    deconv = layers.ConvTranspose(2, kernel, strides, padding)
    np.testing.assert_allclose(apply(deconv, x, kernel=weights, bias=bias), expected, atol=1e-5)


def test_separable_conv_is_a_conv_with_a_factored_kernel():
    x, depthwise, pointwise = normal(2, 6, 6, 3), normal(3, 3, 1, 3), normal(1, 1, 3, 5)
    conv = layers.SeparableConv(5, 3, strides=2, padding=2, dilation=2, use_bias=False)
    params = {"depthwise": {"kernel": depthwise}, "pointwise": {"kernel": pointwise}}
    factored = depthwise[:, :, 0, :, None] * pointwise[0, 0]
    expected = conv_by_hand(x, factored, (2, 2), ((2, 2), (2, 2)), dilation=(2, 2))
    np.testing.assert_allclose(apply(conv, x, **params), expected, atol=1e-5)
    assert shapes(layers.SeparableConv(5, 3), x) == {
        "depthwise": {"kernel": (3, 3, 1, 3), "bias": (3,)},
        "pointwise": {"kernel": (1, 1, 3, 5), "bias": (5,)},
    }


@pytest.mark.parametrize("kind", ["A", "B"])
def test_masked_conv_sees_only_what_comes_before_in_raster_and_color_order(kind):
    conv = layers.MaskedConv(6, 3, kind, colors=3, use_bias=False)
    x = normal(4, 5, 3)
    params = {"kernel": np.ones((3, 3, 3, 6), np.float32)}
    jacobian = jax.jit(jax.jacobian(lambda x: apply(conv, x[None], **params)[0]))(x)
    place = np.stack(np.meshgrid(range(4), range(5), indexing="ij"), -1)
    for row, column, feature in np.ndindex(4, 5, 6):
        dy, dx = np.moveaxis(place - [row, column], -1, 0)
        near = (abs(dy) <= 1) & (abs(dx) <= 1)
        before = near & ((dy < 0) | ((dy == 0) & (dx < 0)))
        expected = np.repeat(before[:, :, None], 3, axis=2).astype(float)
        color = feature // 2  # features 0, 1 predict red, 2, 3 green, 4, 5 blue
        expected[row, column, : color + (kind == "B")] = 1
        np.testing.assert_array_equal(jacobian[row, column, feature], expected)


def test_masked_conv_keeps_the_parameters_of_a_conv_and_leaves_the_masked_ones_alone():
    conv = layers.MaskedConv(4, (3, 5), "A")
    x = normal(2, 6, 6, 2)
    assert shapes(conv, x) == {"kernel": (3, 5, 2, 4), "bias": (4,)}
    params = {"kernel": normal(3, 5, 2, 4), "bias": normal(4)}
    slope = jax.jit(jax.grad(lambda p: jnp.sum(apply(conv, x, **p) ** 2)))(params)["kernel"]
    mask = layers.causal_mask((3, 5), 2, 4, "A")
    assert mask.sum() == (5 + 2) * 2 * 4
    np.testing.assert_array_equal(slope != 0, mask != 0)


def test_convolutions_follow_bfloat16():
    x = jnp.ones((1, 6, 6, 4), jnp.bfloat16)
    for module in (
        layers.Conv(4, 3),
        layers.ConvTranspose(4, 2, 2),
        layers.SeparableConv(4, 3),
        layers.MaskedConv(4, 3, "B"),
    ):
        variables = jax.eval_shape(module.init, jax.random.key(0), x.astype(jnp.float32))
        half = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, jnp.bfloat16), variables)
        assert jax.eval_shape(module.apply, half, x).dtype == jnp.bfloat16


X = jnp.zeros((1, 4, 4, 3))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: layers.Conv(10, 3, groups=4), "features 10 .* 4 groups"),
        (lambda: layers.Conv(8, 3, groups=0), "0 groups"),
        (lambda: layers.Conv(8, (3, 3, 3)), "kernel_size"),
        (lambda: layers.Conv(8, 3, strides=0), "strides is 0"),
        (lambda: layers.Conv(8, 3, strides=1.5), "strides is 1.5"),
        (lambda: layers.Conv(8, 3, padding=-1), "padding is -1"),
        (lambda: layers.Conv(8, 3, padding=(1, 1, 1)), "padding"),
        (lambda: layers.Conv(8, 3, padding="SAMR"), "did you mean 'SAME'"),
        (lambda: layers.ConvTranspose(8, 3, padding="SAME"), "ConvTranspose"),
        (lambda: layers.same_padding(4), "odd"),
        (lambda: layers.im2col(X, 5), "window of 5 does not fit into 4 pixels"),
        (lambda: layers.im2col(X[0], 2), r"images has shape \(4, 4, 3\)"),
        (lambda: layers.conv_by_im2col(X, jnp.zeros((2, 2, 4, 5))), "kernel has shape"),
        (lambda: layers.MaskedConv(4, 3, "C").init(jax.random.key(0), X), "mask kind 'C'"),
        (lambda: layers.MaskedConv(4, 2, "A").init(jax.random.key(0), X), "center"),
        (lambda: layers.MaskedConv(4, 3, "A", colors=3).init(jax.random.key(0), X), "colors 3"),
        (lambda: layers.SeparableConv(4, 3).init(jax.random.key(0), X[0]), "x has shape"),
    ],
)
def test_bad_arguments_are_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
