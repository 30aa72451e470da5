"""What pixels do to a score, each held against another way to compute it."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets import explain
from jaxnets.explain import tracing
from jaxnets.models.classifier import Classifier

CLASSES = np.array([3, 0, 7])


@pytest.fixture(scope="module")
def gradient(lenet, scores):
    """Of the scores of CLASSES, by JAX."""
    return np.asarray(jax.grad(lambda x: scores(x)[jnp.arange(3), CLASSES].sum())(lenet[2]))


def test_saliency_is_the_size_of_the_gradient(lenet, gradient):
    found = explain.saliency(*lenet, CLASSES)
    np.testing.assert_allclose(found, np.abs(gradient), rtol=1e-3, atol=1e-6)


def test_without_a_class_each_image_has_that_of_its_highest_score(lenet, scores):
    best = np.argmax(scores(lenet[2]), -1)
    np.testing.assert_array_equal(explain.saliency(*lenet), explain.saliency(*lenet, best))


def test_smoothgrad_without_noise_is_the_gradient_and_with_noise_follows_its_key(lenet, gradient):
    def smooth(seed, noise):
        return explain.smoothgrad(*lenet, jax.random.key(seed), CLASSES, noise=noise, samples=2)

    np.testing.assert_allclose(smooth(0, 0.0), gradient, rtol=1e-3, atol=1e-6)
    noisy = smooth(0, 0.2)
    assert np.linalg.norm(noisy - gradient) > 0.1 * np.linalg.norm(gradient)
    np.testing.assert_array_equal(noisy, smooth(0, 0.2))
    assert np.linalg.norm(noisy - smooth(1, 0.2)) > 0.1 * np.linalg.norm(gradient)


def test_integrated_gradients_add_up_to_what_the_score_gains(lenet, scores):
    images = lenet[2]
    baseline = jnp.full((32, 32, 1), 0.3)
    found = explain.integrated_gradients(*lenet, CLASSES, baseline=baseline, steps=500)
    gain = scores(images) - scores(jnp.broadcast_to(baseline, images.shape))
    np.testing.assert_allclose(found.sum((1, 2, 3)), gain[np.arange(3), CLASSES], rtol=0.02, atol=0.01)


def test_occlusion_is_the_mean_fall_over_all_places_that_cover_a_pixel(lenet, scores):
    images = lenet[2]
    size, stride, value = (20, 18), (9, 14), 0.7

    def of_classes(x):
        logits = np.asarray(scores(x))
        return np.asarray(nn.softmax(logits))[np.arange(3), CLASSES]

    sums, counts = np.zeros((3, 32, 32)), np.zeros((32, 32))
    for top in (0, 9, 18):  # the last hangs over the edge
        for left in (0, 14):
            covered = np.array(images)
            covered[:, top : top + 20, left : left + 18] = value
            fall = of_classes(images) - of_classes(covered)
            sums[:, top : top + 20, left : left + 18] += fall[:, None, None]
            counts[top : top + 20, left : left + 18] += 1
    found = explain.occlusion(
        *lenet, CLASSES, size=size, stride=stride, value=value, probability=True, batch_size=7
    )
    np.testing.assert_allclose(found, sums / counts, rtol=1e-3, atol=1e-5)


def test_occlusion_compiles_the_model_once(lenet):
    calls = []

    def watch(call, args, kwargs, context):
        if not context.module.path and context.method_name == "__call__":
            calls.append(args[0].shape)
        return call(*args, **kwargs)

    occlusion = functools.partial(explain.occlusion, lenet[0], size=11, stride=7, batch_size=12)
    with nn.intercept_methods(watch):
        jax.eval_shape(occlusion, *lenet[1:])
    assert calls == [(12, 32, 32, 1)]


def test_grad_cam_of_the_last_maps_is_that_of_the_head_alone(lenet):
    model, variables, _ = lenet
    head = model.bind(variables).head
    maps = explain.feature_maps(*lenet, "pool2")
    gradient = jax.grad(lambda maps: head(maps, False)[jnp.arange(3), CLASSES].sum())(maps)
    weights = np.asarray(gradient).mean((1, 2))
    wanted = np.maximum(np.einsum("nhwc,nc->nhw", maps, weights), 0)
    assert wanted.any()
    np.testing.assert_allclose(explain.grad_cam(*lenet, CLASSES), wanted, rtol=1e-3, atol=1e-5)


class _Shown(nn.Module):
    """A backbone that shows a view of its maps which nothing reads, as a ViT does."""

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Conv(4, (3, 3), name="conv")(images)
        return {"view": x[:, 1:, 1:], "last": x.mean((1, 2), keepdims=True)}


class _Head(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(2)(x[:, 0, 0])


def test_grad_cam_passes_over_maps_that_no_score_reads(draw_variables):
    model = Classifier(_Shown(), _Head(), num_classes=2, input_size=(8, 8, 1))
    images = jnp.ones((1, 8, 8, 1))
    variables = draw_variables(model, images)
    with pytest.raises(ValueError, match="do not depend on view"):
        explain.grad_cam(model, variables, images, 0, "view")
    program = tracing.trace(model, variables, images)
    assert tracing.deepest_maps(program) == "view"
    assert tracing.deepest_maps(program, only_read=True) == "backbone/conv"
