import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.models import create_model

SMALL = {"depths": (1, 2), "hidden": (16,)}
IMAGES = np.random.default_rng(1).normal(size=(2, 8, 12, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("vgg11", 132_863_336),
        ("vgg11_lrn", 132_863_336),
        ("vgg13", 133_047_848),
        ("vgg16_c", 133_638_952),
        ("vgg16", 138_357_544),
        ("vgg19", 143_667_240),
        ("vgg11_bn", 132_868_840),
        ("vgg13_bn", 133_053_736),
        ("vgg16_bn", 138_365_992),
        ("vgg19_bn", 143_678_248),
        ("vgg16_gap", 20_912_936),
    ],
)
def test_parameter_count(name, count, count_parameters):
    assert count_parameters(name) == count


@pytest.mark.parametrize("name", ["vgg11", "vgg16_c", "vgg19_bn"])
def test_each_stage_halves_the_maps(name, map_sizes):
    sizes = [(112, 64), (56, 128), (28, 256), (14, 512), (7, 512)]
    assert map_sizes(name) == {f"stage{i}": size for i, size in enumerate(sizes, start=1)}


def test_net_c_closes_its_last_three_stages_with_1x1_convolutions(shapes_of):
    backbone = shapes_of("vgg16_c")["params"]["backbone"]
    ones = {name for name, layer in backbone.items() if layer["kernel"].shape[:2] == (1, 1)}
    assert ones == {"stage3_conv3", "stage4_conv3", "stage5_conv3"}


@pytest.mark.parametrize("name", ["vgg11", "vgg16_gap"])
def test_any_size_from_32_fits_the_same_parameters(name, shapes_of):
    model = create_model(name)
    for size in ((32, 32), (100, 300)):
        images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
        assert jax.eval_shape(model.apply, shapes_of(name), images).shape == (1, 1000)


def batch_norm(x, layer, statistics):
    deviation = np.sqrt(np.asarray(statistics["var"], np.float64) + 1e-5)
    return (x - statistics["mean"]) / deviation * layer["scale"] + layer["bias"]


def response_norm(x):
    """Krizhevsky et al. 2012, section 3.3."""
    sums = [(x[..., max(0, i - 2) : i + 3] ** 2).sum(-1) for i in range(x.shape[-1])]
    return x / (2 + 1e-4 * np.stack(sums, -1)) ** 0.75


@pytest.mark.parametrize("name", ["vgg16", "vgg11_lrn", "vgg11_bn"])
def test_stages_match_numpy(name, drawn_variables, numpy_conv, numpy_max_pool):
    model = create_model(name, **SMALL)
    images = IMAGES * 30  # so that local response normalization shows
    variables = drawn_variables(model, images)
    layers = variables["params"]["backbone"]
    x = images
    want = {}
    for stage, i in ((1, 1), (2, 1), (2, 2)):
        conv = layers[f"stage{stage}_conv{i}"]
        x = numpy_conv(x, conv["kernel"], padding=1) + conv["bias"]
        if name == "vgg11_bn":
            bn = f"stage{stage}_bn{i}"
            x = batch_norm(x, layers[bn], variables["batch_stats"]["backbone"][bn])
        x = np.maximum(x, 0)
        if name == "vgg11_lrn" and stage == 1:
            x = response_norm(x)
        if i == SMALL["depths"][stage - 1]:
            x = want[f"stage{stage}"] = numpy_max_pool(x, 2, 2)
    maps = jax.jit(lambda v, x: model.apply(v, x, method="features"))(variables, images)
    assert list(maps) == list(want)
    for stage, wanted in want.items():
        np.testing.assert_allclose(maps[stage], wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_training_gives_finite_gradients_and_new_statistics(dtype, drawn_variables, train_gradients):
    model = create_model("vgg11_bn", num_classes=3, **SMALL)
    variables = drawn_variables(model, IMAGES)
    logits, grads, statistics = train_gradients(model, variables, jnp.asarray(IMAGES), dtype)
    assert logits.dtype == jnp.float32
    assert all(jnp.all(jnp.isfinite(g)) for g in jax.tree.leaves(grads))
    old = variables["batch_stats"]
    assert jax.tree.structure(statistics) == jax.tree.structure(old)
    for before, after in zip(jax.tree.leaves(old), jax.tree.leaves(statistics), strict=True):
        assert after.dtype == jnp.float32
        assert jnp.all(before != after)


@pytest.mark.slow
def test_dropout_is_random_and_in_training_only(drawn_variables):
    model = create_model("vgg11", num_classes=0, depths=(1, 2), hidden=(64,))
    variables = drawn_variables(model, IMAGES)

    @jax.jit
    def trained(key):
        return model.apply(variables, IMAGES, train=True, rngs={"dropout": key})

    a, b = (np.asarray(trained(jax.random.key(seed))) for seed in (0, 1))
    evaluated = np.asarray(model.apply(variables, IMAGES))
    alive = evaluated > 0
    for units in (a, b):
        kept = units[alive] > 0
        assert 0.3 < kept.mean() < 0.7
        np.testing.assert_allclose(units[alive][kept], 2 * evaluated[alive][kept], rtol=1e-3)
    assert not np.array_equal(a, b)
