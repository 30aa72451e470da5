"""What the tests of the models share: shapes without work, variables by a rule, NumPy's convolution."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxnets.models import create_model


class Traced(NamedTuple):
    """What one pass through a model at its own input size shows, by shapes alone.

    Attributes:
        variables: shapes of all variables.
        maps: the shape of each map of the backbone, by name, for two images.
        layers: of each convolution and dense layer, by its path: the shapes of kernel and output.
    """

    variables: dict
    maps: dict
    layers: dict


@functools.cache
def trace(name, **overrides):
    model, maps, layers = create_model(name, **overrides), {}, {}

    def watch(call, args, kwargs, context):
        out = call(*args, **kwargs)
        if isinstance(context.module, nn.Conv | nn.Dense):
            kernel = context.module.variables["params"]["kernel"]
            # Polynomials call their layers again: each call is work of its own.
            layers.setdefault("/".join(context.module.path), []).append((kernel.shape, out.shape))
        elif context.module.path == ("backbone",) and context.method_name == "__call__":
            maps.update({name: value.shape for name, value in out.items()})
        return out

    # Flax's own `init`, which is traced in half the time of the model's; the names and shapes are the
    # same, as tests/layers/test_initialization.py holds.
    initialize = functools.partial(nn.Module.init, model)
    images = jax.ShapeDtypeStruct((2, *model.input_size), jnp.float32)
    with nn.intercept_methods(watch):
        variables = jax.eval_shape(initialize, jax.random.key(0), images)
    return Traced(variables, maps, layers)


@pytest.fixture(scope="session")
def traced():
    """`traced(name, **overrides)`: see `Traced`."""
    return trace


@pytest.fixture(scope="session")
def shapes_of():
    """`shapes_of(name, **overrides)`: shapes of the variables at the model's own input size."""
    return lambda name, **overrides: trace(name, **overrides).variables


@pytest.fixture(scope="session")
def count_parameters(shapes_of):
    def count(name, **overrides):
        return sum(math.prod(p.shape) for p in jax.tree.leaves(shapes_of(name, **overrides)["params"]))

    return count


@pytest.fixture(scope="session")
def map_sizes():
    """`map_sizes(name, **overrides)`: (side, channels) of each feature map, by name."""

    def sizes(name, **overrides):
        maps = trace(name, **overrides).maps
        assert all(shape[0] == 2 and shape[1] == shape[2] for shape in maps.values())
        return {name: shape[2:] for name, shape in maps.items()}

    return sizes


@pytest.fixture(scope="session")
def multiply_adds():
    """`multiply_adds(name, **overrides)`: those of all convolutions and dense layers, for one image
    of the model's own size."""

    def count(name, **overrides):
        calls = (call for calls in trace(name, **overrides).layers.values() for call in calls)
        return sum(math.prod(kernel) * math.prod(out[1:-1]) for kernel, out in calls)

    return count


@pytest.fixture(scope="session")
def drawn_variables():
    """`drawn_variables(model, images)`: variables far from trivial, without compiling `init`."""

    def draw(model, images):
        rng = np.random.default_rng(0)

        def leaf(path, shape):
            kind = path[-1].key
            if kind == "kernel":
                value = rng.normal(0, math.sqrt(2 / math.prod(shape.shape[:-1])), shape.shape)
            elif kind in ("scale", "var"):
                value = rng.uniform(0.7, 1.3, shape.shape)
            else:
                value = rng.normal(0, 0.1, shape.shape)
            return jnp.asarray(value, jnp.float32)

        # Flax's own `init` is traced in a third of the time of a classifier's.
        init = functools.partial(nn.Module.init, model) if isinstance(model, nn.Module) else model.init
        shapes = jax.eval_shape(init, jax.random.key(0), images)
        return jax.tree_util.tree_map_with_path(leaf, shapes)

    return draw


@pytest.fixture(scope="session")
def numpy_conv():
    """`numpy_conv(x, kernel, stride=1, padding=0, groups=1)`, written out tap by tap in float64."""

    def conv(x, kernel, stride=1, padding=0, groups=1):
        x = np.pad(np.asarray(x, np.float64), ((0, 0), *[(padding, padding)] * 2, (0, 0)))
        kernel = np.asarray(kernel, np.float64)
        height, width, per_group, features = kernel.shape
        rows, columns = ((s - k) // stride + 1 for s, k in zip(x.shape[1:3], kernel.shape, strict=False))
        out = np.zeros((len(x), rows, columns, features))
        for group in range(groups):
            ins = slice(group * per_group, (group + 1) * per_group)
            outs = slice(group * features // groups, (group + 1) * features // groups)
            for i in range(height):
                for j in range(width):
                    tap = x[:, i : i + stride * rows : stride, j : j + stride * columns : stride, ins]
                    out[..., outs] += tap[:, :rows, :columns] @ kernel[i, j, :, outs]
        return out

    return conv


@pytest.fixture(scope="session")
def numpy_max_pool():
    """`numpy_max_pool(x, window, stride)`, window by window, without padding."""

    def pool(x, window, stride):
        x = np.asarray(x)
        rows, columns = ((s - window) // stride + 1 for s in x.shape[1:3])
        cells = [
            x[:, stride * i : stride * i + window, stride * j : stride * j + window].max((1, 2))
            for i in range(rows)
            for j in range(columns)
        ]
        return np.stack(cells, 1).reshape(len(x), rows, columns, -1)

    return pool


@pytest.fixture(scope="session")
def train_gradients():
    """`train_gradients(model, variables, images, dtype)`: logits, gradients and updated statistics
    of a cross entropy, with parameters and images cast as `training` does it."""

    def gradients(model, variables, images, dtype):
        labels = jnp.arange(len(images)) % model.num_classes

        @jax.jit
        def run(variables, images):
            def loss(params):
                cast = jax.tree.map(lambda p: p.astype(dtype), params)
                logits, updated = model.apply(
                    {**variables, "params": cast},
                    images.astype(dtype),
                    train=True,
                    mutable=["batch_stats"],
                    rngs={"dropout": jax.random.key(1)},
                )
                scores = jax.nn.log_softmax(logits)
                return -jnp.mean(scores[jnp.arange(len(images)), labels]), (logits, updated)

            (_, (logits, updated)), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
            return logits, grads, updated.get("batch_stats", {})

        return run(variables, images)

    return gradients
