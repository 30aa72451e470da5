import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.errors import InputError
from jaxnets.models import create_model

NARROW = {"widths": (8, 8, 8)}
# Large, so that contrast normalization shows.
IMAGES = np.random.default_rng(1).normal(size=(2, 47, 54, 3)).astype(np.float32) * 30


def test_parameters_layer_by_layer(shapes_of, count_parameters):
    parts = shapes_of("zfnet")["params"]
    layers = {**parts["backbone"], **parts["head"]}
    counts = {k: sum(math.prod(p.shape) for p in jax.tree.leaves(v)) for k, v in layers.items()}
    assert counts == {
        "conv1": 14_208,
        "conv2": 614_656,
        "conv3": 1_180_160,
        "conv4": 4_719_616,
        "conv5": 4_719_104,
        "fc1": 75_501_568,
        "fc2": 16_781_312,
        "fc3": 4_097_000,
    }
    assert count_parameters("zfnet") == 107_627_624


def test_widths_of_the_papers_figure_3(shapes_of):
    backbone = shapes_of("zfnet", widths=(384, 384, 256))["params"]["backbone"]
    assert [backbone[f"conv{i}"]["kernel"].shape[-1] for i in range(1, 6)] == [96, 256, 384, 384, 256]


def test_maps_have_the_papers_sizes(map_sizes):
    sides = {name: side for name, (side, _) in map_sizes("zfnet").items()}
    assert sides == {
        "conv1": 110,
        "pool1": 55,
        "conv2": 26,
        "pool2": 13,
        "conv3": 13,
        "conv4": 13,
        "conv5": 13,
        "pool5": 6,
    }


def response_norm(x):
    """Krizhevsky et al. 2012, section 3.3."""
    sums = [(x[..., max(0, i - 2) : i + 3] ** 2).sum(-1) for i in range(x.shape[-1])]
    return x / (2 + 1e-4 * np.stack(sums, -1)) ** 0.75


def max_pool(x):
    """3x3 at stride 2, with the windows that hang over the far edge."""
    padded = np.pad(x, ((0, 0), (0, 2), (0, 2), (0, 0)), constant_values=-np.inf)
    rows, columns = (-(-(side - 3) // 2) + 1 for side in x.shape[1:3])
    taps = [
        padded[:, i : i + 2 * rows : 2, j : j + 2 * columns : 2][:, :rows, :columns]
        for i in range(3)
        for j in range(3)
    ]
    return np.max(taps, axis=0)


def test_maps_match_numpy(drawn_variables, numpy_conv):
    model = create_model("zfnet", **NARROW)
    variables = drawn_variables(model, IMAGES)
    layers = variables["params"]["backbone"]

    def conv(x, layer, **settings):
        return np.maximum(numpy_conv(x, layers[layer]["kernel"], **settings) + layers[layer]["bias"], 0)

    want = {"conv1": conv(IMAGES, "conv1", stride=2, padding=1)}
    want["pool1"] = max_pool(want["conv1"])
    want["conv2"] = conv(response_norm(want["pool1"]), "conv2", stride=2)
    want["pool2"] = max_pool(want["conv2"])
    want["conv3"] = conv(response_norm(want["pool2"]), "conv3", padding=1)
    want["conv4"] = conv(want["conv3"], "conv4", padding=1)
    want["conv5"] = conv(want["conv4"], "conv5", padding=1)
    want["pool5"] = max_pool(want["conv5"])
    maps = jax.jit(lambda v, x: model.apply(v, x, method="features"))(variables, IMAGES)
    assert list(maps) == list(want)
    for layer, wanted in want.items():
        np.testing.assert_allclose(maps[layer], wanted, rtol=1e-3, atol=1e-4 * wanted.max())


def test_smallest_image_is_the_smallest_that_reaches_the_last_pool():
    model = create_model("zfnet", **NARROW).clone(min_size=1)

    def maps(side):
        images = jnp.zeros((1, side, side, 3))
        init = partial(model.init_with_output, method="features")
        return jax.eval_shape(init, jax.random.key(0), images)[0]

    assert maps(47)["pool5"].shape == (1, 1, 1, 8)
    with pytest.raises(InputError, match="does not fit"):
        maps(46)


@pytest.mark.zoo
def test_gradients_in_bfloat16_are_finite_and_reach_every_parameter(train_gradients, drawn_variables):
    model = create_model("zfnet", num_classes=2, **NARROW)
    variables = drawn_variables(model, IMAGES)
    images = jnp.asarray(IMAGES) / 100
    logits, grads, _ = train_gradients(model, variables, images, jnp.bfloat16)
    assert logits.dtype == jnp.float32
    for path, gradient in jax.tree_util.tree_leaves_with_path(grads):
        assert jnp.all(jnp.isfinite(gradient)), path
        assert jnp.any(gradient != 0), path


def test_another_number_of_upper_convolutions_is_refused():
    with pytest.raises(InputError, match=r"widths: wanted a tuple of 3.*got \(8, 8, 8, 8, 8\)"):
        create_model("zfnet", widths=(8,) * 5)
