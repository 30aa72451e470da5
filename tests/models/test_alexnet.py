import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.errors import InputError
from jaxnets.models import create_model

NARROW = {"widths": (8, 8, 8, 8, 8)}
# Large, so that local response normalization shows.
IMAGES = np.random.default_rng(1).normal(size=(2, 63, 70, 3)).astype(np.float32) * 30


@pytest.mark.parametrize(
    ("name", "overrides", "count"),
    [
        ("alexnet", {}, 62_378_344),
        ("alexnet", {"groups": 2}, 60_965_224),
        ("alexnet_owt", {}, 61_100_840),
    ],
)
def test_parameter_count(name, overrides, count, count_parameters):
    assert count_parameters(name, **overrides) == count


def test_parameters_layer_by_layer(shapes_of):
    parts = shapes_of("alexnet")["params"]
    layers = {**parts["backbone"], **parts["head"]}
    counts = {k: sum(math.prod(p.shape) for p in jax.tree.leaves(v)) for k, v in layers.items()}
    assert counts == {
        "conv1": 34_944,
        "conv2": 614_656,
        "conv3": 885_120,
        "conv4": 1_327_488,
        "conv5": 884_992,
        "fc1": 37_752_832,
        "fc2": 16_781_312,
        "fc3": 4_097_000,
    }


def test_two_groups_split_convolutions_2_4_and_5(shapes_of):
    backbone = shapes_of("alexnet", groups=2)["params"]["backbone"]
    inputs = {name: layer["kernel"].shape[2] for name, layer in backbone.items()}
    assert inputs == {"conv1": 3, "conv2": 48, "conv3": 256, "conv4": 192, "conv5": 192}


@pytest.mark.parametrize(
    ("name", "widths"),
    [("alexnet", (96, 256, 384, 384, 256)), ("alexnet_owt", (64, 192, 384, 256, 256))],
)
def test_maps_have_the_papers_sizes(name, widths, map_sizes):
    w1, w2, w3, w4, w5 = widths
    assert map_sizes(name) == {
        "conv1": (55, w1),
        "pool1": (27, w1),
        "conv2": (27, w2),
        "pool2": (13, w2),
        "conv3": (13, w3),
        "conv4": (13, w4),
        "conv5": (13, w5),
        "pool5": (6, w5),
    }


@pytest.mark.parametrize(("name", "normalized"), [("alexnet", True), ("alexnet_owt", False)])
def test_pools_read_the_papers_response_normalization_of_the_convolutions(
    name, normalized, drawn_variables, numpy_max_pool
):
    model = create_model(name, **NARROW)
    variables = drawn_variables(model, IMAGES)
    maps = jax.jit(lambda v, x: model.apply(v, x, method="features"))(variables, IMAGES)
    for layer in "12":
        x = np.asarray(maps[f"conv{layer}"], np.float64)
        if normalized:
            # Section 3.3, with k = 2, n = 5, alpha = 1e-4 and beta = 0.75.
            sums = [(x[..., max(0, i - 2) : i + 3] ** 2).sum(-1) for i in range(8)]
            x = x / (2 + 1e-4 * np.stack(sums, -1)) ** 0.75
        np.testing.assert_allclose(maps[f"pool{layer}"], numpy_max_pool(x, 3, 2), rtol=1e-4)
    np.testing.assert_array_equal(maps["pool5"], numpy_max_pool(maps["conv5"], 3, 2))


def test_any_size_from_63_fits_the_same_parameters(shapes_of):
    model = create_model("alexnet")
    for size in ((63, 63), (100, 300)):
        images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
        assert jax.eval_shape(model.apply, shapes_of("alexnet"), images).shape == (1, 1000)


def test_another_number_of_convolutions_is_refused():
    with pytest.raises(InputError, match=r"widths: wanted a tuple of 5.*got \(8, 8, 8\)"):
        create_model("alexnet", widths=(8, 8, 8))
