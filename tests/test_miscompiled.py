"""What jaxlib 0.10.2 is known to compute wrongly on CPUs (jax issue 39103) does not reach the library.

There a product with a small matrix for every row, squared and summed over the row, came out wrong
when it was compiled for more than 32,768 rows of 3. Here functions that reduce over channels or over
pixels get 40,000 pixels of 3 channels, are compiled whole, and so are their gradients; both are
compared with the same function run operation by operation.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets import layers, losses
from jaxnets.data import augmentation, color, whitening

KEY = jax.random.key(0)
SHAPE = (4, 100, 100, 3)
RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.uniform(size=SHAPE), jnp.float32)
MATRIX = RNG.normal(size=(3, 3)).astype(np.float32)


def applied(module, **options):
    """The module as a function of images, its parameters drawn."""
    variables = module.init(KEY, IMAGES[:1], **options)

    def run(images):
        return module.apply(variables, images, mutable=["batch_stats"], **options)[0]

    return run


def over_pixels(loss):
    """A loss of 40,000 pixels with 3 classes each, whose scores are a 1x1 convolution of the images."""
    targets = jax.nn.one_hot(RNG.integers(0, 3, 40_000), 3)
    return lambda images: loss(mixed(images).reshape(-1, 3), targets)


def chained(*functions):
    return lambda x: functools.reduce(lambda x, f: f(x), functions, x)


def mixed(x):
    """Every pixel's channels, multiplied by a matrix."""
    kernel = {"kernel": MATRIX[None, None]}
    return layers.Conv(3, 1, use_bias=False).apply({"params": kernel}, x)


REDUCTIONS = {
    "squares of a 1x1 convolution": lambda: chained(mixed, lambda x: jnp.sum(x**2, -1)),
    "squares of a depthwise convolution": lambda: chained(
        applied(layers.Conv(3, 3, padding=1, groups=3)), lambda x: jnp.sum(x**2, -1)
    ),
    "BatchNorm": lambda: chained(mixed, applied(layers.BatchNorm(), use_running_average=False)),
    "LayerNorm": lambda: chained(mixed, applied(layers.LayerNorm())),
    "GroupNorm": lambda: chained(mixed, applied(layers.GroupNorm(1))),
    "local_response_norm": lambda: chained(mixed, layers.local_response_norm),
    "lp_pool": lambda: chained(mixed, lambda x: layers.lp_pool(x, 2, 3, 1, 1)),
    "cross_entropy": lambda: over_pixels(losses.cross_entropy),
    "hinge": lambda: over_pixels(losses.hinge),
    "binary_cross_entropy": lambda: over_pixels(losses.binary_cross_entropy),
    "color_jitter": lambda: (
        lambda x: augmentation.apply(KEY, {"image": x}, color.color_jitter())["image"]
    ),
    "whiten": lambda: (
        lambda x: whitening.whiten(
            x.reshape(-1, 3), whitening.Whitening(np.zeros(3, np.float32), MATRIX)
        )
    ),
}
NEVER_DIFFERENTIATED = ("color_jitter", "whiten")


@pytest.mark.slow
@pytest.mark.parametrize("name", REDUCTIONS)
def test_compiled_is_as_uncompiled_for_40_000_pixels(name):
    function = REDUCTIONS[name]()
    shape = jax.eval_shape(function, IMAGES).shape
    direction = jnp.asarray(RNG.normal(size=shape), jnp.float32)

    def slope(images):
        return jax.vjp(function, images)[1](direction)[0]

    for check in [function, slope][: 1 if name in NEVER_DIFFERENTIATED else 2]:
        actual, expected = jax.jit(check)(IMAGES), check(IMAGES)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 * np.max(np.abs(expected)))
