import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets import layers
from jaxnets.errors import InputError

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def variables(channels):
    return {
        "params": {"scale": 1 + 0.3 * normal(channels), "bias": normal(channels)},
        "batch_stats": {"mean": normal(channels), "var": 1 + np.abs(normal(channels))},
    }


TRAIN = layers.BatchNorm(use_running_average=False)


def train(v, x, module=TRAIN):
    y, updated = module.apply(v, x, mutable=["batch_stats"])
    return y, updated["batch_stats"]


def test_training_normalizes_by_the_biased_and_remembers_the_unbiased_variance():
    x, v = 3 * normal(4, 3, 2, 5) + 1, variables(5)
    y, stats = jax.jit(train)(v, x)
    mean, var = x.mean((0, 1, 2), np.float64), x.var((0, 1, 2), np.float64)
    expected = (x - mean) / np.sqrt(var + 1e-5) * v["params"]["scale"] + v["params"]["bias"]
    np.testing.assert_allclose(y, expected, atol=1e-5)
    old = v["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.9 * old["mean"] + 0.1 * mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stats["var"], 0.9 * old["var"] + 0.1 * var * 24 / 23, rtol=1e-5)


def test_evaluation_uses_the_running_statistics():
    x, v = normal(2, 3, 3, 4), variables(4)
    norm = layers.BatchNorm(epsilon=1e-3)
    y = norm.apply(v, x, use_running_average=True)
    p, s = v["params"], v["batch_stats"]
    expected = (x - s["mean"]) / np.sqrt(s["var"] + 1e-3) * p["scale"] + p["bias"]
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_parameters_and_statistics_are_named_as_flax_names_them():
    x = normal(2, 3, 3, 4)
    v = TRAIN.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, v) == {
        "params": {"scale": (4,), "bias": (4,)},
        "batch_stats": {"mean": (4,), "var": (4,)},
    }
    np.testing.assert_array_equal(v["batch_stats"]["mean"], 0)  # initializing is no training step
    np.testing.assert_array_equal(v["batch_stats"]["var"], 1)
    bare = layers.BatchNorm(use_running_average=True, use_bias=False, use_scale=False)
    assert "params" not in bare.init(jax.random.key(0), x)


def shards_against_whole(module=TRAIN):
    """Loss, outputs, statistics and gradients of one batch of 16, and of it in 4 mapped shards."""
    x, v = normal(16, 3, 3, 5) * np.linspace(1, 4, 16)[:, None, None, None], variables(5)
    x, weights = x.astype(np.float32), normal(16, 3, 3, 5)

    def loss(params, x, weights):
        y, stats = train({"params": params, "batch_stats": v["batch_stats"]}, x, module)
        return jnp.mean(jnp.sin(y) * weights), (y, stats)

    gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)

    def shard(x, weights):
        (value, (y, stats)), (dparams, dx) = gradient(v["params"], x, weights)
        return jax.lax.pmean((value, stats, dparams), layers.DATA_AXIS), y, dx / 4

    cut = [a.reshape(4, 4, *a.shape[1:]) for a in (x, weights)]
    (value, stats, dparams), y, dx = jax.jit(jax.vmap(shard, axis_name=layers.DATA_AXIS))(*cut)
    one = jax.tree.map(lambda a: a[0], (value, stats, dparams))
    mapped = (*one, y.reshape(x.shape), dx.reshape(x.shape))
    (value, (y, stats)), (dparams, dx) = jax.jit(gradient)(v["params"], x, weights)
    return mapped, (value, stats, dparams, y, dx)


def test_four_shards_give_the_numbers_of_the_whole_batch_gradients_included():
    mapped, whole = shards_against_whole()
    for m, w in zip(jax.tree.leaves(mapped), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(m, w, rtol=2e-5, atol=2e-7 + 1e-5 * np.abs(w).max())


@pytest.mark.slow
def test_without_an_axis_name_every_shard_is_a_batch_of_its_own():
    mapped, whole = shards_against_whole(layers.BatchNorm(use_running_average=False, axis_name=None))
    assert np.abs(mapped[3] - whole[3]).max() > 0.1
    x, v = normal(4, 6, 2, 2, 3), variables(3)
    alone = layers.BatchNorm(use_running_average=False, axis_name=None)
    y, _ = jax.vmap(lambda x: train(v, x, alone), axis_name=layers.DATA_AXIS)(x)
    np.testing.assert_allclose(y[2], train(v, x[2])[0], atol=1e-5)


def test_other_axes_are_let_alone():
    x, v = normal(4, 6, 2, 2, 3), variables(3)
    y, _ = jax.vmap(lambda x: train(v, x), axis_name="ensemble")(x)
    np.testing.assert_allclose(y[1], train(v, x[1])[0], atol=1e-5)


def test_initializing_looks_for_no_axis():
    x = normal(4, 6, 2, 2, 3)
    mapped = jax.vmap(
        lambda x: TRAIN.init_with_output(jax.random.key(0), x)[0], axis_name=layers.DATA_AXIS
    )(x)
    alone, _ = TRAIN.init_with_output(jax.random.key(0), x[1])
    np.testing.assert_allclose(mapped[1], alone, atol=1e-5)


def test_variance_survives_a_large_mean():
    x = (4096 + normal(64, 8, 8, 2)).astype(np.float32)
    v = jax.jit(TRAIN.init)(jax.random.key(0), x)
    y, stats = jax.jit(train)(v, x)
    exact = x.astype(np.float64).var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * exact, rtol=1e-5)
    np.testing.assert_allclose(np.std(y, (0, 1, 2)), 1, rtol=1e-2)


def test_derivatives_are_those_of_the_formula_forward_backward_and_of_second_order():
    x, weights, direction = normal(3, 4, 3, 3, 2)
    x += 1
    v = variables(2)

    def layer(x):
        return jnp.sum(jnp.sin(train(v, x)[0]) * weights)

    def formula(x):
        axes, (scale, bias) = (
            (0, 1, 2),
            (v["params"][name][None, None, None] for name in ("scale", "bias")),
        )
        y = (x - x.mean(axes, keepdims=True)) / jnp.sqrt(x.var(axes, keepdims=True) + 1e-5)
        return jnp.sum(jnp.sin(y * scale + bias) * weights)

    def derivatives(f):
        slope = jax.grad(f)
        return jax.jit(
            lambda x: (
                slope(x),
                jax.jvp(f, (x,), (direction,))[1],
                jax.jvp(slope, (x,), (direction,))[1],
                jax.grad(lambda x: jnp.vdot(slope(x), direction))(x),
            )
        )(x)

    for o, w in zip(derivatives(layer), derivatives(formula), strict=True):
        np.testing.assert_allclose(o, w, rtol=2e-4, atol=1e-5 * np.abs(w).max())


def test_bfloat16_keeps_float32_statistics():
    x, v = jnp.asarray(normal(8, 4, 4, 3) + 2, jnp.bfloat16), variables(3)
    half = jax.tree.map(lambda a: jnp.asarray(a, jnp.bfloat16), v["params"])
    y, stats = jax.jit(train)({**v, "params": half}, x)
    assert y.dtype == jnp.bfloat16
    assert {s.dtype for s in stats.values()} == {np.dtype(np.float32)}
    exact = np.asarray(x, np.float64)
    expected = 0.9 * v["batch_stats"]["mean"] + 0.1 * exact.mean((0, 1, 2))
    np.testing.assert_allclose(stats["mean"], expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_maps_have_the_variance_of_their_values_and_its_gradients(dtype):
    x, v, weights = normal(64, 8, 8, 3) + 16, variables(3), normal(64, 8, 8, 3)
    x[..., 2] = 300  # a constant: no variance, and not less
    x = jnp.asarray(x, dtype)

    def loss(x):
        y, stats = train(v, x)
        return jnp.sum(jnp.sin(y.astype(jnp.float32)) * weights), (y, stats)

    slope, (y, stats) = jax.jit(jax.grad(loss, has_aux=True))(x)
    exact = np.asarray(x, np.float64).var((0, 1, 2), ddof=1)
    expected = 0.9 * v["batch_stats"]["var"] + 0.1 * exact
    # One pass loses digits of the mean's square: 2e-5 of it, where the 4096 values are added in turn.
    mean = np.asarray(x, np.float64).mean((0, 1, 2))
    assert (np.abs(stats["var"] - expected) < 0.1 * 2e-5 * mean**2).all()
    wanted, (fine, _) = jax.jit(jax.grad(loss, has_aux=True))(x.astype(jnp.float32))
    for half, full in ((slope, wanted), (y, fine)):
        half, full = (np.asarray(a[..., :2], np.float32) for a in (half, full))
        assert np.linalg.norm(half - full) < 2**-7 * np.linalg.norm(full)
    assert np.isfinite(np.asarray(y, np.float32)).all()


def test_a_single_value_per_channel_cannot_be_trained_on():
    x = jnp.ones((1, 1, 1, 3))
    v = TRAIN.init(jax.random.key(0), x)
    with pytest.raises(InputError, match="one value per channel"):
        train(v, x)
    # In two shards there are two of them.
    y, _ = jax.vmap(lambda x: train(v, x), axis_name="batch")(jnp.stack([x, -x]))
    np.testing.assert_allclose(y.ravel(), [1] * 3 + [-1] * 3, atol=1e-4)


@pytest.mark.parametrize(
    ("module", "axes", "shape"),
    [
        (layers.LayerNorm(), (4,), (2, 3, 3, 1, 6)),
        (layers.GroupNorm(3), (1, 2, 4), (2, 3, 3, 3, 2)),
        (layers.InstanceNorm(), (1, 2), (2, 3, 3, 6, 1)),
    ],
)
def test_layer_group_and_instance_norm_by_hand(module, axes, shape):
    x = 0.1 * normal(2, 3, 3, 6) + 30  # small deviations from a large mean; epsilon tells
    scale, bias = 1 + normal(6), normal(6)
    y = module.apply({"params": {"scale": scale, "bias": bias}}, x)
    parts = x.astype(np.float64).reshape(shape)
    mean, var = parts.mean(axes, keepdims=True), parts.var(axes, keepdims=True)
    expected = ((parts - mean) / np.sqrt(var + 1e-5)).reshape(x.shape) * scale + bias
    np.testing.assert_allclose(y, expected, atol=1e-3)


def test_layer_group_and_instance_norm_use_epsilon_of_torch():
    x = 1e-3 * normal(2, 3, 3, 6)  # the variance is below epsilon: 1e-6 would triple the output
    for module in (layers.LayerNorm(), layers.GroupNorm(3), layers.InstanceNorm()):
        y, _ = module.init_with_output(jax.random.key(0), x)
        assert 0.2 < np.std(y) < 0.35


@pytest.mark.parametrize(("size", "beta"), [(1, 0.6), (4, 0.6), (5, 0.6), (5, 0.75)])
def test_local_response_norm_by_hand(size, beta):
    x = 5 * normal(2, 2, 2, 7)
    y = jax.jit(lambda x: layers.local_response_norm(x, size, alpha=0.3, beta=beta, k=1.5))(x)
    expected = np.zeros_like(x, np.float64)
    for channel in range(7):
        near = [c for c in range(channel - size // 2, channel - size // 2 + size) if 0 <= c < 7]
        total = (x[..., near].astype(np.float64) ** 2).sum(-1)
        expected[..., channel] = x[..., channel] / (1.5 + 0.3 / size * total) ** beta
    np.testing.assert_allclose(y, expected, rtol=1e-4)


def test_local_response_norm_of_the_alexnet_paper():
    x = 100 * np.ones((1, 1, 1, 9), np.float32)
    y = layers.local_response_norm(x, size=5, alpha=5e-4, beta=0.75, k=2)
    assert y[0, 0, 0, 4] == pytest.approx(100 / (2 + 1e-4 * 5 * 100**2) ** 0.75, rel=1e-5)
    half = layers.local_response_norm(x.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    with pytest.raises(InputError, match="size is 0"):
        layers.local_response_norm(x, size=0)


def test_frozen_batch_norm_is_batch_norm_in_evaluation_of_constants():
    x = RNG.normal(size=(2, 3, 3, 4)).astype(np.float32)
    drawn = {
        name: RNG.uniform(0.5, 2, 4).astype(np.float32) for name in ("scale", "bias", "mean", "var")
    }
    trained = {
        "params": {"norm": {name: drawn[name] for name in ("scale", "bias")}},
        "batch_stats": {"norm": {name: drawn[name] for name in ("mean", "var")}},
    }
    frozen = layers.freeze_batch_norms(trained)
    assert frozen == {"constants": {"norm": drawn}}
    wanted = (x - drawn["mean"]) / np.sqrt(drawn["var"] + 1e-3) * drawn["scale"] + drawn["bias"]
    layer = layers.norm_layer("frozen", train=True, epsilon=1e-3)(name="norm")
    out, changed = layer.apply({"constants": drawn}, x, mutable=["batch_stats"])
    np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-5)
    assert changed == {}
    assert layer.apply({"constants": drawn}, x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_freezing_moves_batch_norms_and_nothing_else():
    variables = {
        "params": {"conv": {"kernel": 1}, "bn": {"scale": 2, "bias": 3}, "ln": {"scale": 4, "bias": 5}},
        "batch_stats": {"bn": {"mean": 6, "var": 7}},
    }
    assert layers.freeze_batch_norms(variables) == {
        "params": {"conv": {"kernel": 1}, "ln": {"scale": 4, "bias": 5}},
        "constants": {"bn": {"scale": 2, "bias": 3, "mean": 6, "var": 7}},
    }


@pytest.mark.parametrize("train", [False, True])
def test_norms_by_their_names(train):
    batch = layers.norm_layer("batch", train)(name="norm")
    assert (type(batch), batch.use_running_average, batch.epsilon) == (layers.BatchNorm, not train, 1e-5)
    group = layers.norm_layer("group", train, 1e-3)(name="norm")
    assert (type(group), group.num_groups, group.epsilon) == (nn.GroupNorm, 32, 1e-3)
    with pytest.raises(InputError, match="unknown norm 'instance'"):
        layers.norm_layer("instance", train)
