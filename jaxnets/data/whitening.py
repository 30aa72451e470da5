"""Scaling of pixel values: normalization, and PCA or ZCA whitening."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.data import checks
from jaxnets.data.dataset import Source, Subset
from jaxnets.data.pipeline import eval_batches
from jaxnets.dtypes import at_least_float32
from jaxnets.errors import InputError

MAX_WHITENED_VALUES = 12_288  # 64 x 64 x 3; the covariance takes 1.2 GB in float64


class Whitening(NamedTuple):
    """A whitening transform; see `fit_whitening`.

    Attributes:
        mean: f32[D], mean of the flattened images.
        matrix: f32[D, D]; whitened row vectors are ``(x - mean) @ matrix``.
    """

    mean: np.ndarray
    matrix: np.ndarray


def to_float(images: jax.Array) -> jax.Array:
    """Converts uint8 in 0 .. 255 to float32 in [0, 1], of any shape; floats are not rescaled.

    float64 stays, if JAX is set to have it (`jax_enable_x64`).
    """
    if jnp.issubdtype(images.dtype, jnp.integer):
        return images.astype(jnp.float32) / 255
    return at_least_float32(images)


def normalize(images: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    """Subtracts the mean and divides by the standard deviation of each channel.

    Args:
        images: f32[..., C] in [0, 1].
        mean: f32[C], in the same units.
        std: f32[C], in the same units.

    Returns:
        f32[..., C].
    """

    def constant(value: jax.Array) -> jax.Array:
        value = jnp.asarray(value, images.dtype)
        return jnp.expand_dims(value, tuple(range(images.ndim - value.ndim)))

    return (images - constant(mean)) / constant(std)


def channel_statistics(
    source: Source, batch_size: int = 256, at_most: int = 2000
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every channel over the pixels of a source, on the host.

    The sums of uint8 are integers and therefore exact. Images that cannot be read are excluded, as is
    what lies around a picture that does not fill its image.

    Args:
        source: N images, read `batch_size` at a time.
        batch_size: number of images held in memory.
        at_most: maximum number of images to read; evenly spaced if the source is larger.

    Returns:
        Mean and standard deviation, float32[C] each, for images in [0, 1]. The deviation is at least
        one gray level, so that constant channels can be divided by it.

    Raises:
        InputError: no image can be read, or pixels are neither uint8 nor floats in [0, 1].
    """
    if len(source) > at_most:
        source = Subset(source, np.linspace(0, len(source) - 1, at_most).astype(int))
    count, total, squares = 0, 0.0, 0.0
    for batch in eval_batches(source, batch_size):
        kept = batch["weight"] > 0
        images = batch["image"][kept]
        checks.pixels(images)
        values = images.reshape(-1, images.shape[-1])
        sums = _sums(values if values.dtype == np.uint8 else values.astype(np.float64) * 255)
        # What is around a picture is black and adds nothing to the sums.
        pixels = batch["size"][kept].prod(1).sum() if "size" in batch else len(values)
        count, total, squares = count + pixels, total + sums[0], squares + sums[1]
    if count == 0:
        raise InputError("channel_statistics needs at least one image that can be read, got none")
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1))
    return (mean / 255).astype(np.float32), (std / 255).astype(np.float32)


def _sums(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sums of values [N, C] and of their squares, f64[C] each; exact for uint8.

    float32 holds the sums of 256 squares of uint8 exactly, and adds much faster than integers.
    """
    channels, whole = values.shape[1], len(values) // 2**16 * 2**16
    if values.dtype != np.uint8:
        whole = 0
    blocks = values[:whole].reshape(-1, 256, 256 * channels).astype(np.float32)
    rest = values[whole:].astype(np.float64)

    def total(blocks: np.ndarray) -> np.ndarray:
        rows = blocks.sum(1).sum(0, dtype=np.float64)
        return rows.reshape(256, channels).sum(0)

    first = total(blocks) + rest.sum(0)
    return first, total(np.square(blocks, out=blocks)) + np.square(rest).sum(0)


def fit_whitening(
    images: np.ndarray, epsilon: float = 1e-2, kind: Literal["pca", "zca"] = "zca"
) -> Whitening:
    """Fits a linear transform that makes all values uncorrelated with variance 1.

    PCA whitening maps images to their principal components, largest first. ZCA whitening rotates them
    back, so that they still look like images (Krizhevsky 2009, "Learning multiple layers of features
    from tiny images", appendix A). Computed on the host in float64.

    Args:
        images: [N, ...] of any shape, with D values each; N may be less than D.
        epsilon: added to every variance before the square root, in squared units of the images;
            above 0, it keeps components of low variance from being amplified.
        kind: ``"pca"`` or ``"zca"``.

    Raises:
        InputError: `kind` is neither, `epsilon` is negative or too small, fewer than two images, or
            images of more than `MAX_WHITENED_VALUES` values, whose covariance is too large.
    """
    if kind not in ("pca", "zca"):
        raise InputError(f"kind must be 'pca' or 'zca', got {kind!r}")
    if epsilon < 0:
        raise InputError(f"epsilon must be at least 0, got {epsilon}")
    values = np.asarray(images, np.float64).reshape(len(images), -1)
    if len(values) < 2 or values.shape[1] > MAX_WHITENED_VALUES:
        raise InputError(
            f"whitening needs two or more images of at most {MAX_WHITENED_VALUES} values, got "
            f"{len(values)} of {values.shape[1]}; use smaller images or patches"
        )
    mean = values.mean(0)
    values = values - mean
    variances, components = np.linalg.eigh(values.T @ values / len(values))
    variances, components = variances[::-1], components[:, ::-1]
    with np.errstate(divide="ignore"):
        scales = 1 / np.sqrt(np.maximum(variances, 0) + epsilon)
    if not np.isfinite(scales).all():
        raise InputError("epsilon=0 cannot whiten images with constant components; use epsilon > 0")
    matrix = components * scales
    if kind == "zca":
        matrix = matrix @ components.T
    return Whitening(mean.astype(np.float32), matrix.astype(np.float32))


def whiten(images: jax.Array, whitening: Whitening) -> jax.Array:
    """Applies a whitening transform; PCA components are also returned in the shape of the images.

    Args:
        images: f32[N, ...], in the same units as those of the fit.
        whitening: the transform from `fit_whitening`.

    Returns:
        f32[N, ...].
    """
    values = images.reshape(images.shape[0], -1) - whitening.mean[None]
    return jnp.matmul(values, whitening.matrix, precision="highest").reshape(images.shape)
