"""Features of regions: RoIAlign and RoIPool, on a map or a pyramid; and masks put in their pictures."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnets.dtypes import at_least_float32


def roi_align(
    features: jax.Array,
    boxes: jax.Array,
    size: int,
    scale: float | jax.Array,
    *,
    sampling_ratio: int = 2,
    aligned: bool = False,
    extent: jax.Array | None = None,
) -> jax.Array:
    """Averages bilinear samples in each bin of a region (He et al. 2017, arXiv:1703.06870, section 3).

    Equal to torchvision's operator. Samples more than a pixel outside of the map are 0.

    Args:
        features: f[H, W, C].
        boxes: f[R, 4] in pixels of the picture.
        size: bins along each side.
        scale: pixels of the map per pixel of the picture, such as 1 / 16.
        sampling_ratio: samples along each side of a bin; 0 for as many as the bin has pixels of the
            map, rounded up.
        aligned: shift by half a pixel, so that the centers of pixels are at .5, as Detectron2 does;
            otherwise a region is also at least one pixel of the map wide and high.
        extent: i32[2], the (rows, columns) of the map that belong to the picture; None for all.

    Returns:
        f[R, size, size, C].
    """
    height, width, _ = features.shape
    extent = jnp.array([height, width], jnp.int32) if extent is None else extent
    if sampling_ratio == 0:
        scaled = boxes * scale
        by_row, by_column = (
            _adaptive(scaled[:, low], scaled[:, low + 2], length, part, size, aligned)
            for low, length, part in ((1, height, extent[0]), (0, width, extent[1]))
        )
        return jnp.einsum("hwc,rih,rjw->rijc", features, by_row, by_column, precision="highest")
    maps = features.reshape(height * width, -1)
    layout = _Layout(jnp.zeros(1, jnp.int32), jnp.full(1, width, jnp.int32), extent[None])
    level, scales = jnp.zeros(len(boxes), jnp.int32), jnp.asarray(scale, boxes.dtype).reshape(1)
    return _align(maps, layout, boxes, level, scales, size, sampling_ratio, aligned)


def pyramid_roi_align(
    features: Sequence[jax.Array],
    boxes: jax.Array,
    size: int,
    scales: Sequence[float],
    *,
    sampling_ratio: int = 2,
    aligned: bool = False,
    canonical_size: int = 224,
    canonical_level: int = 4,
    extents: jax.Array | None = None,
) -> jax.Array:
    """RoIAlign on the level of a feature pyramid that fits each region.

    Lin et al. 2017, arXiv:1612.03144, equation 1: a region of w x h pixels is taken from level
    floor(canonical_level + log2(sqrt(w h) / canonical_size)).

    Args:
        features: maps f[H, W, C], from fine to coarse, of successive levels.
        boxes: f[R, 4] in pixels of the picture.
        size: bins along each side.
        scales: of each map, as for `roi_align`: 1 / 4, 1 / 8 ...
        sampling_ratio: samples along each side of a bin, at least 1.
        aligned: as for `roi_align`.
        canonical_size: side of a region on `canonical_level`.
        canonical_level: level of such a region; the level of a map of scale 1 / 2**n is n.
        extents: i32[L, 2], the (rows, columns) of each map that belong to the picture; None for all.

    Returns:
        f[R, size, size, C].
    """
    first = round(-math.log2(scales[0]))
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    side = jnp.sqrt(jnp.maximum(area, 0))
    level = jnp.floor(canonical_level + jnp.log2(side / canonical_size) + 1e-6)
    level = jnp.clip(level - first, 0, len(features) - 1).astype(jnp.int32)

    channels = features[0].shape[-1]
    maps = jnp.concatenate([own.reshape(-1, channels) for own in features])
    shapes = np.array([own.shape[:2] for own in features], np.int32)
    starts = np.cumsum([0, *shapes.prod(1)[:-1]], dtype=np.int32)
    own_scales = jnp.asarray(scales, boxes.dtype)
    layout = _Layout(
        jnp.array(starts), jnp.array(shapes[:, 1]), jnp.array(shapes) if extents is None else extents
    )
    return _align(maps, layout, boxes, level, own_scales, size, sampling_ratio, aligned)


def roi_pool(features: jax.Array, boxes: jax.Array, size: int, scale: float) -> jax.Array:
    """The largest feature in each bin of a region (Girshick 2015, arXiv:1504.08083, section 2.1).

    Equal to torchvision's operator: corners are rounded to pixels of the map, which both belong to the
    region; bins overlap where its side is no multiple of `size`, and empty ones are 0.

    Args:
        features: f[H, W, C].
        boxes: f[R, 4] in pixels of the picture.
        size: bins along each side.
        scale: pixels of the map per pixel of the picture, such as 1 / 16.

    Returns:
        f[R, size, size, C].
    """
    height, width, _ = features.shape
    scaled = boxes * scale
    corners = (jnp.sign(scaled) * jnp.floor(jnp.abs(scaled) + 0.5)).astype(jnp.int32)

    def pool(corner: jax.Array) -> jax.Array:
        rows = _bins(corner[1], corner[3], height, size)
        columns = _bins(corner[0], corner[2], width, size)

        def largest_in(bins: jax.Array, values: jax.Array) -> jax.Array:  # [size, N], [N, ...]
            shape = (*bins.shape, *[1] * (values.ndim - 1))
            return jnp.where(bins.reshape(shape), values[None], -jnp.inf).max(1)

        by_row = largest_in(rows, features)
        found = jax.vmap(lambda row: largest_in(columns, row))(by_row)
        return jnp.where(jnp.isfinite(found), found, 0)

    return lax.map(pool, corners)


def paste_masks(masks: jax.Array, boxes: jax.Array, height: int, width: int) -> jax.Array:
    """Masks of regions, each resized to its box in an otherwise empty picture.

    As torchvision's Mask R-CNN does: a border of one pixel is added, the box grows alike, its corners
    are truncated to whole pixels, and the mask is resized bilinearly.

    Args:
        masks: f[R, M, M], probabilities.
        boxes: f[R, 4] in pixels of the picture.
        height: of the picture.
        width: of the picture.

    Returns:
        f[R, height, width], of which what is at least 0.5 is the object.
    """
    side = masks.shape[-1] + 2
    padded = jnp.pad(masks, ((0, 0), (1, 1), (1, 1)))
    growth = side / masks.shape[-1]
    center = (boxes[:, :2] + boxes[:, 2:]) * 0.5
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5 * growth
    low, high = (center - half).astype(jnp.int32), (center + half).astype(jnp.int32)
    by_column, by_row = (
        jax.vmap(lambda lo, hi, extent=extent: _resizing(lo, hi, extent, side))(low[:, k], high[:, k])
        for k, extent in enumerate((width, height))
    )
    return jnp.einsum("rmn,rhm,rwn->rhw", padded, by_row, by_column, precision="highest")


class _Layout(NamedTuple):
    """Where maps are among the pixels of all: the first pixel i32[L] and the pixels of a row i32[L] of
    each, and the (rows, columns) i32[L, 2] that are read."""

    starts: jax.Array
    pitches: jax.Array
    extents: jax.Array


def _align(maps, layout, boxes, level, scales, size, ratio, aligned):
    """Samples of regions on one of several maps.

    Args:
        maps: f[P, C], the pixels of all maps, row by row.
        layout: of the maps.
        boxes: f[R, 4].
        level: i32[R], the map of each.
        scales: f[L].
        size, ratio, aligned: as for `roi_align`.
    """

    def samples(box, own):
        scaled = box * scales[own] - (0.5 if aligned else 0.0)
        extent = layout.extents[own]
        rows, by_row = _corners(scaled[1], scaled[3], extent[0], size, ratio, aligned)
        columns, by_column = _corners(scaled[0], scaled[2], extent[1], size, ratio, aligned)
        first = layout.starts[own] + rows * layout.pitches[own]
        return (
            (first[:, None, :, None] + columns[None, :, None]).reshape(-1, size, size),
            (by_row[:, None, :, None] * by_column[None, :, None]).reshape(-1, size, size),
        )

    def add(total, sample):
        pixels, weights = sample
        return total + at_least_float32(maps[pixels]) * weights[..., None], None

    # One pixel of each bin at a time: neither all samples nor a sparse matrix of weights is made.
    start = jnp.zeros((len(boxes), size, size, maps.shape[-1]), boxes.dtype)
    total, _ = lax.scan(add, start, jax.vmap(samples, out_axes=1)(boxes, level))
    return total


def _corners(low, high, extent, size, ratio, aligned):
    """The pixels i32[2 * ratio, size] along one side between which each bin of a region is sampled, and
    their weights f[2 * ratio, size]."""
    length = high - low if aligned else jnp.maximum(high - low, 1)
    step = _over(length, size)
    starts = low + jnp.arange(size, dtype=low.dtype) * step
    places = starts[None] + _over((jnp.arange(ratio, dtype=low.dtype) + 0.5) * step, ratio)[:, None]
    end = extent.astype(places.dtype)
    inside = (places >= -1) & (places <= end)
    places = jnp.clip(places, 0, end - 1)
    before = jnp.floor(places)
    share = places - before
    before = before.astype(jnp.int32)
    after = jnp.minimum(before + 1, extent - 1)
    weights = jnp.concatenate([1 - share, share]) * jnp.concatenate([inside, inside]) / ratio
    return jnp.concatenate([before, after]), weights


def _over(values, count):
    """values / count. XLA would turn the division by a constant into a product with its inverse, and by
    the last bit a sample falls outside of the map, or one more fits into a bin."""
    return values / (count + 0 * values)


def _adaptive(low, high, length, extent, size, aligned):
    """The weight f[R, size, length] of each pixel along one side in each bin, with about one sample for
    each pixel up to the extent. They are added one by one, as a region may be as long as the map."""
    shift = 0.5 if aligned else 0.0
    low, high = low - shift, high - shift
    span = high - low if aligned else jnp.maximum(high - low, 1)
    step = _over(span, size)
    count = jnp.ceil(step)
    starts = low[:, None] + jnp.arange(size, dtype=low.dtype)[None] * step[:, None]
    pixels, end = jnp.arange(length, dtype=low.dtype), extent.astype(low.dtype)

    def add(total, k):
        places = starts + ((k + 0.5) * step / jnp.maximum(count, 1))[:, None]
        inside = (places >= -1) & (places <= end) & (k < count)[:, None]
        nearness = 1 - jnp.abs(jnp.clip(places, 0, end - 1)[..., None] - pixels[None, None])
        return total + jnp.where(inside[..., None], jnp.maximum(nearness, 0), 0), None

    most = -(-4 * length // size)  # of a region four times as long as the map
    total, _ = lax.scan(
        add, jnp.zeros((len(low), size, length), low.dtype), jnp.arange(most, dtype=low.dtype)
    )
    return total / jnp.maximum(count, 1)[:, None, None]


def _bins(low, high, extent, size):
    """Which pixels along one side each bin covers, bool[size, extent]."""
    # From a table, as XLA would turn the division by a constant into a product, which rounds otherwise.
    lengths = np.arange(4 * extent + 2, dtype=np.float32)
    step, bins = lengths[:, None] / np.float32(size), np.arange(size, dtype=np.float32)
    firsts = jnp.asarray(np.floor(bins * step).astype(np.int32))
    lasts = jnp.asarray(np.ceil((bins + 1) * step).astype(np.int32))
    length = jnp.clip(high - low + 1, 1, len(lengths) - 1)
    pixels = jnp.arange(extent, dtype=jnp.int32)[None]
    return (pixels >= (low + firsts[length])[:, None]) & (pixels < (low + lasts[length])[:, None])


def _resizing(low, high, extent, side):
    """The weight f[extent, side] of each entry of a mask at each pixel from low to high."""
    length = jnp.maximum(high - low + 1, 1)
    pixels = jnp.arange(extent, dtype=jnp.int32)
    centers = (pixels - low).astype(jnp.float32) + 0.5
    place = jnp.maximum(centers * (side / length.astype(jnp.float32)) - 0.5, 0)
    place = jnp.minimum(place, side - 1)[:, None]
    weights = jnp.maximum(1 - jnp.abs(place - jnp.arange(side, dtype=jnp.float32)[None]), 0)
    return jnp.where(((pixels >= low) & (pixels < low + length))[:, None], weights, 0)
