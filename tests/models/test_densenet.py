import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxnets.errors import InputError
from jaxnets.layers import Dropout
from jaxnets.models import create_model
from jaxnets.weights import from_torch, to_torch

IMAGES = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)
SMALL = {"num_classes": 3, "growth": 4, "stem_width": 6}


def parameters_by_hand(depths, k, classes, small_input=False):
    """Of a DenseNet-BC: a stem of 2 k channels, layers of 4 k and k, transitions that halve."""
    side = 3 if small_input else 7
    total = 3 * side**2 * 2 * k + (0 if small_input else 2 * 2 * k)
    channels = 2 * k
    for block, depth in enumerate(depths):
        if block:
            total += 2 * channels + channels * (channels // 2)
            channels //= 2
        for _ in range(depth):
            total += 2 * channels + channels * 4 * k + 2 * 4 * k + 9 * 4 * k * k
            channels += k
    return total + 2 * channels + (channels + 1) * classes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("densenet121", 7_978_856),
        ("densenet161", 28_681_000),
        ("densenet169", 14_149_480),
        ("densenet201", 20_013_928),
        ("densenet264", parameters_by_hand((6, 12, 64, 48), 32, 1000)),
        ("densenet190_k40", parameters_by_hand((31, 31, 31), 40, 10, small_input=True)),
    ],
)
def test_parameter_count(name, count, count_parameters):
    assert count_parameters(name) == count


def test_the_formula_of_the_count_holds_where_the_count_is_printed():
    assert parameters_by_hand((6, 12, 36, 24), 48, 1000) == 28_681_000
    # Table 2 of the paper: DenseNet-BC (k = 40), depth 190, 25.6 M; (k = 12), depth 100, 0.8 M.
    for depths, k, millions in (((31,) * 3, 40, 25.6), ((16,) * 3, 12, 0.8)):
        count = parameters_by_hand(depths, k, 10, small_input=True)
        assert round(count / 1e6, 1) == millions


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("densenet121", 121),
        ("densenet161", 161),
        ("densenet169", 169),
        ("densenet201", 201),
        ("densenet264", 265),  # so the paper's table 1, whatever the name
        ("densenet190_k40", 190),
    ],
)
def test_the_name_tells_the_number_of_layers(name, layers, shapes_of):
    paths = jax.tree_util.tree_leaves_with_path(shapes_of(name)["params"])
    assert sum(path[-1].key == "kernel" for path, _ in paths) == layers


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "giga"),
    [("densenet121", 2.834), ("densenet161", 7.728), ("densenet169", 3.36), ("densenet201", 4.291)],
)
def test_multiply_adds_are_those_torchvision_states(name, giga, multiply_adds):
    assert multiply_adds(name) / 1e9 == pytest.approx(giga, abs=0.0006)


def test_maps_at_224_have_the_sizes_of_the_papers_table_1(map_sizes):
    assert map_sizes("densenet121") == {
        "stem": (112, 64),
        "denseblock1": (56, 64 + 6 * 32),
        "denseblock2": (28, 128 + 12 * 32),
        "denseblock3": (14, 256 + 24 * 32),
        "denseblock4": (7, 512 + 16 * 32),
    }


@pytest.mark.slow
def test_maps_of_the_small_images_net(map_sizes):
    sizes = [(32, 80), (32, 1320), (16, 1900), (8, 2190)]
    names = ["stem", "denseblock1", "denseblock2", "denseblock3"]
    assert map_sizes("densenet190_k40") == dict(zip(names, sizes, strict=True))


def test_module_names(shapes_of):
    backbone = shapes_of("densenet121")["params"]["backbone"]
    layers = [
        f"denseblock{d}_layer{i}"
        for d, depth in enumerate((6, 12, 24, 16), 1)
        for i in range(1, depth + 1)
    ]
    transitions = [f"transition{i}" for i in (1, 2, 3)]
    assert set(backbone) == {"conv0", "norm0", *layers, *transitions, "norm"}
    assert set(backbone["denseblock2_layer3"]) == {"norm1", "conv1", "norm2", "conv2"}
    assert set(backbone["transition2"]) == {"norm", "conv"}
    assert set(shapes_of("densenet190_k40")["params"]["backbone"]) >= {"conv0", "transition2"}
    assert "norm0" not in shapes_of("densenet190_k40")["params"]["backbone"]


@pytest.mark.slow
@pytest.mark.parametrize(("small_input", "compression"), [(True, 0.5), (False, 0.7)])
def test_net_matches_numpy(small_input, compression, drawn_variables, numpy_conv):
    images = IMAGES if small_input else np.tile(IMAGES, (1, 2, 3, 1))
    settings = {"small_input": small_input, "compression": compression}
    model = create_model("densenet121", depths=(2, 1), **SMALL, **settings)
    variables = drawn_variables(model, images)
    params, stats = variables["params"]["backbone"], variables["batch_stats"]["backbone"]

    def active(x, p, s):
        deviation = np.sqrt(np.asarray(s["var"], np.float64) + 1e-5)
        return np.maximum((x - s["mean"]) / deviation * p["scale"] + p["bias"], 0)

    def layer(x, part):
        p, s = params[part], stats[part]
        y = numpy_conv(active(x, p["norm1"], s["norm1"]), p["conv1"]["kernel"])
        y = numpy_conv(active(y, p["norm2"], s["norm2"]), p["conv2"]["kernel"], padding=1)
        return np.concatenate([x, y], -1)

    if small_input:
        x = want_stem = numpy_conv(images, params["conv0"]["kernel"], padding=1)
    else:
        x = numpy_conv(images, params["conv0"]["kernel"], stride=2, padding=3)
        x = want_stem = active(x, params["norm0"], stats["norm0"])
        h, w = x.shape[1:3]
        x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))  # a ReLU's output is >= 0
        windows = [x[:, i : i + h : 2, j : j + w : 2] for i in range(3) for j in range(3)]
        x = np.max(windows, axis=0)
    want = {"stem": want_stem}
    x = want["denseblock1"] = layer(layer(x, "denseblock1_layer1"), "denseblock1_layer2")
    p, s = params["transition1"], stats["transition1"]
    assert p["conv"]["kernel"].shape[-1] == int(14 * compression)
    x = numpy_conv(active(x, p["norm"], s["norm"]), p["conv"]["kernel"])
    x = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
    x = layer(x, "denseblock2_layer1")
    want["denseblock2"] = active(x, params["norm"], stats["norm"])
    maps = jax.jit(lambda v, x: model.apply(v, x, method="features"))(variables, images)
    assert list(maps) == list(want)
    for name, wanted in want.items():
        np.testing.assert_allclose(maps[name], wanted, rtol=1e-4, atol=1e-4)


def test_weights_come_by_the_names_of_torchvisions_files_too(drawn_variables):
    settings = {"depths": (1, 2), **SMALL}
    variables = drawn_variables(create_model("densenet121", **settings), np.tile(IMAGES, (1, 4, 4, 1)))
    named = to_torch("densenet121", variables, "torchvision", **settings)
    assert "features.denseblock2.denselayer2.norm1.running_mean" in named
    in_layers = re.compile(r"(features\.denseblock\d\.denselayer\d\.(?:norm|conv))([12]\..*)")
    files = {in_layers.sub(r"\1.\2", name): tensor for name, tensor in named.items()}
    assert "features.denseblock2.denselayer2.norm.1.running_mean" in files
    back = from_torch("densenet121", files, **settings)
    assert jax.tree.structure(back) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, back, variables)


@pytest.mark.zoo
def test_gradients_in_bfloat16_are_finite_and_reach_every_parameter(drawn_variables, train_gradients):
    model = create_model("densenet121", depths=(1, 1), small_input=True, **SMALL)
    variables = drawn_variables(model, IMAGES)
    logits, grads, statistics = train_gradients(model, variables, jnp.asarray(IMAGES), jnp.bfloat16)
    assert logits.dtype == jnp.float32
    assert {s.dtype for s in jax.tree.leaves(statistics)} == {jnp.dtype(jnp.float32)}
    for path, gradient in jax.tree_util.tree_leaves_with_path(grads):
        assert jnp.all(jnp.isfinite(gradient)), path
        assert jnp.any(gradient != 0), path


@pytest.mark.slow
def test_dropout_follows_every_convolution_but_the_first():
    model = create_model("densenet121", depths=(2, 1), dropout=0.2)
    outputs, dropped = {}, []

    def watch(call, args, kwargs, context):
        out = call(*args, **kwargs)
        if isinstance(context.module, nn.Conv):
            outputs[id(out)] = "/".join(context.module.path[1:])
        elif isinstance(context.module, Dropout):
            assert context.module.rate == (0.2 if context.module.path[0] == "backbone" else 0)
            dropped.append(outputs.get(id(args[0])))
        return out

    with nn.intercept_methods(watch):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    *convolutions, head = dropped
    assert head is None
    assert convolutions == [name for name in outputs.values() if name != "conv0"]


@pytest.mark.parametrize(("small_input", "smallest"), [(False, 29), (True, 8)])
def test_smallest_image_leaves_one_pixel(small_input, smallest):
    model = create_model("densenet121", depths=(1, 1, 1, 1), small_input=small_input, **SMALL)
    assert model.min_size == smallest

    def last_side(side):
        free = model.clone(min_size=1)
        maps, _ = jax.eval_shape(
            lambda x: free.init_with_output(jax.random.key(0), x, method="features"),
            jnp.zeros((1, side, side, 3)),
        )
        return list(maps.values())[-1].shape[1]

    assert last_side(smallest) == 1
    with pytest.raises(InputError, match="window"):
        last_side(smallest - 1)
