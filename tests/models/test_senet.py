import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxnets.layers import Dropout, DropPath
from jaxnets.models import create_model

IMAGES = np.random.default_rng(1).normal(size=(2, 35, 35, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("seresnet50", 28_088_024),
        ("seresnext50_32x4d", 27_559_896),
        ("seresnext101_32x4d", 48_955_416),
        pytest.param("senet154", 115_088_984, marks=pytest.mark.slow),
    ],
)
def test_parameter_count(name, count, count_parameters):
    assert count_parameters(name) == count


@pytest.mark.parametrize(
    ("name", "giga"),
    [
        ("seresnet50", 3.87),
        ("seresnext50_32x4d", 4.25),
        ("seresnext101_32x4d", 8.00),
        ("senet154", 20.7),
    ],
)
def test_multiply_adds_are_those_of_the_papers_tables(name, giga, multiply_adds):
    assert multiply_adds(name) / 1e9 == pytest.approx(giga, abs=0.03)


def test_squeeze_and_excitation_adds_the_parameters_of_the_papers_equation_5(
    count_parameters, shapes_of
):
    # 2 / r * sum of N C^2 over the stages, and the biases, which the paper does not count.
    stages = ((3, 256), (4, 512), (6, 1024), (3, 2048))
    added = sum(depth * (2 * width**2 // 16 + width // 16 + width) for depth, width in stages)
    assert count_parameters("seresnet50") - count_parameters("resnet50") == added
    gate = shapes_of("seresnet50")["params"]["backbone"]["stage1_block1"]["se"]
    assert gate["fc1"]["kernel"].shape == (1, 1, 256, 16)
    assert gate["fc2"]["kernel"].shape == (1, 1, 16, 256)


@pytest.mark.parametrize(("name", "stem"), [("seresnet50", 64), ("senet154", 128)])
def test_maps_at_224(name, stem, map_sizes):
    assert map_sizes(name) == {
        "stem": (112, stem),
        "stage1": (56, 256),
        "stage2": (28, 512),
        "stage3": (14, 1024),
        "stage4": (7, 2048),
    }


def test_what_sets_senet_154_apart(shapes_of):
    backbone = shapes_of("senet154")["params"]["backbone"]

    def kernel(path):
        part, layer = path.split("/")
        return backbone[part][layer]["kernel"].shape

    assert [kernel(f"stem/conv{i}") for i in (1, 2, 3)] == [
        (3, 3, 3, 64),
        (3, 3, 64, 64),
        (3, 3, 64, 128),
    ]
    # Half the channels of a 64x4d ResNeXt's before the 3x3.
    assert kernel("stage1_block2/conv1") == (1, 1, 256, 128)
    assert kernel("stage1_block2/conv2") == (3, 3, 128 // 64, 256)
    # A larger kernel where the shortcut halves the maps, and there alone.
    assert kernel("stage1_block1/downsample_conv") == (1, 1, 128, 256)
    assert kernel("stage2_block1/downsample_conv") == (3, 3, 256, 512)


def test_module_names(shapes_of):
    backbone = shapes_of("seresnet50")["params"]["backbone"]
    blocks = [
        f"stage{s}_block{b}" for s, depth in enumerate((3, 4, 6, 3), 1) for b in range(1, depth + 1)
    ]
    assert set(backbone) == {"stem", *blocks}
    plain = {"conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "se"}
    assert set(backbone["stage2_block3"]) == plain
    assert set(backbone["stage2_block1"]) == plain | {"downsample_conv", "downsample_bn"}


def pooled(maps, padded):
    """Maxima of 3x3 windows at stride 2, from the first pixel on (or the one before it)."""
    start, side = (-1 if padded else 0), maps.shape[1]
    starts = range(start, side + start, 2) if padded else range(0, math.ceil((side - 3) / 2) * 2 + 1, 2)
    rows = [[maps[:, max(i, 0) : i + 3, max(j, 0) : j + 3].max((1, 2)) for j in starts] for i in starts]
    return np.stack([np.stack(row, 1) for row in rows], 1)


PLAIN = {
    "depths": (1, 1),
    "groups": 1,
    "width_per_group": 32,
    "stride_in_1x1": False,
    "downsample_kernel": 1,
    "deep_stem": False,
    "padded_pool": False,
}
SE_RESNET = {"stride_in_1x1": True}
SENET = {
    "groups": 2,
    "width_per_group": 16,
    "half_first": True,
    "downsample_kernel": 3,
    "deep_stem": True,
}


@pytest.mark.parametrize("settings", [SE_RESNET, SENET, {"padded_pool": True}])
def test_net_matches_numpy(settings, drawn_variables, numpy_conv):
    model = create_model("seresnext50_32x4d", num_classes=3, **PLAIN | settings)
    stride_in_1x1, kernel, groups, deep_stem, padded_pool = (
        (PLAIN | settings)[name]
        for name in ("stride_in_1x1", "downsample_kernel", "groups", "deep_stem", "padded_pool")
    )
    variables = drawn_variables(model, IMAGES)
    params, stats = variables["params"]["backbone"], variables["batch_stats"]["backbone"]

    def conv_bn(x, part, conv, bn, **settings):
        x = numpy_conv(x, params[part][conv]["kernel"], **settings)
        deviation = np.sqrt(np.asarray(stats[part][bn]["var"], np.float64) + 1e-5)
        x = (x - stats[part][bn]["mean"]) / deviation
        return x * params[part][bn]["scale"] + params[part][bn]["bias"]

    def weigh(x, gate):
        matrices = {name: np.asarray(gate[name]["kernel"], np.float64)[0, 0] for name in gate}
        hidden = x.mean((1, 2)) @ matrices["fc1"] + gate["fc1"]["bias"]
        scores = np.maximum(hidden, 0) @ matrices["fc2"] + gate["fc2"]["bias"]
        return x * (1 / (1 + np.exp(-scores)))[:, None, None]

    def block(x, part, stride):
        strides = (stride, 1) if stride_in_1x1 else (1, stride)
        y = np.maximum(conv_bn(x, part, "conv1", "bn1", stride=strides[0]), 0)
        y = conv_bn(y, part, "conv2", "bn2", stride=strides[1], padding=1, groups=groups)
        y = weigh(conv_bn(np.maximum(y, 0), part, "conv3", "bn3"), params[part]["se"])
        padding = kernel // 2 if stride == 2 else 0
        x = conv_bn(x, part, "downsample_conv", "downsample_bn", stride=stride, padding=padding)
        return np.maximum(x + y, 0)

    if deep_stem:
        x = np.maximum(conv_bn(IMAGES, "stem", "conv1", "bn1", stride=2, padding=1), 0)
        for i in (2, 3):
            x = np.maximum(conv_bn(x, "stem", f"conv{i}", f"bn{i}", padding=1), 0)
    else:
        x = np.maximum(conv_bn(IMAGES, "stem", "conv1", "bn1", stride=2, padding=3), 0)
    want = {"stem": x}
    want["stage1"] = block(pooled(x, padded_pool), "stage1_block1", 1)
    want["stage2"] = block(want["stage1"], "stage2_block1", 2)
    maps = jax.jit(lambda v, x: model.apply(v, x, method="features"))(variables, IMAGES)
    assert list(maps) == list(want)
    for name, wanted in want.items():
        np.testing.assert_allclose(maps[name], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.zoo
def test_gradients_in_bfloat16_are_finite_and_reach_every_parameter(drawn_variables, train_gradients):
    model = create_model("seresnet50", num_classes=4, depths=(1,))
    images = np.random.default_rng(2).normal(size=(4, 16, 16, 3)).astype(np.float32)
    variables = drawn_variables(model, images)
    logits, grads, statistics = train_gradients(model, variables, jnp.asarray(images), jnp.bfloat16)
    assert logits.dtype == jnp.float32
    assert {s.dtype for s in jax.tree.leaves(statistics)} == {jnp.dtype(jnp.float32)}
    for path, gradient in jax.tree_util.tree_leaves_with_path(grads):
        assert jnp.all(jnp.isfinite(gradient)), path
        assert jnp.any(gradient != 0), path


def rates_of(layer, name, **overrides):
    model, rates = create_model(name, **overrides), []

    def watch(call, args, kwargs, context):
        if isinstance(context.module, layer):
            rates.append(context.module.rate)
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *model.input_size)))
    return rates


def test_drop_path_grows_linearly_to_the_last_block():
    rates = rates_of(DropPath, "seresnet50", drop_path=0.32)
    np.testing.assert_allclose(rates, 0.02 * np.arange(1, 17))


@pytest.mark.slow
def test_senet_154_alone_has_dropout_before_its_classifier():
    assert rates_of(Dropout, "senet154") == [0.2]
    assert rates_of(Dropout, "seresnext50_32x4d") == [0.0]
