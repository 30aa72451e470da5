"""Losses of label maps against their formulas in float64, and what does not count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.segmentation.losses import LOSSES, cross_entropy, focal, lovasz

K = 5
CLASS_WEIGHTS = np.array([0.5, 1.0, 2.0, 0.0, 3.0], np.float32)


def example():
    """Three pictures: with some pixels ignored, with class 1 alone, with all ignored."""
    rng = np.random.default_rng(0)
    logits = (2 * rng.normal(size=(3, 5, 6, K))).astype(np.float32)
    labels = rng.integers(0, K - 1, (3, 5, 6)).astype(np.int32)
    labels[0, :2, :3] = 255
    labels[1], labels[2] = 1, 255
    return logits, labels


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def jaccard_loss(wrong, truth):
    """1 - intersection over union if the pixels `wrong` are misjudged."""
    said = truth ^ wrong
    return 1 - (truth & said).sum() / (truth | said).sum()


def by_formula(name, logits, labels, class_weights):
    """The loss of a batch, pixel by pixel and class by class."""
    class_weights = np.ones(K) if class_weights is None else class_weights.astype(float)
    sums = np.zeros(2)
    for own, label in zip(logits.astype(float), labels, strict=True):
        kept = label != 255
        p, y = softmax(own[kept]), label[kept]
        if name in ("cross_entropy", "focal"):
            right = p[np.arange(len(y)), y]
            each = -np.log(right) * ((1 - right) ** 2 if name == "focal" else 1)
            sums += (class_weights[y] * each).sum(), class_weights[y].sum()
            continue
        losses, weights = [], []
        for k in np.unique(y):
            g = y == k
            if name == "dice":
                losses.append(1 - 2 * (p[:, k] * g).sum() / ((p[:, k] ** 2).sum() + (g**2.0).sum()))
            else:
                errors = np.abs(g - p[:, k])
                order, before, loss = np.argsort(-errors), 0.0, 0.0
                wrong = np.zeros(len(g), bool)
                for pixel in order:
                    wrong[pixel] = True
                    now = jaccard_loss(wrong, g)
                    loss, before = loss + errors[pixel] * (now - before), now
                losses.append(loss)
            weights.append(class_weights[k])
        if len(y):
            sums += np.average(losses, weights=weights), 1
    return sums[0] / sums[1]


def mean(name, *arguments, **options):
    numerators, denominators = LOSSES[name](*arguments, **options)
    return jnp.sum(numerators) / jnp.sum(denominators)


@pytest.mark.parametrize("class_weights", [None, CLASS_WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_those_of_their_formulas(name, class_weights):
    logits, labels = example()
    numerators, denominators = jax.jit(LOSSES[name])(logits, labels, class_weights)
    assert numerators.shape == denominators.shape == (3,)
    assert numerators.dtype == denominators.dtype == jnp.float32
    found = numerators.sum() / denominators.sum()
    assert found == pytest.approx(by_formula(name, logits, labels, class_weights), rel=1e-5)
    assert numerators[2] == denominators[2] == 0  # nothing of it counts


def test_cross_entropy_is_that_of_torch():
    logits, labels = example()
    # Of CrossEntropyLoss(weight, ignore_index=255) of torch 2.14, in float64.
    assert mean("cross_entropy", logits, labels) == pytest.approx(3.276666729904088, rel=1e-6)
    found = mean("cross_entropy", logits, labels, CLASS_WEIGHTS)
    assert found == pytest.approx(3.0501464671279184, rel=1e-6)


def test_focal_without_focus_is_cross_entropy():
    logits, labels = example()
    for one, other in zip(
        focal(logits, labels, CLASS_WEIGHTS, gamma=0.0),
        cross_entropy(logits, labels, CLASS_WEIGHTS),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_lovasz_of_sure_answers_is_one_minus_intersection_over_union():
    labels = np.array([[[0, 0, 0, 1, 1, 1, 255, 255]]])
    said = np.array([[[0, 0, 1, 1, 1, 1, 0, 1]]])
    logits = 100 * np.eye(2, dtype=np.float32)[said]
    assert mean("lovasz", logits, labels) == pytest.approx(1 - (2 / 3 + 3 / 4) / 2, rel=1e-6)


def test_lovasz_of_many_pixels_is_exact():
    """Differences of rounded intersections over union would be off by a percent."""
    rng = np.random.default_rng(0)
    labels = (rng.random((1, 300, 300)) < 0.3).astype(np.int32)
    logits = rng.normal(size=(1, 300, 300, 2)).astype(np.float32)
    p, g = softmax(logits.astype(float)).reshape(-1, 2), labels.reshape(-1, 1) == np.arange(2)
    wanted = []
    for k in range(2):
        errors = np.abs(g[:, k] - p[:, k])
        order = np.argsort(-errors)
        truth = g[order, k]
        curve = 1 - (truth.sum() - np.cumsum(truth)) / (truth.sum() + np.cumsum(~truth))
        wanted.append(np.sum(errors[order] * np.diff(curve, prepend=0)))
    assert mean("lovasz", logits, labels) == pytest.approx(np.mean(wanted), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_pixels_that_do_not_count_may_hold_anything(name):
    logits, labels = example()
    strange = logits.copy()
    strange[labels == 255] = np.nan
    strange[0, 0, 0] = np.inf
    gradient = jax.jit(jax.value_and_grad(lambda x: mean(name, x, labels)))
    (one, slopes), (other, others) = gradient(logits), gradient(strange)
    assert one == other
    np.testing.assert_array_equal(slopes, others)
    assert not np.asarray(others)[labels == 255].any()
    assert np.abs(others[1]).sum() > 0
    # Labels of no class are ignored likewise.
    unknown = np.where(labels == 255, K, labels)
    assert mean(name, logits, unknown) == pytest.approx(float(one), rel=1e-6)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "lovasz")) for name in LOSSES]
)
def test_gradients_are_those_of_differences(name):
    logits, labels = example()
    with jax.enable_x64(True):
        logits = jnp.asarray(logits, jnp.float64)
        direction = jnp.asarray(np.random.default_rng(1).normal(size=logits.shape))
        slope = jax.jvp(lambda x: mean(name, x, labels, CLASS_WEIGHTS), (logits,), (direction,))[1]
        gradient = jax.grad(lambda x: mean(name, x, labels, CLASS_WEIGHTS))(logits)
        step = 1e-6
        ends = [mean(name, logits + s * direction, labels, CLASS_WEIGHTS) for s in (step, -step)]
        assert gradient.dtype == jnp.float64
        assert float(slope) == pytest.approx(float(jnp.sum(gradient * direction)), rel=1e-9)
        assert float(slope) == pytest.approx(float(ends[0] - ends[1]) / (2 * step), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_finite_where_answers_are_sure(name):
    labels = np.array([[[0, 1], [2, 0]]])
    for said in (labels, 2 - labels):
        logits = 1e4 * np.eye(3, dtype=np.float32)[said] + 1e5
        value, gradient = jax.value_and_grad(lambda x: mean(name, x, labels))(logits)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
        assert (value < 1e-6) == (said is labels)


@pytest.mark.parametrize("name", LOSSES)
def test_parts_of_a_batch_add_up_to_it(name):
    logits, labels = example()
    whole = LOSSES[name](logits, labels, CLASS_WEIGHTS)
    parts = [LOSSES[name](logits[k : k + 1], labels[k : k + 1], CLASS_WEIGHTS) for k in range(3)]
    for total, own in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_allclose(total, np.concatenate(own), rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_a_nan_that_counts_is_not_hidden(name):
    logits, labels = example()
    logits[1, 0, 0, 0] = np.nan
    assert np.isnan(mean(name, logits, labels))


def test_logits_of_low_precision_are_summed_in_float32():
    logits, labels = example()
    for name in LOSSES:
        numerators, _ = LOSSES[name](jnp.asarray(logits, jnp.bfloat16), labels.astype(np.uint8))
        assert numerators.dtype == jnp.float32
    many = np.zeros((1, 100, 100, 2), np.float32)
    _, count = lovasz(many, np.zeros((1, 100, 100), np.int32))
    assert count == 1
