from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.layers import max_pool
from jaxnets.models.inception_parts import ConvUnit, Inception, Layer, timm_names

IMAGES = np.random.default_rng(1).normal(size=(2, 7, 6, 5)).astype(np.float32)

CHAINS = (
    (Layer("one", 4, 1),),
    (Layer("two_1", 3, 1), (Layer("two_2a", 4, (1, 3)), Layer("two_2b", 2, (3, 1)))),
    (partial(max_pool, window=3, strides=1, padding=1), Layer("three", 6, 5)),
    (),
)


@pytest.fixture
def drawn(drawn_variables):
    """`drawn(module)`: variables of a module that reads IMAGES in evaluation."""

    def draw(module):
        init = SimpleNamespace(init=lambda key, images: module.init(key, images, False))
        return drawn_variables(init, IMAGES)

    return draw


@pytest.mark.slow
def test_chains_run_side_by_side_on_the_same_maps(drawn, numpy_conv, numpy_max_pool):
    variables = drawn(Inception(CHAINS))

    def layer(x, name):
        params, statistics = (variables[c][name] for c in ("params", "batch_stats"))
        kernel, bn, moments = params["conv"]["kernel"], params["bn"], statistics["bn"]
        rows, columns = kernel.shape[0] // 2, kernel.shape[1] // 2
        x = numpy_conv(np.pad(x, ((0, 0), (rows, rows), (columns, columns), (0, 0))), kernel)
        x = (x - moments["mean"]) / np.sqrt(np.asarray(moments["var"]) + 1e-3)
        return np.maximum(x * bn["scale"] + bn["bias"], 0)

    forked = layer(IMAGES, "two_1")
    padded = np.pad(IMAGES, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    want = [
        layer(IMAGES, "one"),
        layer(forked, "two_2a"),
        layer(forked, "two_2b"),
        layer(numpy_max_pool(padded, 3, 1), "three"),
        IMAGES,
    ]
    got = Inception(CHAINS).apply(variables, IMAGES, False)
    np.testing.assert_allclose(got, np.concatenate(want, -1), rtol=1e-4, atol=1e-5)


def test_unit_without_norm_is_a_convolution_and_a_relu(drawn, numpy_conv):
    module = ConvUnit(4, 3, strides=2, padding=0, use_bias=True, epsilon=None)
    variables = drawn(module)
    shapes = {"conv": {"kernel": (3, 3, 5, 4), "bias": (4,)}}
    assert jax.tree.map(jnp.shape, variables) == {"params": shapes}
    conv = variables["params"]["conv"]
    want = np.maximum(numpy_conv(IMAGES, conv["kernel"], stride=2) + conv["bias"], 0)
    np.testing.assert_allclose(module.apply(variables, IMAGES, False), want, rtol=1e-4, atol=1e-5)


def test_epsilon_is_that_of_the_norm(drawn):
    module = ConvUnit(4, 1, epsilon=0.5)
    variables = drawn(module)
    variables["batch_stats"] = {"bn": {"mean": jnp.zeros(4), "var": jnp.zeros(4)}}
    conv, bn = variables["params"]["conv"], variables["params"]["bn"]
    want = np.maximum(IMAGES @ conv["kernel"][0, 0] / 0.5**0.5 * bn["scale"] + bn["bias"], 0)
    np.testing.assert_allclose(module.apply(variables, IMAGES, False), want, rtol=1e-4, atol=1e-4)


def test_timm_numbers_chains_and_steps():
    assert timm_names(CHAINS) == {
        "one": "branch0",
        "two_1": "branch1_0",
        "two_2a": "branch1_1a",
        "two_2b": "branch1_1b",
        "three": "branch2.1",
    }
