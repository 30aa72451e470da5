"""Optimizers against updates by hand and PyTorch's, schedules against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnets.errors import InputError
from jaxnets.training.optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    create_optimizer,
    create_schedule,
    decay_mask,
)

PARAMS = {
    "conv": {"kernel": jnp.array([[0.6, -0.4], [1.2, 0.8]]), "bias": jnp.array([0.5, -0.25])},
    "norm": {"scale": jnp.array([1.5, 0.7])},
    "temperature": jnp.array(2.0),
}
GRADS = jax.tree.map(lambda p: 0.3 * p + 0.1, PARAMS)


def update_once(optimizer, params=PARAMS, grads=GRADS):
    return optimizer.update(grads, optimizer.init(params), params)[0]


def assert_close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **{"rtol": 1e-6, **tolerance}), a, b)


@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_a_quadratic_step_by_step(name, clip_norm):
    # So flat that three steps with momentum do not overshoot.
    usual = OPTIMIZERS[name]
    optimizer = create_optimizer(
        name, usual.learning_rate, weight_decay=usual.weight_decay, clip_norm=clip_norm
    )

    def loss(params):
        return sum(0.05 * jnp.sum((leaf - 3) ** 2) for leaf in jax.tree.leaves(params))

    def step(carry, _):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value

    start = (PARAMS, optimizer.init(PARAMS))
    (params, _), values = jax.jit(lambda s: jax.lax.scan(step, s, length=3))(start)
    values = [*values, loss(params)]
    assert np.all(np.diff(values) < 0)


def test_weight_decay_is_for_leaves_of_two_dimensions_and_more():
    params = {
        "kernel": np.ones((3, 3, 1, 2)),
        "dense": np.ones((2, 2)),
        "bias": np.ones(2),
        "s": np.ones(()),
    }
    assert decay_mask(params) == {"kernel": True, "dense": True, "bias": False, "s": False}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_spares_biases_and_normalizations(name):
    plain = update_once(create_optimizer(name, 0.1))
    decayed = update_once(create_optimizer(name, 0.1, weight_decay=0.5))
    assert_close(decayed["conv"]["bias"], plain["conv"]["bias"], rtol=0)
    assert_close(decayed["norm"], plain["norm"], rtol=0)
    assert_close(decayed["temperature"], plain["temperature"], rtol=0)
    # Adam and RMSProp divide by the size of the gradient, the decay included: only zero gradients
    # show it in their first step.
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    shrunk = update_once(create_optimizer(name, 0.1, weight_decay=0.5), grads=zeros)
    kernel = PARAMS["conv"]["kernel"]
    assert np.all(np.sign(shrunk["conv"]["kernel"]) == -np.sign(kernel))
    for spared in (shrunk["conv"]["bias"], shrunk["norm"]["scale"], shrunk["temperature"]):
        np.testing.assert_array_equal(spared, np.zeros_like(spared))


def test_without_decay_a_zero_gradient_moves_nothing():
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    for name in OPTIMIZERS:
        updates = update_once(create_optimizer(name, 0.1), grads=zeros)
        assert all(not leaf.any() for leaf in jax.tree.leaves(updates)), name


# What torch 2.13 (float64) makes of PARAMS["conv"] in three steps on 0.5 |k|² + sum(k b) + |b|², with
# learning rate 0.2 and a weight decay of 0.1 for the kernel's parameter group only.
TORCH = {
    "sgd": ([[0.2886112, -0.0794408], [0.5733424, 0.4900216]], [-0.358704, -0.214912]),
    "momentum": ([[-0.0234368, 0.2188912], [-0.0309536, 0.2038576]], [-1.202544, -0.181432]),
    "nesterov": (
        [[0.2833664608, 0.2989983928], [0.1809660016, 0.0941974744]],
        [-0.662971536, -0.190533808],
    ),
    "adam": (
        [[0.03192170644, 0.14275882695], [0.61265734122, 0.21332039221]],
        [-0.08073784307, -0.25474177706],
    ),
    "adamw": (
        [[0.01062258956, 0.15179132086], [0.55586959317, 0.18082696903]],
        [-0.07907595882, -0.24812337995],
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_three_steps_with_weight_decay_are_pytorchs(name):
    def loss(p):
        return (
            0.5 * jnp.sum(p["kernel"] ** 2) + jnp.sum(p["kernel"] * p["bias"]) + jnp.sum(p["bias"] ** 2)
        )

    optimizer = create_optimizer(name, 0.2, weight_decay=0.1)
    params = PARAMS["conv"]
    state = optimizer.init(params)
    for _ in range(3):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
    kernel, bias = TORCH[name]
    # Adam's 1 - 0.999**t has lost some digits in float32; the steps are of 0.2.
    assert_close(params, {"kernel": np.array(kernel), "bias": np.array(bias)}, rtol=1e-5, atol=1e-5)


def test_sgd_with_weight_decay_is_its_update_by_hand():
    # PyTorch: g <- g + decay * p; p <- p - rate * g
    updates = update_once(create_optimizer("sgd", 0.2, weight_decay=0.1))
    kernel = np.asarray(PARAMS["conv"]["kernel"])
    np.testing.assert_allclose(
        updates["conv"]["kernel"], -0.2 * (0.3 * kernel + 0.1 + 0.1 * kernel), rtol=1e-6
    )
    np.testing.assert_allclose(
        updates["conv"]["bias"], -0.2 * (0.3 * np.array([0.5, -0.25]) + 0.1), rtol=1e-6
    )


def test_adagrad_and_rmsprop_are_their_updates_by_hand():
    gradient = 0.3 * np.asarray(PARAMS["conv"]["kernel"], np.float64) + 0.1
    updates = update_once(create_optimizer("rmsprop", 0.01))["conv"]["kernel"]
    wanted = -0.01 * gradient / np.sqrt(0.1 * gradient**2 + 1e-8)
    np.testing.assert_allclose(updates, wanted, rtol=1e-5)
    # Optax starts the sum of squares at 0.1.
    updates = update_once(create_optimizer("adagrad", 0.01))["conv"]["kernel"]
    np.testing.assert_allclose(updates, -0.01 * gradient / np.sqrt(0.1 + gradient**2), rtol=1e-5)


def test_lars_scales_kernels_by_their_trust_ratio_and_nothing_else():
    updates = update_once(create_optimizer("lars", 2.0, weight_decay=0.1))
    kernel = np.asarray(PARAMS["conv"]["kernel"], np.float64)
    direction = 0.3 * kernel + 0.1 + 0.1 * kernel
    trust = 0.001 * np.linalg.norm(kernel) / np.linalg.norm(direction)
    np.testing.assert_allclose(updates["conv"]["kernel"], -2.0 * trust * direction, rtol=1e-5)
    np.testing.assert_allclose(updates["norm"]["scale"], -2.0 * GRADS["norm"]["scale"], rtol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_traced_settings_give_what_known_ones_give(name):
    def update(learning_rate, weight_decay, momentum, clip_norm):
        schedule = create_schedule("constant", learning_rate, 10)
        return update_once(
            create_optimizer(
                name, schedule, weight_decay=weight_decay, momentum=momentum, clip_norm=clip_norm
            )
        )

    settings = (0.1, 0.02, 0.8, 0.5)
    assert_close(jax.jit(update)(*settings), update(*settings), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["momentum", "nesterov", "rmsprop", "lars"])
def test_momentum_reaches_the_optimizers_that_have_one(name):
    def second_update(momentum):
        optimizer = create_optimizer(name, 0.1, momentum=momentum)
        state = optimizer.init(PARAMS)
        _, state = optimizer.update(GRADS, state, PARAMS)
        return optimizer.update(GRADS, state, PARAMS)[0]["norm"]["scale"]

    assert np.all(np.abs(second_update(0.9)) > 1.5 * np.abs(second_update(0.0)))


def test_gradients_are_clipped_by_their_global_norm_and_decay_is_not():
    norm = float(np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(GRADS))))
    updates = update_once(create_optimizer("sgd", 1.0, clip_norm=norm / 4))
    assert_close(updates, jax.tree.map(lambda g: -g / 4, GRADS), rtol=1e-5)
    updates = update_once(create_optimizer("sgd", 1.0, clip_norm=2 * norm))
    assert_close(updates, jax.tree.map(lambda g: -g, GRADS))
    updates = update_once(create_optimizer("sgd", 1.0, clip_norm=norm / 4, weight_decay=10.0))
    np.testing.assert_allclose(
        updates["conv"]["kernel"],
        -(GRADS["conv"]["kernel"] / 4 + 10 * PARAMS["conv"]["kernel"]),
        rtol=1e-5,
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_learning_rate_can_be_read_and_overwritten_in_the_state(name):
    optimizer = create_optimizer(name, 0.1)
    state = optimizer.init(PARAMS)
    assert float(state.hyperparams["learning_rate"]) == pytest.approx(0.1)
    before, _ = optimizer.update(GRADS, state, PARAMS)
    hyperparams = {**state.hyperparams, "learning_rate": jnp.asarray(0.05)}
    after, _ = optimizer.update(GRADS, state._replace(hyperparams=hyperparams), PARAMS)
    assert_close(after, jax.tree.map(lambda u: u / 2, before), rtol=1e-5)


@pytest.mark.parametrize("clip_norm", [None, 1e6])
def test_a_scheduled_learning_rate_is_the_one_of_the_step_taken(clip_norm):
    schedule = create_schedule("constant", 0.4, 10, warmup_steps=4)
    optimizer = create_optimizer("sgd", schedule, clip_norm=clip_norm)
    state = optimizer.init(PARAMS)
    for wanted in (0.0, 0.1, 0.2, 0.3, 0.4, 0.4):
        updates, state = optimizer.update(GRADS, state, PARAMS)
        inner = state if clip_norm is None else state[1]
        assert float(inner.hyperparams["learning_rate"]) == pytest.approx(wanted, abs=1e-7)
        np.testing.assert_allclose(
            updates["norm"]["scale"], -wanted * GRADS["norm"]["scale"], rtol=1e-5, atol=1e-7
        )


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("Adamm", {}, "unknown optimizer 'Adamm'; did you mean 'adam' or 'adamw'"),
        ("qqqqqq", {}, "known: adagrad, adam, adamw, lars, momentum, nesterov, rmsprop, sgd"),
        ("sgd", {"learning_rate": -0.1}, "learning_rate is -0.1"),
        ("sgd", {"weight_decay": -1e-4}, "weight_decay is -0.0001"),
        ("momentum", {"momentum": -0.9}, "momentum is -0.9"),
        ("sgd", {"clip_norm": -1.0}, "clip_norm is -1.0"),
        ("sgd", {"clip_norm": 0.0}, "clip_norm is 0.0.*None"),
    ],
)
def test_a_wrong_name_or_number_of_an_optimizer_is_refused(name, options, words):
    with pytest.raises(InputError, match=words):
        create_optimizer(name, **{"learning_rate": 0.1, **options})


def test_the_constant_schedule_is_constant():
    schedule = create_schedule("constant", 0.3, 5)
    assert [float(schedule(step)) for step in range(6)] == pytest.approx([0.3] * 6)


def test_the_cosine_falls_from_the_peak_to_zero_at_the_end_of_the_run():
    schedule = create_schedule("cosine", 0.4, 8)
    wanted = [0.4 * (1 + np.cos(np.pi * step / 8)) / 2 for step in range(9)]
    values = [float(schedule(step)) for step in range(9)]
    np.testing.assert_allclose(values, wanted, rtol=1e-5, atol=1e-7)
    assert values[0] == pytest.approx(0.4)
    assert values[8] == pytest.approx(0, abs=1e-7)
    assert np.all(np.diff(values) < 0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_warm_up_rises_in_a_line_from_zero_to_the_peak(name):
    schedule = create_schedule(name, 0.5, 100, warmup_steps=10)
    rising = [float(schedule(step)) for step in range(11)]
    np.testing.assert_allclose(rising, np.linspace(0, 0.5, 11), rtol=1e-5, atol=1e-7)
    assert max(float(schedule(step)) for step in range(10, 101)) == pytest.approx(0.5)


def test_the_cosine_after_a_warm_up_still_ends_with_the_run():
    schedule = create_schedule("cosine", 0.5, 100, warmup_steps=10)
    assert float(schedule(55)) == pytest.approx(0.25, rel=1e-5)  # half way down
    assert float(schedule(100)) == pytest.approx(0, abs=1e-7)


def test_the_step_schedule_drops_at_half_and_at_three_quarters():
    schedule = create_schedule("step", 1.0, 8)
    values = [float(schedule(step)) for step in range(8)]
    assert values == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize(
    ("total", "warmup", "boundaries"),
    [
        (20, 0, (5, 10, 15)),
        (20, 3, (19, 7)),  # in any order
        (20, 4, (4, 20)),  # as the warm-up ends, and as the run ends
        (20, 0, (0, 0, 8, 8)),  # two on one step
        (20, 12, (3, 6, 16)),  # two before the warm-up has ended
        (3, 1, (2, 2)),  # a short run rounds boundaries together
    ],
)
def test_every_boundary_that_was_passed_counts_once(total, warmup, boundaries):
    schedule = create_schedule(
        "step",
        0.8,
        total,
        warmup_steps=warmup,
        boundaries=tuple(step / total for step in boundaries),
        factor=0.5,
    )
    values = np.broadcast_to(jax.jit(schedule)(jnp.arange(25)), 25)
    passed = [sum(boundary <= step for boundary in boundaries) for step in range(25)]
    wanted = 0.8 * 0.5 ** np.array(passed)
    np.testing.assert_allclose(values[warmup:], wanted[warmup:], rtol=1e-5)


def test_schedules_follow_a_traced_step():
    for name in SCHEDULES:
        schedule = create_schedule(name, 0.5, 12, warmup_steps=3)
        traced = jax.jit(jax.vmap(schedule))(jnp.arange(12))
        np.testing.assert_allclose(traced, [schedule(step) for step in range(12)], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("cosin", {}, "unknown schedule 'cosin'; did you mean 'cosine'"),
        ("cosine", {"learning_rate": -1.0}, "learning_rate is -1.0"),
        ("cosine", {"warmup_steps": 10}, "warmup_steps is 10 of 10"),
        ("step", {"warmup_steps": -1}, "warmup_steps is -1"),
        ("constant", {"total_steps": 0}, "0 of 0 steps"),
    ],
)
def test_a_wrong_name_or_number_of_a_schedule_is_refused(name, options, words):
    with pytest.raises(InputError, match=words):
        create_schedule(name, **{"learning_rate": 0.1, "total_steps": 10, **options})
