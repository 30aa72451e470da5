"""A small network that all tests of explanations look into."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.models import create_model


@pytest.fixture(scope="session")
def draw_variables():
    """`draw_variables(model, images)`: random variables, without compiling `init`."""

    def draw(model, images):
        rng = np.random.default_rng(0)
        shapes = jax.eval_shape(model.init, jax.random.key(0), images)

        def leaf(path, shape):
            if path[-1].key in ("scale", "var"):
                return jnp.asarray(rng.uniform(0.7, 1.3, shape.shape), jnp.float32)
            scale = np.sqrt(2 / max(1, np.prod(shape.shape[:-1])))
            return jnp.asarray(rng.normal(0, scale, shape.shape), jnp.float32)

        return jax.tree_util.tree_map_with_path(leaf, shapes)

    return draw


@pytest.fixture(scope="session")
def lenet(draw_variables):
    """(model, variables, three images) of a LeNet-5 that was drawn."""
    model = create_model("lenet5")
    images = jnp.asarray(np.random.default_rng(1).normal(size=(3, 32, 32, 1)), jnp.float32)
    return model, draw_variables(model, images), images


@pytest.fixture(scope="session")
def scores(lenet):
    """`scores(images)` of that LeNet-5, compiled once for each shape."""
    model, variables, _ = lenet
    apply = jax.jit(model.apply)
    return lambda images: apply(variables, images)
