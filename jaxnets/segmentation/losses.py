r"""Losses of label maps, as pure functions of logits and labels.

Each takes

- `logits`, f32[N, H, W, K];
- `labels`, i[N, H, W]: pixels whose label is `ignore` or no class do not count, whatever their logits;
- `class_weights`, f32[K] or None for 1,

and returns a numerator and a denominator, f32[N] each. The loss of a batch is the sum of the numerators
by the sum of the denominators, so that it is the same over any number of devices. A picture without a
pixel that counts has 0 of both.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxnets.data.example import IGNORE
from jaxnets.dtypes import at_least_float32

Terms = tuple[jax.Array, jax.Array]


def cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    class_weights: jax.Array | None = None,
    *,
    ignore: int = IGNORE,
) -> Terms:
    r"""Softmax cross entropy, :math:`\sum_i -w_{y_i} \log p_{i y_i} / \sum_i w_{y_i}` over pixels i.

    The same as PyTorch's `CrossEntropyLoss(class_weights, ignore_index=ignore)`.
    """
    pixels = _pixels(logits, labels, class_weights, ignore)
    return _summed(-_of_truth(pixels), pixels)


def focal(
    logits: jax.Array,
    labels: jax.Array,
    class_weights: jax.Array | None = None,
    *,
    ignore: int = IGNORE,
    gamma: float = 2.0,
) -> Terms:
    r"""Focal loss (Lin et al. 2017, arXiv:1708.02002, equation 5) of a softmax,
    :math:`\sum_i -w_{y_i} (1 - p_{i y_i})^\gamma \log p_{i y_i} / \sum_i w_{y_i}` over pixels i.

    Departures from the paper: a softmax over the classes, not a sigmoid for each, and a mean over the
    pixels, so that it is `cross_entropy` with :math:`\gamma = 0`.
    """
    pixels = _pixels(logits, labels, class_weights, ignore)
    logs = _of_truth(pixels)
    # A base of 0 has no gradient where gamma is below 1.
    wrong = jnp.maximum(-jnp.expm1(logs), jnp.finfo(logs.dtype).tiny)
    return _summed(-(wrong**gamma) * logs, pixels)


def dice(
    logits: jax.Array,
    labels: jax.Array,
    class_weights: jax.Array | None = None,
    *,
    ignore: int = IGNORE,
) -> Terms:
    r"""Soft Dice loss (Milletari et al. 2016, arXiv:1606.04797, section 3), for each picture and class
    :math:`1 - 2 \sum_i p_{ik} g_{ik} / (\sum_i p_{ik}^2 + \sum_i g_{ik}^2)` over pixels i, where g is 1
    at pixels of the class and 0 elsewhere.

    Its mean, weighted by class, over the classes that are there in a picture, and over pictures. The
    paper has one class; a class that is not there would always cost 1.
    """
    pixels = _pixels(logits, labels, class_weights, ignore)
    there, truths = _truths(pixels)
    found = jnp.where(pixels.counted[..., None], jax.nn.softmax(pixels.logits), 0)
    both = jnp.sum(jnp.where(truths, found, 0), 1)
    squares = jnp.sum(jnp.square(found), 1) + there.astype(found.dtype)
    overlap = 2 * both / jnp.where(there > 0, squares, 1)
    return _mean_of_classes(1 - overlap, there, pixels)


def lovasz(
    logits: jax.Array,
    labels: jax.Array,
    class_weights: jax.Array | None = None,
    *,
    ignore: int = IGNORE,
) -> Terms:
    r"""Lovász-softmax (Berman et al. 2018, arXiv:1705.08790, equation 11): a convex surrogate of
    1 - intersection over union, for each picture and class.

    With the errors :math:`m_i = |g_{ik} - p_{ik}|` of pixels i, largest first, it is
    :math:`\sum_i m_i (J_i - J_{i-1})`, where :math:`J_i` is 1 - intersection over union if exactly the
    first i pixels are wrong.

    Its mean, weighted by class, over the classes that are there in a picture, and over pictures: the
    authors' `lovasz_softmax(..., classes="present", per_image=True)`, but that a picture whose pixels
    are all ignored does not count. It sorts the pixels for each class: on a CPU this takes some thirty
    times as long as the other losses.
    """
    pixels = _pixels(logits, labels, class_weights, ignore)
    there, truths = _truths(pixels)
    found = jax.nn.softmax(pixels.logits)
    # Ignored pixels come last, so that they change no other term, and then have no error.
    errors = jnp.where(pixels.counted[..., None], jnp.abs(truths.astype(found.dtype) - found), -1)
    errors, truths = jax.lax.sort((-errors.swapaxes(1, 2), truths.swapaxes(1, 2)), num_keys=1)
    hits = jnp.cumsum(truths.astype(jnp.int32), -1)
    both = there[..., None] - hits
    union = there[..., None] + jnp.cumsum((~truths).astype(jnp.int32), -1)
    # The differences of J as fractions: those of rounded values would be too coarse for many pixels.
    both, union = both.astype(errors.dtype), jnp.maximum(union, 1).astype(errors.dtype)
    steps = jnp.where(truths, 1, both / jnp.maximum(union - 1, 1)) / union
    return _mean_of_classes(jnp.sum(jnp.maximum(-errors, 0) * steps, -1), there, pixels)


LOSSES: dict[str, Callable[..., Terms]] = {
    "cross_entropy": cross_entropy,
    "dice": dice,
    "focal": focal,
    "lovasz": lovasz,
}


class _Pixels(NamedTuple):
    """The P pixels of N pictures: logits f32[N, P, K], 0 where they do not count; labels i32[N, P], 0
    there; counted bool[N, P]; and classes f32[K], their weights."""

    logits: jax.Array
    labels: jax.Array
    counted: jax.Array
    classes: jax.Array


def _pixels(
    logits: jax.Array,
    labels: jax.Array,
    class_weights: jax.Array | None,
    ignore: int,
) -> _Pixels:
    count, classes = len(logits), logits.shape[-1]
    logits = at_least_float32(logits).reshape(count, -1, classes)
    labels = labels.astype(jnp.int32).reshape(count, -1)
    own = jnp.ones(classes) if class_weights is None else jnp.asarray(class_weights)
    counted = (labels >= 0) & (labels < classes) & (labels != ignore)
    # Replaced before they are used: a gradient through NaN or infinity is NaN, though it is not wanted.
    logits = jnp.where(counted[..., None], logits, 0)
    labels = jnp.where(counted, labels, 0)
    return _Pixels(logits, labels, counted, own.astype(logits.dtype))


def _of_truth(pixels: _Pixels) -> jax.Array:
    """The logarithm of the probability of each pixel's class, f32[N, P]."""
    logits = pixels.logits - jax.lax.stop_gradient(jnp.max(pixels.logits, -1, keepdims=True))
    # Not by `take_along_axis`, whose gradient is a scatter: on a CPU it takes twice as long.
    right = jnp.sum(jnp.where(_is_truth(pixels), logits, 0), -1)
    return right - jnp.log(jnp.sum(jnp.exp(logits), -1))


def _is_truth(pixels: _Pixels) -> jax.Array:
    """Which class each pixel is of, bool[N, P, K]; 0 for those that do not count."""
    return pixels.labels[..., None] == jnp.arange(len(pixels.classes), dtype=jnp.int32)[None, None]


def _summed(losses: jax.Array, pixels: _Pixels) -> Terms:
    """Losses f32[N, P] of pixels, summed with the weights of their classes, and the sums of these."""
    weights = jnp.where(pixels.counted, pixels.classes[pixels.labels], 0)
    return jnp.sum(jnp.where(pixels.counted, losses, 0) * weights, -1), jnp.sum(weights, -1)


def _truths(pixels: _Pixels) -> tuple[jax.Array, jax.Array]:
    """How many pixels are of each class, i32[N, K], and which, bool[N, P, K]."""
    truths = _is_truth(pixels) & pixels.counted[..., None]
    return jnp.sum(truths, 1, dtype=jnp.int32), truths


def _mean_of_classes(losses: jax.Array, there: jax.Array, pixels: _Pixels) -> Terms:
    """The mean of losses f32[N, K] over the classes that are there, and whether there are any."""
    weights = jnp.where(there > 0, pixels.classes[None], 0)
    total = jnp.sum(weights, -1)
    means = jnp.sum(jnp.where(there > 0, losses, 0) * weights, -1) / jnp.where(total > 0, total, 1)
    return means, (total > 0).astype(means.dtype)
