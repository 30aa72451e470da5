"""Augmentations that change values: color jitter, gray, noise, erasing.

Every augmentation is ``augment(key, example) -> example`` (`jaxnets.data.example`) and changes only
the image. Hue and saturation are changed only for images with three channels.
"""

import jax
import jax.numpy as jnp

from jaxnets.data import checks, geometry
from jaxnets.data.example import Augmentation, on_image
from jaxnets.dtypes import implicit_promotion


def color_jitter(
    brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4, hue: float = 0.1
) -> Augmentation:
    """Scales brightness, contrast and saturation by random factors and shifts the hue.

    Like torchvision's ColorJitter, except that the order is fixed, contrast is relative to the mean of
    each channel, and saturation and hue are those of HSV. Each change is followed by a clip to [0, 1].

    Args:
        brightness: the factor is uniform in [1 - brightness, 1 + brightness]; at most 1.
        contrast: likewise.
        saturation: likewise.
        hue: maximum shift of the hue in either direction, as a fraction of the circle; at most 0.5.

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

        dtype = image.dtype
        draws = jax.random.uniform(key, (4,), dtype, minval=-1)
        image = jnp.clip(image * (1 + brightness * draws[0]), 0, 1)
        with implicit_promotion():
            image = jnp.clip(dm_pix.adjust_contrast(image, 1 + contrast * draws[1]), 0, 1)
            if image.shape[-1] == 3:
                image = dm_pix.adjust_saturation(image, 1 + saturation * draws[2])
                image = jnp.clip(dm_pix.adjust_hue(image, hue * draws[3]), 0, 1)
        return image.astype(dtype)

    return augment


def photometric_distortion(p: float = 0.5) -> Augmentation:
    """Distorts colors as SSD does (Liu et al. 2016, section 2.2), each way with probability `p`.

    As torchvision's RandomPhotometricDistort, by its factors: brightness 0.875 to 1.125, contrast 0.5 to
    1.5 (before or after what follows), saturation 0.5 to 1.5, hue shifted by up to 0.05 of the circle,
    and the channels in another order. Contrast, saturation and hue are those of `color_jitter`.

    Raises:
        InputError: `p` is not a probability.
    """
    checks.within("p", p, 0, 1)

    @on_image
    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        import dm_pix

        dtype = image.dtype
        draw_key, order_key = jax.random.split(key)
        draws = jax.random.uniform(draw_key, (2, 5), dtype)
        strength = jnp.where(draws[1] < p, 2 * draws[0] - 1, 0)
        early = draws[0, 4] < 0.5
        contrast = 1 + 0.5 * strength[1]
        image = jnp.clip(image * (1 + 0.125 * strength[0]), 0, 1)
        with implicit_promotion():
            first, last = jnp.where(early, contrast, 1), jnp.where(early, 1, contrast)
            image = jnp.clip(dm_pix.adjust_contrast(image, first), 0, 1)
            if image.shape[-1] == 3:
                image = dm_pix.adjust_saturation(image, 1 + 0.5 * strength[2])
                image = jnp.clip(dm_pix.adjust_hue(image, 0.05 * strength[3]), 0, 1)
            image = jnp.clip(dm_pix.adjust_contrast(image, last), 0, 1).astype(dtype)
        order = jax.random.permutation(order_key, image.shape[-1])
        return jnp.where(draws[1, 4] < p, image[..., order], image)

    return augment


def random_gray(p: float = 0.2) -> Augmentation:
    """Replaces colors with their luma (ITU-R BT.601), with probability `p`.

    Raises:
        InputError: `p` is not a probability.
    """
    checks.within("p", p, 0, 1)

    @on_image
    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        import dm_pix

        if image.shape[-1] != 3:
            return image
        with implicit_promotion():
            gray = dm_pix.rgb_to_grayscale(image, keep_dims=True).astype(image.dtype)
        return jnp.where(jax.random.bernoulli(key, float(p)), gray, image)

    return augment


def random_channel_mix(p: float = 0.2) -> Augmentation:
    """Replaces every channel with a random mean of all channels, darkened, with probability `p`.

    This preserves shapes and randomizes colors: a random 1x1 convolution (Xu et al. 2021,
    arXiv:2007.13003, section 3.1), but with positive weights, so that light areas stay light. The
    weights of each mean are the softmax of 3 times normal draws, so that one channel dominates. Each
    new channel is scaled by a factor that is uniform in [0.2, 1].

    Raises:
        InputError: `p` is not a probability.
    """
    checks.within("p", p, 0, 1)

    @on_image
    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        chance_key, weight_key, factor_key = jax.random.split(key, 3)
        channels = image.shape[-1]
        weights = jax.nn.softmax(
            3 * jax.random.normal(weight_key, (channels, channels), image.dtype), axis=0
        )
        factors = jax.random.uniform(factor_key, (channels,), image.dtype, minval=0.2)
        mixed = image @ (weights * factors[None])
        return jnp.where(jax.random.bernoulli(chance_key, float(p)), mixed, image)

    return augment


def gaussian_noise(sigma: float = 0.05) -> Augmentation:
    """Adds Gaussian noise of standard deviation `sigma` to every value, and clips to [0, 1].

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
    """Replaces a box with uniform noise, with probability `p` (Zhong et al. 2017, section 3.2).

    The box is drawn by `geometry.random_box`. Departure from the paper, which draws until a box fits:
    if none of ten boxes fits, the image is unchanged.

    Args:
        p: probability of erasing.
        scale: minimum and maximum fraction of the image's area.
        ratio: minimum and maximum width / height of the box. (The paper's ratio is height / width;
            the default range is the same for both.)

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
