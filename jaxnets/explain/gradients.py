"""Which pixels a score depends on: pictures made of gradients.

Each function takes the images as the model reads them, and one class for each image, for all of
them, or where it is None the one that the model scores highest. The score is the logit.
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
    """How much a small change of each number in an image would move the score: |d score / d image|.

    Simonyan, Vedaldi and Zisserman 2013, "Deep Inside Convolutional Networks", section 3. The paper
    then takes the maximum over the channels, which is left to who draws it.

    Args:
        model: a classifier of `jaxnets.create_model`.
        variables: its variables.
        images: float[N, H, W, C].
        classes: an int, i32[N] or None.

    Returns:
        f32[N, H, W, C].

    Raises:
        InputError: images that do not fit the model, or a class that it has not.
    """
    classes = checked_classes(model, images, classes)
    return jnp.abs(_gradient(model, variables, images, classes))


def guided_backprop(
    model: nn.Module, variables: Variables, images: jax.Array, classes: Any = None
) -> jax.Array:
    """The gradient by which each ReLU passes back only what is positive.

    Springenberg et al. 2014, "Striving for Simplicity: The All Convolutional Net", section 3.4. It
    holds for ReLU and ReLU6; other activations have their derivative.

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
    """The mean gradient over copies of the image under Gaussian noise.

    Smilkov et al. 2017, "SmoothGrad: removing noise by adding noise", section 3.

    Args:
        model, variables, images, classes: as for `saliency`.
        key: of the noise.
        noise: its standard deviation, as a share of the range of each image's numbers; the paper finds
            0.1 to 0.2 good.
        samples: how many copies.

    Returns:
        f32[N, H, W, C], of both signs.

    Raises:
        InputError: no sample, negative noise, or as for `saliency`.
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
    """What each number adds to the score on the straight way from a baseline to the image.

    Sundararajan, Taly and Yan 2017, "Axiomatic Attribution for Deep Networks", section 3. The sum over
    an image is its score less the baseline's, but for the integral, which is taken by Gauss and
    Legendre's rule (the paper's is Riemann's).

    Args:
        model, variables, images, classes: as for `saliency`.
        baseline: where the way begins; a number or an array that broadcasts to the images. 0 is an
            image of the mean color where images were normalized.
        steps: gradients along the way.

    Returns:
        f32[N, H, W, C], of both signs.

    Raises:
        InputError: no step, a baseline of another shape, or as for `saliency`.
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
    way = images - baseline

    def add(total, step):
        share, weight = step
        place = (baseline + share * way).astype(images.dtype)
        return total + weight * _gradient(model, variables, place, classes), None

    total = jnp.zeros(images.shape, _precise(images))
    total, _ = jax.lax.scan(add, total, (shares, weights))
    return total * way


def _precise(images: jax.Array) -> Any:
    """The type to sum in: float32 where images are of 16 bits."""
    return jnp.promote_types(images.dtype, jnp.float32)


def _or_best(model, variables, images, classes) -> jax.Array:
    """The classes, or where None those that the model scores highest."""
    if classes is None:
        return jnp.argmax(model.apply(variables, images, train=False), axis=-1)
    return classes


def _broadcasts(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, wanted) == wanted
    except ValueError:
        return False
