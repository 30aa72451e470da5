"""Filters, maps, what a unit sees and what it answers to."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets import explain, layers
from jaxnets.models.classifier import Classifier


def test_feature_maps_are_the_models_own_and_filters_its_kernels(lenet):
    model, variables, images = lenet
    maps = jax.jit(functools.partial(model.apply, method="features"))(variables, images)
    np.testing.assert_allclose(
        explain.feature_maps(*lenet, "pool1"), maps["pool1"], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        nn.relu(explain.feature_maps(*lenet, "backbone/conv2")), maps["conv2"], rtol=1e-4, atol=1e-5
    )
    kernels = variables["params"]["backbone"]
    first = explain.filters(*lenet)
    assert first.shape == (6, 5, 5, 1)
    np.testing.assert_array_equal(first[2], kernels["conv1"]["kernel"][..., 2])
    second = explain.filters(*lenet, "backbone/conv2")
    np.testing.assert_array_equal(second[15], kernels["conv2"]["kernel"][..., 15])


def test_a_unit_projects_back_only_to_the_pixels_it_sees(lenet):
    layer = "pool2"
    maps = np.asarray(explain.feature_maps(*lenet, layer))
    unit = int(maps.max((1, 2)).min(0).argmax())  # one that is active in every image
    strengths, positions, pixels = explain.deconvnet(*lenet, layer, unit)
    maps = maps[..., unit]
    for number in range(3):
        row, column = positions[number]
        assert maps[number].max() == pytest.approx(float(strengths[number]), rel=1e-5)
        assert maps[number, row, column] == pytest.approx(float(strengths[number]), rel=1e-5)
        left, top, right, bottom = explain.receptive_field(*lenet, layer, row, column)
        assert (right - left, bottom - top) == (16, 16)
        assert (left, top) == (4 * column, 4 * row)
        outside = np.array(pixels[number])
        outside[top:bottom, left:right] = 0
        assert not outside.any()
        assert np.asarray(pixels[number]).any()


def test_a_dense_unit_projects_back_too(lenet, scores):
    images = lenet[2]
    strengths, positions, pixels = explain.deconvnet(*lenet, "head", 4)
    np.testing.assert_allclose(strengths, scores(images)[:, 4], rtol=1e-4, atol=1e-5)
    assert not positions.any()
    assert pixels.shape == images.shape


def test_the_top_images_are_those_of_the_strongest_activation(lenet):
    model, variables, images = lenet
    many = jnp.concatenate([images * scale for scale in (0.5, 2.0, 1.0)])[:8]
    numbers, strengths = explain.top_images(model, variables, many, "conv2", 3, count=4, batch_size=3)
    strongest = np.asarray(explain.feature_maps(model, variables, many, "conv2"))[..., 3].max((1, 2))
    np.testing.assert_array_equal(numbers, np.argsort(-strongest)[:4])
    np.testing.assert_allclose(strengths, np.sort(strongest)[::-1][:4], rtol=1e-5)


class _Windows(nn.Module):
    """Of several sizes, strides, paddings and dilations, wider than high."""

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.relu(layers.Conv(2, (3, 5), padding=(1, 2), name="a")(images))
        x = layers.max_pool(x, 3, strides=2, padding=1)
        x = layers.Conv(4, 3, padding=0, dilation=(2, 1), groups=2, name="b")(x)
        return {"last": layers.avg_pool(nn.relu6(x), 2)}


class _Mean(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(2)(x.mean((1, 2)))


@pytest.mark.parametrize(("row", "column"), [(2, 4), (0, 0), (3, 6)])
def test_a_receptive_field_is_what_windows_add_up_to_cut_at_the_border(draw_variables, row, column):
    model = Classifier(_Windows(), _Mean(), num_classes=2, input_size=(28, 33, 1))
    images = jnp.ones((1, 28, 33, 1))
    variables = draw_variables(model, images)

    def seen(place, length, window_strides_pads):
        first = last = place
        for size, stride, pad in reversed(window_strides_pads):  # from the unit down to the pixels
            first, last = first * stride - pad, last * stride - pad + size - 1
        return max(first, 0), min(last, length - 1) + 1

    top, bottom = seen(row, 28, [(3, 1, 1), (3, 2, 1), (5, 1, 0), (2, 2, 0)])
    left, right = seen(column, 33, [(5, 1, 2), (3, 2, 1), (3, 1, 0), (2, 2, 0)])
    box = explain.receptive_field(model, variables, images, "last", row, column)
    np.testing.assert_array_equal(box, [left, top, right, bottom])


def test_a_convolution_is_the_product_of_windows_and_filters():
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(2, 9, 8, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 2, 3, 5)), jnp.float32)
    wanted = jax.lax.conv_general_dilated(
        images, kernel, (2, 1), ((1, 1), (0, 0)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    windows = explain.im2col(images, (3, 2), (2, 1), (1, 0))
    np.testing.assert_allclose(windows @ kernel.reshape(-1, 5), wanted, rtol=1e-4, atol=1e-5)
    by_product = explain.conv_by_im2col(images, kernel, (2, 1), (1, 0))
    np.testing.assert_allclose(by_product, wanted, rtol=1e-4, atol=1e-5)
