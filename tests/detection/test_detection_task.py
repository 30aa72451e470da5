"""The task of detectors: what is learned from a batch, on one device and on eight."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxnets import Detection
from jaxnets.detection import create_detector, proposals
from jaxnets.errors import InputError
from jaxnets.layers import Conv
from jaxnets.training.state import create_state
from jaxnets.training.step import make_train_step

SIDE, K, M, N = 64, 3, 4, 8
SETTINGS = {
    "faster_rcnn": {"hidden": 16, "anchor_size": 8, "proposals": 12, "train_proposals": 12},
    "retinanet": {"anchor_size": 8},
}


TERMS = ("objectness", "rpn_box", "classification", "box")


class Backbone(nn.Module):
    """A convolution for each stride."""

    @nn.compact
    def __call__(self, x, train=False):
        maps = {}
        for level in range(1, 6):
            x = maps[f"map{level}"] = nn.relu(Conv(8, 3, strides=2, padding=1, name=f"conv{level}")(x))
        return maps


def make_task(kind):
    model = create_detector(kind, backbone="resnet18", num_classes=K, width=32, **SETTINGS[kind])
    maps = tuple(f"map{level}" for level in range(6 - len(model.maps), 6))
    return Detection(model.clone(backbone=Backbone(), maps=maps, input_size=(SIDE, SIDE, 3)))


def make_batch(seed=0):
    """Objects and pictures of several numbers and sizes."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 30, (N, M, 2))
    size = np.full((N, 2), SIDE, np.int32)
    size[1] = 50, 64
    return {
        "image": rng.integers(0, 256, (N, SIDE, SIDE, 3), np.uint8),
        "size": size,
        "box": np.concatenate([low, low + rng.uniform(6, 20, (N, M, 2))], -1).astype(np.float32),
        "label": rng.integers(0, K, (N, M)).astype(np.int32),
        "valid": np.arange(M)[None] < rng.integers(1, M + 1, (N, 1)),
        "crowd": np.zeros((N, M), bool),
        "weight": np.ones(N, np.float32),
    }


@pytest.fixture(scope="module", params=SETTINGS)
def steps(request, gradients_of):
    """`take(batch, devices=1) -> (metrics, gradient)`: samplers take all there is, as each device draws
    its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proposals, "SAMPLES", 10_000)
        yield gradients_of(make_task(request.param), make_batch())


def close(one, other, tolerance=1e-4):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(a).max()),
        one,
        other,
    )


@pytest.mark.slow
def test_the_loss_is_finite_and_every_part_has_a_gradient(steps):
    sums, gradient = steps(make_batch())
    assert np.isfinite(list(sums.values())).all()
    assert sums["loss"] == pytest.approx(sum(v for name, v in sums.items() if name in TERMS), rel=1e-5)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all()
        assert leaf.any(), path


@pytest.mark.parametrize(
    "steps", ["retinanet", pytest.param("faster_rcnn", marks=pytest.mark.slow)], indirect=True
)
def test_eight_devices_lose_and_learn_what_one_does(steps):
    batch = make_batch()
    batch["valid"][3] = False  # a device without anything to find
    batch["weight"][5] = 0  # and one without a picture
    (one, gradient), (eight, joined) = steps(batch), steps(batch, devices=8)
    for name in (*TERMS, "loss"):
        if name in one:
            assert eight[name] == pytest.approx(one[name], rel=1e-4), name
    close(gradient, joined)


def test_a_picture_of_weight_zero_changes_nothing(steps):
    batch, other = make_batch(), make_batch(seed=1)
    batch["weight"][5:] = 0
    changed = {name: np.concatenate([batch[name][:5], other[name][5:]]) for name in batch}
    changed["weight"][5:] = 0
    (sums, gradient), (others, same) = steps(batch), steps(changed)
    assert others["loss"] == pytest.approx(sums["loss"], rel=1e-5)
    close(gradient, same, 1e-5)


def test_crowds_are_not_learned(steps):
    batch = make_batch()
    without = {**batch, "valid": batch["valid"].copy()}
    batch["valid"][:, 0], batch["crowd"][:, 0], without["valid"][:, 0] = True, True, False
    (sums, gradient), (others, same) = steps(batch), steps(without)
    assert sums["loss"] == others["loss"]
    close(gradient, same, 1e-6)
    assert sums["loss"] != pytest.approx(steps({**batch, "crowd": without["crowd"] & False})[0]["loss"])


def test_where_nothing_is_there_only_the_background_is_learned(steps):
    batch = make_batch()
    batch["valid"][0] = False
    assert np.isfinite(steps(batch)[0]["loss"])
    batch["valid"][:] = False
    sums, gradient = steps(batch)
    assert sums["box"] == 0
    assert 0 < sums["classification"] < 1e3
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.slow
def test_in_bfloat16_it_trains_and_boxes_are_float32():
    task, batch = make_task("retinanet"), make_batch()
    optimizer = optax.adam(1e-2)
    state = create_state(task, optimizer, jax.random.key(0), batch)
    step = jax.jit(make_train_step(task, optimizer, precision="bfloat16"))
    lost = []
    for _ in range(40):
        state, sums = step(state, batch)
        lost.append(float(sums["loss"].compute()))
    assert lost[-1] < 0.9 * lost[0]
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.params))
    half = {"params": jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), state.params)}
    found = jax.eval_shape(task.predict, half, batch)
    assert found.boxes.dtype == found.scores.dtype == jnp.float32


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("label", K, "label 3 is out of range: the detector's labels run to 2"),
        ("label", -1, "label -1 is out of range"),
        ("box", 5.0, "has no area"),
    ],
)
@pytest.mark.parametrize("kind", SETTINGS)
def test_what_cannot_be_learned_is_said(kind, name, value, words):
    task, batch = make_task(kind), make_batch()
    task.check(batch)
    batch[name][2, 0] = value
    with pytest.raises(InputError, match=words):
        task.check(batch)
    batch["valid"][2, 0] = False  # of padding anything may be
    task.check(batch)
