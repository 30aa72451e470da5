"""Augmentations that change values: color jitter, gray, noise, erasing.

Every augmentation is ``augment(key, example) -> example`` (`jaxnets.data.example`) and changes the
image alone. What only colors have, hue and saturation, is left alone unless there are three channels.
"""

import jax
import jax.numpy as jnp

from jaxnets.data import checks, geometry
from jaxnets.data.example import Augmentation, on_image


def color_jitter(
    brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4, hue: float = 0.1
) -> Augmentation:
    """Multiplies brightness, contrast and saturation by random factors and turns the hue.

    As torchvision's ColorJitter, but always in this order, with the contrast about each channel's
    own mean, and with saturation and hue those of HSV. Each change is followed by a clip to [0, 1].

    Args:
        brightness: the factor is uniform in [1 - brightness, 1 + brightness]; at most 1.
        contrast: likewise.
        saturation: likewise.
        hue: the greatest turn of the hue either way, as a share of the circle; at most 0.5.

    Raises:
        InputError: a parameter out of range.
    """
    strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    for name, strength in strengths.items():
        checks.within(name, strength, 0, 1)
    checks.within("hue", hue, 0, 0.5)

    @on_image
    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        import dm_pix

        draws = jax.random.uniform(key, (4,), minval=-1)
        image = jnp.clip(image * (1 + brightness * draws[0]), 0, 1)
        image = jnp.clip(dm_pix.adjust_contrast(image, 1 + contrast * draws[1]), 0, 1)
        if image.shape[-1] == 3:
            image = dm_pix.adjust_saturation(image, 1 + saturation * draws[2])
            image = jnp.clip(dm_pix.adjust_hue(image, hue * draws[3]), 0, 1)
        return image

    return augment


def random_gray(p: float = 0.2) -> Augmentation:
    """Replaces the colors by their luma (ITU-R BT.601) with probability `p`.

    Raises:
        InputError: `p` is not a probability.
    """
    checks.within("p", p, 0, 1)

    @on_image
    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        import dm_pix

        if image.shape[-1] != 3:
            return image
        gray = dm_pix.rgb_to_grayscale(image, keep_dims=True)
        return jnp.where(jax.random.bernoulli(key, float(p)), gray, image)

    return augment


def random_channel_mix(p: float = 0.2) -> Augmentation:
    """Makes every channel a random mean of all channels, darkened by a random factor.

    With probability `p`. Shapes stay, colors become any others: a random 1x1 convolution (Xu et al.
    2021, arXiv:2007.13003, section 3.1), but of weights above 0, so that light stays light. Those of a
    mean are the softmax of 3 times normal draws, most of it one channel; the factor is uniform in
    [0.2, 1].

    Raises:
        InputError: `p` is not a probability.
    """
    checks.within("p", p, 0, 1)

    @on_image
    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        chance_key, weight_key, factor_key = jax.random.split(key, 3)
        channels = image.shape[-1]
        weights = jax.nn.softmax(3 * jax.random.normal(weight_key, (channels, channels)), axis=0)
        factors = jax.random.uniform(factor_key, (channels,), minval=0.2)
        mixed = image @ (weights * factors).astype(image.dtype)
        return jnp.where(jax.random.bernoulli(chance_key, float(p)), mixed, image)

    return augment


def gaussian_noise(sigma: float = 0.05) -> Augmentation:
    """Adds normal noise of standard deviation `sigma` to every value, and clips to [0, 1].

    Raises:
        InputError: `sigma` below 0.
    """
    checks.within("sigma", sigma, 0)

    @on_image
    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        return jnp.clip(image + sigma * jax.random.normal(key, image.shape, image.dtype), 0, 1)

    return augment


def random_erasing(
    p: float = 0.5,
    scale: tuple[float, float] = (0.02, 0.4),
    ratio: tuple[float, float] = (0.3, 1 / 0.3),
) -> Augmentation:
    """Replaces a box by uniform noise with probability `p` (Zhong et al. 2017, section 3.2).

    The box is a `geometry.random_box`; where the paper draws until one fits, an image for which
    none of ten does is left whole.

    Args:
        p: probability.
        scale: least and greatest share of the image's area.
        ratio: least and greatest width / height of the box. (The paper's ratio is height / width;
            the default is the same either way.)

    Raises:
        InputError: a parameter out of range.
    """
    checks.within("p", p, 0, 1)
    checks.interval("scale", scale, 0, 1)
    checks.interval("ratio", ratio, 1e-6)

    @on_image
    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        chance_key, box_key, noise_key = jax.random.split(key, 3)
        size = image.shape[:2]
        top, left, height, width, fits = geometry.random_box(box_key, *size, scale, ratio)
        box = geometry.inside_box(*size, top, left, top + height, left + width)
        erased = jax.random.bernoulli(chance_key, float(p)) & fits & box
        noise = jax.random.uniform(noise_key, image.shape, image.dtype)
        return jnp.where(erased[..., None], noise, image)

    return augment
