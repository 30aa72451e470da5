"""The parts of detectors equal torchvision's operators, on cases with ties, borders and empty boxes."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnets import detection
from jaxnets.errors import InputError

# From tests/goldens/make_detection_goldens.py.
ANSWERS = np.load(Path(__file__).parents[1] / "goldens" / "data" / "detection_ops.npz")
MATCHERS = ((0.3, 0.7, True), (0.5, 0.5, False), (0.4, 0.5, True))
SCALES = (1 / 4, 1 / 8, 0.5, 1.0)


@pytest.fixture(scope="module")
def answers():
    return {name: ANSWERS[name] for name in ANSWERS.files}


def test_suppression_keeps_the_boxes_that_torchvision_keeps(answers):
    number = len(answers["nms_count"])
    boxes = answers["nms_boxes"].astype(np.float32)
    there = np.arange(boxes.shape[1]) < answers["nms_count"][:, None]
    for threshold in np.unique(answers["nms_threshold"]):
        cases = answers["nms_threshold"] == threshold
        found, valid = jax.vmap(
            lambda b, s, v, t=float(threshold): detection.nms(b, s, t, boxes.shape[1], valid=v)
        )(boxes[cases], answers["nms_scores"][cases], there[cases])
        np.testing.assert_array_equal(np.where(valid, found, -1), answers["nms_kept"][cases])
        number -= cases.sum()
    assert number == 0


def test_boxes_of_other_labels_do_not_suppress_one_another():
    boxes = jnp.tile(jnp.array([[0.0, 0.0, 9.0, 9.0]]), (3, 1))
    index, valid = detection.nms(boxes, jnp.array([0.1, 0.3, 0.2]), 0.5, 4, labels=jnp.array([1, 1, 2]))
    assert index[valid].tolist() == [1, 2]


def test_what_overlaps_loses_score_softly():
    boxes = jnp.array([[0.0, 0, 10, 10], [0, 0, 10, 5], [50, 50, 60, 60]])
    index, scores, valid = detection.soft_nms(boxes, jnp.array([0.9, 0.8, 0.3]), 4, sigma=0.5)
    assert index[:3].tolist() == [0, 1, 2]
    assert valid.tolist() == [True, True, True, False]
    np.testing.assert_allclose(scores[:3], [0.9, 0.8 * np.exp(-0.25 / 0.5), 0.3], rtol=1e-6)


def test_candidates_match_the_truths_that_torchvision_matches(answers):
    for k, (low, high, keep_best) in enumerate(MATCHERS):
        of = {
            name: answers[f"match_{name}"][k::3] for name in ("truths", "candidates", "count", "matched")
        }
        overlaps = jax.vmap(detection.iou)(of["truths"], of["candidates"])
        valid = np.arange(overlaps.shape[1]) < of["count"][:, None]
        found = jax.vmap(
            lambda q, v, o=(low, high, keep_best): detection.match(q, *o[:2], valid=v, keep_best=o[2])
        )(overlaps, valid)
        np.testing.assert_array_equal(found, of["matched"])


def test_a_truth_that_is_not_there_matches_nothing_even_where_the_best_are_kept():
    overlaps, valid = jnp.zeros((2, 3)), jnp.array([False, False])
    assert detection.match(overlaps, 0.3, 0.7, valid=valid, keep_best=True).tolist() == [-1, -1, -1]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 2**31 - 1))
def test_samples_have_their_quotas(positives, negatives, seed):
    place = np.random.default_rng(seed).permutation(80)
    positive, negative = place < positives, place >= 80 - negatives
    drawn, others = jax.jit(partial(detection.sample, count=32, share=0.25))(
        jax.random.key(seed), positive, negative
    )
    assert not np.any(drawn & ~positive)
    assert not np.any(others & ~negative)
    assert drawn.sum() == min(positives, 8)
    assert others.sum() == min(negatives, 32 - drawn.sum())


@pytest.mark.parametrize("case", [0, *(pytest.param(i, marks=pytest.mark.slow) for i in (1, 2, 3))])
def test_regions_are_aligned_as_torchvision_aligns_them(answers, case):
    features, boxes = answers[f"region_features{case}"], answers[f"region_boxes{case}"]
    for aligned in (False, True):
        for ratio in (0, 1, 2, 3):
            align = partial(detection.roi_align, size=3, sampling_ratio=ratio, aligned=aligned)
            found = jax.jit(align)(features, boxes, scale=SCALES[case])
            np.testing.assert_allclose(found, answers[f"align{case}_{int(aligned)}_{ratio}"], atol=2e-5)


@pytest.mark.parametrize("case", range(len(SCALES)))
def test_regions_are_pooled_as_torchvision_pools_them(answers, case):
    features, boxes = answers[f"region_features{case}"], answers[f"region_boxes{case}"]
    for size in (3, 7):
        found = jax.jit(partial(detection.roi_pool, size=size, scale=SCALES[case]))(features, boxes)
        np.testing.assert_array_equal(found, answers[f"pool{case}_{size}"])


@pytest.mark.slow
def test_a_region_is_read_from_the_level_that_fits_it(answers):
    maps = [answers[f"pyramid_map{k}"] for k in range(4)]
    found = detection.pyramid_roi_align(
        maps, answers["pyramid_boxes"], 3, (1 / 4, 1 / 8, 1 / 16, 1 / 32)
    )
    np.testing.assert_allclose(found, answers["pyramid_answer"], atol=2e-5)


@pytest.mark.slow
def test_regions_have_gradients():
    features, boxes = jnp.ones((6, 7, 2)), jnp.array([[0.0, 0, 6, 6], [3, 2, 3, 2]])

    def total(features, ratio):
        return detection.roi_align(features, boxes, 2, 1.0, sampling_ratio=ratio).sum()

    for ratio in (0, 2):
        gradient = jax.grad(total)(features, ratio)
        np.testing.assert_allclose(gradient.sum(), total(features, ratio), rtol=1e-5)  # it is linear


def test_masks_are_pasted_as_torchvision_pastes_them(answers):
    found = detection.paste_masks(answers["masks"], answers["mask_boxes"], 40, 50)
    np.testing.assert_allclose(found, answers["pasted"], atol=2e-6)


def test_boxes_are_coded_and_decoded_as_torchvision_does(answers):
    truths, candidates, deltas, encoded, decoded, giou = (
        jnp.asarray(answers[f"code_{name}"])
        for name in ("truths", "candidates", "deltas", "encoded", "decoded", "giou")
    )
    weights = (10, 10, 5, 5)
    np.testing.assert_allclose(
        detection.encode(truths, candidates, weights), encoded, rtol=2e-5, atol=2e-5
    )
    np.testing.assert_allclose(detection.decode(deltas, candidates, weights), decoded, rtol=2e-6)
    np.testing.assert_allclose(detection.giou(truths[:, None], candidates[None]), giou, atol=1e-6)
    back = detection.decode(detection.encode(truths, candidates, weights), candidates, weights)
    np.testing.assert_allclose(back, truths, atol=1e-4)


def test_anchors_are_those_of_torchvision(answers):
    found = [detection.anchors((5, 7), (8, 8), [32]), detection.anchors((3, 4), (13, 14), [40, 50, 64])]
    np.testing.assert_array_equal(np.concatenate(found), answers["anchors"])


@pytest.mark.parametrize("first", ["xyxy", "xywh", "cxcywh"])
@pytest.mark.parametrize("second", ["xyxy", "xywh", "cxcywh"])
def test_formats_convert_to_and_fro(first, second):
    boxes = jnp.array([[1.0, 2.0, 5.0, 9.0]])
    given = detection.convert(boxes, "xyxy", first)
    np.testing.assert_allclose(
        detection.convert(detection.convert(given, first, second), second, first), given
    )


def test_an_unknown_format_is_named():
    with pytest.raises(InputError, match="unknown format of boxes 'yxyx'"):
        detection.convert(jnp.zeros(4), "yxyx", "xyxy")


def test_boxes_are_cut_at_the_borders():
    found = detection.clip(jnp.array([[-3.0, -4, 50, 7]]), (10, 20))
    assert found.tolist() == [[0, 0, 20, 7]]


def test_empty_boxes_overlap_nothing_and_have_gradients():
    empty = jnp.zeros((1, 4))
    assert detection.iou(empty, empty).tolist() == [[0]]
    for overlap in (detection.iou, detection.giou):
        assert np.isfinite(jax.grad(lambda b, f=overlap: f(b, empty).sum())(empty)).all()
