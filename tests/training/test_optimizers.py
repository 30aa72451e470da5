"""Optimizers against updates by hand and PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnets.errors import InputError
from jaxnets.training.optimizers import (
    OPTIMIZERS,
    WITH_MOMENTUM,
    create_optimizer,
    decay_mask,
    evaluation_params,
    list_optimizers,
    usual_settings,
)
from jaxnets.training.schedules import create_schedule

PARAMS = {
    "conv": {"kernel": jnp.array([[0.6, -0.4], [1.2, 0.8]]), "bias": jnp.array([0.5, -0.25])},
    "norm": {"scale": jnp.array([1.5, 0.7])},
    "temperature": jnp.array(2.0),
}
PLAIN = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "lars", "lamb", "lion")
GRADS = jax.tree.map(lambda p: 0.3 * p + 0.1, PARAMS)


def update_once(optimizer, params=PARAMS, grads=GRADS):
    return optimizer.update(grads, optimizer.init(params), params)[0]


def assert_close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **{"rtol": 1e-6, **tolerance}), a, b)


@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize("name", PLAIN)
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


@pytest.mark.parametrize("name", PLAIN)
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
    for name in PLAIN:
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


@pytest.mark.parametrize("name", PLAIN)
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


@pytest.mark.parametrize("name", sorted({*WITH_MOMENTUM} - {"sam"}))
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


@pytest.mark.parametrize("name", PLAIN)
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
        ("adamm", {}, "unknown optimizer 'adamm'; did you mean 'adam'"),
        ("qqqqqq", {}, "known: .*adam, .*contrib.muon, .*lamb, .*momentum, .*sam, sgd"),
        ("lbfgs", {}, "lbfgs needs the loss as a function; give another"),
        ("lamb", {"b3": 0.9}, "lamb has no setting 'b3'; it has b1, b2, eps, eps_root"),
        ("nesterov", {"nesterov": False}, "nesterov has no setting 'nesterov'"),
        ("sign_sgd", {"beta": 0.9}, "sign_sgd has no setting 'beta'; it has none"),
        ("adam", {"b1": "high"}, "b1 of adam is 'high'; it must be a number"),
        ("adam", {"nesterov": 1}, "nesterov of adam is 1; it must be true or false"),
        ("adamw", {"mu_dtype": "bf16"}, "adamw does not take mu_dtype='bf16': .*not understood"),
        ("contrib.prodigy", {"betas": 0.9}, "contrib.prodigy does not take betas=0.9: cannot unpack"),
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


def test_settings_reach_optax():
    updates = update_once(create_optimizer("adan", 0.1, b1=0.5, eps=1e-3))
    assert_close(updates, update_once(optax.adan(0.1, b1=0.5, eps=1e-3)))


def descend(optimizer, steps, loss):
    """What is evaluated after each step, and what is not."""
    params, state = PARAMS, optimizer.init(PARAMS)
    for _ in range(steps):
        yield evaluation_params(params, state), params
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
    yield evaluation_params(params, state), params


def curved(params):
    return sum(jnp.sum((leaf - 3) ** 2 + 0.1 * leaf**4) for leaf in jax.tree.leaves(params))


def test_sam_descends_by_the_gradient_at_the_point_it_ascended_to():
    found = [
        params["conv"]["bias"] for params, _ in descend(create_optimizer("sam", 0.1, rho=0.3), 4, curved)
    ]
    steps, velocity, point = [PARAMS], None, PARAMS
    for _ in range(2):
        ascent = jax.grad(curved)(point)
        norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(ascent)))
        there = jax.tree.map(lambda p, g, norm=norm: p + 0.3 * g / norm, point, ascent)
        gradient = jax.grad(curved)(there)
        velocity = (
            gradient if velocity is None else jax.tree.map(lambda v, g: 0.9 * v + g, velocity, gradient)
        )
        point = jax.tree.map(lambda p, v: p - 0.1 * v, point, velocity)
        steps.append(point)
    wanted = [steps[i]["conv"]["bias"] for i in (0, 0, 1, 1, 2)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_schedule_free_optimizer_is_evaluated_at_the_average_of_its_points(frozen):
    optimizer = create_optimizer("contrib.schedule_free_sgd", 0.05)
    if frozen:
        mask = {"conv": True, "norm": False, "temperature": False}
        optimizer = optax.selective_transform(optimizer, freeze_mask=mask)
    found = [params for params, _ in descend(optimizer, 6, curved)]
    z, mean = PARAMS, PARAMS
    for step in range(1, 7):  # equations 1 to 3 of the paper, with beta 0.9 and 1/t for the weights
        y = jax.tree.map(lambda z, x: 0.1 * z + 0.9 * x, z, mean)
        z = jax.tree.map(lambda z, g: z - 0.05 * g, z, jax.grad(curved)(y))
        mean = jax.tree.map(lambda x, z, step=step: x + (z - x) / step, mean, z)
        assert_close(found[step]["norm"], mean["norm"], rtol=1e-5)
    if frozen:
        assert_close(found[-1]["conv"], PARAMS["conv"])


@pytest.mark.slow
def test_muon_takes_kernels_as_matrices_and_adam_the_rest():
    params = {"kernel": jax.random.normal(jax.random.key(0), (3, 3, 4, 8)), "bias": jnp.ones(8)}
    grads = jax.tree.map(lambda p: 0.3 * p + 0.1, params)
    updates = update_once(create_optimizer("contrib.muon", 0.1), params, grads)
    singular = np.linalg.svd(updates["kernel"].reshape(36, 8), compute_uv=False)
    assert singular.max() < 2 * singular.min()  # all near one number: the matrix is near orthogonal
    adam = update_once(create_optimizer("nadam", 0.1), params, grads)
    np.testing.assert_allclose(updates["bias"], adam["bias"], rtol=1e-4)


def test_every_name_has_usual_settings():
    assert {*OPTIMIZERS, "adafactor", "contrib.prodigy"} <= {*list_optimizers()}
    assert usual_settings("contrib.prodigy").learning_rate == 1.0
    assert all(usual_settings(name).learning_rate > 0 for name in list_optimizers())
