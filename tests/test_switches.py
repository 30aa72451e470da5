"""JAX's own switches: whatever is set, models initialize, train and decode, with the same numbers.

`.ci/run` runs the tests of layers, losses and steps under the strict ones too.
"""

import contextlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_captioners import LENGTH, SMALL
from small_captioners import make_batch as make_captions
from small_captioners import make_task as make_captioner

from jaxnets import Classification, create_model, explain, layers, losses, metrics
from jaxnets.captioning import decoding
from jaxnets.data import augmentation
from jaxnets.errors import InputError
from jaxnets.models import Classifier
from jaxnets.training import (
    DataParallel,
    Stage,
    create_optimizer,
    create_schedule,
    create_state,
    make_eval_step,
    make_train_step,
    search,
)
from jaxnets.training.optimizers import OPTIMIZERS
from jaxnets.training.schedules import SCHEDULES

KEY = jax.random.key(0)
MAPS = jax.ShapeDtypeStruct((2, 6, 6, 4), jnp.float32)
SEQUENCES = jax.ShapeDtypeStruct((2, 5, 4), jnp.float32)


@contextlib.contextmanager
def strict():
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


SWITCHES = {"strict": strict, "x64": lambda: jax.enable_x64(True)}
switched = pytest.mark.parametrize("switch", SWITCHES.values(), ids=SWITCHES)

MODULES = {
    "conv": (layers.Conv(3, 3), MAPS),
    "grouped": (layers.Conv(4, 3, groups=2, dilation=2), MAPS),
    "depthwise": (layers.SeparableConv(4, 3), MAPS),
    "masked": (layers.MaskedConv(4, 3, "A"), MAPS),
    "transposed": (layers.ConvTranspose(3, 4, 2), MAPS),
    "batch_norm": (layers.BatchNorm(use_running_average=False), MAPS),
    "frozen_norm": (layers.FrozenBatchNorm(), MAPS),
    "group_norm": (layers.GroupNorm(2), MAPS),
    "layer_norm": (layers.LayerNorm(), MAPS),
    "instance_norm": (layers.InstanceNorm(), MAPS),
    "prelu": (layers.PReLU(), MAPS),
    "drop_connect": (layers.DropConnect(3, 0.5, deterministic=False), MAPS),
    "dropout": (layers.Dropout(0.5, deterministic=False), MAPS),
    "drop_path": (layers.DropPath(0.5, deterministic=False), MAPS),
    "squeeze": (layers.SqueezeExcite(2), MAPS),
    **{mode: (layers.NonLocalBlock(mode), MAPS) for mode in ("embedded_gaussian", "concatenation")},
    "mixed_pool": (layers.MixedPool(2), MAPS),
    "gated_pool": (layers.GatedPool(2, per_channel=True), MAPS),
    "tree_pool": (layers.TreePool(2, levels=3), MAPS),
    "linear": (layers.LinearHead(3), MAPS),
    "confidence": (layers.ConfidenceMapHead(3), MAPS),
    "mlp": (layers.MLPHead((5,), 3, pool_size=2), MAPS),
    "rnn": (layers.RNN(3, bidirectional=True), SEQUENCES),
    "gru": (layers.GRU(3), SEQUENCES),
    "lstm": (layers.LSTM(3, 2), SEQUENCES),
}
FUNCTIONS = {
    "lrn": layers.local_response_norm,
    "max_pool": lambda x: layers.max_pool(x, 3, 2, 1),
    "avg_pool": lambda x: layers.avg_pool(x, 3, 2, 1, count_include_pad=False),
    "lp_pool": lambda x: layers.lp_pool(x, 2.0, 2),
    "pyramid": lambda x: layers.spatial_pyramid_pool(x, (1, 2, 4), "avg"),
    "maxout": lambda x: layers.maxout(x, 2),
    "im2col": lambda x: layers.im2col(x, 3),
    "penalty": lambda x: layers.l2_penalty({"w": x}),
}


EXPLANATIONS = {
    "occlusion": {"classes": np.array([0, 2]), "size": 2, "stride": 2},
    "saliency": {},
    "grad_cam": {},
    "receptive_field": {"layer": "stage1", "row": 2, "column": 2},
}


def types(tree):
    return {leaf.dtype for leaf in jax.tree.leaves(tree)}


def each_type(tree):
    return jax.tree.map(lambda leaf: leaf.dtype, tree)


def gradient_types(function, *args):
    """The types of a function's results and of its gradients, as they are when traced."""
    outs = jax.eval_shape(function, *args)

    def total(*args):
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(function(*args)))

    numbers = tuple(range(len(args)))
    return types(outs) | types(jax.eval_shape(jax.grad(total, numbers), *args))


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def in_float64(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float64), tree)


@switched
@pytest.mark.parametrize("name", MODULES)
def test_a_layer_keeps_the_type_of_its_input(switch, name):
    module, x = MODULES[name]

    def run(variables, x):
        out, _ = module.apply(variables, x, rngs={"dropout": KEY}, mutable=["batch_stats"])
        return out

    with switch():
        variables = jax.eval_shape(module.init, {"params": KEY, "dropout": KEY}, x)
        assert types(variables) <= {jnp.dtype("float32")}
        assert gradient_types(run, variables, x) == {jnp.dtype("float32")}
    # Flax's own normalizations promote types where the input is not float32.
    with jax.enable_x64(True), jax.numpy_rank_promotion("raise"):
        assert gradient_types(run, in_float64(variables), in_float64(x)) == {jnp.dtype("float64")}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_maps_keeps_the_type_of_its_input(name):
    with strict():
        assert gradient_types(FUNCTIONS[name], MAPS) == {jnp.dtype("float32")}
        with jax.enable_x64(True):
            assert gradient_types(FUNCTIONS[name], MAPS) == {jnp.dtype("float32")}
            assert gradient_types(FUNCTIONS[name], in_float64(MAPS)) == {jnp.dtype("float64")}


@pytest.mark.parametrize("name", [*augmentation.AUGMENTATIONS, *augmentation.PRESETS])
@pytest.mark.parametrize("enabled", [False, True])
@pytest.mark.parametrize("masks", [False, True])
def test_an_augmentation_preserves_types(name, enabled, masks):
    shapes = {
        "image": jax.ShapeDtypeStruct((8, 9, 3), jnp.float32),
        "box": jax.ShapeDtypeStruct((2, 4), jnp.float32),
        "segmentation": jax.ShapeDtypeStruct((8, 9), jnp.int32 if masks else jnp.uint8),
        "size": jax.ShapeDtypeStruct((2,), jnp.int32),
        "crowd": jax.ShapeDtypeStruct((2,), bool),
    }
    if masks:
        shapes["mask"] = jax.ShapeDtypeStruct((2, 8, 9), bool)
    with strict(), jax.enable_x64(enabled):
        after = jax.eval_shape(augmentation.by_name([name]), KEY, shapes)
    assert {name: after[name].dtype for name in shapes} == {n: s.dtype for n, s in shapes.items()}


class Tiny(nn.Module):
    """A convolution and a normalization."""

    @nn.compact
    def __call__(self, images, train=False):
        x = layers.Conv(4, 3, name="conv")(images)
        x = layers.BatchNorm(use_running_average=not train, name="bn")(x)
        return {"stage1": nn.relu(x)}


def make_classifier(**options):
    model = Classifier(Tiny(), layers.LinearHead(3), num_classes=3, input_size=(6, 6, 3))
    return Classification(model, **{"augment": augmentation.by_name(["cifar"]), **options})


def make_images(seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (4, 6, 6, 3), dtype=np.uint8)
    return {"image": images, "label": np.arange(4) % 3, "weight": np.ones(4, np.float32)}


COSINE = create_schedule("cosine", 0.1, 10, warmup_steps=2)
OPTIMIZER = create_optimizer("momentum", COSINE, clip_norm=1.0)


def begin(task, batch, optimizer=OPTIMIZER, key=KEY):
    return create_state(task, optimizer, key, batch, ema=True)


@pytest.mark.parametrize(
    ("switch", "precision"),
    [(strict, "bfloat16"), (SWITCHES["x64"], "float32")],
    ids=["strict", "x64"],
)
@pytest.mark.parametrize(
    "task",
    [
        make_classifier(mix=augmentation.mixup(), class_weights=(1.0, 2.0, 3.0)),
        make_classifier(mix=augmentation.cutmix(), loss_name="hinge"),
        *(make_captioner(name, word_noise=0.1, recolor=0.5) for name in SMALL),
        make_captioner(
            "show_attend_tell", decoder={"attention": "hard"}, scheduled_sampling=lambda n: n / 9
        ),
    ],
    ids=["mixup", "cutmix", *SMALL, "hard"],
)
def test_a_step_keeps_every_type_of_the_state(switch, task, precision):
    batch = make_images() if isinstance(task, Classification) else make_captions()
    step = make_train_step(task, OPTIMIZER, precision=precision, accumulate=1, ema_decay=0.9)
    with switch():
        state = jax.eval_shape(lambda: begin(task, batch))
        assert types((state.params, state.collections, state.ema)) == {jnp.dtype("float32")}
        after, sums = jax.eval_shape(step, state, batch)
        assert each_type(after) == each_type(state)
        seen = jax.eval_shape(make_eval_step(task, precision=precision), state.variables, batch)
        assert types((sums, seen)) == {jnp.dtype("float32")}


class Line:
    """A task of one matrix and one bias."""

    def init(self, key, batch):
        return {"params": {"kernel": jnp.ones((3, 2), jnp.float32), "bias": jnp.ones(2, jnp.float32)}}

    def loss(self, variables, batch, key):
        params = variables["params"]
        values = jnp.sum(jnp.square(batch["x"] @ params["kernel"] + params["bias"][None]), axis=1)
        mean = metrics.Mean.of(values, jnp.ones(len(values), jnp.float32))
        return mean.total / mean.weight, ({}, {"loss": mean})


@switched
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_keeps_the_types_of_its_state(switch, name):
    batch = {"x": np.ones((4, 3), np.float32)}
    optimizer = create_optimizer(name, COSINE, weight_decay=1e-4)
    with switch():
        state = jax.eval_shape(lambda: begin(Line(), batch, optimizer))
        after, sums = jax.eval_shape(make_train_step(Line(), optimizer, accumulate=2), state, batch)
    assert types((sums, after.params)) == {jnp.dtype("float32")}
    assert each_type(after) == each_type(state)


@switched
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_takes_integers(switch, name):
    count, warmup = jax.ShapeDtypeStruct((), jnp.int32), 0 if name == "one_cycle" else 3
    with switch():
        rate = jax.eval_shape(create_schedule(name, 0.1, 9, warmup_steps=warmup), count)
    assert rate.dtype == jnp.float32


@switched
def test_captions_are_decoded_in_every_way(switch):
    task, batch = make_captioner("show_attend_tell"), make_captions()
    options = {"end": 2, "length": LENGTH}

    def decoded(key):
        variables = task.init(key, batch)
        features = task.encode(variables, batch)
        wide = jnp.repeat(features, 3, axis=0)
        step, cache = task.step(variables, features), task.start(variables, features)
        first = jnp.full(len(features), 1, jnp.int32)
        beams = decoding.beam_search(
            task.step(variables, wide), cache, first, width=3, alpha=0.7, **options
        )
        drawn = decoding.sample(step, cache, first, key=key, top_k=5, top_p=0.9, **options)
        return task.predict(variables, batch), beams.tokens, drawn

    with switch():
        assert types(jax.eval_shape(decoded, KEY)) == {jnp.dtype("int32")}


@pytest.mark.slow
@switched
@pytest.mark.parametrize("name", ["resnet18", "vit_base_patch16_224", "fractalnet", "googlenet"])
def test_models_of_the_zoo_initialize_and_answer_in_float32(switch, name):
    model = create_model(name, num_classes=3)
    images = jax.ShapeDtypeStruct((1, *model.input_size), jnp.float32)
    with switch():
        variables, logits = jax.eval_shape(
            lambda key, x: ((v := model.init(key, x)), model.apply(v, x)), KEY, images
        )
        assert types((variables, logits)) == {jnp.dtype("float32")}


@pytest.mark.slow
def test_float64_parameters_and_images_give_float64_logits_and_gradients():
    task, batch = make_classifier(augment=None), make_images()
    batch = {**batch, "image": batch["image"] / 255.0}
    state = begin(task, batch)
    narrow = jax.jit(task.predict)(state.variables, batch)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state.variables)
        logits = jax.jit(task.predict)(wide, batch)

        def loss(params):
            return task.loss({**wide, "params": params}, batch, jax.random.key(1))[0]

        def shifted(size):
            return loss(jax.tree.map(lambda leaf: leaf + size, wide["params"]))

        slope = jax.jit(jax.grad(loss))(wide["params"])
        # A central difference, to more digits than float32 has.
        difference = jax.jit(lambda: (shifted(1e-6) - shifted(-1e-6)) / 2e-6)()
        along = sum(np.sum(leaf) for leaf in jax.tree.leaves(slope))
    assert types((logits, slope)) == {jnp.dtype("float64")}
    np.testing.assert_allclose(along, difference, rtol=1e-7)
    np.testing.assert_allclose(logits, narrow, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def trained():
    """A state after two steps of one device, by a compiled step, and the step."""
    return run_steps()


def run_steps(key=KEY):
    task, one = make_classifier(augment=None), DataParallel.create(devices=jax.devices()[:1])
    step = one.compile_train_step(make_train_step(task, OPTIMIZER, ema_decay=0.9))
    state = one.replicate(begin(task, make_images(), key=key))
    batches = [one.put(make_images(seed)) for seed in range(2)]
    with jax.transfer_guard("disallow"):
        for batch in batches:
            state, sums = step(state, batch)
    return jax.device_get((state, metrics.compute(sums)))


def test_steps_transfer_nothing_that_was_not_placed(trained):
    assert trained[0].step == 2


@pytest.mark.parametrize(
    "switch",
    [lambda: jax.debug_nans(True), lambda: jax.enable_x64(True)],
    ids=["debug_nans", "x64"],
)
def test_steps_are_the_same_under_a_switch(trained, switch):
    with switch():
        again = run_steps()
    (state, sums), (after, sums_after) = trained, again
    jax.tree.map(close, after.opt_state, state.opt_state)
    jax.tree.map(close, (after.params, after.ema, sums_after), (state.params, state.ema, sums))


@pytest.mark.slow  # operation by operation
def test_a_step_without_jit_is_that_with_it():
    task, batch = make_classifier(augment=None), make_images()
    state, step = begin(task, batch), make_train_step(task, OPTIMIZER, ema_decay=0.9)
    with jax.disable_jit():
        plain, _ = step(state, batch)
    compiled, _ = jax.jit(step)(state, batch)
    jax.tree.map(close, plain.params, compiled.params)


def test_a_batch_of_padding_alone_makes_no_nan():
    task = make_classifier(augment=None)
    batch = {**make_images(), "weight": np.zeros(4, np.float32)}
    with jax.debug_nans(True):
        jax.jit(make_train_step(task, OPTIMIZER))(begin(task, batch), batch)


@pytest.mark.parametrize("default", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
def test_a_state_keeps_the_kind_of_its_key(default, kind):
    key = jax.random.key(5, impl=kind)
    with jax.default_prng_impl(default):
        state = begin(make_classifier(), make_images(), key=key)
        assert str(jax.random.key_impl(state.run_key)) == kind
        wanted = jax.random.split(key)[1]
        np.testing.assert_array_equal(jax.random.bits(state.run_key), jax.random.bits(wanted))


def test_a_key_whose_kind_its_data_does_not_tell_is_refused():
    with pytest.raises(InputError, match="key is of the kind 'unsafe_rbg'.*jax_default_prng_impl"):
        begin(make_classifier(), make_images(), key=jax.random.key(0, impl="unsafe_rbg"))


@switched
def test_losses_keep_float32(switch):
    x = jax.ShapeDtypeStruct((4, 3), jnp.float32)
    weights = jax.ShapeDtypeStruct((3,), jnp.float32)
    with switch():
        for loss in (losses.hinge, losses.mean_squared_error, losses.binary_cross_entropy):
            assert gradient_types(loss, x, x) == {jnp.dtype("float32")}
        weighted = gradient_types(lambda x, t, w: losses.cross_entropy(x, t, 0.1, w), x, x, weights)
        assert weighted == {jnp.dtype("float32")}


@pytest.mark.slow
@pytest.mark.parametrize("enabled", [False, True])
def test_models_are_explained(enabled):
    model, images = make_classifier().model, np.ones((2, 6, 6, 3), np.float32)
    variables = model.init(KEY, images)
    with strict(), jax.enable_x64(enabled), jax.debug_nans(True):
        for method, options in EXPLANATIONS.items():
            found = getattr(explain, method)(model, variables, images, **options)
            assert types(found) <= {jnp.dtype("float32"), jnp.dtype("int32")}, method


class Steep(Line):
    """A line whose measures are its loss."""

    def predict(self, variables, batch):
        return self.loss(variables, batch, KEY)[1][1]

    def metrics(self, sums, batch):
        return sums


class Rows:
    """Four examples of three numbers."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {"x": np.full(3, index, np.float32)}


@pytest.mark.slow
@switched
def test_candidates_of_a_search_are_trained(switch):
    with switch():
        found = search(
            Steep(), Rows(), Rows(), optimizer=lambda steps, rate: create_optimizer("sgd", rate),
            space={"rate": (1e-5, 1e-4)}, stages=(Stage(1, 1),), batch_size=2, progress=False,
            parallel=DataParallel.create(devices=jax.devices()[:1]),
        )  # fmt: skip
    assert found.best.outcome.stopped is None
