import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from jaxnets.errors import InputError
from jaxnets.models import create_model
from jaxnets.models.inception_v2 import MODULES


def test_parameter_count(count_parameters):
    assert count_parameters("inception_v2") == 11_295_240


def test_maps_at_224_are_those_of_the_papers_figure_5(map_sizes):
    assert map_sizes("inception_v2") == {
        "conv1": (112, 64),
        "conv2": (56, 192),
        "inception3a": (28, 256),
        "inception3b": (28, 320),
        "inception3c": (14, 576),
        "inception4a": (14, 576),
        "inception4b": (14, 576),
        "inception4c": (14, 608),
        "inception4d": (14, 608),
        "inception4e": (7, 1056),
        "inception5a": (7, 1024),
        "inception5b": (7, 1024),
    }


def test_convolutions_have_biases_beside_their_norms(shapes_of):
    backbone = shapes_of("inception_v2")["params"]["backbone"]
    layers = {"1x1", "3x3_reduce", "3x3", "double_3x3_reduce", "double_3x3_1", "double_3x3_2"}
    assert set(backbone["inception3a"]) == layers | {"pool_proj"}
    assert set(backbone["inception3c"]) == layers - {"1x1"}
    unit = backbone["inception5b"]["double_3x3_2"]
    assert jax.tree.map(lambda p: p.shape, unit) == {
        "conv": {"kernel": (3, 3, 224, 224), "bias": (224,)},
        "bn": {"scale": (224,), "bias": (224,)},
    }


def traced(side):
    """The shapes of the input and of the output of each module."""
    model, inputs, outputs = create_model("inception_v2"), {}, {}

    def watch(call, args, kwargs, context):
        out = call(*args, **kwargs)
        path = context.module.path
        if len(path) == 2 and path[1].startswith("inception"):
            inputs[path[1]], outputs[path[1]] = args[0].shape, out.shape
        return out

    images = jax.ShapeDtypeStruct((1, *side, 3), jnp.float32)
    with nn.intercept_methods(watch):
        jax.eval_shape(model.init, jax.random.key(0), images)
    return inputs, outputs


@pytest.mark.parametrize("side", [(224, 224), (7, 7), (60, 113)])
def test_modules_without_a_1x1_halve_the_maps_and_pass_all_their_channels_on(side):
    inputs, outputs = traced(side)
    for module in MODULES:
        before, after = inputs[f"inception{module}"], outputs[f"inception{module}"]
        if module in ("3c", "4e"):
            assert after[1:3] == tuple(-(-n // 2) for n in before[1:3])
            convolved = {"3c": 160 + 96, "4e": 192 + 256}[module]
            assert after[3] == before[3] + convolved
        else:
            assert after[1:3] == before[1:3]


def test_smallest_image_reaches_the_last_map():
    images = jax.ShapeDtypeStruct((1, 6, 6, 3), jnp.float32)
    model = create_model("inception_v2")
    assert model.min_size == 7
    with pytest.raises(InputError, match="does not fit into 1 pixels"):
        jax.eval_shape(model.clone(min_size=1).init, jax.random.key(0), images)
