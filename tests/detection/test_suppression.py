"""Suppression by blocks keeps what a plain greedy loop keeps."""

from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jaxnets.detection import FPN, nms, roi_align, suppression
from jaxnets.detection.fpn import TOPS

COUNT = 2 * suppression.BLOCK + 37


def greedy(boxes, scores, threshold, valid, labels):
    """Indices, best first; in float32, as the overlaps are."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    for n in np.argsort(-scores, kind="stable"):
        if not valid[n]:
            continue
        own = np.array([m for m in kept if labels[m] == labels[n]], int)
        sides = np.minimum(boxes[own, 2:], boxes[n, 2:]) - np.maximum(boxes[own, :2], boxes[n, :2])
        inter = np.prod(np.maximum(sides, 0), axis=1, dtype=np.float32)
        union = areas[own] + areas[n] - inter
        if not (inter / np.where(union > 0, union, 1) > threshold).any():
            kept.append(n)
    return kept


@partial(jax.jit, static_argnums=4)
def suppressed(boxes, scores, valid, labels, k):
    return jax.vmap(lambda *own: nms(own[0], own[1], 0.5, k, valid=own[2], labels=own[3]))(
        boxes, scores, valid, labels
    )


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 2**31 - 1),
    st.sampled_from([10, COUNT + 5]),
    st.sampled_from([1, 40, 400]),
    st.sampled_from([1, 3]),
    st.sampled_from([0.0, 0.5, 1.0]),
)
@example(0, 10, 1, 1, 1.0)  # one box is left
@example(0, COUNT + 5, 400, 3, 1.0)  # nearly all are
def test_blocks_keep_what_a_greedy_loop_keeps(seed, k, spread, classes, share):
    """Whole numbers, so that overlaps of exactly the threshold and equal scores are frequent."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, spread, (2, COUNT, 2))
    boxes = np.concatenate([corner, corner + rng.integers(0, 20, (2, COUNT, 2))], -1).astype(np.float32)
    if spread == 1:
        boxes[:] = [0, 0, 9, 9]
    scores = (rng.integers(0, 30, (2, COUNT)) / 32).astype(np.float32)
    labels = rng.integers(0, classes, (2, COUNT)).astype(np.int32)
    valid = rng.random((2, COUNT)) < share
    index, there = suppressed(boxes, scores, valid, labels, k)
    for n in range(2):
        wanted = greedy(boxes[n], scores[n], 0.5, valid[n], labels[n])[:k]
        assert index[n][there[n]].tolist() == wanted


@pytest.mark.parametrize("top", TOPS)
def test_a_pyramid_of_odd_sides_keeps_them(top):
    rng, sides = np.random.default_rng(0), [(13, 21), (7, 11), (3, 5)]
    maps = [rng.normal(size=(1, *own, 4)).astype(np.float32) for own in sides]
    pyramid = FPN(8, top=top)
    variables = pyramid.init(jax.random.key(0), maps)
    found = pyramid.apply(variables, maps)
    more = [(2, 3)] if top == "pool" else [(2, 3), (1, 2)]
    assert [level.shape for level in found] == [(1, *own, 8) for own in [*sides, *more]]
    # The coarsest map reaches the finest by the nearest place above and left.
    again = pyramid.apply(variables, [*maps[:2], np.roll(maps[2], 1, axis=2)])
    params = variables["params"]
    kernel, bias = (params["inner3_conv"][name] for name in ("kernel", "bias"))
    inner = [np.asarray(own @ kernel[0, 0] + bias) for own in (maps[2], np.roll(maps[2], 1, axis=2))]
    rows, columns = (
        np.arange(new) * middle // new * old // middle
        for new, middle, old in zip(sides[0], sides[1], sides[2], strict=True)
    )
    change = (inner[1] - inner[0])[:, rows][:, :, columns]
    wanted = jax.lax.conv_general_dilated(
        change,
        params["layer1_conv"]["kernel"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    np.testing.assert_allclose(again[0] - found[0], wanted, atol=1e-5)


@pytest.mark.parametrize("ratio", [0, 2])
def test_a_region_of_part_of_a_map_is_that_of_the_part_alone(ratio):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(12, 15, 3)).astype(np.float32)
    corner = rng.uniform(-10, 30, (20, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0, 40, (20, 2))], 1).astype(np.float32)
    align = jax.jit(partial(roi_align, size=3, scale=0.25, sampling_ratio=ratio))
    part = align(features, boxes, extent=np.array([7, 10], np.int32))
    np.testing.assert_allclose(part, align(features[:7, :10], boxes), atol=1e-5)
    assert np.abs(part - align(features, boxes)).max() > 0.1
