from functools import partial

import jax
import jax.numpy as jnp
import pytest

from jaxnets.errors import InputError
from jaxnets.models import create_model


def test_parameter_count(count_parameters):
    assert count_parameters("inception_v4") == 42_679_816


def test_multiply_adds_are_those_that_torch_counts_in_timms(multiply_adds):
    assert multiply_adds("inception_v4") == 12_253_974_624


def test_maps_at_299_are_those_of_the_papers_figure_9(map_sizes):
    stem = {"conv2b": (147, 64), "mixed3a": (73, 160), "mixed4a": (71, 192), "mixed5a": (35, 384)}
    assert map_sizes("inception_v4") == {
        **stem,
        **{f"inception_a{i}": (35, 384) for i in (1, 2, 3, 4)},
        "reduction_a": (17, 1024),
        **{f"inception_b{i}": (17, 1024) for i in (1, 2, 3, 4, 5, 6, 7)},
        "reduction_b": (8, 1536),
        **{f"inception_c{i}": (8, 1536) for i in (1, 2, 3)},
    }


def test_channels_of_reduction_a_are_those_of_the_papers_table_1(shapes_of):
    layers = shapes_of("inception_v4")["params"]["backbone"]["reduction_a"]
    k, l, m, n = (
        layers[name]["conv"]["kernel"].shape[-1]
        for name in ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3", "branch3x3")
    )
    assert (k, l, m, n) == (192, 224, 256, 384)


def test_smallest_image_ends_in_one_pixel(shapes_of):
    model, shapes = create_model("inception_v4"), shapes_of("inception_v4")
    assert model.min_size == 75
    images, smaller = (jax.ShapeDtypeStruct((1, n, n, 3), jnp.float32) for n in (75, 74))
    maps = jax.eval_shape(partial(model.apply, method="features"), shapes, images)
    assert maps["inception_c3"].shape == (1, 1, 1, 1536)
    with pytest.raises(InputError, match="does not fit into 2 pixels"):
        jax.eval_shape(model.clone(min_size=1).apply, shapes, smaller)
