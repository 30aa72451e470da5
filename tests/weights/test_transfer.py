import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from jaxnets import weights
from jaxnets.errors import InputError
from jaxnets.models import create_model

PARTS = ["stem", "stage1_block1", "stage2_block1", "stage2_block2", "head"]


@pytest.fixture(scope="module")
def model():
    return create_model("resnet18", depths=(1, 2), num_classes=3)


@pytest.fixture(scope="module")
def params(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    return jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes["params"])


def changes(optimizer, params):
    """By part, how far one step on gradients of 1 moves each parameter (all of a part alike)."""
    gradients = jax.tree.map(jnp.ones_like, params)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    found = {}
    for path, update in flatten_dict(updates).items():
        part = path[1] if path[0] == "backbone" else path[0]
        found.setdefault(part, set()).update(np.unique(np.asarray(update)).tolist())
    assert all(len(values) == 1 for values in found.values())
    return {part: -found[part].pop() for part in PARTS}


@pytest.mark.parametrize(
    ("first", "trained"),
    [
        ("head", PARTS[4:]),
        ("stage2", PARTS[2:]),
        ("stage2_block2", PARTS[3:]),
        ("stem", PARTS),
    ],
)
def test_what_comes_before_the_first_part_stays(model, params, first, trained):
    frozen = weights.freeze_mask(model, first)
    assert jax.tree.structure(frozen) == jax.tree.structure(params)
    moved = changes(optax.selective_transform(optax.sgd(1.0), freeze_mask=frozen), params)
    assert [part for part in PARTS if moved[part] == 1] == list(trained)
    assert all(moved[part] == 0 for part in set(PARTS) - set(trained))


def test_early_parts_move_less(model, params):
    moved = changes(optax.chain(optax.sgd(1.0), weights.layerwise_decay(model, 0.5)), params)
    assert list(moved.values()) == [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]


@pytest.mark.parametrize("order", ["decay inside", "decay outside", "decay before"])
def test_both_at_once(model, params, order):
    sgd, decay = optax.sgd(1.0), weights.layerwise_decay(model, 0.5)
    frozen = functools.partial(
        optax.selective_transform, freeze_mask=weights.freeze_mask(model, "stage2_block1")
    )
    optimizer = {
        "decay inside": frozen(optax.chain(sgd, decay)),
        "decay outside": optax.chain(frozen(sgd), decay),
        "decay before": optax.chain(decay, frozen(sgd)),
    }[order]
    assert list(changes(optimizer, params).values()) == [0, 0, 1 / 4, 1 / 2, 1]


def test_parts_are_in_the_order_of_the_calls_not_of_the_names():
    from jaxnets.weights.transfer import backbone_parts

    parts = backbone_parts(create_model("vit_base_patch16_224", depth=11, width=48, heads=3))
    assert parts == ("embedding", *(f"block{i}" for i in range(1, 12)), "norm")


def test_one_of_ten_is_not_the_tenth():
    model = create_model("vit_base_patch16_224", depth=11, width=48, heads=3)
    frozen = weights.freeze_mask(model, "block1")["backbone"]
    assert all(jax.tree.leaves(frozen["embedding"]))
    assert not any(jax.tree.leaves(frozen["block1"]))
    frozen = weights.freeze_mask(model, "block10")["backbone"]
    assert all(jax.tree.leaves(frozen["block9"]))
    assert not any(jax.tree.leaves(frozen["block10"]))


def test_what_cannot_be_is_refused(model):
    with pytest.raises(InputError, match="unknown part of resnet18 'stage3'; did you mean"):
        weights.freeze_mask(model, "stage3")
    for decay in (0, 1.1):
        with pytest.raises(InputError, match=f"decay is {decay}; it must be above 0 and at most 1"):
            weights.layerwise_decay(model, decay)
