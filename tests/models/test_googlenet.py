import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxnets.errors import InputError
from jaxnets.models import create_model
from jaxnets.models.googlenet import AuxiliaryHead

IMAGES = np.random.default_rng(1).normal(size=(1, 37, 31, 3)).astype(np.float32)
MODULES = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")


@pytest.mark.parametrize(
    ("name", "overrides", "count"),
    [
        ("googlenet", {}, 6_624_904),
        ("googlenet", {"aux": True}, 13_004_888),
        # Convolutions of 5,973,552 parameters (the paper's table, see below) and a dense layer.
        ("googlenet_paper", {}, 5_973_552 + 1_025_000),
    ],
)
def test_parameter_count(name, overrides, count, count_parameters):
    assert count_parameters(name, **overrides) == count


@pytest.mark.parametrize("name", ["googlenet", "googlenet_paper"])
def test_maps_at_224_are_those_of_the_papers_table_1(name, map_sizes):
    assert map_sizes(name) == {
        "conv1": (112, 64),
        "conv2": (56, 192),
        "inception3a": (28, 256),
        "inception3b": (28, 480),
        "inception4a": (14, 512),
        "inception4b": (14, 512),
        "inception4c": (14, 512),
        "inception4d": (14, 528),
        "inception4e": (14, 832),
        "inception5a": (7, 832),
        "inception5b": (7, 1024),
    }


def costs_by_module(name):
    """(parameters, multiply-adds) of the convolutions in each part of the backbone, at 224 px."""
    model, costs = create_model(name), {}

    def watch(call, args, kwargs, context):
        out = call(*args, **kwargs)
        if isinstance(context.module, nn.Conv):
            params = context.module.variables["params"]
            part = context.module.path[1]
            parameters, multiply_adds = costs.get(part, (0, 0))
            parameters += sum(p.size for p in params.values())
            multiply_adds += params["kernel"].size * math.prod(out.shape[1:3])
            costs[part] = parameters, multiply_adds
        return out

    with nn.intercept_methods(watch):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *model.input_size)))
    return costs


def test_costs_of_each_module_are_those_of_the_papers_table_1():
    costs = costs_by_module("googlenet_paper")
    exact = {
        "3a": (163_696, 128.0),
        "3b": (388_736, 304.3),
        "4a": (376_176, 73.6),
        "4b": (449_160, 87.9),
        "4c": (510_104, 99.9),
        "4d": (605_376, 118.5),
        "4e": (868_352, 170.0),
        "5a": (1_043_456, 51.1),
        "5b": (1_444_080, 70.7),
    }
    found = {module: costs[f"inception{module}"] for module in MODULES}
    assert {m: (p, round(adds / 1e6, 1)) for m, (p, adds) in found.items()} == exact
    # As printed, in thousands and millions; the 4c of the table lacks a tenth of its parameters.
    printed_parameters = (159, 380, 364, 437, 463, 580, 840, 1072, 1388)
    printed_multiply_adds = (128, 304, 73, 88, 100, 119, 170, 54, 71)
    for m, parameters, multiply_adds in zip(
        MODULES, printed_parameters, printed_multiply_adds, strict=True
    ):
        assert found[m][0] == pytest.approx(1e3 * parameters, rel=0.11 if m == "4c" else 0.05)
        assert found[m][1] == pytest.approx(1e6 * multiply_adds, rel=0.06)
    assert sum(parameters for parameters, _ in costs.values()) == 5_973_552


def test_multiply_adds_are_those_that_torchvision_publishes(multiply_adds):
    assert multiply_adds("googlenet") / 1e9 == pytest.approx(1.498, abs=0.0005)


def numpy_features(params, images, numpy_conv, numpy_max_pool):
    """The backbone of the paper's net, written out in NumPy."""

    def unit(x, layer, stride=1):
        kernel, bias = layer["conv"]["kernel"], layer["conv"]["bias"]
        return np.maximum(numpy_conv(x, kernel, stride, padding=kernel.shape[0] // 2) + bias, 0)

    def halving_pool(x):
        """A 3x3 max-pool whose last window hangs over an even side, so that it is halved."""
        ends = [(0, 0), *((0, 1 - side % 2) for side in x.shape[1:3]), (0, 0)]
        return numpy_max_pool(np.pad(x, ends, constant_values=-np.inf), 3, 2)

    def normalized(x):
        sums = [(x[..., max(0, i - 2) : i + 3] ** 2).sum(-1) for i in range(x.shape[-1])]
        return x / (1 + 1e-4 / 5 * np.stack(sums, -1)) ** 0.75

    out = {"conv1": unit(images, params["conv1"], stride=2)}
    x = unit(normalized(halving_pool(out["conv1"])), params["conv2_reduce"])
    x = out["conv2"] = unit(x, params["conv2"])
    x = halving_pool(normalized(x))
    for module in MODULES:
        layers = params[f"inception{module}"]
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
        chains = [
            unit(x, layers["1x1"]),
            unit(unit(x, layers["3x3_reduce"]), layers["3x3"]),
            unit(unit(x, layers["5x5_reduce"]), layers["5x5"]),
            unit(numpy_max_pool(padded, 3, 1), layers["pool_proj"]),
        ]
        x = out[f"inception{module}"] = np.concatenate(chains, -1)
        if module in ("3b", "4e"):
            x = halving_pool(x)
    return out


@pytest.mark.slow
def test_maps_of_the_papers_net_match_numpy(drawn_variables, numpy_conv, numpy_max_pool):
    model = create_model("googlenet_paper")
    images = IMAGES * 30  # so that local response normalization shows
    variables = drawn_variables(model, images)
    params = variables["params"]["backbone"]
    want = numpy_features(params, images, numpy_conv, numpy_max_pool)
    maps = jax.jit(partial(model.apply, method="features"))(variables, images)
    assert list(maps) == list(want)
    for layer, wanted in want.items():
        tolerance = 1e-5 * np.abs(wanted).max()
        np.testing.assert_allclose(maps[layer], wanted, atol=tolerance, err_msg=layer)


@pytest.mark.parametrize("window", [0, 5])
def test_auxiliary_heads_match_numpy(window, drawn_variables, numpy_conv):
    head = AuxiliaryHead(num_classes=3, batch_norm=False, window=window, dropout=0.7)
    maps = np.random.default_rng(0).normal(size=(2, 14, 14, 6)).astype(np.float32)
    variables = drawn_variables(head, maps)
    params = variables["params"]
    size, starts = (4, (0, 3, 7, 10)) if window == 0 else (5, (0, 3, 6, 9))
    cells = [maps[:, i : i + size, j : j + size].mean((1, 2)) for i in starts for j in starts]
    x = np.stack(cells, 1).reshape(2, 4, 4, 6)
    conv = params["conv"]["conv"]
    x = np.maximum(numpy_conv(x, conv["kernel"]) + conv["bias"], 0)
    x = np.maximum(x.reshape(2, -1) @ params["fc1"]["kernel"] + params["fc1"]["bias"], 0)
    want = x @ params["fc2"]["kernel"] + params["fc2"]["bias"]
    np.testing.assert_allclose(head.apply(variables, maps), want, rtol=1e-4, atol=1e-4)


def traced_training(model, shapes, side):
    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    train = partial(model.apply, train=True, mutable=["batch_stats", "auxiliary"])
    _, updated = jax.eval_shape(partial(train, rngs={"dropout": jax.random.key(0)}), shapes, images)
    return updated


@pytest.mark.parametrize("name", ["googlenet", "googlenet_paper"])
def test_training_gives_the_logits_of_two_auxiliary_heads(name, shapes_of):
    settings = {"aux": True, "num_classes": 7}
    shapes = shapes_of(name, **settings)
    heads = shapes["params"]["auxiliary_inception4a"], shapes["params"]["auxiliary_inception4d"]
    assert [head["conv"]["conv"]["kernel"].shape for head in heads] == [
        (1, 1, 512, 128),
        (1, 1, 528, 128),
    ]
    auxiliary = traced_training(create_model(name, **settings), shapes, 224)["auxiliary"]
    assert {key: logits.shape for key, logits in auxiliary.items()} == {
        "inception4a": (2, 7),
        "inception4d": (2, 7),
    }


@pytest.mark.parametrize(("name", "rate"), [("googlenet", 0.2), ("googlenet_paper", 0.4)])
def test_dropout_rates(name, rate, shapes_of):
    rates = {}

    def watch(call, args, kwargs, context):
        if isinstance(context.module, nn.Dropout):
            rates[context.module.path[0]] = context.module.rate
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        traced_training(create_model(name, aux=True), shapes_of(name, aux=True), 224)
    assert rates == {"head": rate, "auxiliary_inception4a": 0.7, "auxiliary_inception4d": 0.7}


def test_windows_of_the_papers_auxiliary_heads_want_larger_images_in_training_only(shapes_of):
    name = "googlenet_paper"
    model, shapes = create_model(name, aux=True), shapes_of(name, aux=True)
    traced_training(model, shapes, 79)
    with pytest.raises(InputError, match="at least 79 x 79 pixels .* maps of 4 x 4; .*aux=False"):
        traced_training(model, shapes, 78)
    jax.eval_shape(model.apply, shapes, jax.ShapeDtypeStruct((1, 31, 31, 3), jnp.float32))


@pytest.mark.parametrize(("name", "side"), [("googlenet", 15), ("googlenet_paper", 31)])
def test_smallest_image_ends_in_one_pixel(name, side, shapes_of):
    """torchvision gives 15 as its smallest; the paper's last pool is larger."""
    model = create_model(name)
    assert model.min_size == side
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    maps = jax.eval_shape(partial(model.apply, method="features"), shapes_of(name), images)
    assert maps["inception5b"].shape == (1, 1, 1, 1024)
    smaller = jax.ShapeDtypeStruct((1, side - 1, side - 1, 3), jnp.float32)
    with pytest.raises(InputError, match="does not fit into 1 pixels"):
        jax.eval_shape(model.clone(min_size=1).apply, shapes_of(name), smaller)


def test_auxiliary_heads_without_classes_are_refused():
    with pytest.raises(InputError, match="aux: .*num_classes is 0"):
        create_model("googlenet", aux=True, num_classes=0)
