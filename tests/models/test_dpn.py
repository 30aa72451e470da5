import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxnets.errors import InputError
from jaxnets.layers import DropPath
from jaxnets.models import create_model

IMAGES = np.random.default_rng(1).normal(size=(4, 19, 19, 3)).astype(np.float32)
SMALL = {
    "num_classes": 3,
    "increments": (4, 2),
    "bottleneck_width": 8,
    "residual_width": 6,
    "stem_width": 5,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("dpn68", 12_611_602),
        ("dpn92", 37_668_392),
        ("dpn98", 61_570_728),
        ("dpn107", 86_917_800),
        ("dpn131", 79_254_504),
    ],
)
def test_parameter_count(name, count, count_parameters):
    assert count_parameters(name) == count


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "giga"), [("dpn92", 6.5), ("dpn98", 11.7), ("dpn107", 18.3), ("dpn131", 16.0)]
)
def test_multiply_adds_are_those_the_authors_state(name, giga, multiply_adds):
    assert multiply_adds(name) / 1e9 == pytest.approx(giga, abs=0.05)


@pytest.mark.parametrize(
    ("name", "stem", "residual", "dense"),
    [
        # Each stage starts its dense path with three increments and adds one with each later block.
        ("dpn68", 10, (64, 128, 256, 512), (16 * 5, 32 * 6, 32 * 14, 64 * 5)),
        ("dpn107", 128, (256, 512, 1024, 2048), (20 * 6, 64 * 10, 64 * 22, 128 * 5)),
    ],
)
def test_maps_at_224_hold_both_paths(name, stem, residual, dense, map_sizes):
    widths = [a + b for a, b in zip(residual, dense, strict=True)]
    assert map_sizes(name) == {
        "stem": (112, stem),
        "stage1": (56, widths[0]),
        "stage2": (28, widths[1]),
        "stage3": (14, widths[2]),
        "stage4": (7, widths[3]),
    }


def test_module_names(shapes_of):
    backbone = shapes_of("dpn68")["params"]["backbone"]
    blocks = [
        f"stage{s}_block{b}" for s, depth in enumerate((3, 4, 12, 3), 1) for b in range(1, depth + 1)
    ]
    assert set(backbone) == {"conv1", "bn1", *blocks, "norm"}
    plain = {"bn1", "conv1", "bn2", "conv2", "bn3", "conv3"}
    assert set(backbone["stage3_block2"]) == plain
    assert set(backbone["stage3_block1"]) == plain | {"projection_bn", "projection_conv"}
    assert backbone["conv1"]["kernel"].shape == (3, 3, 3, 10)
    assert backbone["stage1_block2"]["conv2"]["kernel"].shape == (3, 3, 128 // 32, 128)


@pytest.mark.slow
@pytest.mark.parametrize("stem_kernel", [3, 7])
def test_net_matches_numpy(stem_kernel, drawn_variables, numpy_conv):
    model = create_model("dpn92", depths=(2, 1), groups=4, stem_kernel=stem_kernel, **SMALL)
    variables = drawn_variables(model, IMAGES)
    params, stats = variables["params"]["backbone"], variables["batch_stats"]["backbone"]

    def active(x, p, s):
        deviation = np.sqrt(np.asarray(s["var"], np.float64) + 1e-3)
        return np.maximum((x - s["mean"]) / deviation * p["scale"] + p["bias"], 0)

    def block(added, beside, part, width, stride=1):
        """The residual and the dense path, kept apart as the authors do."""
        p, s = params[part], stats[part]
        x = np.concatenate([added, beside], -1)
        y = numpy_conv(active(x, p["bn1"], s["bn1"]), p["conv1"]["kernel"])
        y = active(y, p["bn2"], s["bn2"])
        y = numpy_conv(y, p["conv2"]["kernel"], stride=stride, padding=1, groups=4)
        y = numpy_conv(active(y, p["bn3"], s["bn3"]), p["conv3"]["kernel"])
        if part.endswith("block1"):
            x = active(x, p["projection_bn"], s["projection_bn"])
            x = numpy_conv(x, p["projection_conv"]["kernel"], stride=stride)
            added, beside = x[..., :width], x[..., width:]
        return added + y[..., :width], np.concatenate([beside, y[..., width:]], -1)

    x = numpy_conv(IMAGES, params["conv1"]["kernel"], stride=2, padding=stem_kernel // 2)
    x = active(x, params["bn1"], stats["bn1"])
    want, side = {"stem": x}, x.shape[1]
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))  # a ReLU's output is >= 0
    x = np.max([x[:, i : i + side : 2, j : j + side : 2] for i in range(3) for j in range(3)], axis=0)
    paths = block(x, x[..., :0], "stage1_block1", 6)
    paths = block(*paths, "stage1_block2", 6)
    want["stage1"] = np.concatenate(paths, -1)
    x = np.concatenate(block(*paths, "stage2_block1", 12, stride=2), -1)
    want["stage2"] = active(x, params["norm"], stats["norm"])
    maps = jax.jit(lambda v, x: model.apply(v, x, method="features"))(variables, IMAGES)
    assert list(maps) == list(want)
    for name, wanted in want.items():
        np.testing.assert_allclose(maps[name], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.zoo
def test_gradients_in_bfloat16_are_finite_and_reach_every_parameter(drawn_variables, train_gradients):
    model = create_model("dpn92", depths=(1, 1), groups=2, **SMALL)
    variables = drawn_variables(model, IMAGES)
    logits, grads, statistics = train_gradients(model, variables, jnp.asarray(IMAGES), jnp.bfloat16)
    assert logits.dtype == jnp.float32
    assert {s.dtype for s in jax.tree.leaves(statistics)} == {jnp.dtype(jnp.float32)}
    for path, gradient in jax.tree_util.tree_leaves_with_path(grads):
        assert jnp.all(jnp.isfinite(gradient)), path
        assert jnp.any(gradient != 0), path


@pytest.mark.slow
def test_drop_path_adds_nothing_to_some_examples_but_grows_the_dense_path_of_all(drawn_variables):
    settings = SMALL | {"increments": (4,)}
    model = create_model("dpn92", depths=(2,), groups=2, drop_path=0.5, **settings)
    images = np.repeat(IMAGES[:1], 32, axis=0)
    variables = drawn_variables(model, images)

    @jax.jit
    def in_and_out_of_the_last_block():
        seen = []

        def watch(call, args, kwargs, context):
            out = call(*args, **kwargs)
            if context.module.name == "stage1_block2":
                seen.extend([args[0], out])
            return out

        rngs = {"dropout": jax.random.key(0)}
        with nn.intercept_methods(watch):
            model.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)
        return seen

    x, y = map(np.asarray, in_and_out_of_the_last_block())
    residual = SMALL["residual_width"]
    alone = np.all(x[..., :residual] == y[..., :residual], axis=(1, 2, 3))
    assert 6 <= alone.sum() <= 26
    np.testing.assert_array_equal(x[..., residual:], y[..., residual:-4])
    assert np.all(np.any(y[..., -4:] != 0, axis=(1, 2, 3)))


def test_drop_path_grows_linearly_to_the_last_block():
    model, rates = create_model("dpn68", drop_path=0.22), []

    def watch(call, args, kwargs, context):
        if isinstance(context.module, DropPath):
            rates.append(context.module.rate)
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    np.testing.assert_allclose(rates, 0.01 * np.arange(1, 23))


def test_wants_one_increment_for_each_stage():
    with pytest.raises(InputError, match="increments: wanted one for each of 2 stages"):
        create_model("dpn68", depths=(2, 2))
