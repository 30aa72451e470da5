"""The operations of augmentation policies on the colors of an image, at a given strength.

Each is a function of an image f32[H, W, C] in [0, 1] and is defined as torchvision's on uint8
(`torchvision.transforms.v2.functional`, which follows Pillow's ImageEnhance and ImageOps): it rounds to
whole 8-bit levels where they do, and its gradient is that of the function without rounding. A `size`
(height, width) says that the picture fills only the upper left of its image: what is around it has no
part in means, ranges and histograms.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxnets.data.geometry import inside_box
from jaxnets.data.resampling import Size, fills, inside

_LUMA = (0.2989, 0.587, 0.114)  # as torchvision; ITU-R BT.601
_LEVELS = 256


def brightness(image: jax.Array, factor: jax.Array | float) -> jax.Array:
    """Scales all values by a factor of 0 (black) or more."""
    return _image(factor * _levels(image))


def color(image: jax.Array, factor: jax.Array | float) -> jax.Array:
    """Scales the difference of an RGB image from its luma: 0 makes it gray; another image stays."""
    if image.shape[-1] != 3:
        return image
    levels = _levels(image)
    return _blended(levels, _luma(levels), factor)


def contrast(image: jax.Array, factor: jax.Array | float, size: Size | None = None) -> jax.Array:
    """Scales the difference of an image from the mean of its luma: 0 makes it plain."""
    levels = _levels(image)
    gray = _luma(levels) if image.shape[-1] == 3 else levels
    mean = jnp.mean(gray, where=_region(image, size), keepdims=True)
    return _blended(levels, mean, factor)


def sharpness(image: jax.Array, factor: jax.Array | float, size: Size | None = None) -> jax.Array:
    """Scales the difference of an image from its smoothed self: below 1 blurs, above 1 sharpens.

    The outermost pixels stay, as they do in Pillow.
    """
    height, width, _ = image.shape
    levels = _levels(image)
    padded = jnp.pad(levels, ((1, 1), (1, 1), (0, 0)))
    sums = padded[:-2] + padded[1:-1] + padded[2:]
    sums = sums[:, :-2] + sums[:, 1:-1] + sums[:, 2:]
    smooth = _rounded((sums + 4 * levels) / 13, jnp.round)
    bottom, right = size or (height, width)
    within = inside_box(height, width, 1, 1, bottom - 1, right - 1)[..., None]
    return _blended(levels, jnp.where(within, smooth, levels), factor)


def posterize(image: jax.Array, bits: jax.Array | int) -> jax.Array:
    """Keeps the highest `bits` (0 to 8) of the eight of each value."""
    step = jnp.left_shift(jnp.int32(1), 8 - jnp.asarray(bits, jnp.int32)).astype(image.dtype)
    levels = _levels(image)
    return _image(_rounded(levels / step, jnp.floor) * step)


def solarize(image: jax.Array, threshold: jax.Array | float) -> jax.Array:
    """Inverts the values from a threshold in [0, 1] on."""
    levels = _levels(image)
    return _image(jnp.where(levels >= 255 * threshold, 255 - levels, levels))


def invert(image: jax.Array) -> jax.Array:
    """Makes light what is dark."""
    return 1 - image


def autocontrast(image: jax.Array, size: Size | None = None) -> jax.Array:
    """Stretches the values of each channel to reach from 0 to 1; a channel of one value stays."""
    levels, region = _levels(image), _region(image, size)
    low = jnp.min(levels, (0, 1), where=region, initial=255, keepdims=True)
    high = jnp.max(levels, (0, 1), where=region, initial=0, keepdims=True)
    plain = high <= low
    scale = jnp.where(plain, 1, (high - low) * (1 / 255))
    return _image((levels - jnp.where(plain, 0, low)) / scale)


def equalize(image: jax.Array, size: Size | None = None) -> jax.Array:
    """Maps the values of each channel so that they are spread evenly, by Pillow's integer rule.

    The gradient is that of the identity.
    """
    region = _region(image, size)
    levels = jnp.round(255 * image).astype(jnp.int32)
    counts = lax.platform_dependent(
        levels, jnp.broadcast_to(region, levels.shape), cpu=count_by_adding, default=count_by_comparing
    )
    below = jnp.cumsum(counts, axis=1, dtype=jnp.int32) - counts
    total = counts.sum(1, keepdims=True, dtype=jnp.int32)
    # The pixels below the highest level: the most that `below` is, where something is counted.
    step = jnp.max(below, 1, where=counts > 0, initial=0, keepdims=True) // 255
    table = jnp.clip((below + step // 2) // jnp.maximum(step, 1), 0, 255)
    table = jnp.where((step > 0) & (total > 0), table, jnp.arange(_LEVELS, dtype=jnp.int32)[None])
    channels = jnp.arange(image.shape[-1], dtype=jnp.int32)
    equal = table[channels[None, None], levels].astype(image.dtype) / 255
    return image + lax.stop_gradient(equal - image)


def count_by_adding(levels: jax.Array, counted: jax.Array) -> jax.Array:
    """The histogram i32[C, 256] of levels i32[H, W, C] where they are counted, bool[H, W, C].

    It adds pixel by pixel, which suits a CPU.
    """
    channels = levels.shape[-1]
    places = levels + _LEVELS * jnp.arange(channels, dtype=jnp.int32)[None, None]
    counts = jnp.zeros(channels * _LEVELS, jnp.int32)
    counts = counts.at[places.ravel()].add(counted.ravel().astype(jnp.int32))
    return counts.reshape(channels, _LEVELS)


def count_by_comparing(levels: jax.Array, counted: jax.Array) -> jax.Array:
    """As `count_by_adding`, by comparing all pixels with all levels, which suits an accelerator."""
    known = jnp.arange(_LEVELS, dtype=jnp.int32)[:, None, None, None]
    return jnp.sum((levels[None] == known) & counted[None], (1, 2), dtype=jnp.int32).T


def gaussian_blur(image: jax.Array, sigma: jax.Array | float, kernel_size: int) -> jax.Array:
    """Blurs an image, mirrored beyond its edges, with a Gaussian.

    Args:
        image: f32[H, W, C].
        sigma: standard deviation in pixels, above 0.
        kernel_size: odd number of rows and columns that are weighted; the weights sum to 1.
    """
    reach = kernel_size // 2
    steps = jnp.arange(-reach, reach + 1, dtype=image.dtype)
    weights = jax.nn.softmax(-((steps / sigma) ** 2) / 2)
    for axis in (0, 1):
        length = image.shape[axis]
        edges = [(reach, reach) if own == axis else (0, 0) for own in range(3)]
        padded = jnp.pad(image, edges, "reflect")
        shifted = (lax.slice_in_dim(padded, k, k + length, axis=axis) for k in range(kernel_size))
        image = sum(weight * own for weight, own in zip(weights, shifted, strict=True))
    return image


def _levels(image: jax.Array) -> jax.Array:
    return _rounded(255 * image, jnp.round)


def _image(levels: jax.Array) -> jax.Array:
    """Levels as an image, cut off as by a conversion to uint8."""
    return _rounded(jnp.clip(levels, 0, 255), jnp.floor) / 255


def _blended(levels: jax.Array, other: jax.Array, factor: jax.Array | float) -> jax.Array:
    """An image at a factor of 1, the other one at 0, and beyond."""
    return _image(levels * factor + other * (1 - factor))


def _luma(levels: jax.Array) -> jax.Array:
    """The luma of an RGB image in whole levels, f32[H, W, 1]."""
    # A product, which XLA does not compute once more for each pixel of a sum over them.
    gray = jnp.dot(levels, jnp.asarray(_LUMA, levels.dtype), precision=lax.Precision.HIGHEST)
    return _rounded(gray, jnp.floor)[..., None]


def _rounded(values: jax.Array, rounding: Callable[[jax.Array], jax.Array]) -> jax.Array:
    return values + lax.stop_gradient(rounding(values) - values)


def _region(image: jax.Array, size: Size | None) -> jax.Array:
    """Which pixels are of the picture, bool[H, W, 1], or [1, 1, 1] where all are."""
    shape = image.shape[:2]
    if size is None or fills(size, shape):
        return jnp.ones((1, 1, 1), bool)
    return inside(size, shape)[..., None]
