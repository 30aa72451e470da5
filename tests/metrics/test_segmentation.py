"""Measures of label maps equal those of the references, however the set is cut."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxnets import metrics
from jaxnets.errors import InputError
from jaxnets.metrics import segmentation
from jaxnets.metrics.segmentation import confusion, confusion_sums, scores

METRICS = {
    "miou": segmentation.MeanIoU,
    "iou": segmentation.ClassIoU,
    "fw_iou": segmentation.FrequencyWeightedIoU,
    "pixel_accuracy": segmentation.PixelAccuracy,
    "mean_accuracy": segmentation.MeanAccuracy,
}

K = 4
label_maps = arrays(np.int32, (3, 4, 5), elements=st.sampled_from([-1, 0, 1, 2, 3, 4, 17, 255]))
predictions_of = arrays(np.int32, (3, 4, 5), elements=st.integers(0, K - 1))


def maps():
    """Three pictures: class 2 is nowhere, class 4 only predicted."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (3, 6, 7))
    labels[1, :2] = 255
    labels[labels == 2] = 0
    right = np.where(labels == 255, 0, labels)
    predictions = np.where(rng.random((3, 6, 7)) < 0.6, right, rng.integers(0, 5, (3, 6, 7)))
    predictions[predictions == 2] = 1
    return labels, predictions


def by_counting(labels, predictions, count, ignore=255):
    counts = np.zeros((count, count), int)
    for truth, said in zip(np.ravel(labels), np.ravel(predictions), strict=True):
        if 0 <= truth < count and truth != ignore:
            counts[truth, said] += 1
    return counts


def by_sets(labels, predictions, count):
    """The measures from sets of pixels, without a confusion matrix."""
    kept = (labels >= 0) & (labels < count)
    truth, said = labels[kept], predictions[kept]
    iou, accuracy, weighted = [], [], 0.0
    for k in range(count):
        there, found = set(np.flatnonzero(truth == k)), set(np.flatnonzero(said == k))
        iou.append(len(there & found) / len(there | found) if there | found else np.nan)
        if there:
            accuracy.append(len(there & found) / len(there))
            weighted += len(there) / len(truth) * iou[-1]
    known = [value for value in iou if not np.isnan(value)]
    return {
        "iou": iou,
        "miou": np.mean(known) if known else np.nan,
        "pixel_accuracy": np.mean(truth == said) if len(truth) else np.nan,
        "mean_accuracy": np.mean(accuracy) if accuracy else np.nan,
        "fw_iou": weighted if len(truth) else np.nan,
    }


def assert_same(found, wanted):
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, err_msg=name)


def test_all_measures_are_those_of_chainercv_and_torchvision():
    labels, predictions = maps()
    counts = confusion(labels, predictions, 5)
    # Of torchvision's references/segmentation, whose mean over classes would be NaN.
    wanted = [[34, 10, 0, 5, 8], [2, 18, 0, 5, 2], [0] * 5, [0, 6, 0, 20, 2], [0] * 5]
    np.testing.assert_array_equal(counts, wanted)
    assert counts.dtype == np.int64
    found = scores(counts)
    # Of chainercv 0.13's eval_semantic_segmentation, with -1 for 255.
    iou = [0.576271186440678, 0.4186046511627907, np.nan, 0.5263157894736842, 0.0]
    np.testing.assert_allclose(found["iou"], iou, rtol=1e-14)
    assert found["iou"].dtype == np.float64
    assert found["miou"] == pytest.approx(0.3802979067692882, rel=1e-14)
    assert found["pixel_accuracy"] == pytest.approx(0.6428571428571429, rel=1e-14)
    assert found["mean_accuracy"] == pytest.approx(0.6591478696741855, rel=1e-14)
    assert all(type(value) is float for name, value in found.items() if name != "iou")


@given(label_maps, predictions_of)
@settings(max_examples=60, deadline=None)
def test_measures_are_those_of_sets_of_pixels(labels, predictions):
    counts = confusion(labels, predictions, K)
    np.testing.assert_array_equal(counts, by_counting(labels, predictions, K))
    assert_same(scores(counts), by_sets(labels, predictions, K))


@given(label_maps, predictions_of)
@settings(max_examples=40, deadline=None)
def test_the_device_counts_as_the_host(labels, predictions):
    found = jax.jit(confusion_sums, static_argnums=(2, 3))(labels, predictions, K, 3)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, confusion(labels, predictions, K, 3))
    found = confusion_sums(labels, predictions, K)
    np.testing.assert_array_equal(found, confusion(labels, predictions, K))


@given(label_maps, predictions_of, st.lists(st.integers(0, 3), max_size=3).map(sorted))
@settings(max_examples=30, deadline=None)
def test_a_sum_over_ragged_batches_is_the_whole_set(labels, predictions, cuts):
    batches = zip(np.split(labels, cuts), np.split(predictions, cuts), strict=True)
    parts = [
        {name: metric(confusion_sums(*batch, K)) for name, metric in METRICS.items()}
        for batch in batches
    ]
    found = metrics.compute(metrics.add(parts))
    assert_same(found, scores(confusion(labels, predictions, K)))


def test_a_sum_over_devices_is_the_whole_batch():
    labels, predictions = (own[:, None] for own in maps())

    @partial(jax.pmap, axis_name="batch", out_axes=None)
    def measure(labels, predictions):
        sums = {name: metric(confusion_sums(labels, predictions, 5)) for name, metric in METRICS.items()}
        return metrics.reduce(sums, "batch")

    assert_same(metrics.compute(measure(labels, predictions)), scores(confusion(*maps(), 5)))


def test_a_mean_over_pictures_is_another_number():
    labels, predictions = maps()
    whole = scores(confusion(labels, predictions, 5))["miou"]
    single = [scores(confusion(*own, 5))["miou"] for own in zip(labels, predictions, strict=True)]
    assert abs(np.mean(single) - whole) > 0.01


def test_nothing_counts_where_all_pixels_are_ignored_and_no_warning_is_given():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = scores(confusion(np.full((2, 3), 255), np.full((2, 3), 999), 3))
    assert np.isnan(found.pop("iou")).all()
    assert all(np.isnan(value) for value in found.values())
    empty = confusion(np.zeros((0, 2, 3)), np.zeros((0, 2, 3)), 3)
    np.testing.assert_array_equal(empty, np.zeros((3, 3)))


def test_a_class_that_is_only_predicted_counts_as_missed_and_one_that_is_only_there_too():
    only_predicted = scores(confusion([0, 0, 0, 0], [0, 0, 0, 1], 3))
    np.testing.assert_array_equal(only_predicted["iou"], [0.75, 0, np.nan])
    assert only_predicted["miou"] == 0.375
    assert only_predicted["mean_accuracy"] == 0.75
    assert only_predicted["fw_iou"] == 0.75
    only_there = scores(confusion([0, 0, 0, 1], [0, 0, 0, 0], 3))
    np.testing.assert_array_equal(only_there["iou"], [0.75, 0, np.nan])
    assert only_there["mean_accuracy"] == 0.5
    assert only_there["fw_iou"] == 0.75 * 0.75


def test_what_was_predicted_at_ignored_pixels_does_not_matter():
    labels = np.array([0, 1, 255, -1, 7])
    wanted = np.eye(2)
    for said in (0, 1, 255, -3):
        predictions = np.array([0, 1, said, said, said])
        np.testing.assert_array_equal(confusion(labels, predictions, 2), wanted)
        on_device = confusion_sums(labels[None, None], predictions[None, None], 2)
        np.testing.assert_array_equal(on_device, wanted)


def test_a_single_class_and_labels_of_eight_bits():
    assert scores(confusion(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), 1))["miou"] == 1
    labels = np.array([[0, 200, 255]], np.uint8)
    counts = confusion(labels, np.array([[0, 200, 3]], np.uint8), 201)
    assert counts[200, 200] == counts[0, 0] == 1
    assert counts.sum() == 2
    np.testing.assert_array_equal(confusion_sums(labels[None], labels[None], 201), counts)


def test_counts_are_exact_beyond_the_integers_of_float32():
    many = np.array([[2**24, 1], [1, 0]], np.int32)
    total = metrics.add([{"miou": segmentation.MeanIoU(many)}] * 3)["miou"]
    np.testing.assert_array_equal(total.confusion, 3 * many.astype(np.int64))
    labels = np.zeros((1, 4097, 4097), np.uint8)
    assert confusion_sums(labels, labels, 2)[0, 0] == 4097**2  # above 2^24


def test_metrics_are_printed_and_higher_is_better():
    counts = np.array([[3, 1], [0, 4]])
    assert metrics.as_text(segmentation.MeanIoU(counts)) == "0.775"
    assert metrics.as_text(segmentation.PixelAccuracy(counts)) == "87.50%"
    assert not any(metric.lower_is_better for metric in METRICS.values())
    values = metrics.compute({name: metric(counts) for name, metric in METRICS.items()})
    assert isinstance(values["miou"], float)
    np.testing.assert_array_equal(values["iou"], [0.75, 0.8])
    assert set(metrics.scalars({name: metric(counts) for name, metric in METRICS.items()})) == {
        *METRICS
    } - {"iou"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([0, 1], [0, 2], 2), "predictions: 2 is none of the 2 classes 0 to 1"),
        (([0, 1], [0, -1], 2), "predictions: -1 is none"),
        (([0, 1], [0, 255], 2), "predictions: 255 is none"),
        (([[0, 1]], [0, 1], 2), r"labels have shape \[1, 2\] and predictions \[2\]"),
        (([0.0, 1.0], [0, 1], 2), "labels: wanted integers, got float64"),
        (([0, 1], [0.0, 1.0], 2), "predictions: wanted integers, got float64"),
        (([0], [0], 0), "num_classes is 0; it must be 1 or more"),
    ],
)
def test_what_cannot_be_counted_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        confusion(*given)


def test_a_confusion_of_another_shape_is_refused():
    for shape in ((2, 3), (4,), (0, 0)):
        with pytest.raises(InputError, match="wanted \\[K, K\\]"):
            scores(np.zeros(shape))
