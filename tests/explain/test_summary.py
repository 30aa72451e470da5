"""Summaries, held to the tables of the papers and to what others have counted."""

import functools
import gc
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxnets
from jaxnets import cli
from jaxnets.errors import InputError
from jaxnets.layers import (
    GRU,
    LSTM,
    Conv,
    ConvTranspose,
    SeparableConv,
    adaptive_avg_pool,
    avg_pool,
)

# GoogLeNet's modules: side of the maps, widths (table 1 of the paper), exact parameters with biases,
# and the parameters (in 1024) and multiply-adds (in millions) that the paper prints.
GOOGLENET = {
    "3a": (28, (64, 96, 128, 16, 32, 32), 163_696, 159, 128),
    "3b": (28, (128, 128, 192, 32, 96, 64), 388_736, 380, 304),
    "4a": (14, (192, 96, 208, 16, 48, 64), 376_176, 364, 73),
    "4b": (14, (160, 112, 224, 24, 64, 64), 449_160, 437, 88),
    "4c": (14, (128, 128, 256, 24, 64, 64), 510_104, 463, 100),
    "4d": (14, (112, 144, 288, 32, 64, 64), 605_376, 580, 119),
    "4e": (14, (256, 160, 320, 32, 128, 128), 868_352, 840, 170),
    "5a": (7, (256, 160, 320, 32, 128, 128), 1_043_456, 1072, 54),
    "5b": (7, (384, 192, 384, 48, 128, 128), 1_444_080, 1388, 71),
}

# Parameters, side of the maps, and biases, layer by layer.
ALEXNET = {
    "conv1": (34_944, 55, 96),
    "conv2": (614_656, 27, 256),
    "conv3": (885_120, 13, 384),
    "conv4": (1_327_488, 13, 384),
    "conv5": (884_992, 13, 256),
    "fc1": (37_752_832, 1, 4096),
    "fc2": (16_781_312, 1, 4096),
    "fc3": (4_097_000, 1, 1000),
}
ZFNET = {
    "conv1": (14_208, 110, 96),
    "conv2": (614_656, 26, 256),
    "conv3": (1_180_160, 13, 512),
    "conv4": (4_719_616, 13, 1024),
    "conv5": (4_719_104, 13, 512),
    "fc1": (75_501_568, 1, 4096),
    "fc2": (16_781_312, 1, 4096),
    "fc3": (4_097_000, 1, 1000),
}


@functools.cache
def summary_of(name, **settings):
    return jaxnets.summary(name, **settings)


def rows_of(found, depth=None):
    return {row.path: row for row in found.folded(depth)}


@pytest.fixture
def googlenet():
    return summary_of("googlenet_paper")


def test_googlenets_modules_have_exact_parameters_and_multiply_adds(googlenet):
    rows = rows_of(googlenet, 1)
    for module, (side, widths, parameters, _, _) in GOOGLENET.items():
        row = rows[f"backbone/inception{module}"]
        assert row.parameters == parameters
        assert row.multiply_adds == side**2 * (parameters - sum(widths))
        assert row.output_shape == (1, side, side, sum(widths) - widths[1] - widths[3])


def test_googlenets_modules_are_near_what_the_paper_prints(googlenet):
    rows = rows_of(googlenet, 1)
    for module, (_, _, _, thousands, millions) in GOOGLENET.items():
        row = rows[f"backbone/inception{module}"]
        # 4c is misprinted in the paper: its own widths give 10 % more.
        assert row.parameters / 1024 == pytest.approx(thousands, rel=0.10 if module == "4c" else 0.05)
        assert row.multiply_adds / 1e6 == pytest.approx(millions, rel=0.06)


def test_a_depth_of_one_is_the_table_of_the_paper(googlenet):
    names = ["conv1", "conv2_reduce", "conv2", *(f"inception{module}" for module in GOOGLENET)]
    assert list(rows_of(googlenet, 1)) == [*(f"backbone/{name}" for name in names), "head/fc"]


@pytest.mark.parametrize(("name", "layers"), [("alexnet", ALEXNET), ("zfnet", ZFNET)])
def test_layers_are_those_of_the_lectures_table(name, layers):
    rows = rows_of(summary_of(name))
    for layer, (parameters, side, biases) in layers.items():
        row = rows[f"{'head' if layer.startswith('fc') else 'backbone'}/{layer}"]
        assert row.parameters == parameters
        assert row.multiply_adds == side**2 * (parameters - biases)


@pytest.mark.parametrize(
    ("name", "billions", "settings"),
    [
        ("resnet18", 1.8, {}),
        ("resnet34", 3.6, {}),
        ("resnet50", 3.8, {"stride_in_1x1": True}),
    ],  # resnet152 below
)
def test_residual_nets_take_the_multiply_adds_of_their_paper(name, billions, settings):
    found = summary_of(name, **settings).multiply_adds / 1e9
    assert found == pytest.approx(billions, rel=0.02)  # it cuts off what follows the first digit


# What torchvision states of its own models, in thousands of millions.
@pytest.mark.parametrize(
    ("name", "stated"),
    [
        ("alexnet_owt", 0.714),
        ("vgg16", 15.47),
        ("googlenet", 1.498),
        ("resnet50", 4.089),
        ("resnext50_32x4d", 4.23),
        ("squeezenet1_0", 0.819),
        ("mobilenet_v2_100", 0.301),
        ("vit_base_patch16_224", 17.564),
    ],
)
def test_multiply_adds_are_those_that_torchvision_states(name, stated):
    assert summary_of(name).multiply_adds / 1e9 == pytest.approx(stated, abs=0.0051)


def receptive_field(*windows):
    """Araujo et al. 2019, "Computing Receptive Fields of Convolutional Neural Networks", equation 2:
    the sum over layers of (k_l - 1) times the strides before, and 1."""
    strides = np.cumprod([1, *(stride for _, stride in windows)])
    return 1 + sum((k - 1) * s for (k, _), s in zip(windows, strides[:-1], strict=True)), strides[-1]


def vgg16_windows():
    return [w for depth in (2, 2, 3, 3, 3) for w in [(3, 1)] * depth + [(2, 2)]]


def resnet_windows(depths):
    windows = [(7, 2), (3, 2)]
    for stage, depth in enumerate(depths):
        for block in range(depth):
            windows.append((1, 2 if stage and not block else 1))  # the paper's place of the stride
            windows += [(3, 1), (1, 1)]
    return windows


@pytest.mark.parametrize(
    ("name", "settings", "path", "windows", "published"),
    [
        ("lenet5", {}, "backbone/pool2", [(5, 1), (2, 2), (5, 1), (2, 2)], 16),
        (
            "alexnet",
            {},
            "backbone/pool5",
            [(11, 4), (3, 2), (5, 1), (3, 2), (3, 1), (3, 1), (3, 1), (3, 2)],
            195,
        ),
        ("vgg16", {}, "backbone/stage5", vgg16_windows(), 212),
        (
            "resnet50",
            {"stride_in_1x1": True},
            "backbone/stage4_block3",
            resnet_windows((3, 4, 6, 3)),
            483,
        ),
    ],
)
def test_receptive_fields_are_those_of_the_formula_and_of_the_literature(
    name, settings, path, windows, published
):
    size, stride = receptive_field(*windows)
    assert size == published
    row = {row.path: row for row in summary_of(name, **settings).rows}[path]
    assert row.receptive_field == ((size, size), (stride, stride))


# Araujo et al. 2019, table 1: the largest over all paths.
@pytest.mark.parametrize(
    ("name", "published"),
    [("mobilenet_v1_100", 315), pytest.param("inception_v3", 1311, marks=pytest.mark.slow)],
)
def test_receptive_fields_are_the_largest_of_all_paths(name, published):
    rows = summary_of(name).rows
    fields = [row.receptive_field for row in rows if row.path.startswith("backbone/")]
    assert max(field.size for field in fields) == (published, published)
    assert fields[-1].stride == (32, 32)


class Paths(nn.Module):
    """Windows of many kinds, on paths that meet."""

    @nn.compact
    def __call__(self, x):
        ones = nn.initializers.ones
        a = Conv(2, (3, 5), strides=2, padding=(1, 2), kernel_init=ones, name="a")(x)
        b = Conv(2, 3, dilation=2, padding=2, kernel_init=ones, name="b")(a)
        c = avg_pool(SeparableConv(2, 3, padding=1, kernel_init=ones, name="c")(a), 3, 1, padding=1)
        d = Conv(2, 1, kernel_init=ones, name="d")(jnp.concatenate([a, b, c], axis=-1))
        e = ConvTranspose(2, 4, strides=2, padding=1, kernel_init=ones, name="e")(d)
        return Conv(1, 3, padding=1, kernel_init=ones, name="f")(e)


class Bins(nn.Module):
    """Means over bins, and a flattened map."""

    @nn.compact
    def __call__(self, x):
        x = Conv(2, 3, padding=1, kernel_init=nn.initializers.ones, name="a")(x)
        x = adaptive_avg_pool(x, 4)
        x = Conv(2, 1, kernel_init=nn.initializers.ones, name="b")(x)
        return nn.Dense(3, name="c")(x.reshape(x.shape[0], -1))


class Seen:
    """What a place of a module's output depends on, by its gradient; one compilation a module."""

    def __init__(self, module, shape):
        self.shape, key = shape, jax.random.key(0)

        @jax.jit
        def gradient(images, masks):
            def value(images):
                _, variables = module.init_with_output(key, images, capture_intermediates=True)
                maps = variables["intermediates"]
                return sum(jnp.sum(maps[path]["__call__"][0] * mask) for path, mask in masks.items())

            return jax.grad(value)(images)

        self._gradient = gradient

    def __call__(self, shapes, path, where):
        """The rows and the columns of the image."""
        masks = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        masks[path][0, *where] = 1
        touched = np.asarray(self._gradient(np.ones(self.shape, np.float32), masks))[0].any(-1)
        return tuple(np.flatnonzero(touched.any(axis)) for axis in (1, 0))


@pytest.mark.parametrize(("module", "paths"), [(Paths(), "abdf"), (Bins(), "b")])
def test_receptive_fields_are_where_gradients_are(module, paths):
    shape = (1, 48, 48, 1)
    rows = {row.path: row for row in jaxnets.summary(module, shape).rows}
    shapes = {path: rows[path].output_shape for path in paths}
    seen = Seen(module, shape)
    for path in paths:
        middle = tuple(side // 2 for side in shapes[path][1:3])
        field = rows[path].receptive_field
        here = seen(shapes, path, middle)
        extents = tuple(pixels.max() - pixels.min() + 1 for pixels in here)
        if path == "f":  # behind a transposed convolution neighbors see by turns a little less
            shortfall = [size - extent for size, extent in zip(field.size, extents, strict=True)]
            assert all(0 <= pixels <= 2 for pixels in shortfall)
            continue
        assert extents == field.size
        beside = seen(shapes, path, tuple(place - 1 for place in middle))
        assert tuple(a.min() - b.min() for a, b in zip(here, beside, strict=True)) == field.stride


class Enlarged(nn.Module):
    """A map of half as many places, each repeated, as in a feature pyramid."""

    @nn.compact
    def __call__(self, x):
        ones = nn.initializers.ones
        x = Conv(1, 3, strides=2, padding=1, kernel_init=ones, name="a")(x)
        x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        return Conv(1, 3, padding=1, kernel_init=ones, name="b")(x)


def test_an_enlarged_map_has_the_stride_of_its_places():
    row = {row.path: row for row in jaxnets.summary(Enlarged(), (1, 24, 24, 1)).rows}["b"]
    assert row.receptive_field == ((5, 5), (1, 1))
    seen = Seen(Enlarged(), (1, 24, 24, 1))
    first, third = (seen({"b": row.output_shape}, "b", (place, place))[0] for place in (10, 12))
    assert (len(first), third.min() - first.min()) == (5, 2)


def test_what_takes_in_every_place_sees_all():
    rows = {row.path: row.receptive_field for row in jaxnets.summary(Bins(), (1, 48, 48, 1)).rows}
    assert rows["c"] == ((math.inf, math.inf), None)
    squeezed = {row.path: row.receptive_field for row in jaxnets.summary("seresnet50").rows}
    assert squeezed["backbone/stage1_block1/conv3"].size == (19, 19)
    assert squeezed["backbone/stage1_block1/se"] == ((math.inf, math.inf), (4, 4))
    attended = jaxnets.summary("vit_base_patch16_224", depth=1, width=8, heads=2).rows
    fields = {row.path: row.receptive_field for row in attended}
    assert fields["backbone/embedding/patches"] == ((16, 16), (16, 16))
    assert fields["backbone/block1/attn"] == ((math.inf, math.inf), (16, 16))


class Odd(nn.Module):
    """What mixes positions without changing the shape, and what changes nothing."""

    @nn.compact
    def __call__(self, x):
        x = Conv(1, 3, padding=1, name="a")(x)
        x = jnp.concatenate([x, x[:, :0].reshape(1, 0, 8, 1)], axis=1)
        x, _ = jax.lax.scan(lambda x, _: (jnp.cumsum(x, axis=1), None), x, length=3)
        return Conv(1, 1, name="b")(x)


def test_a_loop_over_a_map_sees_all_and_a_model_that_does_nothing_is_one_row():
    rows = {row.path: row.receptive_field for row in jaxnets.summary(Odd(), (1, 8, 8, 1)).rows}
    assert rows["a"].size == (3, 3)
    assert rows["b"].size == (math.inf, math.inf)
    (row,) = jaxnets.summary(nn.Dropout(0.5, deterministic=True), (1, 8, 8, 1)).rows
    assert (row.parameters, row.receptive_field.size) == (0, (1, 1))


def test_the_products_of_attention_count():
    width, tokens = 24, 17
    found = jaxnets.summary(
        "vit_base_patch16_224", depth=1, width=width, heads=3, patch_size=8, image_size=32
    )
    rows = {row.path: row for row in found.rows}
    dense = 4 * width**2 * tokens  # qkv and proj
    assert rows["backbone/block1/attn"].multiply_adds == dense + 2 * tokens**2 * width
    own = rows_of(found)["backbone/block1/attn/(own)"]
    assert (own.parameters, own.multiply_adds) == (0, 2 * tokens**2 * width)
    assert rows_of(found)["backbone/embedding/(own)"].parameters == width + tokens * width


def test_a_module_that_takes_one_array_will_do():
    found = jaxnets.summary(nn.Dense(3, name="scores"), (4, 5))
    assert (found.params, found.multiply_adds) == (18, 60)
    assert [(row.path, row.kind, row.output_shape) for row in found.rows] == [
        ("scores", "Dense", (4, 3))
    ]


@pytest.mark.parametrize(("layer", "gates"), [(GRU, 3), (LSTM, 4)])
def test_a_recurrent_net_counts_every_step(layer, gates):
    steps, inputs, state = 7, 5, 3
    found = jaxnets.summary(layer(state), (2, steps, inputs))
    assert found.multiply_adds == 2 * steps * gates * (inputs * state + state**2)
    assert found.rows[0].receptive_field is None


class Twice(nn.Module):
    """One layer, used twice, under rematerialization; and one that only hands on."""

    @nn.compact
    def __call__(self, x, train):
        layer = nn.remat(nn.Dense)(5, name="layer")
        return nn.Dropout(0.5, deterministic=not train)(layer(nn.relu(layer(x))))


def test_a_layer_that_is_used_twice_works_twice_and_learns_once():
    found = jaxnets.summary(Twice(), (2, 5))
    assert [row.path for row in found.rows] == ["layer"]
    assert (found.params, found.rows[0].parameters) == (30, 30)
    assert found.multiply_adds == found.rows[0].multiply_adds == 2 * 50
    assert found.rows[0].activations == 20


def test_auxiliary_heads_have_parameters_and_no_part_in_a_forward_pass():
    with_heads, without = jaxnets.summary("googlenet", aux=True), summary_of("googlenet")
    assert with_heads.params == 13_004_888
    assert with_heads.multiply_adds == without.multiply_adds
    rows = rows_of(with_heads, 1)
    assert rows["auxiliary_inception4a/fc1"].parameters == 2048 * 1024 + 1024
    assert rows["auxiliary_inception4a/fc1"].multiply_adds == 0


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_0"])
def test_rows_are_subtrees_and_add_up_at_every_depth(name):
    found = summary_of(name)
    model = jaxnets.create_model(name)
    images = jax.ShapeDtypeStruct((1, *model.input_size), jnp.float32)
    tree = jax.eval_shape(lambda key, x: nn.Module.init(model, key, x), jax.random.key(0), images)
    for row in found.rows:
        if row.kind == "map":
            continue
        subtree = tree["params"]
        for key in row.path.split("/"):
            subtree = subtree.get(key, {})
        assert row.parameters == sum(leaf.size for leaf in jax.tree.leaves(subtree))
    for depth in (1, 2, 3, None):
        folded = found.folded(depth)
        assert sum(row.parameters for row in folded) == found.params
        assert sum(row.multiply_adds for row in folded) == found.multiply_adds


@pytest.mark.zoo
@pytest.mark.parametrize("name", jaxnets.list_models(task="classification"))
def test_every_model_has_a_summary(name):
    found = jaxnets.summary(name)
    for depth in (1, None):
        folded = found.folded(depth)
        assert sum(row.parameters for row in folded) == found.params
        assert sum(row.multiply_adds for row in folded) == found.multiply_adds
    (head,) = (row for row in found.rows if row.path == "head")
    assert head.output_shape == (1, jaxnets.create_model(name).num_classes)


def test_memory_is_variables_input_and_what_the_innermost_rows_put_out():
    maps = 28 * 28 * 6 + 14 * 14 * 6 + 10 * 10 * 16 + 5 * 5 * 16 + 120 + 84 + 10
    assert summary_of("lenet5").memory == 4 * (61_706 + 32 * 32 + maps)


def test_a_batch_multiplies_the_work_and_not_the_parameters():
    one, eight = summary_of("lenet5"), jaxnets.summary("lenet5", (8, 32, 32, 1))
    assert eight.multiply_adds == 8 * one.multiply_adds
    assert eight.params == one.params
    assert one == jaxnets.summary("lenet5", (32, 32, 1)) == jaxnets.summary("lenet5", [1, 32, 32, 1])


def test_nothing_is_computed_or_compiled_and_the_deepest_nets_take_seconds():
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    gc.collect()
    gc.freeze()  # what all other tests have left is not searched for garbage while this one is timed
    before, start = len(jax.live_arrays()), time.process_time()
    found = jaxnets.summary("resnet152", stride_in_1x1=True)
    took = time.process_time() - start
    gc.unfreeze()
    assert took < 3
    assert found.multiply_adds / 1e9 == pytest.approx(11.3, rel=0.02)
    assert len(jax.live_arrays()) == before
    assert not compiled


def test_the_table_is_readable_text(googlenet):
    lines = googlenet.table(depth=1).splitlines()
    assert lines[0].startswith("googlenet_paper on 1x224x224x3: ")
    assert lines[2].split() == [
        "module", "kind", "output", "parameters", "multiply-adds", "receptive", "field", "stride"
    ]  # fmt: skip
    (row,) = (line.split() for line in lines if "inception4a" in line)
    assert row == [
        "backbone/inception4a", "Inception", "14x14x512", "376,176", "73.6", "M", "171", "16"
    ]  # fmt: skip
    assert lines[-1].split() == ["total", "6,998,552", "1,582.7", "M"]
    assert str(googlenet) == googlenet.table()
    assert "backbone/inception4a/3x3/conv" in str(googlenet)


def test_markdown_has_the_same_rows(googlenet):
    title, empty, heading, rule, *rows = googlenet.to_markdown(depth=1).splitlines()
    assert title.startswith("googlenet_paper on")
    assert not empty
    assert len(rows) == 14
    assert {line.count("|") for line in (heading, rule, *rows)} == {8}
    assert rows[-1].startswith("| **total** |")


def test_the_command_prints_the_table(capsys):
    cli.main(["summary", "googlenet_paper", "--depth", "1"])
    printed = capsys.readouterr().out
    assert printed.splitlines() == summary_of("googlenet_paper").table(depth=1).splitlines()
    cli.main(["summary", "vgg11", "--size", "32", "--num-classes", "10", "--markdown"])
    assert "| head/fc3 | Dense | 10 | 40,970 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["googlnet"], "did you mean 'googlenet'"),
        (["lenet5", "--depth", "0"], "depth is 0; it must be 1 or more"),
        (["resnet50", "--size", "16"], "resnet50 takes at least 32 x 32 pixels, got 16 x 16"),
        (["vgg11", "--size", "0"], "wanted whole numbers above 0"),
    ],
)
def test_a_wrong_argument_of_the_command_is_named(capsys, arguments, words):
    with pytest.raises(SystemExit) as stop:
        cli.main(["summary", *arguments])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert words in message
    assert len(message.strip().splitlines()) <= 2


def test_a_wrong_shape_or_setting_is_named():
    with pytest.raises(InputError, match="wanted .H, W, C. of an image"):
        jaxnets.summary("lenet5", (32, 32))
    with pytest.raises(InputError, match="made for no size"):
        jaxnets.summary(nn.Dense(3))
    with pytest.raises(InputError, match="aux: settings go with the name of a model"):
        jaxnets.summary(jaxnets.create_model("googlenet"), aux=True)
    with pytest.raises(InputError, match="no setting 'drop'"):
        jaxnets.summary("lenet5", drop=1)
    with pytest.raises(InputError, match="model is a dict"):
        jaxnets.summary({})
