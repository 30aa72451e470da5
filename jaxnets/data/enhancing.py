"""Augmentations by single operations of `jaxnets.data.operations`, each at random.

Every augmentation is ``augment(key, example) -> example`` (`jaxnets.data.example`) and changes only the
image; statistics are of the picture, not of what is around it. Those with `p` apply with this
probability, as torchvision's transforms of the same name.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxnets.data import checks, operations
from jaxnets.data import example as examples
from jaxnets.data.example import Augmentation, Example
from jaxnets.data.movement import size_of
from jaxnets.data.resampling import Size, cut_image, surrounded
from jaxnets.errors import InputError

Change = Callable[[jax.Array, jax.Array, Size], jax.Array]


def random_posterize(bits: int = 4, p: float = 0.5) -> Augmentation:
    """Keeps the highest `bits` of the eight of each value, with probability `p`.

    Raises:
        InputError: `bits` outside 0 to 8, or `p` is not a probability.
    """
    checks.within("bits", bits, 0, 8)
    return _sometimes(p, lambda key, image, size: operations.posterize(image, bits))


def random_solarize(threshold: float = 0.5, p: float = 0.5) -> Augmentation:
    """Inverts values of at least `threshold`, with probability `p`.

    Raises:
        InputError: `threshold` outside [0, 1], or `p` is not a probability.
    """
    checks.within("threshold", threshold, 0, 1)
    return _sometimes(p, lambda key, image, size: operations.solarize(image, threshold))


def random_invert(p: float = 0.5) -> Augmentation:
    """Inverts all values, with probability `p`.

    Raises:
        InputError: `p` is not a probability.
    """
    return _sometimes(p, lambda key, image, size: operations.invert(image))


def random_autocontrast(p: float = 0.5) -> Augmentation:
    """Stretches each channel to the whole range, with probability `p`.

    Raises:
        InputError: `p` is not a probability.
    """
    return _sometimes(p, lambda key, image, size: operations.autocontrast(image, size))


def random_equalize(p: float = 0.5) -> Augmentation:
    """Equalizes the histogram of each channel, with probability `p`.

    Raises:
        InputError: `p` is not a probability.
    """
    return _sometimes(p, lambda key, image, size: operations.equalize(image, size))


def random_sharpness(strength: float = 0.9) -> Augmentation:
    """Sharpens or blurs by a factor that is uniform in [1 - strength, 1 + strength].

    Raises:
        InputError: `strength` outside [0, 1].
    """
    checks.within("strength", strength, 0, 1)

    def change(key: jax.Array, image: jax.Array, size: Size) -> jax.Array:
        factor = 1 + strength * jax.random.uniform(key, (), image.dtype, minval=-1)
        return operations.sharpness(image, factor, size)

    return _sometimes(1, change)


def gaussian_blur(
    kernel_size: int = 13, sigma: tuple[float, float] = (0.1, 2.0), p: float = 0.5
) -> Augmentation:
    """Blurs with a Gaussian whose standard deviation is uniform in `sigma`, with probability `p`.

    Args:
        kernel_size: odd number of rows and columns that are weighted.
        sigma: smallest and largest standard deviation, in pixels.
        p: probability.

    Raises:
        InputError: a parameter out of range.
    """
    checks.within("kernel_size", kernel_size, 1)
    if kernel_size % 2 != 1:
        raise InputError(f"kernel_size is {kernel_size}; it must be odd, such as {kernel_size + 1}")
    checks.interval("sigma", sigma, 1e-3)

    def change(key: jax.Array, image: jax.Array, size: Size) -> jax.Array:
        drawn = jax.random.uniform(key, (), image.dtype, *sigma)
        image = surrounded(image, size)
        return jnp.clip(operations.gaussian_blur(image, drawn, kernel_size), 0, 1)

    return _sometimes(p, change)


def _sometimes(p: float, change: Change) -> Augmentation:
    """An augmentation that changes the picture of an example with probability `p`."""
    checks.within("p", p, 0, 1)

    def augment(key: jax.Array, example: Example) -> Example:
        examples.check(example)
        image, size = example["image"], size_of(example)
        chance_key, change_key = jax.random.split(key)
        changed = cut_image(change(change_key, image, size), size)
        return {
            **example,
            "image": jnp.where(jax.random.bernoulli(chance_key, float(p)), changed, image),
        }

    return augment
