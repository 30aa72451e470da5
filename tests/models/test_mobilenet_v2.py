import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxnets.errors import InputError
from jaxnets.layers import DropPath
from jaxnets.models import create_model
from jaxnets.models.mobilenet_v2 import InvertedResidual


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("mobilenet_v2_100", 3_504_872),
        pytest.param("mobilenet_v2_140", 6_108_776, marks=pytest.mark.slow),
    ],
)
def test_parameter_count(name, count, count_parameters):
    assert count_parameters(name) == count


def test_maps_are_those_of_the_papers_table_2(map_sizes):
    assert map_sizes("mobilenet_v2_100") == {
        "stem": (112, 32),
        "stage1": (112, 16),
        "stage2": (56, 24),
        "stage3": (28, 32),
        "stage4": (14, 64),
        "stage5": (14, 96),
        "stage6": (7, 160),
        "stage7": (7, 320),
        "last_conv": (7, 1280),
    }


@pytest.mark.parametrize(("width", "channels"), [(0.5, 1280), (1.4, 1792)])
def test_last_convolution_is_widened_but_never_narrowed(width, channels, map_sizes):
    assert map_sizes("mobilenet_v2_100", width=width)["last_conv"] == (7, channels)


def test_only_the_first_block_has_no_expansion(shapes_of):
    backbone = shapes_of("mobilenet_v2_100")["params"]["backbone"]
    blocks = {name: layers for name, layers in backbone.items() if "block" in name}
    assert len(blocks) == 17
    assert {name for name in blocks if "expand" not in blocks[name]} == {"stage1_block1"}
    kernel = blocks["stage2_block1"]["expand"]["kernel"]
    assert kernel.shape == (1, 1, 16, 96)


def normalized(x, layer, statistics):
    deviation = np.sqrt(np.asarray(statistics["var"], np.float64) + 1e-5)
    return (x - statistics["mean"]) / deviation * layer["scale"] + layer["bias"]


@pytest.mark.parametrize(
    ("features", "expansion", "stride", "shortcut"),
    [(4, 3, 1, True), (4, 1, 1, True), (6, 3, 1, False), (4, 3, 2, False)],
)
def test_blocks_match_numpy(features, expansion, stride, shortcut, numpy_conv):
    block = InvertedResidual(features, expansion, stride, drop_path=0.0)
    x = np.random.default_rng(2).normal(size=(2, 7, 10, 4)).astype(np.float32) * 4
    shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), x, False))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda s: rng.uniform(-1, 1.5, s.shape).astype(np.float32), shapes)
    variables["batch_stats"] = jax.tree.map(lambda s: abs(s) / 4, variables["batch_stats"])
    params, statistics = variables["params"], variables["batch_stats"]
    y = x
    if expansion > 1:
        y = y @ np.asarray(params["expand"]["kernel"])[0, 0]
        y = np.clip(normalized(y, params["expand_bn"], statistics["expand_bn"]), 0, 6)
    y = numpy_conv(y, params["depthwise"]["kernel"], stride, padding=1, groups=4 * expansion)
    y = np.clip(normalized(y, params["depthwise_bn"], statistics["depthwise_bn"]), 0, 6)
    y = y @ np.asarray(params["project"]["kernel"])[0, 0]
    y = normalized(y, params["project_bn"], statistics["project_bn"])
    if shortcut:
        y = x + y
    assert (y < 0).any()  # the bottleneck is linear
    got = jax.jit(lambda v, x: block.apply(v, x, False))(variables, x)
    np.testing.assert_allclose(got, y, rtol=1e-3, atol=1e-4)


def test_drop_path_grows_linearly_over_the_blocks_that_have_a_shortcut():
    model, rates = create_model("mobilenet_v2_100", drop_path=0.34), {}

    def watch(call, args, kwargs, context):
        if isinstance(context.module, DropPath):
            rates[context.module.path[1]] = context.module.rate
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    # The third, fifth, sixth, ... of 17 blocks: those that repeat a shape.
    assert list(rates) == [
        *("stage2_block2", "stage3_block2", "stage3_block3"),
        *(f"stage4_block{i}" for i in (2, 3, 4)),
        *(f"stage{s}_block{i}" for s in (5, 6) for i in (2, 3)),
    ]
    want = 0.02 * np.array([3, 5, 6, 8, 9, 10, 12, 13, 15, 16])
    np.testing.assert_allclose(list(rates.values()), want)


def test_drop_path_drops_the_branch_for_some_examples_in_training():
    block = InvertedResidual(4, expansion=1, stride=1, drop_path=0.5)
    x = np.random.default_rng(2).normal(size=(32, 5, 5, 4)).astype(np.float32)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    y, _ = jax.jit(lambda keys, x: block.init_with_output(keys, x, True))(keys, x)
    alone = np.all(np.asarray(y) == x, axis=(1, 2, 3))
    assert 6 <= alone.sum() <= 26


def test_a_width_that_is_not_positive_is_refused():
    with pytest.raises(InputError, match="width: wanted a positive number, such as 1.0; got -1"):
        create_model("mobilenet_v2_100", width=-1)
