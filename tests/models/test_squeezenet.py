from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.errors import InputError
from jaxnets.models import create_model

# Sizes at which max-pools meet windows that hang over the edge.
IMAGES = np.random.default_rng(1).normal(size=(2, 29, 35, 3)).astype(np.float32)
POOLED = {"squeezenet1_0": (1, 4, 8), "squeezenet1_1": (1, 3, 5)}


@pytest.mark.parametrize(("name", "count"), [("squeezenet1_0", 1_248_424), ("squeezenet1_1", 1_235_496)])
def test_parameter_count(name, count, count_parameters):
    assert count_parameters(name) == count


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("squeezenet1_0", (109, 54, 54, 54, 27, 27, 27, 27, 13)),
        ("squeezenet1_1", (111, 55, 55, 27, 27, 13, 13, 13, 13)),
    ],
)
def test_maps_at_224(name, sides, map_sizes):
    widths = (128, 128, 256, 256, 384, 384, 512, 512)  # the paper's table 1
    sizes = map_sizes(name)
    assert list(sizes) == ["conv1", *(f"fire{i}" for i in range(2, 10))]
    assert [side for side, _ in sizes.values()] == list(sides)
    assert [width for _, width in sizes.values()][1:] == list(widths)


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


@pytest.mark.parametrize("name", POOLED)
def test_maps_and_scores_match_numpy(name, drawn_variables, numpy_conv):
    model = create_model(name, num_classes=5)
    variables = drawn_variables(model, IMAGES)
    layers = variables["params"]["backbone"]

    def conv(x, layer, **settings):
        return np.maximum(numpy_conv(x, layer["kernel"], **settings) + layer["bias"], 0)

    x = conv(IMAGES, layers["conv1"], stride=2)
    want = {"conv1": x}
    for i in range(2, 10):
        if i - 1 in POOLED[name]:
            x = max_pool(x)
        fire = layers[f"fire{i}"]
        x = conv(x, fire["squeeze"])
        expanded = conv(x, fire["expand1x1"]), conv(x, fire["expand3x3"], padding=1)
        x = want[f"fire{i}"] = np.concatenate(expanded, axis=-1)

    @jax.jit
    def run(variables, images):
        return model.apply(variables, images, method="features"), model.apply(variables, images)

    maps, scores = run(variables, IMAGES)
    assert list(maps) == list(want)
    for layer, wanted in want.items():
        np.testing.assert_allclose(maps[layer], wanted, rtol=1e-4, atol=1e-4 * wanted.max())
    fc = variables["params"]["head"]["fc"]
    means = np.maximum(x @ fc["kernel"] + fc["bias"], 0).mean((1, 2))
    np.testing.assert_allclose(scores, means, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", POOLED)
def test_smallest_image_is_the_smallest_that_the_max_pools_take(name):
    model = create_model(name)
    smallest = model.min_size
    unchecked = model.clone(min_size=1)

    def maps(side):
        images = jnp.zeros((1, side, side, 3))
        init = partial(unchecked.init_with_output, method="features")
        return jax.eval_shape(init, jax.random.key(0), images)[0]

    assert maps(smallest)["fire9"].shape[1] >= 1
    with pytest.raises(InputError, match="does not fit"):
        maps(smallest - 1)


def test_dropout_is_before_the_last_layer():
    assert create_model("squeezenet1_0").head.dropout == 0.5
    assert create_model("squeezenet1_0", dropout=0.1).head.dropout == 0.1


def test_last_layer_starts_smaller_than_he_would_have_it():
    head = create_model("squeezenet1_0").head
    params = head.init(jax.random.key(0), jnp.zeros((1, 2, 2, 512)))["params"]
    assert np.std(params["fc"]["kernel"]) == pytest.approx(0.01, rel=0.02)


def test_a_max_pool_after_no_layer_is_refused():
    with pytest.raises(InputError, match=r"pooled: wanted layers from 1 to 8, got \(1, 9\)"):
        create_model("squeezenet1_0", pooled=(1, 9))
