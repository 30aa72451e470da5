from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnets.errors import InputError
from jaxnets.models import create_model
from jaxnets.models.fractalnet import FractalBlock, choose_columns, join, live_columns

SMALL = {"widths": (4, 6), "columns": 3}
IMAGES = np.random.default_rng(1).normal(size=(3, 8, 12, 3)).astype(np.float32)


@pytest.mark.parametrize("columns", [1, pytest.param(3, marks=pytest.mark.slow), 4])
def test_parameter_count_is_that_of_the_fractal(columns, count_parameters):
    count, inputs = 0, 3
    for width in (64, 128, 256, 512, 512):
        convolutions = 2**columns - 1  # 1 + 2 + 4 + ...
        # The first of each column reads the block's input, the others maps of the block.
        kernels = columns * inputs + (convolutions - columns) * width
        count += 9 * kernels * width + 2 * convolutions * width
        inputs = width
    assert count_parameters("fractalnet", columns=columns) == count + 512 * 10 + 10


def test_counts_of_the_net_and_of_the_published_three_columns(count_parameters):
    assert count_parameters("fractalnet") == 76_106_634
    assert count_parameters("fractalnet", columns=3) == 33_724_618


def test_longest_path_has_40_convolutions(shapes_of):
    backbone = shapes_of("fractalnet")["params"]["backbone"]
    assert len(backbone) == 5
    for block in backbone.values():
        names = [name for name in block if "conv" in name]
        lengths = [sum(name.startswith(f"column{c}_") for name in names) for c in (1, 2, 3, 4)]
        assert lengths == [1, 2, 4, 8]


def test_maps_at_32(map_sizes):
    sizes = [(16, 64), (8, 128), (4, 256), (2, 512), (1, 512)]
    assert map_sizes("fractalnet") == {f"block{i}": size for i, size in enumerate(sizes, start=1)}


@pytest.mark.slow
def test_blocks_follow_the_expansion_rule(drawn_variables, numpy_conv, numpy_max_pool):
    """f_(c+1)(z) is the join of f_c(f_c(z)) and a convolution, where joins that meet are one."""
    model = create_model("fractalnet", **SMALL)
    variables = drawn_variables(model, IMAGES)

    def fractal(x, size, columns, conv):
        """The maps that meet at the end of f_size, deepest last; `columns` counts convolutions."""
        if size == 0:
            return []
        first = fractal(x, size - 1, columns, conv)
        inner = np.mean(first, axis=0) if first else x
        beside = conv(x, columns, size)
        return [beside, *(fractal(inner, size - 1, columns, conv) if size > 1 else [])]

    x = IMAGES
    maps = jax.jit(lambda v, x: model.apply(v, x, method="features"))(variables, IMAGES)
    for name in ("block1", "block2"):
        params = variables["params"]["backbone"][name]
        stats = variables["batch_stats"]["backbone"][name]

        def conv(x, used, size, params=params, stats=stats):
            column = SMALL["columns"] + 1 - size  # the shortest stands beside the largest fractal
            used[column] = used.get(column, 0) + 1
            layer, bn = (f"column{column}_{kind}{used[column]}" for kind in ("conv", "bn"))
            y = numpy_conv(x, params[layer]["kernel"], padding=1)
            y = (y - stats[bn]["mean"]) / np.sqrt(np.asarray(stats[bn]["var"], np.float64) + 1e-5)
            return np.maximum(y * params[bn]["scale"] + params[bn]["bias"], 0)

        used = {}
        ends = fractal(x, SMALL["columns"], used, conv)
        assert used == {1: 1, 2: 2, 3: 4}
        x = np.mean([numpy_max_pool(end, 2, 2) for end in ends], axis=0)
        np.testing.assert_allclose(maps[name], x, rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    rate=st.floats(0, 1),
    columns=st.sampled_from([(2, 3), (1, 2, 3), (0, 1, 2, 3)]),
)
def test_one_input_of_a_join_is_always_live(seed, rate, columns):
    chosen = jnp.array([-1] * 16 + [0, 1, 2, 3])
    live = np.asarray(live_columns(jax.random.key(seed), chosen, columns, rate))
    assert live.shape == (20, len(columns))
    assert live.any(axis=1).all()
    for column, row in zip((0, 1, 2, 3), live[16:], strict=True):
        on_path = [c == column for c in columns]
        assert list(row) == (on_path if any(on_path) else [True] * len(columns))


def test_local_drop_path_loses_inputs_at_its_rate():
    chosen = jnp.full(4000, -1)
    live = np.asarray(live_columns(jax.random.key(0), chosen, (0, 1, 2, 3), 0.15))
    # All four are lost, and one of them is kept, with a chance of 0.15^4 only.
    np.testing.assert_allclose(live.mean(axis=0), 0.85, atol=0.03)
    # Were all lost, each is the one that is kept as often as the others.
    spare = np.asarray(live_columns(jax.random.key(0), chosen, (0, 1, 2, 3), 1.0))
    assert (spare.sum(axis=1) == 1).all()
    np.testing.assert_allclose(spare.mean(axis=0), 0.25, atol=0.03)


def test_global_drop_path_takes_its_share_of_the_images_and_all_columns_alike():
    chosen = np.asarray(choose_columns(jax.random.key(0), 8000, 4, 0.5))
    counts = np.bincount(chosen + 1, minlength=5) / 8000
    np.testing.assert_allclose(counts, [0.5, 0.125, 0.125, 0.125, 0.125], atol=0.02)
    assert (np.asarray(choose_columns(jax.random.key(0), 100, 4, 0.0)) == -1).all()
    assert (np.asarray(choose_columns(jax.random.key(0), 100, 4, 1.0)) >= 0).all()


def test_join_is_the_mean_of_the_live_inputs_of_each_image():
    x, y, z = np.random.default_rng(0).normal(size=(3, 2, 4, 4, 5)).astype(np.float32)
    live = jnp.array([[True, False, True], [False, True, False]])
    joined = join([x, y, z], live)
    np.testing.assert_allclose(joined[0], (x[0] + z[0]) / 2, rtol=1e-6)
    np.testing.assert_allclose(joined[1], y[1], rtol=1e-6)
    np.testing.assert_allclose(join([x, y, z]), (x + y + z) / 3, rtol=1e-5, atol=1e-6)


@jax.jit
def jitted_block(rngs, images, chosen):
    block = FractalBlock(features=4, columns=3, drop_path=0.15, dropout=0.0)
    return block.init_with_output(rngs, images, chosen, train=True)


@pytest.mark.slow
@pytest.mark.parametrize("column", [0, 1, 2])
def test_global_drop_path_leaves_one_column_from_end_to_end(column, numpy_conv, numpy_max_pool):
    chosen = jnp.full(len(IMAGES), column)
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    got, variables = jitted_block(rngs, IMAGES, chosen)
    x = IMAGES
    for i in range(1, 2**column + 1):
        kernel = variables["params"][f"column{column + 1}_conv{i}"]["kernel"]
        x = numpy_conv(x, kernel, padding=1)
        x = np.maximum((x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5), 0)
    np.testing.assert_allclose(got, numpy_max_pool(x, 2, 2), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_paths_and_units_are_dropped_at_random_in_training_only(drawn_variables):
    def trained(**rates):
        model = create_model("fractalnet", widths=(4, 6), columns=2, **rates)
        apply = jax.jit(partial(model.apply, train=True, mutable=["batch_stats"]))
        runs = [apply(variables, IMAGES, rngs={"dropout": jax.random.key(k)})[0] for k in (0, 1)]
        return np.asarray(runs)

    model = create_model("fractalnet", widths=(4, 6), columns=2)
    variables = drawn_variables(model, IMAGES)
    for rates in ({"dropout": 0.0}, {"drop_path": 0.0}):
        a, b = trained(**rates)
        assert not np.allclose(a, b)
    np.testing.assert_array_equal(*trained(dropout=0.0, drop_path=0.0))
    jax.eval_shape(model.apply, variables, IMAGES)  # asks for no key


def test_dropout_grows_linearly_from_the_first_block_to_the_last():
    model, rates = create_model("fractalnet", columns=1), []

    def watch(call, args, kwargs, context):
        if isinstance(context.module, FractalBlock) and context.method_name == "__call__":
            rates.append(context.module.dropout)
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.zoo
def test_gradients_in_bfloat16_are_finite_and_reach_every_parameter(drawn_variables, train_gradients):
    model = create_model("fractalnet", num_classes=3, widths=(4, 6), columns=2)
    images = jnp.asarray(np.repeat(IMAGES, 4, axis=0))
    variables = drawn_variables(model, images)
    logits, grads, statistics = train_gradients(model, variables, images, jnp.bfloat16)
    assert logits.dtype == jnp.float32
    assert {s.dtype for s in jax.tree.leaves(statistics)} == {jnp.dtype(jnp.float32)}
    for path, gradient in jax.tree_util.tree_leaves_with_path(grads):
        assert jnp.all(jnp.isfinite(gradient)), path
        assert jnp.any(gradient != 0), path


def test_a_share_beyond_all_images_is_refused():
    with pytest.raises(
        InputError, match=r"global_share: wanted a share in \[0, 1\], such as 0.5; got 1.5"
    ):
        create_model("fractalnet", global_share=1.5)
