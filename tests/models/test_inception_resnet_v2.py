from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxnets.errors import InputError
from jaxnets.models import create_model
from jaxnets.models.inception_parts import Layer
from jaxnets.models.inception_resnet_v2 import InceptionResidual

STAGES = {"a": (10, 0.17), "b": (20, 0.10), "c": (10, 0.20)}


def test_parameter_count(count_parameters):
    assert count_parameters("inception_resnet_v2") == 55_843_464


def test_multiply_adds_are_those_that_torch_counts_in_timms(multiply_adds):
    assert multiply_adds("inception_resnet_v2") == 13_155_794_016


def test_maps_at_299(map_sizes):
    assert map_sizes("inception_resnet_v2") == {
        "conv2b": (147, 64),
        "conv4a": (71, 192),
        "mixed5b": (35, 320),
        "inception_resnet_a": (35, 320),
        "reduction_a": (17, 1088),
        "inception_resnet_b": (17, 1088),
        "reduction_b": (8, 2080),
        "inception_resnet_c": (8, 2080),
        "conv7b": (8, 1536),
    }


def test_channels_of_reduction_a_are_those_of_the_papers_table_1(shapes_of):
    layers = shapes_of("inception_resnet_v2")["params"]["backbone"]["reduction_a"]
    k, l, m, n = (
        layers[name]["conv"]["kernel"].shape[-1]
        for name in ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3", "branch3x3")
    )
    assert (k, l, m, n) == (256, 256, 384, 384)


@pytest.fixture(scope="module")
def residuals():
    """The residual modules of the net, in the order they are called."""
    model, seen = create_model("inception_resnet_v2", drop_path=0.2), []

    def watch(call, args, kwargs, context):
        if isinstance(context.module, InceptionResidual):
            seen.append(context.module)
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 75, 75, 3)))
    return seen


def test_every_residual_is_scaled_but_the_last(residuals):
    want = {
        f"inception_resnet_{stage}{i}": (scale, True)
        for stage, (depth, scale) in STAGES.items()
        for i in range(1, depth + 1)
    }
    want["inception_resnet_c10"] = (1.0, False)
    assert {module.name: (module.scale, module.activate) for module in residuals} == want


def test_drop_path_grows_linearly_to_the_last_residual(residuals):
    rates = [module.drop_path for module in residuals]
    np.testing.assert_allclose(rates, 0.005 * np.arange(1, 41))


@pytest.mark.parametrize("activate", [True, False])
def test_residual_module_matches_numpy(activate, drawn_variables):
    x = np.random.default_rng(0).normal(size=(2, 4, 3, 6)).astype(np.float32)
    chains = ((Layer("one", 4, 1),), (Layer("two", 5, 1),))
    module = InceptionResidual(chains, scale=0.17, activate=activate, drop_path=0.5)
    init = SimpleNamespace(init=lambda key, x: module.init(key, x, False))
    variables = drawn_variables(init, x)
    params, statistics = variables["params"], variables["batch_stats"]

    def unit(name):
        bn, moments = params[name]["bn"], statistics[name]["bn"]
        y = x @ params[name]["conv"]["kernel"][0, 0] - moments["mean"]
        y = y / np.sqrt(np.asarray(moments["var"]) + 1e-3)
        return np.maximum(y * bn["scale"] + bn["bias"], 0)

    joined = np.concatenate([unit("one"), unit("two")], -1)
    want = x + 0.17 * (joined @ params["conv"]["kernel"][0, 0] + params["conv"]["bias"])
    assert np.any(want < -0.1)
    want = np.maximum(want, 0) if activate else want
    np.testing.assert_allclose(module.apply(variables, x, False), want, rtol=1e-4, atol=1e-5)


def test_drop_path_leaves_out_the_residual_of_some_examples_in_training(drawn_variables):
    x = np.repeat(np.random.default_rng(0).normal(size=(1, 4, 3, 6)).astype(np.float32), 32, axis=0)
    module = InceptionResidual(((Layer("one", 4, 1),),), scale=1.0, activate=False, drop_path=0.5)
    init = SimpleNamespace(init=lambda key, x: module.init(key, x, False))
    rngs = {"dropout": jax.random.key(1)}
    y, _ = module.apply(drawn_variables(init, x), x, True, rngs=rngs, mutable=["batch_stats"])
    alone = np.all(y == x, axis=(1, 2, 3))
    assert 6 <= alone.sum() <= 26


@pytest.mark.slow
def test_smallest_image_ends_in_one_pixel(shapes_of):
    model, shapes = create_model("inception_resnet_v2"), shapes_of("inception_resnet_v2")
    assert model.min_size == 75
    images, smaller = (jax.ShapeDtypeStruct((1, n, n, 3), jnp.float32) for n in (75, 74))
    maps = jax.eval_shape(partial(model.apply, method="features"), shapes, images)
    assert maps["conv7b"].shape == (1, 1, 1, 1536)
    with pytest.raises(InputError, match="does not fit into 2 pixels"):
        jax.eval_shape(model.clone(min_size=1).apply, shapes, smaller)
