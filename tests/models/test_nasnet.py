from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxnets.errors import InputError
from jaxnets.layers import DropPath
from jaxnets.models import create_model
from jaxnets.models.nasnet import NORMAL, REDUCTION
from jaxnets.models.nasnet_parts import AuxiliaryHead, Cell, FactorizedReduction, _pool

RNG = np.random.default_rng(1)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("nasnet_mobile", 5_289_978), ("nasnet_large", 88_753_150)])
def test_parameter_count(name, count, count_parameters):
    assert count_parameters(name) == count


def test_multiply_adds_are_the_papers(multiply_adds):
    assert multiply_adds("nasnet_mobile") == pytest.approx(564e6, rel=0.002)


@pytest.mark.parametrize(
    ("name", "sides", "f"),
    [("nasnet_mobile", (111, 56, 28, 28, 14, 7), 44), ("nasnet_large", (165, 83, 42, 42, 21, 11), 168)],
)
def test_maps_at_the_nets_own_size(name, sides, f, map_sizes):
    names = ("conv0", "stem1", "stem2", "stage1", "stage2", "stage3")
    stem = {"nasnet_mobile": 32, "nasnet_large": 96}[name]
    widths = (stem, f, 2 * f, 6 * f, 12 * f, 24 * f)
    assert list(map_sizes(name).items()) == [
        (layer, (side, width)) for layer, side, width in zip(names, sides, widths, strict=True)
    ]


def test_module_names(shapes_of):
    backbone = shapes_of("nasnet_mobile")["params"]["backbone"]
    cells = [f"stage{stage}_cell{i}" for stage in (1, 2, 3) for i in range(1, 5)]
    assert set(backbone) == {
        *("conv0", "bn0", "stem1", "stem2", "reduction1", "reduction2"),
        *cells,
    }
    separable = {"sum1_left", "sum1_right", "sum2_left", "sum2_right", "sum5_left"}
    assert set(backbone["stage1_cell1"]) == separable | {"project_input", "halve_previous"}
    assert set(backbone["stage1_cell2"]) == separable | {"project_input", "project_previous"}
    separable = {"sum1_left", "sum1_right", "sum2_right", "sum3_right", "sum5_left"}
    assert set(backbone["stem1"]) == separable | {"project_input"}
    assert set(backbone["reduction1"]) == separable | {"project_input", "project_previous"}


@pytest.mark.parametrize("name", ["nasnet_mobile", pytest.param("nasnet_large", marks=pytest.mark.slow)])
def test_a_cell_reads_the_two_before_it_but_the_first_of_a_stage_may_skip_one(name):
    model, outputs, inputs = create_model(name, depth=2), {}, {}

    def watch(call, args, kwargs, context):
        out = call(*args, **kwargs)
        if isinstance(context.module, Cell):
            by_identity = {id(value): cell for cell, value in outputs.items()}
            inputs[context.module.name] = tuple(by_identity.get(id(x)) for x in args[:2])
            outputs[context.module.name] = out
        return out

    with nn.intercept_methods(watch):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    skips = name == "nasnet_large"
    assert inputs == {
        "stem1": (None, None),
        "stem2": ("stem1", None),  # and the first convolution
        "stage1_cell1": ("stem2", "stem1"),
        "stage1_cell2": ("stage1_cell1", "stem2"),
        "reduction1": ("stage1_cell2", "stage1_cell1"),
        "stage2_cell1": ("reduction1", "stage1_cell1" if skips else "stage1_cell2"),
        "stage2_cell2": ("stage2_cell1", "reduction1"),
        "reduction2": ("stage2_cell2", "stage2_cell1"),
        "stage3_cell1": ("reduction2", "stage2_cell1" if skips else "stage2_cell2"),
        "stage3_cell2": ("stage3_cell1", "reduction2"),
    }


def windows_by_hand(x, kind, padding, strides):
    """3x3 pooling as TensorFlow pads it, window by window."""
    side = x.shape[1]
    count = -(-side // strides)
    low = max(0, (count - 1) * strides + 3 - side) // 2
    out = np.zeros((len(x), count, count, x.shape[-1]))
    for i in range(count):
        for j in range(count):
            top, left = i * strides - low, j * strides - low
            window = x[:, max(top, 0) : top + 3, max(left, 0) : left + 3].reshape(
                len(x), -1, x.shape[-1]
            )
            zeros = np.zeros((len(x), 9 - window.shape[1], x.shape[-1]))
            if padding == "zeros" or (padding == "in_means" and kind == "avg"):
                window = np.concatenate([window, zeros], axis=1)
            out[:, i, j] = window.mean(1) if kind == "avg" else window.max(1)
    return out


@pytest.mark.parametrize("side", [5, 6])
@pytest.mark.parametrize("kind", ["avg", "max"])
@pytest.mark.parametrize("padding", ["left_out", "in_means", "zeros"])
def test_pools_that_halve_see_their_padding_as_told(side, kind, padding):
    x = RNG.normal(-1, 1, (2, side, side, 3)).astype(np.float32)  # mostly below the padding's zero
    pooled = _pool(kind, jnp.asarray(x), 3, 2, padding)
    np.testing.assert_allclose(pooled, windows_by_hand(x, kind, padding, 2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("padding", ["left_out", "in_means", "zeros"])
def test_pools_that_keep_the_size_leave_their_padding_out(padding):
    x = RNG.normal(-1, 1, (2, 5, 5, 3)).astype(np.float32)
    for kind in ("avg", "max"):
        pooled = _pool(kind, jnp.asarray(x), 3, 1, padding)
        np.testing.assert_allclose(pooled, windows_by_hand(x, kind, "left_out", 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("side", [4, 5])
def test_factorized_reduction_sees_even_pixels_and_odd_ones(side):
    x = RNG.uniform(0.1, 1, (1, side, side, 2)).astype(np.float32)
    module = FactorizedReduction(5)
    variables = module.init(jax.random.key(0), x, train=False)
    out = np.asarray(module.apply(variables, x, train=False)) * np.sqrt(1 + 1e-3)
    first, second = (np.asarray(variables["params"][f"path{i}_conv"]["kernel"])[0, 0] for i in (1, 2))
    assert (first.shape, second.shape) == ((2, 2), (2, 3))
    np.testing.assert_allclose(out[..., :2], x[:, ::2, ::2] @ first, rtol=1e-5)
    odd = np.zeros((1, *out.shape[1:3], 2))
    half = side // 2
    odd[:, :half, :half] = x[:, 1::2, 1::2]
    np.testing.assert_allclose(out[..., 2:], odd @ second, rtol=1e-5, atol=1e-7)


def dropped(model):
    """The rates of the operations that drop-path may skip, by cell."""
    rates = {}

    def watch(call, args, kwargs, context):
        if isinstance(context.module, DropPath):
            rates.setdefault(context.module.path[-2], []).append(context.module.rate)
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    return rates


def test_drop_path_grows_linearly_from_cell_to_cell_and_spares_identities():
    rates = dropped(create_model("nasnet_large", depth=1, drop_path=0.35))
    cells = (
        "stem1",
        "stem2",
        "stage1_cell1",
        "reduction1",
        "stage2_cell1",
        "reduction2",
        "stage3_cell1",
    )
    assert tuple(rates) == cells
    for number, (cell, of_cell) in enumerate(rates.items(), start=1):
        np.testing.assert_allclose(of_cell, 0.05 * number)
        assert len(of_cell) == (8 if cell.startswith("stage") else 9)


@pytest.mark.parametrize(("name", "rate"), [("nasnet_mobile", 0.0), ("nasnet_large", 0.3)])
def test_drop_path_is_the_authors_unless_given(name, rate):
    assert create_model(name).backbone.drop_path == rate


def cell_variables(cell, *inputs, seed=0):
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(partial(cell.init, train=False), jax.random.key(0), *inputs)
    return jax.tree.map(lambda s: jnp.asarray(rng.uniform(0.2, 1, s.shape), jnp.float32), shapes)


@pytest.mark.slow
def test_drop_path_skips_operations_of_some_examples_in_training_only():
    cell, plain = (Cell(NORMAL, 2, drop_path=rate) for rate in (0.5, 0.0))
    x = np.repeat(RNG.normal(size=(1, 4, 4, 3)).astype(np.float32), 8, axis=0)
    variables = cell_variables(cell, x, x)

    @partial(jax.jit, static_argnames="cell")
    def trained(cell, key):
        rngs = {"dropout": key}
        return cell.apply(variables, x, x, train=True, mutable=["batch_stats"], rngs=rngs)[0]

    np.testing.assert_array_equal(
        cell.apply(variables, x, x, train=False), plain.apply(variables, x, x, train=False)
    )
    whole, out = trained(plain, jax.random.key(0)), np.asarray(trained(cell, jax.random.key(0)))
    np.testing.assert_allclose(whole, np.broadcast_to(whole[:1], whole.shape), rtol=1e-5, atol=1e-5)
    sums = np.split(out, 6, axis=-1)
    np.testing.assert_array_equal(sums[0], np.asarray(whole)[..., :2])  # state 1 itself
    assert all(len(np.unique(s[:, 0, 0, 0].round(4))) > 1 for s in sums[1:])
    assert not np.array_equal(out, trained(cell, jax.random.key(1)))


@pytest.mark.zoo
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("plan", "strides"), [(NORMAL, 1), (REDUCTION, 2)])
def test_gradients_are_finite_and_reach_every_parameter_of_a_cell(plan, strides, dtype):
    cell = Cell(plan, 2, strides)
    x = jnp.asarray(RNG.normal(size=(2, 5, 5, 3)), dtype)
    previous = jnp.asarray(RNG.normal(size=(2, 10, 10, 4)), dtype)
    variables = cell_variables(cell, x, previous)

    @jax.jit
    def gradients(params):
        def loss(params):
            cast = jax.tree.map(lambda p: p.astype(dtype), params)
            out, _ = cell.apply(
                {**variables, "params": cast}, x, previous, train=True, mutable=["batch_stats"]
            )
            return jnp.sum(out.astype(jnp.float32) ** 3)

        return jax.grad(loss)(params)

    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients(variables["params"])):
        assert jnp.all(jnp.isfinite(gradient)), path
        assert jnp.any(gradient != 0), path


@pytest.mark.parametrize(("name", "grid"), [("nasnet_mobile", 4), ("nasnet_large", 6)])
def test_auxiliary_classifier_reads_the_grid_of_its_net(name, grid):
    head = create_model(name, aux=True).auxiliary["stage2"]
    assert (head.num_classes, head.grid) == (1000, grid)


def test_auxiliary_classifier_takes_maps_of_any_size():
    head = AuxiliaryHead(num_classes=3, grid=4)
    variables = jax.eval_shape(head.init, jax.random.key(0), jnp.zeros((2, 14, 14, 6)))
    kernels = {name: p["kernel"].shape for name, p in variables["params"].items() if "kernel" in p}
    assert kernels == {"conv1": (1, 1, 6, 128), "conv2": (4, 4, 128, 768), "fc": (768, 3)}
    for side in (14, 21, 3):
        maps = jnp.zeros((2, side, side, 6))
        assert jax.eval_shape(head.apply, variables, maps).shape == (2, 3)


@pytest.mark.slow
def test_auxiliary_classifier_runs_in_training_only():
    model = create_model("nasnet_mobile", depth=1, features=4, num_classes=3, aux=True)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    run = partial(model.apply, mutable=["batch_stats", "auxiliary"], rngs={"dropout": jax.random.key(0)})
    _, sown = jax.eval_shape(partial(run, train=True), variables, images)
    assert sown["auxiliary"]["stage2"].shape == (2, 3)
    _, sown = jax.eval_shape(run, variables, images)
    assert "auxiliary" not in sown


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pool_padding": "zero"}, "unknown pool_padding 'zero'; did you mean 'zeros'"),
        ({"features": 3}, "features: wanted at least 4, got 3"),
        ({"aux": True, "num_classes": 0}, "auxiliary classifiers need classes"),
    ],
)
def test_settings_that_do_not_fit_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        create_model("nasnet_mobile", **wrong)
