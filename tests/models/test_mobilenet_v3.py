import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxnets.errors import InputError
from jaxnets.layers import BatchNorm
from jaxnets.models import create_model, feature_info


@pytest.mark.parametrize(
    ("name", "count"),
    [
        pytest.param("mobilenet_v3_large", 5_483_032, marks=pytest.mark.slow),
        ("mobilenet_v3_small", 2_542_856),
    ],
)
def test_parameter_count(name, count, count_parameters):
    assert count_parameters(name) == count


def test_maps_are_those_of_the_papers_tables(map_sizes):
    assert map_sizes("mobilenet_v3_large") == {
        "stem": (112, 16),
        "stage1": (112, 16),
        "stage2_block1": (56, 24),
        "stage2": (56, 24),
        "stage3_block1": (28, 40),
        "stage3": (28, 40),
        "stage4_block1": (14, 80),
        "stage4": (14, 80),
        "stage5": (14, 112),
        "stage6_block1": (7, 160),
        "stage6": (7, 160),
        "last_conv": (7, 960),
    }
    assert map_sizes("mobilenet_v3_small") == {
        "stem": (112, 16),
        "stage1": (56, 16),
        "stage2_block1": (28, 24),
        "stage2": (28, 24),
        "stage3_block1": (14, 40),
        "stage3": (14, 40),
        "stage4": (14, 48),
        "stage5_block1": (7, 96),
        "stage5": (7, 96),
        "last_conv": (7, 576),
    }


def depthwise(name, **settings):
    """(stride, dilation) of the depthwise convolutions, and the momentums of all normalizations."""
    model, found, momentums = create_model(name, **settings), [], set()

    def watch(call, args, kwargs, context):
        module = context.module
        if isinstance(module, nn.Conv) and module.name == "depthwise":
            found.append((np.ravel(module.strides)[0], np.ravel(module.kernel_dilation)[0]))
        if isinstance(module, BatchNorm):
            momentums.add(module.momentum)
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        jax.eval_shape(lambda: nn.Module.init(model, jax.random.key(0), jnp.zeros((1, 64, 64, 3))))
    return found, momentums


@pytest.mark.slow
def test_dilation_takes_the_place_of_a_stride_from_the_first_block_on():
    plain, momentums = depthwise("mobilenet_v3_large")
    assert momentums == {0.99}
    assert plain[12:] == [(2, 1), (1, 1), (1, 1)]
    assert {rate for _, rate in plain} == {1}
    halved, _ = depthwise("mobilenet_v3_large", output_stride=16)
    assert halved[:12] == plain[:12]
    assert halved[12:] == [(1, 2)] * 3
    fine, _ = depthwise("mobilenet_v3_large", output_stride=8)
    assert fine[:6] == plain[:6]
    assert fine[6:] == [(1, 2)] * 6 + [(1, 4)] * 3


@pytest.mark.parametrize("output_stride", [8, 16])
def test_no_map_exceeds_the_output_stride_and_parameters_stay(output_stride, shapes_of):
    model = create_model("mobilenet_v3_small", output_stride=output_stride)
    assert max(stride for _, stride in feature_info(model).values()) == output_stride
    assert model.min_size == output_stride
    dilated = shapes_of("mobilenet_v3_small", output_stride=output_stride)
    assert dilated == shapes_of("mobilenet_v3_small")


def test_frozen_statistics_are_constants_and_groups_are_refused(shapes_of):
    assert set(shapes_of("mobilenet_v3_small", norm="frozen")) == {"params", "constants"}
    with pytest.raises(InputError, match="norm"):
        create_model("mobilenet_v3_small", norm="group")
