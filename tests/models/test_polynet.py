from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxnets.errors import InputError
from jaxnets.layers import DropPath
from jaxnets.models import create_model
from jaxnets.models.inception_parts import Layer
from jaxnets.models.polynet import KINDS, Block, PolyInception

CHAINS = ((Layer("a1", 3, 1), Layer("a2", 2, (1, 3))), (Layer("b", 2, 1),))
X = np.random.default_rng(1).normal(size=(2, 4, 5, 6)).astype(np.float32)


@pytest.mark.slow
def test_parameter_count(count_parameters):
    assert count_parameters("polynet") == 95_366_600


@pytest.mark.slow
def test_maps_at_331(map_sizes):
    assert list(map_sizes("polynet").items()) == [
        ("conv1", (163, 64)),
        ("stem2", (79, 192)),
        ("stem3", (39, 384)),
        ("stage_a", (39, 384)),
        ("stage_b", (19, 1152)),
        ("stage_c", (9, 2048)),
    ]


def modules_of(model):
    seen = {}

    def watch(call, args, kwargs, context):
        if isinstance(context.module, PolyInception):
            seen[context.module.name] = context.module
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 75, 75, 3)))
    return seen


@pytest.fixture(scope="module")
def modules():
    return modules_of(create_model("polynet"))


@pytest.mark.slow
def test_stages_are_those_of_the_very_deep_polynet(modules):
    kinds = {name: module.kind for name, module in modules.items()}
    assert list(kinds) == [
        f"stage_{s}{i}" for s, n in (("a", 10), ("b", 20), ("c", 10)) for i in range(1, n + 1)
    ]
    assert {kinds[f"stage_a{i}"] for i in range(1, 11)} == {"2-way"}
    assert [kinds[f"stage_b{i}"] for i in range(1, 21)] == ["poly-3", "2-way"] * 10
    assert [kinds[f"stage_c{i}"] for i in range(1, 11)] == ["poly-3", "2-way"] * 5


def test_scales_fall_linearly_to_the_references(modules):
    scales = [module.scale for module in modules.values()]
    # The first two and the last of each stage, as the public weights' program writes them.
    known = {
        0: 1,
        1: 0.992308,
        9: 0.930769,
        10: 0.923077,
        11: 0.915385,
        29: 0.776923,
        30: 0.769231,
        39: 0.7,
    }
    assert {i: scales[i] for i in known} == known


def variables_of(module, x, **kwargs):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(partial(module.init, train=False, **kwargs), jax.random.key(0), x)
    return jax.tree.map(lambda s: jnp.asarray(rng.uniform(-0.5, 0.9, s.shape) ** 2, jnp.float32), shapes)


def test_block_of_another_order_shares_all_but_norms_and_last_convolution():
    module = PolyInception("poly-3", CHAINS, 1.0, 0.0)
    block = variables_of(module, X)["params"]["block1"]
    assert set(block) == {
        "a1",
        "a2",
        "b",
        *(f"{layer}{i}" for layer in ("conv", "bn") for i in (1, 2, 3)),
    }
    assert all(set(block[layer]) == {"conv", "bn1", "bn2", "bn3"} for layer in ("a1", "a2", "b"))


@pytest.mark.parametrize("kind", KINDS)
def test_modules_are_the_polynomials_of_their_blocks(kind):
    scale = 0.6
    module = PolyInception(kind, CHAINS, scale, 0.0)
    variables = variables_of(module, X)
    degree = int("".join(filter(str.isdigit, kind)))
    shared = kind.startswith("poly")
    assert set(variables["params"]) == {f"block{i}" for i in range(1, 2 if shared else degree + 1)}

    def block(i, x):
        name, order = (f"block{1}", i) if shared else (f"block{i}", 1)
        own = {collection: tree[name] for collection, tree in variables.items()}
        return np.asarray(Block(CHAINS).apply(own, x, train=False, order=order))

    first = block(1, X)
    second = block(2, X if kind.endswith("way") else np.maximum(first, 0))
    terms = [first, second]
    if degree == 3:
        terms.append(block(3, X if kind.endswith("way") else np.maximum(second, 0)))
    want = np.maximum(X + scale * sum(terms), 0)
    np.testing.assert_allclose(module.apply(variables, X, train=False), want, rtol=1e-5, atol=1e-5)
    assert all(np.ptp(term) > 0.01 for term in terms)


def test_block_matches_numpy(numpy_conv):
    variables = variables_of(Block(CHAINS), X)
    params, stats = variables["params"], variables["batch_stats"]

    def norm(x, layer, mean_and_var):
        x = (x - mean_and_var["mean"]) / np.sqrt(mean_and_var["var"] + 1e-5)
        return x * layer["scale"] + layer["bias"]

    def unit(x, name):
        kernel = np.asarray(params[name]["conv"]["kernel"])
        if kernel.shape[1] == 3:  # one row, padded at its ends only
            kernel = np.concatenate([np.zeros_like(kernel), kernel, np.zeros_like(kernel)])
        x = numpy_conv(x, kernel, padding=kernel.shape[1] // 2)
        return np.maximum(norm(x, params[name]["bn1"], stats[name]["bn1"]), 0)

    y = np.concatenate([unit(unit(X, "a1"), "a2"), unit(X, "b")], axis=-1)
    want = norm(numpy_conv(y, params["conv1"]["kernel"]), params["bn1"], stats["bn1"])
    got = Block(CHAINS).apply(variables, X, train=False)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_drop_path_leaves_out_terms_of_some_examples_in_training_only():
    plain, dropping = (PolyInception("2-way", CHAINS, 1.0, rate) for rate in (0.0, 0.5))
    x = np.repeat(np.abs(X[:1]), 32, axis=0)
    variables = variables_of(plain, x)
    evaluated = plain.apply(variables, x, train=False)
    np.testing.assert_array_equal(dropping.apply(variables, x, train=False), evaluated)
    out, _ = dropping.apply(
        variables, x, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)}
    )
    # Neither, one, the other or both.
    assert len(np.unique(np.asarray(out).reshape(32, -1).round(4), axis=0)) == 4


def test_drop_path_grows_linearly_from_module_to_module():
    model, rates = create_model("polynet", depths=(1, 2, 1), drop_path=0.4), {}

    def watch(call, args, kwargs, context):
        if isinstance(context.module, DropPath):
            rates.setdefault(context.module.path[-2], set()).add(round(context.module.rate, 6))
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 75, 75, 3)))
    assert rates == {"stage_a1": {0.1}, "stage_b1": {0.2}, "stage_b2": {0.3}, "stage_c1": {0.4}}


@pytest.mark.zoo
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("kind", ["poly-3", "mpoly-2"])
def test_gradients_are_finite_and_reach_every_parameter_of_a_module(kind, dtype):
    module = PolyInception(kind, CHAINS, 0.8, 0.0)
    variables = variables_of(module, X)

    @jax.jit
    def gradients(params):
        def loss(params):
            cast = jax.tree.map(lambda p: p.astype(dtype), params)
            out, _ = module.apply(
                {**variables, "params": cast}, X.astype(dtype), train=True, mutable=["batch_stats"]
            )
            return jnp.sum(out.astype(jnp.float32) ** 2)

        return jax.grad(loss)(params)

    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients(variables["params"])):
        assert jnp.all(jnp.isfinite(gradient)), path
        assert jnp.any(gradient != 0), path


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depths": (1, 2)}, "wanted one of each for three stages"),
        ({"modules": ("2-way",) * 4}, "wanted one of each for three stages"),
        (
            {"modules": ("2-way", "poly3", "2-way")},
            "unknown kind of module 'poly3'; did you mean 'poly-3'",
        ),
        ({"modules": ("2-way", "", "2-way")}, "unknown kind of module ''"),
    ],
)
def test_settings_that_do_not_fit_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        create_model("polynet", **wrong)
