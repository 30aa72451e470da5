import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxnets.classification import Classification
from jaxnets.errors import InputError
from jaxnets.layers import DropPath, freeze_batch_norms
from jaxnets.models import create_model, feature_info
from jaxnets.training import DataParallel, create_optimizer, create_state, make_train_step

IMAGES = np.random.default_rng(1).normal(size=(4, 8, 8, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        pytest.param("resnet152", 60_192_808, marks=pytest.mark.slow),
        ("wide_resnet50_2", 68_883_240),
        ("wide_resnet101_2", 126_886_696),
        ("resnext50_1x64d", 25_557_032),
        ("resnext50_32x4d", 25_028_904),
        ("resnext101_32x4d", 44_177_704),
        ("resnext101_32x8d", 88_791_336),
        ("resnext101_64x4d", 83_455_272),
    ],
)
def test_parameter_count(name, count, count_parameters):
    assert count_parameters(name) == count


def bottleneck_parameters(d, groups, inputs=256):
    """A block of conv2: the formula under table 2 of ResNeXt's paper, and three norms."""
    width = d * groups
    return inputs * width + 9 * d * width + width * 256 + 2 * (2 * width + 256)


@pytest.mark.parametrize(("groups", "d"), [(1, 64), (2, 40), (4, 24), (8, 14), (32, 4)])
def test_resnext_blocks_have_the_parameters_of_the_papers_formula(groups, d, shapes_of):
    block = shapes_of(f"resnext50_{groups}x{d}d")["params"]["backbone"]["stage1_block2"]
    count = sum(math.prod(p.shape) for p in jax.tree.leaves(block))
    assert count == bottleneck_parameters(d, groups)
    # "The same complexity": about 70 thousand weights whatever the cardinality.
    assert 68_000 < count - 2 * (2 * d * groups + 256) < 72_500


@pytest.mark.parametrize(("name", "expansion"), [("resnet18", 1), ("resnext50_32x4d", 4)])
def test_maps_at_224(name, expansion, map_sizes):
    assert map_sizes(name) == {
        "stem": (112, 64),
        "stage1": (56, 64 * expansion),
        "stage2": (28, 128 * expansion),
        "stage3": (14, 256 * expansion),
        "stage4": (7, 512 * expansion),
    }


def test_small_input_keeps_the_resolution_of_the_first_stage(map_sizes, shapes_of):
    sizes = [(32, 64), (32, 64), (16, 128), (8, 256), (4, 512)]
    assert list(map_sizes("resnet18", small_input=True).values()) == sizes
    stem = shapes_of("resnet18", small_input=True)["params"]["backbone"]["stem"]
    assert stem["conv1"]["kernel"].shape == (3, 3, 3, 64)


@pytest.fixture
def convolution_outputs(traced):
    """Kernel shape and output shape of every convolution at 224 x 224, by path."""

    def outputs(name, **overrides):
        layers = traced(name, **overrides).layers
        return {path: call for path, (call,) in layers.items() if len(call[0]) == 4}

    return outputs


@pytest.mark.parametrize(
    ("name", "giga"),
    [
        ("resnet18", 1.8),
        ("resnet34", 3.6),
        ("resnet50", 3.8),
        ("resnet101", 7.6),
        ("resnet152", 11.3),
    ],
)
def test_multiply_adds_are_those_of_the_papers_table_1(name, giga, convolution_outputs):
    basic = name in ("resnet18", "resnet34")
    total = 0
    for path, (kernel, out) in convolution_outputs(name, stride_in_1x1=not basic).items():
        # The paper's nets of basic blocks have shortcuts without parameters (option A).
        if not (basic and path.endswith("downsample_conv")):
            total += math.prod(kernel) * math.prod(out[1:3])
    assert total / 1e9 == pytest.approx(giga, abs=0.06)


def test_stride_is_in_the_3x3_unless_asked_for_in_the_1x1(convolution_outputs):
    def sides(**overrides):
        outputs = convolution_outputs("resnet50", **overrides)
        block = "backbone/stage2_block1"
        names = ("conv1", "conv2", "conv3", "downsample_conv")
        return [outputs[f"{block}/{name}"][1][1] for name in names]

    assert sides() == [56, 28, 28, 28]
    assert sides(stride_in_1x1=True) == [28, 28, 28, 28]


def test_module_names(shapes_of):
    backbone = shapes_of("resnet50")["params"]["backbone"]
    blocks = [
        f"stage{s}_block{b}" for s, depth in enumerate((3, 4, 6, 3), 1) for b in range(1, depth + 1)
    ]
    assert set(backbone) == {"stem", *blocks}
    assert set(backbone["stem"]) == {"conv1", "bn1"}
    plain = {"conv1", "bn1", "conv2", "bn2", "conv3", "bn3"}
    assert set(backbone["stage2_block3"]) == plain
    assert set(backbone["stage2_block1"]) == plain | {"downsample_conv", "downsample_bn"}


@pytest.mark.parametrize(
    "overrides",
    [
        {"block": "basic"},
        {"groups": 2, "width_per_group": 8},
        {"groups": 2, "width_per_group": 8, "stride_in_1x1": True},
    ],
)
def test_blocks_match_numpy(overrides, drawn_variables, numpy_conv):
    model = create_model("resnet50", num_classes=3, depths=(1, 2), small_input=True, **overrides)
    variables = drawn_variables(model, IMAGES)
    params, stats = variables["params"]["backbone"], variables["batch_stats"]["backbone"]

    def conv_bn(x, part, conv, bn, **settings):
        x = numpy_conv(x, params[part][conv]["kernel"], **settings)
        deviation = np.sqrt(np.asarray(stats[part][bn]["var"], np.float64) + 1e-5)
        x = (x - stats[part][bn]["mean"]) / deviation
        return x * params[part][bn]["scale"] + params[part][bn]["bias"]

    def block(x, part, stride):
        first = functools.partial(conv_bn, part=part, conv="conv1", bn="bn1")
        second = functools.partial(conv_bn, part=part, conv="conv2", bn="bn2", padding=1)
        if model.backbone.block == "basic":
            y = second(np.maximum(first(x, padding=1, stride=stride), 0))
        else:
            early = overrides.get("stride_in_1x1", False)
            y = np.maximum(first(x, stride=stride if early else 1), 0)
            y = np.maximum(second(y, stride=1 if early else stride, groups=2), 0)
            y = conv_bn(y, part, "conv3", "bn3")
        if "downsample_conv" in params[part]:
            x = conv_bn(x, part, "downsample_conv", "downsample_bn", stride=stride)
        return np.maximum(x + y, 0)

    x = np.maximum(conv_bn(IMAGES, "stem", "conv1", "bn1", padding=1), 0)
    want = {"stem": x}
    want["stage1"] = x = block(x, "stage1_block1", 1)
    want["stage2"] = x = block(block(x, "stage2_block1", 2), "stage2_block2", 1)
    maps = jax.jit(lambda v, x: model.apply(v, x, method="features"))(variables, IMAGES)
    assert list(maps) == list(want)
    for name, wanted in want.items():
        np.testing.assert_allclose(maps[name], wanted, rtol=1e-4, atol=1e-4)


def test_large_images_pass_a_7x7_convolution_and_a_3x3_max_pool(drawn_variables, numpy_conv):
    model = create_model("resnet18", depths=(1,))
    images = np.random.default_rng(1).normal(size=(1, 16, 16, 3)).astype(np.float32)
    variables = drawn_variables(model, images)
    seen = {}

    def watch(call, args, kwargs, context):
        if context.module.name == "stage1_block1":
            seen["input"] = args[0]
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        maps = model.apply(variables, images, method="features")
    stem = variables["params"]["backbone"]["stem"]
    assert maps["stem"].shape == numpy_conv(images, stem["conv1"]["kernel"], 2, 3).shape
    padded = np.pad(maps["stem"], ((0, 0), (1, 1), (1, 1), (0, 0)))  # a ReLU's output is >= 0
    windows = [padded[:, i : i + 8 : 2, j : j + 8 : 2] for i in range(3) for j in range(3)]
    np.testing.assert_array_equal(seen["input"], np.max(windows, axis=0))


def test_training_moves_the_statistics_a_tenth_of_the_way(drawn_variables, numpy_conv):
    model = create_model("resnet18", depths=(1,), small_input=True)
    variables = drawn_variables(model, IMAGES)
    _, updated = jax.jit(lambda v: model.apply(v, IMAGES, train=True, mutable=["batch_stats"]))(
        variables
    )
    kernel = variables["params"]["backbone"]["stem"]["conv1"]["kernel"]
    x = numpy_conv(IMAGES, kernel, padding=1).reshape(-1, 64)
    old, new = (v["batch_stats"]["backbone"]["stem"]["bn1"] for v in (variables, updated))
    np.testing.assert_allclose(new["mean"], 0.9 * old["mean"] + 0.1 * x.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(new["var"], 0.9 * old["var"] + 0.1 * x.var(0, ddof=1), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_are_finite_and_reach_every_parameter(dtype, drawn_variables, train_gradients):
    # Both kinds of shortcut, and a block behind one with a stride.
    model = create_model("resnet18", num_classes=4, small_input=True, depths=(1, 2))
    variables = drawn_variables(model, IMAGES)
    logits, grads, statistics = train_gradients(model, variables, jnp.asarray(IMAGES), dtype)
    assert logits.dtype == jnp.float32
    assert {s.dtype for s in jax.tree.leaves(statistics)} == {jnp.dtype(jnp.float32)}
    for path, gradient in jax.tree_util.tree_leaves_with_path(grads):
        assert jnp.all(jnp.isfinite(gradient)), path
        assert jnp.any(gradient != 0), path


def drop_path_net(rate):
    return create_model("resnet18", depths=(1,), small_input=True, drop_path=rate)


def test_drop_path_leaves_evaluation_alone(drawn_variables):
    variables = drawn_variables(drop_path_net(0.0), IMAGES)
    np.testing.assert_array_equal(
        drop_path_net(0.9).apply(variables, IMAGES), drop_path_net(0.0).apply(variables, IMAGES)
    )


def test_drop_path_drops_the_branch_for_some_examples_in_training(drawn_variables):
    model = drop_path_net(0.5)
    images = np.repeat(IMAGES[:1], 32, axis=0)
    variables = drawn_variables(model, images)

    @jax.jit
    def features(seed):
        maps, _ = model.apply(
            variables,
            images,
            train=True,
            method="features",
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(seed)},
        )
        return maps

    dropped = []
    for seed in (0, 1):
        maps = features(seed)
        stem, stage = np.asarray(maps["stem"]), np.asarray(maps["stage1"])
        alone = np.all(stage == stem, axis=(1, 2, 3))  # the shortcut carries a ReLU's output
        assert 6 <= alone.sum() <= 26
        kept = stage[~alone]
        np.testing.assert_allclose(kept, np.broadcast_to(kept[:1], kept.shape), rtol=1e-5, atol=1e-5)
        dropped.append(alone)
    assert not np.array_equal(*dropped)


def test_drop_path_grows_linearly_to_the_last_block():
    model, rates = create_model("resnet50", drop_path=0.32), []

    def watch(call, args, kwargs, context):
        if isinstance(context.module, DropPath):
            rates.append(context.module.rate)
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    np.testing.assert_allclose(rates, 0.02 * np.arange(1, 17))


def test_basic_blocks_take_no_settings_of_the_bottleneck():
    for setting in ({"groups": 2}, {"width_per_group": 128}, {"stride_in_1x1": True}):
        with pytest.raises(InputError, match="belong to the bottleneck"):
            create_model("resnet18", **setting)


def test_unknown_block_is_answered_with_the_known():
    with pytest.raises(InputError, match="unknown block 'botleneck'; did you mean 'bottleneck'"):
        create_model("resnet18", block="botleneck")


def non_local_net(*stages, mode="embedded_gaussian"):
    return create_model(
        "resnet18", 3, depths=(1, 1), small_input=True, non_local=stages, non_local_mode=mode
    )


@pytest.mark.parametrize("mode", ["embedded_gaussian", "dot_product", "concatenation"])
def test_non_local_blocks_leave_a_net_as_it_was_until_trained(mode, drawn_variables):
    plain, model = non_local_net(), non_local_net("stage1", "stage2", mode=mode)
    variables = drawn_variables(plain, IMAGES)
    started = jax.jit(model.init)(jax.random.key(0), IMAGES)["params"]["backbone"]
    blocks = {name: block for name, block in started.items() if name.endswith("_non_local")}
    assert set(blocks) == {"stage1_non_local", "stage2_non_local"}

    @functools.partial(jax.jit, static_argnums=0)
    def features(model, blocks):
        params = variables["params"]
        params = {**params, "backbone": {**params["backbone"], **blocks}}
        return model.apply({**variables, "params": params}, IMAGES, method="features")

    before, after = features(plain, {}), features(model, blocks)
    assert list(after) == list(before)
    for name in before:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-5, atol=1e-5)
    blocks["stage2_non_local"]["out"]["bias"] += 1.0
    trained = features(model, blocks)
    np.testing.assert_allclose(trained["stage1"], before["stage1"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(trained["stage2"], before["stage2"] + 1, rtol=1e-5, atol=1e-5)


def test_non_local_blocks_have_half_the_channels_of_their_stage(count_parameters):
    def block(channels):
        half = channels // 2
        return 3 * (channels * half + half) + half * channels + channels

    plain = count_parameters("resnet50")
    count = count_parameters("resnet50", non_local=("stage2", "stage3"))
    assert count == plain + block(512) + block(1024)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"non_local": ("stage5",)}, "unknown stage 'stage5'; did you mean 'stage"),
        ({"non_local": "stage1"}, "non_local: wanted a tuple"),
        ({"non_local": (1,)}, "non_local: wanted a str"),
        ({"non_local_mode": "gauss"}, "unknown non_local_mode 'gauss'"),
    ],
)
def test_non_local_blocks_of_no_stage_or_mode_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        create_model("resnet50", **wrong)


@pytest.mark.parametrize(("name", "channels"), [("resnet18", 512), ("resnet50", 2048)])
def test_output_stride_bounds_the_stride_and_keeps_the_parameters(name, channels, shapes_of):
    shallow = {"depths": (1, 1, 1, 2)}
    for stride in (8, 16, 32):
        strides = [2, *(min(wanted, stride) for wanted in (4, 8, 16, 32))]
        model = create_model(name, output_stride=stride, **shallow)
        assert [found for _, found in feature_info(model).values()] == strides
        assert feature_info(model)["stage4"] == (channels, stride)
        assert model.min_size == stride
        assert shapes_of(name, output_stride=stride, **shallow) == shapes_of(name, **shallow)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"block": "basic"},
        {"groups": 2, "width_per_group": 8},
        {"groups": 2, "width_per_group": 8, "stride_in_1x1": True},
    ],
)
def test_dilated_nets_compute_what_the_net_with_strides_does_and_more_between(settings, drawn_variables):
    settings = {"depths": (1, 1, 1, 2), **settings}
    images = np.random.default_rng(2).normal(size=(1, 64, 64, 3)).astype(np.float32)
    models = {stride: create_model("resnet50", output_stride=stride, **settings) for stride in (32, 8)}
    variables = drawn_variables(models[32], images)
    maps = {
        stride: jax.jit(functools.partial(model.apply, method="features"))(variables, images)
        for stride, model in models.items()
    }
    for name, apart in {"stage1": 1, "stage2": 1, "stage3": 2, "stage4": 4}.items():
        sparse, dense = maps[32][name], maps[8][name]
        assert dense.shape[1] == apart * sparse.shape[1]
        scale = float(jnp.max(jnp.abs(sparse)))
        np.testing.assert_allclose(dense[:, ::apart, ::apart], sparse, rtol=0, atol=1e-5 * scale)


def normed_net(norm, **settings):
    return create_model("resnet18", 4, depths=(1, 1), small_input=True, norm=norm, **settings)


def parameter_count(name, norm, shapes_of):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes_of(name, norm=norm)["params"]))


def test_parameters_of_each_norm(shapes_of):
    """The scales and biases of ResNet-50's 53 normalizations have 26,560 channels."""
    assert parameter_count("resnet50", "batch", shapes_of) == 25_557_032
    assert parameter_count("resnet50", "group", shapes_of) == 25_557_032
    assert parameter_count("resnet50", "frozen", shapes_of) == 25_557_032 - 2 * 26_560
    assert set(shapes_of("resnet50", norm="group")) == {"params"}
    constants = shapes_of("resnet50", norm="frozen")["constants"]
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(constants)) == 4 * 26_560


@pytest.mark.slow
def test_frozen_norms_compute_and_differentiate_in_training_as_batch_norm_does_in_evaluation(
    drawn_variables,
):
    model, frozen = normed_net("batch"), normed_net("frozen")
    variables = drawn_variables(model, IMAGES)
    constant = freeze_batch_norms(variables)
    shapes = jax.eval_shape(frozen.init, jax.random.key(0), IMAGES)
    assert jax.tree.map(jnp.shape, constant) == jax.tree.map(jnp.shape, shapes)

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def run(model, train, variables):
        def loss(params):
            logits = model.apply({**variables, "params": params}, IMAGES, train=train)
            return jnp.sum(jax.nn.log_softmax(logits)[:, 0]), logits

        return jax.grad(loss, has_aux=True)(variables["params"])

    gradients, logits = run(model, False, variables)
    found, trained = run(frozen, True, constant)
    np.testing.assert_allclose(trained, logits, rtol=1e-5, atol=1e-5)
    for path, gradient in jax.tree_util.tree_leaves_with_path(found):
        wanted = functools.reduce(lambda tree, key: tree[key.key], path, gradients)
        np.testing.assert_allclose(
            gradient, wanted, rtol=1e-3, atol=1e-4 * float(jnp.max(jnp.abs(wanted)))
        )


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_training_changes_no_bit_of_frozen_norms(devices, drawn_variables):
    """Not by weight decay, nor by the mean over three devices, in which a third may be rounded."""
    parallel = DataParallel.create("shard_map", devices=jax.devices()[:devices])
    task = Classification(normed_net("frozen"))
    optimizer = create_optimizer("sgd", 0.1, weight_decay=0.1)
    images = np.random.default_rng(3).integers(0, 256, (6, 8, 8, 3), np.uint8)
    batch = {"image": images, "label": np.arange(6, dtype=np.int32) % 4}
    drawn = drawn_variables(task.model, IMAGES)
    state = create_state(task, optimizer, jax.random.key(0), batch, variables=drawn)
    step = parallel.compile_train_step(make_train_step(task, optimizer))
    after, _ = step(parallel.replicate(state), parallel.put(batch))
    jax.tree.map(np.testing.assert_array_equal, after.collections, {"constants": drawn["constants"]})
    changes = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), after.params, drawn["params"])
    assert min(jax.tree.leaves(changes)) > 0


def test_group_norm_treats_each_example_alone(drawn_variables):
    model = normed_net("group")
    variables = drawn_variables(model, IMAGES)
    assert set(variables) == {"params"}
    run = jax.jit(functools.partial(model.apply, train=True))
    together = run(variables, IMAGES)
    alone = jnp.concatenate([run(variables, IMAGES[i : i + 1]) for i in range(len(IMAGES))])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)
    assert float(jnp.ptp(together, axis=0).max()) > 0.1


def test_epsilon_is_that_of_the_norms(drawn_variables):
    near, far = (normed_net("frozen", epsilon=epsilon) for epsilon in (1e-9, 10.0))
    variables = drawn_variables(near, IMAGES)
    maps = [model.apply(variables, IMAGES, method="features")["stem"] for model in (near, far)]
    assert float(jnp.max(maps[0])) > 2 * float(jnp.max(maps[1]))


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("resnet50", {"output_stride": 4}, "output_stride: wanted one of 8, 16, 32; got 4"),
        ("resnet50", {"norm": "grup"}, "unknown norm 'grup'; did you mean 'group'"),
        ("resnext50_2x40d", {"norm": "group"}, "multiples of 32 channels, .* have 80"),
    ],
)
def test_strides_and_norms_that_are_not_there_are_refused(name, wrong, message):
    with pytest.raises(InputError, match=message):
        create_model(name, **wrong)
