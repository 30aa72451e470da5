"""The task of segmenters: what is learned from a batch, on one device and on eight."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax.core import FrozenDict

from jaxnets.errors import InputError
from jaxnets.layers import BatchNorm, Conv
from jaxnets.metrics.segmentation import confusion, scores
from jaxnets.segmentation.segmenter import Segmenter
from jaxnets.segmentation.task import Segmentation
from jaxnets.training import DataParallel, evaluation
from jaxnets.training.state import create_state
from jaxnets.training.step import make_train_step

SIDE, K, N = 16, 3, 8


class Backbone(nn.Module):
    norm: bool = False

    @nn.compact
    def __call__(self, x, train=False):
        x = Conv(4, 3, strides=2, padding=1, name="conv1")(x)
        x = BatchNorm(use_running_average=not train, name="bn")(x) if self.norm else x
        return {"fine": nn.relu(x), "coarse": nn.relu(Conv(8, 3, strides=2, padding=1, name="conv2")(x))}


class Head(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return Conv(K, 1, name="conv")(x)


class Decoder(nn.Module):
    @nn.compact
    def __call__(self, maps, size, train):
        return Head(name="head")(maps["coarse"], train)


def make_task(norm=False, **settings):
    model = Segmenter(
        backbone=Backbone(norm),
        decoder=Decoder(),
        num_classes=K,
        auxiliary=FrozenDict(fine=Head()),
        input_size=(SIDE, SIDE, 3),
    )
    return Segmentation(model, **settings)


def make_batch(seed=0):
    """Label maps with blobs of classes, ignored pixels, and pictures of several sizes."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.repeat(rng.integers(0, K, (N, 4, 4), np.uint8), 4, 1), 4, 2)
    labels[rng.random(labels.shape) < 0.2] = 255
    size = np.full((N, 2), SIDE, np.int32)
    size[1], labels[1, 11:] = (11, SIDE), 255
    return {
        "image": rng.integers(0, 256, (N, SIDE, SIDE, 3), np.uint8),
        "size": size,
        "segmentation": labels,
        "weight": np.ones(N, np.float32),
    }


LOSSES = (
    "cross_entropy",
    pytest.param("cross_entropy+dice", marks=pytest.mark.slow),
    pytest.param("lovasz", marks=pytest.mark.slow),
)


@pytest.fixture(scope="module", params=LOSSES)
def steps(request, gradients_of):
    """`take(batch, devices=1) -> (metrics, gradient)`."""
    task = make_task(loss_name=request.param, class_weights=(0.5, 1.0, 2.0))
    return gradients_of(task, make_batch())


def close(one, other, tolerance=1e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(a).max()),
        one,
        other,
    )


def test_eight_devices_lose_and_learn_what_one_does(steps):
    batch = make_batch()
    batch["segmentation"][3] = 255  # a device without a pixel that counts
    batch["weight"][5] = 0  # and one without a picture
    (one, gradient), (eight, joined) = steps(batch), steps(batch, devices=8)
    assert all(leaf.any() for leaf in jax.tree.leaves(gradient))
    for name in ("loss", "pixel_accuracy", "grad_norm"):
        assert eight[name] == pytest.approx(one[name], rel=1e-5), name
    close(gradient, joined)


def test_ignored_pixels_and_pictures_of_weight_zero_change_nothing(steps):
    batch, other = make_batch(), make_batch(seed=1)
    batch["weight"][5:] = 0
    changed = {name: np.concatenate([batch[name][:5], other[name][5:]]) for name in batch}
    changed["weight"][5:] = 0
    changed["image"][1, 11:] = 7  # beyond the picture
    (sums, gradient), (others, same) = steps(batch), steps(changed)
    assert others["loss"] == pytest.approx(sums["loss"], rel=1e-6)
    close(gradient, same)


@pytest.mark.parametrize("steps", LOSSES[:2], indirect=True)
def test_a_batch_that_is_ignored_altogether_has_no_loss_and_finite_gradients(steps):
    batch = make_batch()
    batch["segmentation"][:] = 255
    sums, gradient = steps(batch)
    assert sums["loss"] == 0
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradient))


@pytest.mark.slow
def test_auxiliary_heads_add_half_their_loss():
    task, batch = make_task(), make_batch()
    variables = task.init(jax.random.key(0), batch)
    losses = []
    for weight in (0.0, 0.5):
        own = make_task(auxiliary_weight=weight)
        losses.append(float(own.loss(variables, batch, jax.random.key(1))[0]))
    logits, sown = task.model.apply(variables, task._images(batch), train=True, mutable=["auxiliary"])
    fine = sown["auxiliary"]["fine"]
    assert fine.shape == logits.shape == (N, SIDE, SIDE, K)
    counted = batch["segmentation"] != 255
    own = optax.softmax_cross_entropy_with_integer_labels(fine, batch["segmentation"] % 255 * counted)
    assert losses[1] - losses[0] == pytest.approx(0.5 * float(own[counted].mean()), rel=1e-4)


def test_a_set_is_measured_as_one_confusion_matrix_on_any_number_of_devices(one_device):
    task, batches = make_task(norm=True), [make_batch(seed) for seed in range(3)]
    variables = task.init(jax.random.key(0), batches[0])
    rows = [{name: batch[name][i] for name in batch} for batch in batches for i in range(N)][:19]
    found = [
        evaluation.evaluate(task, variables, rows, batch_size=8, parallel=parallel)
        for parallel in (one_device, DataParallel.create("pmap"))
    ]
    outputs = [task.predict(variables, {k: np.stack([row[k]]) for k in row})[0] for row in rows]
    matrix = sum(
        confusion(row["segmentation"], np.asarray(own.argmax(-1)), K)
        for row, own in zip(rows, outputs, strict=True)
    )
    wanted = scores(matrix)
    for values in found:
        np.testing.assert_array_equal(values["confusion"], matrix)
        for name in ("miou", "pixel_accuracy", "mean_accuracy", "fw_iou"):
            assert values[name] == wanted[name], name
        np.testing.assert_array_equal(values["iou"], wanted["iou"])


def test_in_bfloat16_it_learns_and_scores_are_float32():
    task, batch = make_task(norm=True), make_batch()
    batch["image"] = np.repeat(batch["segmentation"][..., None] * 100, 3, -1)
    optimizer = optax.adam(3e-2)
    state = create_state(task, optimizer, jax.random.key(0), batch)
    step = jax.jit(make_train_step(task, optimizer, precision="bfloat16"))
    lost = []
    for _ in range(60):
        state, sums = step(state, batch)
        lost.append(float(sums["loss"].compute()))
    assert lost[-1] < 0.7 * lost[0]
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.params))
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), state.variables)
    assert jax.eval_shape(task.predict, half, batch).dtype == jnp.float32


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda batch: batch["segmentation"].__setitem__((2, 0, 0), K), "label 3 is out of range"),
        (
            lambda batch: batch.update(segmentation=batch["segmentation"][:, :8]),
            "wanted \\[8, 16, 16\\]",
        ),
        (lambda batch: batch.pop("segmentation"), "it has no segmentation"),
    ],
)
def test_what_cannot_be_learned_is_said(change, words):
    task, batch = make_task(), make_batch()
    task.check(batch)
    change(batch)
    with pytest.raises(InputError, match=words):
        task.check(batch)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"loss_name": "cross_entropy+dicee"}, "unknown loss 'dicee'; did you mean 'dice'"),
        ({"class_weights": (1.0,)}, "class_weights has 1 entries for 3 classes"),
    ],
)
def test_a_wrong_setting_is_named(settings, words):
    with pytest.raises(InputError, match=words):
        make_task(**settings)
