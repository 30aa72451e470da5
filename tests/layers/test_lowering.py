"""Every form equals XLA's own operation, or sums by hand: values and gradients, float32 and bfloat16."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxnets import layers
from jaxnets.errors import InputError
from jaxnets.layers.cpu_forms import groups_to_merge
from jaxnets.layers.lowering import conv_transpose

NHWC = ("NHWC", "HWIO", "NHWC")
TOLERANCE = {jnp.float32: 1e-5, jnp.bfloat16: 2**-7}  # relative to the largest value


def normal(shape, dtype=jnp.float32, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def conv(x, kernel, groups=1, strides=(1, 1), padding="SAME", dilation=(1, 1)):
    return layers.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=NHWC,
        feature_group_count=groups,
    )


def compiled(f):
    """f's value and its gradients along a fixed direction, jitted."""

    @jax.jit
    def run(*arguments):
        value, pull = jax.vjp(f, *arguments)
        return value, *pull(normal(value.shape, value.dtype, seed=9))

    return run


def value_and_gradients(f, *arguments):
    return compiled(f)(*arguments)


def assert_close(actual, expected, tolerance=1e-5):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (e.shape, e.dtype)
        a, e = np.asarray(a, np.float64), np.asarray(e, np.float64)
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * np.max(np.abs(e), initial=1e-9))


def assert_as_native(f, *arguments):
    actual = value_and_gradients(f, *arguments)
    with layers.lowering("native"):
        expected = value_and_gradients(f, *arguments)
    assert_close(actual, expected, TOLERANCE[arguments[0].dtype.type])


def assert_close_by_hand(actual, images, weights, strides, pads, dilation, groups):
    """A value and both gradients are those that are summed here tap by tap, in float64.

    XLA's own would have to be compiled too.
    """
    like, dtype = actual[0], images.dtype
    x, weights = np.asarray(images, np.float64), np.asarray(weights, np.float64)
    x = np.pad(x, ((0, 0), *pads, (0, 0)))
    upstream = np.asarray(normal(like.shape, like.dtype, seed=9), np.float64)
    value, by_image, by_kernel = np.zeros(like.shape), np.zeros_like(x), np.zeros_like(weights)
    spans = [max((n - 1) * s + 1, 0) for n, s in zip(like.shape[1:3], strides, strict=True)]
    inputs, outputs = (np.split(np.arange(n), groups) for n in (x.shape[-1], like.shape[-1]))
    for i, j in np.ndindex(*weights.shape[:2]):
        top, left = i * dilation[0], j * dilation[1]
        pixels = slice(top, top + spans[0], strides[0]), slice(left, left + spans[1], strides[1])
        for read, made in zip(inputs, outputs, strict=True):
            seen, slope, tap = x[:, *pixels, read], upstream[..., made], weights[i, j][:, made]
            value[..., made] += seen @ tap
            by_image[:, *pixels, read] += slope @ tap.T
            by_kernel[i, j][:, made] += np.einsum("nhwi,nhwo->io", seen, slope)
    (top, bottom), (left, right) = pads
    by_image = by_image[:, top : by_image.shape[1] - bottom, left : by_image.shape[2] - right]
    for a, e in zip(actual, (value, by_image, by_kernel), strict=True):
        assert a.dtype == dtype
        assert_close(np.asarray(a, np.float64), e, TOLERANCE[dtype.type])


def convolutions_in(f, *arguments):
    """How many convolutions a program for the CPU holds."""
    return jax.jit(f).lower(*arguments).as_text().count("stablehlo.convolution")


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    size=st.tuples(st.integers(5, 9), st.integers(5, 9)),
    kernel=st.sampled_from([(1, 1), (3, 3), (3, 2), (1, 5)]),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.one_of(
        st.sampled_from(["SAME", "VALID"]),
        st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2),
    ),
    dilation=st.sampled_from([(1, 1), (1, 2), (2, 1)]),
    groups_and_channels=st.sampled_from([(1, 3), (6, 6), (3, 6), (6, 12)]),
    multiplier=st.integers(1, 3),
    dtype=st.sampled_from(list(TOLERANCE)),
)
def test_conv_is_as_xlas(
    size, kernel, strides, padding, dilation, groups_and_channels, multiplier, dtype
):
    groups, channels = groups_and_channels
    form = functools.partial(conv, groups=groups, strides=strides, dilation=dilation)
    weights = normal((*kernel, channels // groups, groups * multiplier), dtype, seed=1)
    images = normal((2, *size, channels), dtype)

    def native(x, kernel):
        """Padded beforehand: the gradient of XLA's own CPU convolution is garbage for some paddings
        wider than the kernel, such as ((2, 2), (2, 0)) around 3 x 2 (seen in jaxlib 0.10.2)."""
        if isinstance(padding, str):
            return form(x, kernel, padding=padding)
        return form(jnp.pad(x, ((0, 0), *padding, (0, 0))), kernel, padding="VALID")

    actual = value_and_gradients(functools.partial(form, padding=padding), images, weights)
    with layers.lowering("native"):
        expected = value_and_gradients(native, images, weights)
    assert_close(actual, expected, TOLERANCE[dtype])


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    kernel=st.sampled_from([(2, 2), (3, 3), (5, 5), (1, 4), (4, 2)]),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.tuples(*[st.tuples(st.integers(0, 4), st.integers(0, 4))] * 2),
    dilation=st.sampled_from([(1, 1), (1, 2), (3, 1)]),
    groups=st.sampled_from([1, 2]),
    dtype=st.sampled_from(list(TOLERANCE)),
)
def test_conv_of_a_map_smaller_than_the_window_is_as_xlas(
    size, kernel, strides, pads, dilation, groups, dtype
):
    spans = [(f - 1) * d + 1 for f, d in zip(kernel, dilation, strict=True)]
    assume(all(h + sum(p) >= f for h, p, f in zip(size, pads, spans, strict=True)))
    form = functools.partial(conv, groups=groups, strides=strides, dilation=dilation)
    images, weights = normal((3, *size, 4), dtype), normal((*kernel, 4 // groups, 2), dtype, seed=1)
    actual = value_and_gradients(functools.partial(form, padding=pads), images, weights)
    assert_close_by_hand(actual, images, weights, strides, pads, dilation, groups)


@pytest.mark.parametrize(
    ("side", "window", "stride", "pad", "convolutions"),
    [
        (1, 3, 1, 1, 0),
        (2, 3, 1, 1, 0),
        (4, 3, 2, 1, 0),
        (4, 3, 1, 0, 0),
        (3, 3, 1, 1, 1),
        (32, 16, 16, 0, 1),
    ],
)
def test_a_map_smaller_than_the_window_is_multiplied_by_a_matrix(
    side, window, stride, pad, convolutions
):
    """But for windows of very many taps."""
    images, kernel = jnp.zeros((2, side, side, 4)), jnp.zeros((window, window, 4, 4))
    form = functools.partial(conv, strides=(stride, stride), padding=((pad, pad),) * 2)
    assert convolutions_in(form, images, kernel) == convolutions


@pytest.mark.parametrize(
    ("side", "pads", "dilation", "convolutions"),
    [
        ((6, 7), ((4, 4), (4, 4)), (4, 4), 0),
        ((5, 4), ((9, 9), (9, 9)), (9, 9), 0),  # taps that meet no pixel at all
        ((6, 6), ((5, 3), (0, 8)), (4, 3), 0),
        ((6, 7), ((1, 1), (1, 1)), (1, 1), 1),
    ],
)
def test_taps_that_mostly_meet_padding_are_multiplied_one_by_one(side, pads, dilation, convolutions):
    images, weights = normal((2, *side, 16)), normal((3, 3, 16, 2), seed=1)
    form = functools.partial(conv, padding=pads, dilation=dilation)
    assert convolutions_in(form, images, weights) == convolutions
    actual = value_and_gradients(form, images, weights)
    assert_close_by_hand(actual, images, weights, (1, 1), pads, dilation, 1)


def test_gradients_hold_where_xlas_own_are_garbage():
    images, weights = normal((2, 5, 5, 3)), normal((3, 2, 3, 2), seed=1)
    padding = ((2, 2), (2, 0))
    actual = value_and_gradients(functools.partial(conv, padding=padding), images, weights)
    gradient = np.zeros((2, 9, 7, 3))  # of the padded images, tap by tap
    rows, columns = actual[0].shape[1:3]
    pulled = np.asarray(normal(actual[0].shape, seed=9), np.float64)
    for i, j in np.ndindex(3, 2):
        gradient[:, i : i + rows, j : j + columns] += pulled @ np.asarray(weights[i, j], np.float64).T
    np.testing.assert_allclose(actual[1], gradient[:, 2:7, 2:7], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("groups", "channels", "merged"),
    [
        (32, 4, 4),  # ResNeXt-50's stages: 8, 16, 16 and 16 convolutions
        (32, 8, 2),
        (32, 16, 2),
        (32, 32, 2),
        (3, 50, 1),
        (2, 1, 2),
        (7, 4, 7),
        (64, 64, 1),
    ],
)
def test_groups_are_merged_to_16_channels_and_few_convolutions(groups, channels, merged):
    assert groups_to_merge(groups, channels) == merged
    x = jax.ShapeDtypeStruct((1, 3, 3, groups * channels), jnp.float32)
    kernel = jax.ShapeDtypeStruct((2, 2, channels, groups), jnp.float32)
    f = functools.partial(conv, groups=groups)
    if groups != x.shape[-1]:
        assert convolutions_in(f, x, kernel) == groups // merged


def test_no_convolution_is_left_of_a_1x1_or_a_depthwise_one_but_under_native():
    x = normal((1, 4, 4, 3))
    for f, kernel in (
        (conv, normal((1, 1, 3, 5))),
        (functools.partial(conv, groups=3), normal((3, 3, 1, 6))),
    ):
        assert convolutions_in(f, x, kernel) == 0
        with layers.lowering("native"):
            assert convolutions_in(f, x, kernel) == 1
    assert convolutions_in(conv, x, normal((3, 3, 3, 5))) == 1


@pytest.mark.parametrize(("groups", "strides", "padding"), [(1, 1, 1), (1, 2, 1), (1, 1, 2), (2, 1, 1)])
def test_all_convolutions_of_a_gradient_in_a_loop_are_in_the_order_of_xlas_fast_kernels(
    groups, strides, padding
):
    """Batch, rows, columns, features; taps, inputs, outputs. XLA's own gradients are not."""
    images, kernel = jnp.zeros((2, 4, 9, 9, 32)), jnp.zeros((3, 3, 32 // groups, 32))
    form = functools.partial(
        conv, groups=groups, strides=(strides, strides), padding=((padding, padding),) * 2
    )

    def gradients(kernel, images):
        def loss(x, kernel):
            return jnp.sum(form(x, kernel) ** 2)

        return lax.map(lambda x: jax.grad(loss, (0, 1))(x, kernel), images)

    def orders():
        program = jax.jit(gradients).lower(kernel, images).compile().as_text()
        return set(re.findall(r"dim_labels=(\S+?)[,\s]", program))

    assert orders() == {"b01f_01io->b01f", "b0f_0io->b0f"}
    with layers.lowering("native"):
        assert orders() - {"b01f_01io->b01f"}


def test_an_image_is_padded_first_where_the_output_would_be_larger():
    x, kernel = jnp.zeros((1, 4, 4, 3)), jnp.zeros((3, 3, 3, 3))
    for padding, padded in ((1, 0), (2, 1)):
        f = functools.partial(conv, padding=[(padding, padding)] * 2)
        program = jax.jit(f).lower(x, kernel).as_text()
        assert program.count("stablehlo.pad") == padded
        assert program.count("stablehlo.convolution") == 1


def test_a_jitted_function_follows_the_setting():
    f, x, kernel = jax.jit(conv), normal((1, 4, 4, 3)), normal((1, 1, 3, 5))
    for _ in range(2):
        f(x, kernel)
        with layers.lowering("native"):
            f(x, kernel)
            with layers.lowering("auto"):
                f(x, kernel)
    assert f._cache_size() == 2
    with pytest.raises(InputError, match="lowering 'fast'"), layers.lowering("fast"):
        pass


def test_an_export_for_two_platforms_has_each_platforms_own():
    x, kernel = normal((1, 4, 4, 6)), normal((3, 3, 1, 6))
    f = jax.jit(functools.partial(conv, groups=6))
    both = jax.export.export(f, platforms=("cpu", "tpu"))(x, kernel)
    assert_close(both.call(x, kernel), f(x, kernel))
    assert "stablehlo.convolution" in both.mlir_module()
    assert "stablehlo.convolution" not in jax.export.export(f)(x, kernel).mlir_module()
    tpu = jax.export.export(f, platforms=("tpu",))(x, kernel)
    assert tpu.mlir_module().count("stablehlo.convolution") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "size"), [(1, 1), (1, 3), (2, 3), (4, 3)])
def test_transformations_nest(groups, size):
    """An ensemble's vmap over kernels, the gradient of a gradient, forward mode, an empty batch."""
    kernels = normal((3, size, size, 4 // groups, 4), seed=1)
    x = normal((2, 5, 4, 4))

    def curvature(kernel, x):
        def loss(kernel):
            return jnp.sum(conv(x, kernel, groups) ** 3)

        slope, bend = jax.jvp(jax.grad(loss), (kernel,), (kernel,))
        return slope, bend, jax.grad(lambda k: jnp.sum(jax.grad(loss)(k) ** 2))(kernel)

    ensemble = jax.vmap(curvature, (0, None))
    actual = jax.jit(ensemble)(kernels, x)
    with layers.lowering("native"):
        assert_close(actual, jax.jit(ensemble)(kernels, x))
    if (groups, size) == (1, 3):  # not jitted
        assert_close(curvature(kernels[0], x), jax.tree.map(lambda a: a[0], actual))
    assert conv(x[:0], kernels[0], groups).shape == (0, 5, 4, 4)


@pytest.mark.parametrize(
    ("window", "strides", "cuts"),
    [
        ((4, 4), (2, 2), ((1, 1), (1, 1))),
        ((3, 2), (2, 3), ((0, 1), (0, 0))),
        ((1, 5), (1, 2), ((0, 0), (2, 3))),
        ((3, 3), (1, 1), ((1, 0), (2, 2))),
        ((2, 2), (1, 1), ((2, 0), (0, 0))),  # cuts beyond what a single copy covers
        ((2, 2), (3, 3), ((1, 1), (2, 0))),  # copies that do not meet
    ],
)
@pytest.mark.parametrize(
    ("images", "channels"), [(2, 24), pytest.param(60, 3, marks=pytest.mark.slow), (60, 24)]
)  # few pixels and many
def test_conv_transpose_is_as_xlas(window, strides, cuts, images, channels):
    x, kernel = normal((images, 4, 5, channels)), normal((*window, channels, 2), seed=1)
    assert_as_native(functools.partial(conv_transpose, strides=strides, cuts=cuts), x, kernel)


@pytest.mark.parametrize(("images", "channels"), [(2, 24), (60, 3), (60, 24)])
def test_conv_transpose_of_bfloat16_is_as_xlas(images, channels):
    x, kernel = normal((images, 4, 5, channels)), normal((3, 2, channels, 2), seed=1)
    form = functools.partial(conv_transpose, strides=(2, 3), cuts=((0, 1), (0, 0)))
    assert_as_native(form, x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))


@pytest.mark.slow
@pytest.mark.parametrize("images", [2, 60])
def test_transformations_of_conv_transpose_nest(images):
    form = functools.partial(conv_transpose, strides=(2, 2), cuts=((1, 1), (0, 1)))
    x, kernels = normal((images, 4, 5, 3)), normal((2, 3, 3, 3, 2), seed=1)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def curvature(kernel, x):
        def loss(kernel, x):
            return jnp.mean(form(x, kernel) ** 3)

        return jax.jvp(jax.grad(loss, (0, 1)), (kernel, x), (kernel, x))

    actual = curvature(kernels, x)
    with layers.lowering("native"):
        assert_close(actual, curvature(kernels, x))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("window", "strides", "padding", "dtype"),
    [
        (2, None, 0, jnp.float32),
        (3, 2, 1, jnp.float32),
        (3, 2, 1, jnp.bfloat16),
        ((3, 2), (1, 2), (1, 0), jnp.float32),
        (5, 3, ((2, 0), (1, 2)), jnp.float32),
    ],
)
def test_max_pool_is_as_xlas_even_on_ties(window, strides, padding, dtype):
    ties = np.round(np.asarray(normal((2, 9, 8, 3), dtype)))  # who gets the gradient is settled
    extremes = ties.copy()
    extremes[0, 4, 4, 0], extremes[1] = np.nan, -np.inf
    pool = functools.partial(layers.max_pool, window=window, strides=strides, padding=padding)
    run = compiled(pool)
    actual, largest = run(ties), run(extremes)[0]
    with layers.lowering("native"):
        expected = run(ties)
        np.testing.assert_array_equal(*(np.asarray(y, np.float32) for y in (largest, run(extremes)[0])))
    assert_close(actual, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("check_vma", [True, False])
def test_gradients_under_shard_map(check_vma, groups):
    x, kernel = normal((4, 5, 5, 4)), normal((3, 3, 4 // groups, 4))
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,))

    def gradient(kernel, x):
        slope = jax.grad(lambda k: jnp.sum(conv(x, k, groups) ** 2))(kernel)
        return slope if check_vma else lax.psum(slope, "batch")  # else it is summed already

    sharded = jax.shard_map(
        gradient, mesh=mesh, in_specs=(P(), P("batch")), out_specs=P(), check_vma=check_vma
    )
    expected = jax.grad(lambda k: jnp.sum(conv(x, k, groups) ** 2))(kernel)
    assert_close(jax.jit(sharded)(kernel, x), expected)


def test_what_no_form_is_known_for_stays_native():
    x, kernel = normal((2, 6, 6, 4)), normal((2, 2, 2, 4))
    f = functools.partial(conv, groups=2)
    cropped = functools.partial(f, padding=((-1, 0), (0, 0)))
    assert convolutions_in(cropped, x, kernel) == 1
    assert convolutions_in(f, x.astype(jnp.int32), kernel.astype(jnp.int32)) == 1
    along_time = nn.Conv(4, (3,), conv_general_dilated=layers.conv_general_dilated)
    variables = {"params": {"kernel": normal((3, 4, 4)), "bias": normal((4,))}}
    expected = nn.Conv(4, (3,)).apply(variables, x[0])
    assert_close(along_time.apply(variables, x[0]), expected)
