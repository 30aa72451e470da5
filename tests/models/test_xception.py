import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxnets.layers import DropPath
from jaxnets.models import create_model
from jaxnets.models.xception import Block


def test_parameter_count(count_parameters):
    assert count_parameters("xception") == 22_855_952


def test_maps_are_those_of_the_papers_figure_5(map_sizes):
    entry = {"conv1": (149, 32), "conv2": (147, 64)}
    entry |= {"block1": (74, 128), "block2": (37, 256), "block3": (19, 728)}
    middle = {f"block{i}": (19, 728) for i in range(4, 12)}
    last = {"block12": (10, 1024), "conv3": (10, 1536), "conv4": (10, 2048)}
    sizes = map_sizes("xception")
    assert sizes == entry | middle | last
    assert list(sizes) == [*entry, *middle, *last]


def test_net_has_36_convolutions_in_14_modules(shapes_of):
    """Section 4: "36 convolutional layers", with shortcuts around all modules but the first and
    the last."""
    backbone = shapes_of("xception")["params"]["backbone"]
    blocks = [backbone[f"block{i}"] for i in range(1, 13)]
    separable = [name for block in blocks for name in block if name.startswith("sepconv")]
    assert len(separable) + len([name for name in backbone if name.startswith("conv")]) == 36
    shortcuts = ["shortcut_conv" in block for block in blocks]
    assert shortcuts == [True] * 3 + [False] * 8 + [True]


def normalized(x, layer, statistics, epsilon):
    deviation = np.sqrt(np.asarray(statistics["var"], np.float64) + epsilon)
    return (x - statistics["mean"]) / deviation * layer["scale"] + layer["bias"]


def max_pool(x, pads):
    """3x3 at stride 2."""
    x = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-np.inf)
    rows, columns = ((side - 3) // 2 + 1 for side in x.shape[1:3])
    taps = [
        x[:, i : i + 2 * rows : 2, j : j + 2 * columns : 2][:, :rows, :columns]
        for i in range(3)
        for j in range(3)
    ]
    return np.max(taps, axis=0)


@pytest.mark.parametrize(
    ("stride", "relu_first", "tf_padding", "epsilon"),
    [
        (1, True, False, 1e-5),
        (2, True, False, 1e-5),
        (2, False, False, 1e-5),
        (2, True, True, 1e-3),
    ],
)
def test_blocks_match_numpy(stride, relu_first, tf_padding, epsilon, numpy_conv):
    widths = (5, 4)
    block = Block(widths, stride, relu_first, 0.0, epsilon, tf_padding)
    x = np.random.default_rng(2).normal(size=(2, 8, 11, 4)).astype(np.float32)
    shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), x, False))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda s: rng.uniform(-1, 1.5, s.shape).astype(np.float32), shapes)
    variables["batch_stats"] = jax.tree.map(lambda s: abs(s) / 9, variables["batch_stats"])
    params, statistics = variables["params"], variables["batch_stats"]
    y = x
    for i, inputs in enumerate((4, 5), start=1):
        if i > 1 or relu_first:
            y = np.maximum(y, 0)
        y = numpy_conv(y, params[f"sepconv{i}"]["depthwise"]["kernel"], padding=1, groups=inputs)
        y = y @ np.asarray(params[f"sepconv{i}"]["pointwise"]["kernel"])[0, 0]
        y = normalized(y, params[f"bn{i}"], statistics[f"bn{i}"], epsilon)
    shortcut = x
    if stride == 2:
        # "SAME" of 8 rows is one row, below; of 11 columns one on either side.
        y = max_pool(y, ((0, 1), (1, 1)) if tf_padding else ((1, 1), (1, 1)))
        shortcut = x[:, ::2, ::2] @ np.asarray(params["shortcut_conv"]["kernel"])[0, 0]
        shortcut = normalized(shortcut, params["shortcut_bn"], statistics["shortcut_bn"], epsilon)
    got = jax.jit(lambda v, x: block.apply(v, x, False))(variables, x)
    np.testing.assert_allclose(got, y + shortcut, rtol=1e-3, atol=1e-4)


def test_keras_settings_reach_every_block_and_normalization():
    model, seen = create_model("xception", tf_padding=True, epsilon=1e-3), []

    def watch(call, args, kwargs, context):
        seen.append(context.module)
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert {m.tf_padding for m in seen if hasattr(m, "tf_padding")} == {True}
    assert {m.epsilon for m in seen if hasattr(m, "epsilon")} == {1e-3}


def test_drop_path_grows_linearly_over_the_blocks():
    model, rates = create_model("xception", drop_path=0.24), []

    def watch(call, args, kwargs, context):
        if isinstance(context.module, DropPath):
            rates.append(context.module.rate)
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    np.testing.assert_allclose(rates, 0.02 * np.arange(1, 13))


def test_drop_path_leaves_the_shortcut_alone_for_some_examples_in_training():
    block = Block((4,), 1, True, 0.5, 1e-5, False)
    x = np.random.default_rng(2).normal(size=(32, 5, 5, 4)).astype(np.float32)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    y, _ = jax.jit(lambda keys, x: block.init_with_output(keys, x, True))(keys, x)
    alone = np.all(np.asarray(y) == x, axis=(1, 2, 3))
    assert 6 <= alone.sum() <= 26


def test_any_size_from_32_fits_the_same_parameters(shapes_of):
    model = create_model("xception")
    for size in ((32, 32), (100, 300)):
        images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
        assert jax.eval_shape(model.apply, shapes_of("xception"), images).shape == (1, 1000)
