import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxnets.errors import InputError
from jaxnets.layers import Dropout, DropPath
from jaxnets.models import create_model

IMAGES = np.random.default_rng(1).normal(size=(4, 8, 8, 3)).astype(np.float32)
SMALL = {"num_classes": 3, "stem_width": 8, "small_input": True}


def bottleneck_net_parameters(depths):
    """Convolutions, scales and biases of normalizations, and the classifier."""
    total, inputs = 3 * 7 * 7 * 64, 64
    for stage, depth in enumerate(depths):
        narrow = 64 * 2**stage
        total += inputs * 4 * narrow  # the shortcut of the first block
        for _ in range(depth):
            total += inputs * narrow + 9 * narrow**2 + narrow * 4 * narrow
            total += 2 * (inputs + narrow + narrow)
            inputs = 4 * narrow
    return total + 2 * inputs + (inputs + 1) * 1000


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnetv2_50", 25_549_352),
        ("resnetv2_101", 44_541_480),
        ("resnetv2_152", 60_185_128),
        pytest.param("resnetv2_200", bottleneck_net_parameters((3, 24, 36, 3)), marks=pytest.mark.slow),
        ("wrn_16_8", 10_961_370),
        ("wrn_28_10", 36_479_194),
    ],
)
def test_parameter_count(name, count, count_parameters):
    assert count_parameters(name) == count


def test_the_formula_of_the_count_holds_where_the_count_is_known():
    assert bottleneck_net_parameters((3, 4, 6, 3)) == 25_549_352


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("resnetv2_50", 50),
        ("resnetv2_101", 101),
        ("resnetv2_152", 152),
        ("resnetv2_200", 200),
        # These count the three shortcuts with a convolution, but not the dense layer.
        ("wrn_16_8", 16 - 3 + 1),
        ("wrn_28_10", 28 - 3 + 1),
    ],
)
def test_the_name_tells_the_number_of_layers(name, layers, shapes_of):
    params = shapes_of(name)["params"]
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    kernels = [path for path in paths if path[-1].key == "kernel"]
    assert len([path for path in kernels if path[-2].key != "downsample_conv"]) == layers


def test_maps_at_224(map_sizes):
    assert map_sizes("resnetv2_50") == {
        "stem": (112, 64),
        "stage1": (56, 256),
        "stage2": (28, 512),
        "stage3": (14, 1024),
        "stage4": (7, 2048),
    }


def test_maps_of_a_wide_net_are_those_of_its_papers_table_1(map_sizes):
    assert map_sizes("wrn_28_10") == {
        "stem": (32, 16),
        "stage1": (32, 160),
        "stage2": (16, 320),
        "stage3": (8, 640),
    }


def test_module_names(shapes_of):
    backbone = shapes_of("resnetv2_50")["params"]["backbone"]
    blocks = [
        f"stage{s}_block{b}" for s, depth in enumerate((3, 4, 6, 3), 1) for b in range(1, depth + 1)
    ]
    assert set(backbone) == {"conv1", *blocks, "norm"}
    plain = {"bn1", "conv1", "bn2", "conv2", "bn3", "conv3"}
    assert set(backbone["stage2_block3"]) == plain
    assert set(backbone["stage2_block1"]) == plain | {"downsample_conv"}


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_blocks_match_numpy(block, drawn_variables, numpy_conv):
    model = create_model("resnetv2_50", block=block, depths=(1, 2), widths=(8, 12), **SMALL)
    variables = drawn_variables(model, IMAGES)
    params, stats = variables["params"]["backbone"], variables["batch_stats"]["backbone"]

    def active(x, scale_and_bias, statistics):
        deviation = np.sqrt(np.asarray(statistics["var"], np.float64) + 1e-5)
        x = (x - statistics["mean"]) / deviation
        return np.maximum(x * scale_and_bias["scale"] + scale_and_bias["bias"], 0)

    def run(x, part, stride):
        p, s = params[part], stats[part]

        def conv(x, name, **settings):
            return numpy_conv(x, p[name]["kernel"], **settings)

        first = active(x, p["bn1"], s["bn1"])
        if block == "basic":
            y = conv(first, "conv1", stride=stride, padding=1)
            y = conv(active(y, p["bn2"], s["bn2"]), "conv2", padding=1)
        else:
            y = conv(first, "conv1")
            y = conv(active(y, p["bn2"], s["bn2"]), "conv2", stride=stride, padding=1)
            y = conv(active(y, p["bn3"], s["bn3"]), "conv3")
        if "downsample_conv" in p:
            x = conv(first, "downsample_conv", stride=stride)
        return x + y

    want = {"stem": numpy_conv(IMAGES, params["conv1"]["kernel"], padding=1)}
    want["stage1"] = run(want["stem"], "stage1_block1", 1)
    want["stage2"] = run(run(want["stage1"], "stage2_block1", 2), "stage2_block2", 1)
    want["stage2"] = active(want["stage2"], params["norm"], stats["norm"])
    maps = jax.jit(lambda v, x: model.apply(v, x, method="features"))(variables, IMAGES)
    assert list(maps) == list(want)
    for name, wanted in want.items():
        np.testing.assert_allclose(maps[name], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.zoo
def test_gradients_in_bfloat16_are_finite_and_reach_every_parameter(drawn_variables, train_gradients):
    model = create_model("resnetv2_50", depths=(1, 1), widths=(8, 16), **SMALL)
    variables = drawn_variables(model, IMAGES)
    logits, grads, statistics = train_gradients(model, variables, jnp.asarray(IMAGES), jnp.bfloat16)
    assert logits.dtype == jnp.float32
    assert {s.dtype for s in jax.tree.leaves(statistics)} == {jnp.dtype(jnp.float32)}
    for path, gradient in jax.tree_util.tree_leaves_with_path(grads):
        assert jnp.all(jnp.isfinite(gradient)), path
        assert jnp.any(gradient != 0), path


def rates_of(layer, **overrides):
    """The rates of the model's layers of a kind, by the name of the block each is in."""
    model, rates = create_model("wrn_16_8", **overrides), {}

    def watch(call, args, kwargs, context):
        if isinstance(context.module, layer):
            rates["/".join(context.module.path[1:2])] = context.module.rate
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    return rates


def test_drop_path_grows_linearly_to_the_last_block():
    rates = rates_of(DropPath, drop_path=0.3)
    assert list(rates) == [f"stage{s}_block{b}" for s in (1, 2, 3) for b in (1, 2)]
    np.testing.assert_allclose(list(rates.values()), 0.05 * np.arange(1, 7))


def test_dropout_is_in_every_block_or_before_the_dense_layer_as_asked_for():
    blocks = [f"stage{s}_block{b}" for s in (1, 2, 3) for b in (1, 2)]
    inside = rates_of(Dropout, block_dropout=0.3)
    assert {inside[block] for block in blocks} == {0.3}
    before = rates_of(Dropout, dropout=0.4)
    assert {before[block] for block in blocks} == {0.0}
    assert [rate for name, rate in inside.items() if name not in blocks] == [0.0]
    assert [rate for name, rate in before.items() if name not in blocks] == [0.4]


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_block_dropout_zeroes_what_the_last_convolution_reads_in_training(block, drawn_variables):
    settings = {"block": block, "depths": (1,), "widths": (32,), **SMALL}
    model = create_model("wrn_16_8", block_dropout=0.5, **settings)
    variables = drawn_variables(model, IMAGES)
    last = "conv2" if block == "basic" else "conv3"

    @jax.jit
    def dropped(seed):
        seen = []

        def watch(call, args, kwargs, context):
            out = call(*args, **kwargs)
            if isinstance(context.module, Dropout):
                seen.extend([args[0], out])
            elif context.module.name == last:
                assert args[0] is seen[1]
            return out

        rngs = {"dropout": jax.random.key(seed)}
        with nn.intercept_methods(watch):
            model.apply(variables, IMAGES, train=True, mutable=["batch_stats"], rngs=rngs)
        return seen[:2]

    masks = []
    for seed in (0, 1):
        whole, kept = map(np.asarray, dropped(seed))
        assert 0.4 < (kept[whole > 0] != 0).mean() < 0.6
        np.testing.assert_allclose(kept[kept != 0], 2 * whole[kept != 0], rtol=1e-5)
        masks.append(kept != 0)
    assert not np.array_equal(*masks)


def test_drop_path_leaves_the_shortcut_alone_for_some_examples(drawn_variables):
    settings = {"depths": (1,), "widths": (16,), "block": "basic", **SMALL, "stem_width": 16}
    model = create_model("wrn_16_8", drop_path=0.5, **settings)
    images = np.repeat(IMAGES[:1], 32, axis=0)
    variables = drawn_variables(model, images)

    @jax.jit
    def in_and_out_of_the_block():
        seen = []

        def watch(call, args, kwargs, context):
            out = call(*args, **kwargs)
            if context.module.name == "stage1_block1":
                seen.extend([args[0], out])
            return out

        rngs = {"dropout": jax.random.key(0)}
        with nn.intercept_methods(watch):
            model.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)
        return seen

    x, y = in_and_out_of_the_block()
    alone = np.all(np.asarray(x) == np.asarray(y), axis=(1, 2, 3))
    assert 6 <= alone.sum() <= 26


def test_large_images_are_halved_before_the_first_stage(shapes_of):
    model = create_model("resnetv2_50")
    images = jax.ShapeDtypeStruct((1, 64, 96, 3), jnp.float32)
    maps = jax.eval_shape(
        functools.partial(model.apply, method="features"), shapes_of("resnetv2_50"), images
    )
    assert [m.shape[1:3] for m in maps.values()] == [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"block": "basik"}, "unknown block 'basik'; did you mean 'basic'"),
        ({"depths": (2, 2)}, "widths: wanted one for each of 2 stages"),
        ({"widths": (64, 128, 256, 510)}, "widths: a bottleneck wants multiples of 4"),
        ({"block_dropout": 1.0}, "block_dropout: wanted a probability"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        create_model("resnetv2_50", **settings)
