from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.errors import InputError
from jaxnets.models import create_model

IMAGES = np.random.default_rng(1).normal(size=(2, 12, 15, 3)).astype(np.float32)


def test_parameter_counts_are_those_of_the_published_definitions(count_parameters):
    # 29 MB of float32 in Caffe's model zoo; the CIFAR net's is the sum over its definition.
    assert count_parameters("nin") == 7_595_176
    assert round(7_595_176 * 4 / 2**20) == 29
    layers = (
        *((5 * 5 * 3, 192), (192, 160), (160, 96)),
        *((5 * 5 * 96, 192), (192, 192), (192, 192)),
        *((3 * 3 * 192, 192), (192, 192), (192, 10)),
    )
    count = sum((inputs + 1) * outputs for inputs, outputs in layers)
    assert count_parameters("nin", num_classes=10, small_input=True) == count


def test_maps_have_the_published_sizes(map_sizes):
    assert map_sizes("nin") == {
        "mlpconv1": (54, 96),
        "mlpconv2": (27, 256),
        "mlpconv3": (13, 384),
        "mlpconv4": (6, 1024),
    }
    small = map_sizes("nin", small_input=True)
    assert small == {"mlpconv1": (32, 96), "mlpconv2": (16, 192), "mlpconv3": (8, 192)}


def pooled(x, reduce):
    """Windows of 3x3 at stride 2, cut off at the far edge."""
    rows, columns = (-(-(side - 3) // 2) + 1 for side in x.shape[1:3])
    cells = [
        reduce(x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3], axis=(1, 2))
        for i in range(rows)
        for j in range(columns)
    ]
    return np.stack(cells, axis=1).reshape(len(x), rows, columns, -1)


# Stride, padding, and the pooling before it, of each layer.
IMAGENET = ((4, 0, None), (1, 2, np.max), (1, 1, np.max), (1, 1, np.max))
CIFAR = ((1, 2, None), (1, 2, np.max), (1, 1, np.mean))


@pytest.mark.parametrize(("small_input", "rows"), [(True, CIFAR), (False, IMAGENET)])
def test_maps_and_scores_match_numpy(small_input, rows, drawn_variables, numpy_conv):
    model = create_model("nin", num_classes=4, small_input=small_input)
    side = model.min_size + 8
    images = np.random.default_rng(1).normal(size=(2, side, side + 3, 3)).astype(np.float32)
    variables = drawn_variables(model, images)
    x, want = images, {}
    for i, (stride, padding, pooling) in enumerate(rows, start=1):
        x = x if pooling is None else pooled(x, pooling)
        layers = variables["params"]["backbone"][f"mlpconv{i}"]
        x = numpy_conv(x, layers["conv"]["kernel"], stride, padding) + layers["conv"]["bias"]
        for layer in ("cccp1", "cccp2"):
            if layer in layers:
                x = np.maximum(x, 0) @ layers[layer]["kernel"][0, 0] + layers[layer]["bias"]
        x = want[f"mlpconv{i}"] = np.maximum(x, 0)
    fc = variables["params"]["head"]["fc"]
    scores = np.maximum(x @ fc["kernel"] + fc["bias"], 0).mean((1, 2))

    @jax.jit
    def run(variables, images):
        return model.apply(variables, images, method="features"), model.apply(variables, images)

    maps, ours = run(variables, images)
    assert list(maps) == list(want)
    for name, wanted in want.items():
        np.testing.assert_allclose(maps[name], wanted, rtol=1e-4, atol=1e-4 * wanted.max())
    np.testing.assert_allclose(ours, scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("small_input", "first_random"),
    [pytest.param(True, "mlpconv2", marks=pytest.mark.slow), (False, "mlpconv4")],
)
def test_dropout_is_where_the_published_definitions_have_it(small_input, first_random, drawn_variables):
    model = create_model("nin", num_classes=4, small_input=small_input)
    side = model.min_size + 8
    images = np.random.default_rng(2).normal(size=(1, side, side, 3)).astype(np.float32)
    variables = drawn_variables(model, images)

    @jax.jit
    def maps(key):
        return model.apply(variables, images, True, method="features", rngs={"dropout": key})

    a, b = (maps(jax.random.key(seed)) for seed in (0, 1))
    names = list(a)
    random = [name for name in names if not np.array_equal(a[name], b[name])]
    assert random == names[names.index(first_random) :]


@pytest.mark.parametrize("small_input", [False, True])
def test_smallest_image_is_the_smallest_that_the_poolings_take(small_input):
    model = create_model("nin", small_input=small_input)
    smallest = model.min_size
    unchecked = model.clone(min_size=1)

    def maps(side):
        images = jnp.zeros((1, side, side, 3))
        init = partial(unchecked.init_with_output, method="features")
        return list(jax.eval_shape(init, jax.random.key(0), images)[0].values())

    assert maps(smallest)[-1].shape[1:3] == (1, 1)
    with pytest.raises(InputError, match="does not fit"):
        maps(smallest - 1)


@pytest.mark.zoo
def test_gradients_in_bfloat16_are_finite_and_reach_every_parameter(drawn_variables, train_gradients):
    model = create_model("nin", num_classes=2, small_input=True)
    variables = drawn_variables(model, IMAGES)
    logits, grads, _ = train_gradients(model, variables, jnp.asarray(IMAGES), jnp.bfloat16)
    assert logits.dtype == jnp.float32
    for path, gradient in jax.tree_util.tree_leaves_with_path(grads):
        assert jnp.all(jnp.isfinite(gradient)), path
        assert jnp.any(gradient != 0), path
