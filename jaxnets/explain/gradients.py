"""Attributions by gradients: how the score of a class depends on each pixel.

Each function takes images as the model reads them, and a class: one for each image, one for all, or None
for the class that the model scores highest. The score is the logit.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxnets.errors import InputError
from jaxnets.explain.arguments import checked_classes, scores_of
from jaxnets.explain.interpreting import ReluRule, guided
from jaxnets.explain.tracing import run, trace

Variables = Mapping[str, Any]


def saliency(
    model: nn.Module, variables: Variables, images: jax.Array, classes: Any = None
) -> jax.Array:
    """The absolute value of the gradient of the score by the image.

    Simonyan, Vedaldi and Zisserman 2013, "Deep Inside Convolutional Networks", section 3. The paper then
    takes the maximum over the channels, which is left to the caller.

    Args:
        model: a classifier of `jaxnets.create_model`.
        variables: its variables.
        images: float[N, H, W, C].
        classes: an int, i32[N] or None.

    Returns:
        f32[N, H, W, C].

    Raises:
        InputError: images that do not fit the model, or a class that is out of range.
    """
    classes = checked_classes(model, images, classes)
    return jnp.abs(_gradient(model, variables, images, classes))


def guided_backprop(
    model: nn.Module, variables: Variables, images: jax.Array, classes: Any = None
) -> jax.Array:
    """Guided backpropagation: the gradient, of which each ReLU passes back only positive values.

    Springenberg et al. 2014, "Striving for Simplicity: The All Convolutional Net", section 3.4. The rule
    applies to ReLU and ReLU6; other activations keep their derivative.

    Args:
        model, variables, images, classes: as for `saliency`.

    Returns:
        f32[N, H, W, C], of both signs.

    Raises:
        InputError: as for `saliency`.
    """
    classes = checked_classes(model, images, classes)
    return _gradient(model, variables, images, classes, guided)


def smoothgrad(
    model: nn.Module,
    variables: Variables,
    images: jax.Array,
    key: jax.Array,
    classes: Any = None,
    *,
    noise: float = 0.15,
    samples: int = 50,
) -> jax.Array:
    """SmoothGrad: the mean gradient over copies of the image with Gaussian noise.

    Smilkov et al. 2017, "SmoothGrad: removing noise by adding noise", section 3.

    Args:
        model, variables, images, classes: as for `saliency`.
        key: of the noise.
        noise: its standard deviation as a fraction of the range of each image; the paper recommends 0.1
            to 0.2.
        samples: number of copies.

    Returns:
        f32[N, H, W, C], of both signs.

    Raises:
        InputError: fewer than one sample, negative noise, or as for `saliency`.
    """
    classes = checked_classes(model, images, classes)
    if samples < 1 or noise < 0:
        raise InputError(f"samples is {samples} and noise {noise}; give at least 1, and 0 or more")
    return _smoothed(model, variables, images, key, classes, noise, samples)


def integrated_gradients(
    model: nn.Module,
    variables: Variables,
    images: jax.Array,
    classes: Any = None,
    *,
    baseline: Any = 0.0,
    steps: int = 50,
) -> jax.Array:
    """Integrated gradients along the straight path from a baseline to the image.

    Sundararajan, Taly and Yan 2017, "Axiomatic Attribution for Deep Networks", section 3. The sum over
    an image is its score minus the baseline's, up to the error of the integral. The integral is taken by
    Gauss-Legendre quadrature, where the paper has a Riemann sum.

    Args:
        model, variables, images, classes: as for `saliency`.
        baseline: where the path begins; a number or an array that broadcasts to the images. For
            normalized images 0 is the mean color.
        steps: number of gradients along the path.

    Returns:
        f32[N, H, W, C], of both signs.

    Raises:
        InputError: fewer than one step, a baseline that does not broadcast, or as for `saliency`.
    """
    classes = checked_classes(model, images, classes)
    if steps < 1:
        raise InputError(f"steps is {steps}; give at least 1")
    if not _broadcasts(np.shape(baseline), images.shape):
        raise InputError(
            f"baseline has shape {np.shape(baseline)}; wanted one that broadcasts to {images.shape}"
        )
    return _integrated(model, variables, images, classes, baseline, steps)


@partial(jax.jit, static_argnums=(0, 4))
def _gradient(model, variables, images, classes, relu: ReluRule | None = None) -> jax.Array:
    traced = trace(model, variables, images)

    def total(images):
        return jnp.sum(scores_of(run(traced, variables, images, relu=relu)[0], classes))

    return jax.grad(total)(images).astype(_precise(images))


@partial(jax.jit, static_argnums=(0, 6))
def _smoothed(model, variables, images, key, classes, noise, samples) -> jax.Array:
    classes = _or_best(model, variables, images, classes)
    span = jnp.ptp(images, axis=(1, 2, 3), keepdims=True)

    def add(total, key):
        noisy = images + noise * span * jax.random.normal(key, images.shape, _precise(images))
        return total + _gradient(model, variables, noisy.astype(images.dtype), classes), None

    total = jnp.zeros(images.shape, _precise(images))
    total, _ = jax.lax.scan(add, total, jax.random.split(key, samples))
    return total / samples


@partial(jax.jit, static_argnums=(0, 5))
def _integrated(model, variables, images, classes, baseline, steps) -> jax.Array:
    classes = _or_best(model, variables, images, classes)
    nodes, weights = np.polynomial.legendre.leggauss(steps)  # on (-1, 1)
    shares, weights = (jnp.asarray(n, _precise(images)) for n in ((nodes + 1) / 2, weights / 2))
    path = images - baseline

    def add(total, step):
        share, weight = step
        point = (baseline + share * path).astype(images.dtype)
        return total + weight * _gradient(model, variables, point, classes), None

    total = jnp.zeros(images.shape, _precise(images))
    total, _ = jax.lax.scan(add, total, (shares, weights))
    return total * path


def _precise(images: jax.Array) -> Any:
    """The dtype of sums: float32 for images of 16 bits."""
    return jnp.promote_types(images.dtype, jnp.float32)


def _or_best(model, variables, images, classes) -> jax.Array:
    """The classes; where None, those that the model scores highest."""
    if classes is None:
        return jnp.argmax(model.apply(variables, images, train=False), axis=-1)
    return classes


def _broadcasts(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, wanted) == wanted
    except ValueError:
        return False
