import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnets.weights.layout import rearrange, rearranged_shape, reversed_layout


def numbered(*shape):
    return np.arange(np.prod(shape)).reshape(shape)


def test_kernel_of_a_convolution():
    kernel = numbered(2, 3, 4, 5)
    out = rearrange(kernel, "h w i o -> o i h w")
    assert out.shape == (5, 4, 2, 3)
    assert all(out[o, i, h, w] == kernel[h, w, i, o] for h, w, i, o in np.ndindex(kernel.shape))


def test_dense_layer_after_maps_that_torch_flattens_channels_first():
    kernel = numbered(2 * 3 * 4, 5)
    out = rearrange(kernel, "(h2 w3 c) o -> o (c h2 w3)")
    assert out.shape == (5, 24)
    maps = np.random.default_rng(0).normal(size=(2, 3, 4))  # H, W, C
    np.testing.assert_allclose(out @ maps.transpose(2, 0, 1).reshape(-1), maps.reshape(-1) @ kernel)


def test_dense_layer_that_is_a_convolution_in_the_reference():
    kernel = numbered(2 * 3 * 4, 5)
    out = rearrange(kernel, "(h2 w3 c) o -> o c h2 w3")
    assert out.shape == (5, 4, 2, 3)
    np.testing.assert_array_equal(out.reshape(5, -1), rearrange(kernel, "(h2 w3 c) o -> o (c h2 w3)"))


def test_axes_of_size_one_come_and_go():
    kernel = numbered(4, 5)
    out = rearrange(kernel, "i o -> o i 1 1")
    np.testing.assert_array_equal(out, kernel.T[:, :, None, None])
    np.testing.assert_array_equal(rearrange(out, "o i 1 1 -> i o"), kernel)


def test_minus_turns_an_axis_round():
    kernel = numbered(2, 3, 4, 5)
    out = rearrange(kernel, "h w i o -> i o -h -w")
    np.testing.assert_array_equal(out, kernel[::-1, ::-1].transpose(2, 3, 0, 1))


LAYOUTS = [
    "h w i o -> o i h w",
    "h w i o -> i o -h -w",
    "(h2 w3 c) o -> o (c h2 w3)",
    "(h2 w3 c) o -> o c h2 w3",
    "i o -> o i 1 1",
    "1 1 i o -> o i",
]


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(LAYOUTS), st.lists(st.integers(1, 4), min_size=4, max_size=4))
def test_a_layout_read_backwards_is_the_way_back(layout, sizes):
    source = layout.split(" -> ")[0]
    sizes = iter(sizes)
    shape = [
        1 if axis == "1" else next(sizes) * (6 if "h2" in axis else 1)
        for axis in source.replace("h2 w3 c", "h2").split()
    ]
    values = numbered(*shape)
    out = rearrange(values, layout)
    assert out.shape == rearranged_shape(values.shape, layout)
    assert sorted(out.reshape(-1)) == sorted(values.reshape(-1))
    np.testing.assert_array_equal(rearrange(out, reversed_layout(layout)), values)


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((4,), "i o -> o i"),
        ((4, 5, 6), "i o -> o i"),
        ((2, 1, 4, 5), "1 1 i o -> o i"),
        ((25, 4), "(h2 w3 c) o -> o (c h2 w3)"),
        ((4, 5), "i3 o -> o i3"),
    ],
)
def test_a_shape_of_another_kind_is_refused(shape, layout):
    for function, argument in ((rearrange, np.zeros(shape)), (rearranged_shape, shape)):
        with pytest.raises(ValueError, match="is not one of the left side of"):
            function(argument, layout)
