"""One step, the same numbers however the batch is cut."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec

from jaxnets import metrics
from jaxnets.errors import InputError
from jaxnets.training import create_optimizer, create_state, make_eval_step, make_train_step

LEARNING_RATE = 0.1
SGD = optax.sgd(LEARNING_RATE)


@pytest.fixture(scope="module")
def step(task):
    """The step of plain gradient descent, as it is mapped over devices."""
    return make_train_step(task, SGD)


@pytest.fixture(scope="module")
def alone_step(step):
    """The same, compiled for one device: once for all tests."""
    return jax.jit(step)


@pytest.fixture(scope="module")
def state(task):
    """Where plain gradient descent begins, which no test donates."""
    return start(task, {"image": np.zeros((32, 8, 8, 1), np.uint8)}, SGD)


def start(task, batch, optimizer, **options):
    return create_state(task, optimizer, jax.random.key(0), batch, **options)


def assert_close(a, b, rtol=1e-5, atol=1e-6):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=atol), a, b)


def cut(batch, parts):
    return jax.tree.map(lambda leaf: np.reshape(leaf, (parts, -1, *leaf.shape[1:])), batch)


def under_pmap(step, state, batch):
    mapped = jax.pmap(
        step, axis_name="batch", in_axes=(None, 0), out_axes=None, devices=jax.devices()[:4]
    )
    return mapped(state, cut(batch, 4))


def under_shard_map(step, state, batch, check_vma):
    spec = PartitionSpec
    mapped = jax.shard_map(
        step,
        mesh=Mesh(np.array(jax.devices()[:4]), ("batch",)),
        in_specs=(spec(), spec("batch")),
        out_specs=spec(),
        check_vma=check_vma,
    )
    return jax.jit(mapped)(state, batch)


MAPPINGS = {
    "pmap": under_pmap,
    "shard_map": partial(under_shard_map, check_vma=False),
    # JAX's default. Here pmap-style code gets gradients N times too large, and nothing says so.
    "shard_map_check_vma": partial(under_shard_map, check_vma=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("mapping", MAPPINGS)
def test_four_replicas_take_the_step_of_one_device(step, alone_step, state, batch, mapping):
    alone, alone_sums = alone_step(state, batch)
    state_of_all, sums = MAPPINGS[mapping](step, state, batch)
    # Plain gradient descent: a gradient four times too large would show in full.
    assert_close(state_of_all.params, alone.params)
    assert_close(state_of_all.collections, alone.collections)
    assert_close(metrics.compute(sums), metrics.compute(alone_sums), rtol=1e-4)


@pytest.mark.parametrize("mapping", ["pmap", "shard_map_check_vma"])
def test_replicas_count_by_the_weight_of_their_examples(step, alone_step, state, batch, mapping):
    # The first replica holds nothing but padding, the second is half full.
    batch["weight"][:12] = 0
    alone, alone_sums = alone_step(state, batch)
    together, sums = MAPPINGS[mapping](step, state, batch)
    assert_close(together.params, alone.params)
    assert float(sums["loss"].weight) == 20
    assert_close(metrics.compute(sums), metrics.compute(alone_sums), rtol=1e-4)


def test_a_step_moves_the_parameters_by_the_gradient_of_the_mean_loss(task, alone_step, state, batch):
    after, sums = alone_step(state, batch)
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), 0)

    def loss(params):
        return task.loss({"params": params, **state.collections}, batch, key)[0]

    value, grads = jax.jit(jax.value_and_grad(loss))(state.params)
    wanted = jax.tree.map(lambda p, g: p - LEARNING_RATE * g, state.params, grads)
    assert_close(after.params, wanted)
    shown = metrics.compute(sums)
    norm = float(optax.tree.norm(grads))
    assert shown["loss"] == pytest.approx(float(value), rel=1e-5)
    assert shown["grad_norm"] == pytest.approx(norm, rel=1e-5)
    ratio = LEARNING_RATE * norm / float(optax.tree.norm(state.params))
    assert shown["update_ratio"] == pytest.approx(ratio, rel=1e-4)
    assert int(after.step) == 1


def test_accumulated_micro_batches_take_the_step_of_the_whole_batch(batch, digits):
    # A net without batch statistics: those are of a micro-batch.
    from jaxnets import Classification, create_model

    task = Classification(create_model("mlp", num_classes=4, widths=(16,)))
    batch["weight"][:5] = 0
    optimizer = optax.sgd(LEARNING_RATE)
    state = start(task, batch, optimizer)
    whole, whole_sums = jax.jit(make_train_step(task, optimizer))(state, batch)
    parts, sums = jax.jit(make_train_step(task, optimizer, accumulate=4))(state, batch)
    assert_close(parts.params, whole.params)
    assert_close(metrics.compute(sums), metrics.compute(whole_sums), rtol=1e-5)


@pytest.mark.slow
def test_accumulation_passes_batch_statistics_through_every_micro_batch(task, state, batch):
    optimizer = optax.sgd(0.0)  # whose state is that of any other rate
    accumulated, _ = jax.jit(make_train_step(task, optimizer, accumulate=2))(state, batch)
    step = jax.jit(make_train_step(task, optimizer))
    for half in range(2):
        state, _ = step(state, jax.tree.map(lambda a, h=half: a[16 * h : 16 * h + 16], batch))
    assert_close(accumulated.collections, state.collections)


def test_the_moving_average_follows_its_formula_and_is_what_predicts(task, batch):
    optimizer = optax.sgd(LEARNING_RATE)
    step = jax.jit(make_train_step(task, optimizer, ema_decay=0.9))
    state = start(task, batch, optimizer, ema=True)
    for taken, decay in ((0, 1 / 10), (10, 11 / 20), (1000, 0.9)):  # it is warmed up
        state = state.replace(step=jnp.int32(taken))
        after, _ = step(state, batch)
        wanted = optax.incremental_update(after.params, state.params, 1 - decay)
        assert_close(after.ema, wanted)
        assert after.variables["params"] is after.ema


def test_bfloat16_steps_keep_float32_parameters_statistics_and_metrics(task, alone_step, state, batch):
    exact, _ = alone_step(state, batch)
    traced = jax.jit(make_train_step(task, SGD, precision="bfloat16")).trace(state, batch)
    after, sums = traced.lower().compile()(state, batch)
    for leaf in jax.tree.leaves((after.params, after.collections, sums)):
        assert leaf.dtype == jnp.float32
    # Near the float32 step, and not it: matrix products did run in bfloat16.
    assert_close(after.params, exact.params, rtol=0.1, atol=0.02)
    differences = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), after.params, exact.params)
    assert max(jax.tree.leaves(differences)) > 1e-6
    jaxpr = str(traced.jaxpr)
    convolutions = [line for line in jaxpr.splitlines() if "= conv_general_dilated" in line]
    assert convolutions
    assert all(":bf16" in line for line in convolutions)


@pytest.mark.slow
def test_randomness_differs_by_step_and_by_replica(batch):
    seen = []

    class Spy:
        def init(self, key, batch):
            return {"params": {"w": jnp.zeros(1)}}

        def loss(self, variables, batch, key):
            value = jax.random.uniform(key)
            total = metrics.Mean(value + variables["params"]["w"][0], jnp.ones(()))
            seen.append(True)
            drawn = metrics.Sum(jax.nn.one_hot(batch["id"][0], 4) * value)
            return total.total, ({}, {"loss": total, "drawn": drawn})

    ids = {"id": np.arange(4)}
    optimizer = optax.sgd(0.0)
    state = start(Spy(), ids, optimizer)
    step = make_train_step(Spy(), optimizer)
    draws = []
    for _ in range(2):
        state, sums = under_pmap(step, state, ids)
        draws += np.asarray(sums["drawn"].total).tolist()
    assert seen
    assert len(set(draws)) == 8


def test_evaluation_adds_up_to_the_same_sums_on_four_devices(task, state, batch):
    batch["weight"][-3:] = 0
    variables = state.variables
    step = make_eval_step(task)
    mapped = jax.vmap(step, axis_name="batch", in_axes=(None, 0), out_axes=None)
    assert_close(jax.jit(mapped)(variables, cut(batch, 4)), jax.jit(step)(variables, batch))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"accumulate": 0}, "accumulate is 0"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0"),
        ({"precision": "bf16"}, "bfloat16"),
    ],
)
def test_a_setting_out_of_range_is_refused(task, options, words):
    with pytest.raises(InputError, match=words):
        make_train_step(task, optax.sgd(0.1), **options)


def test_a_batch_that_cannot_be_cut_is_refused(task, state, batch):
    with pytest.raises(InputError, match="accumulate is 5.*32 examples"):
        jax.jit(make_train_step(task, SGD, accumulate=5))(state, batch)


class HalfFrozen:
    """One number learns; two collections are read, and only one of them is updated."""

    def init(self, key, batch):
        return {
            "params": {"w": jnp.ones(())},
            "frozen": {"v": jnp.float32(0.1)},
            "seen": {"steps": jnp.zeros(())},
        }

    def loss(self, variables, batch, key):
        values = jnp.square(variables["params"]["w"] * variables["frozen"]["v"] * batch["x"] - 1)
        updated = {"seen": {"steps": variables["seen"]["steps"] + 1}}
        mean = metrics.Mean.of(values, jnp.ones_like(values))
        return jnp.mean(values), (updated, {"loss": mean})


@pytest.mark.parametrize("accumulate", [1, 2])
def test_collections_that_a_task_does_not_update_stay_as_they_are(accumulate):
    task, optimizer, batch = HalfFrozen(), optax.sgd(0.1), {"x": np.arange(12, dtype=np.float32)}
    state = start(task, batch, optimizer)
    step = make_train_step(task, optimizer, accumulate=accumulate)
    mapped = jax.pmap(
        step, axis_name="batch", in_axes=(None, 0), out_axes=None, devices=jax.devices()[:3]
    )
    after, _ = mapped(state, cut(batch, 3))
    assert after.collections["frozen"]["v"] == state.collections["frozen"]["v"]
    assert after.collections["seen"]["steps"] == accumulate
    assert after.params["w"] != state.params["w"]


def test_the_learning_rate_of_the_step_is_reported():
    task, batch = HalfFrozen(), {"x": np.arange(12, dtype=np.float32)}
    schedule = optax.linear_schedule(0.0, 1.0, 10)
    optimizer = create_optimizer("momentum", schedule, clip_norm=1.0)
    state = start(task, batch, optimizer)
    step = jax.jit(make_train_step(task, optimizer))
    for wanted in (0.0, 0.1, 0.2):
        state, sums = step(state, batch)
        assert metrics.compute(sums)["learning_rate"] == pytest.approx(wanted)
