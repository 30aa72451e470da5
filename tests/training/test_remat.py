"""Blocks computed again in the backward pass: how many, and to the same numbers."""

from functools import partial

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxnets import Classification, create_model
from jaxnets.training import create_state, make_train_step
from jaxnets.training.remat import rematerialized_blocks

RESNET = {"num_classes": 4, "depths": (1, 1, 1, 1), "drop_path": 0.3}


def made(name, side, **settings):
    task = Classification(create_model(name, **settings))
    pixels = np.random.default_rng(0).integers(0, 256, (4, side, side, 3), dtype=np.uint8)
    batch = {"image": pixels, "label": np.arange(4) % 3, "weight": np.ones(4, np.float32)}
    return task, batch, create_state(task, optax.sgd(0.1), jax.random.key(0), batch)


@pytest.mark.parametrize(
    ("name", "settings", "blocks"),
    [("resnet18", RESNET, 5), ("densenet121", {"depths": (2, 1, 1, 1)}, 8), ("vgg11", {}, 0)],
)  # fmt: skip
def test_each_block_of_a_backbone_is_recomputed(name, settings, blocks):
    model = create_model(name, **settings)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    variables = jax.eval_shape(partial(nn.Module.init, model), jax.random.key(0), images)
    with rematerialized_blocks():
        program = jax.make_jaxpr(model.apply)(variables, images)
    found = [
        equation for equation in program.eqns if equation.primitive.name in ("checkpoint", "remat2")
    ]
    assert len(found) == blocks


@pytest.mark.slow
def test_recomputed_blocks_take_the_same_step():
    task, batch, state = made("resnet18", 32, **RESNET)
    plain, again = (
        jax.jit(make_train_step(task, optax.sgd(0.1), remat=remat))(state, batch)
        for remat in (False, True)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), again, plain)
    moved = jax.tree.map(lambda a, b: np.max(abs(a - b)), plain[0].params, state.params)
    assert min(jax.tree.leaves(moved)) > 0
