"""Accuracy, confusion and average precision, against NumPy's sort and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, top_k_accuracy_score
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix

from jaxnets.metrics import average_precision, confusion_matrix, in_top_k, precision_recall

ROWS, CLASSES = 8, 5

# Few values, so that ties are common.
scores = st.lists(
    st.lists(st.sampled_from([-2.0, 0.0, 1.5, np.nan]), min_size=CLASSES, max_size=CLASSES),
    min_size=ROWS,
    max_size=ROWS,
)
classes = st.lists(st.integers(0, CLASSES - 1), min_size=ROWS, max_size=ROWS)


def by_sorting(logits, labels, k):
    """NaN sorts as the highest, as in `jax.lax.top_k`, but is right for no row."""
    order = np.argsort(np.where(np.isnan(logits), -np.inf, -logits), axis=-1, kind="stable")
    return [
        label in row[:k] and not np.isnan(scores[label])
        for scores, row, label in zip(logits, order, labels, strict=True)
    ]


@given(scores, classes, st.integers(1, CLASSES + 2))
@settings(max_examples=60, deadline=None)
def test_in_top_k_is_membership_in_the_head_of_a_stable_sort(logits, labels, k):
    logits, labels = np.array(logits, np.float32), np.array(labels)
    np.testing.assert_array_equal(in_top_k(logits, labels, k), by_sorting(logits, labels, k))


def test_ties_go_to_the_lower_class():
    logits = jnp.zeros((4, 4))
    labels = jnp.arange(4)
    for k in (1, 2, 3, 4):
        np.testing.assert_array_equal(in_top_k(logits, labels, k), np.arange(4) < k)


def test_a_right_score_that_is_nan_is_wrong_for_every_k():
    logits = jnp.array([[jnp.nan, 1.0, 2.0], [jnp.nan] * 3])
    for k in (1, 2, 3, 4):
        assert not in_top_k(logits, jnp.array([0, 2]), k).any()


def test_k_of_all_classes_or_more_is_always_right():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 4)), rng.integers(0, 4, 50)
    for k in (4, 5, 100):
        assert in_top_k(logits, labels, k).all()
    assert not in_top_k(logits, labels, 3).all()


@pytest.mark.parametrize("k", [1, 3, 5])
def test_in_top_k_averages_to_scikit_learns_top_k_accuracy(k):
    rng = np.random.default_rng(k)
    logits = rng.normal(size=(200, 7)).astype(np.float32)
    labels = rng.integers(0, 7, 200)
    wanted = top_k_accuracy_score(labels, logits, k=k, labels=range(7))
    hits = jax.jit(in_top_k, static_argnums=2)(logits, labels, k)
    assert np.mean(hits) == pytest.approx(wanted)


def test_in_top_k_takes_bfloat16_scores():
    logits = jnp.array([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]], jnp.bfloat16)
    np.testing.assert_array_equal(in_top_k(logits, jnp.array([2, 0]), 2), [True, False])


@given(classes, classes, st.lists(st.sampled_from([0.0, 1.0, 2.5]), min_size=ROWS, max_size=ROWS))
@settings(max_examples=25, deadline=None)
def test_the_confusion_matrix_is_scikit_learns(labels, predicted, weights):
    logits = np.eye(CLASSES, dtype=np.float32)[predicted]
    labels, weights = np.array(labels), np.array(weights, np.float32)
    known = range(CLASSES)
    np.testing.assert_array_equal(
        confusion_matrix(logits, labels), sklearn_confusion_matrix(labels, predicted, labels=known)
    )
    # scikit-learn refuses a call in which no example counts at all.
    wanted = np.zeros((CLASSES, CLASSES))
    if weights.any():
        wanted = sklearn_confusion_matrix(labels, predicted, labels=known, sample_weight=weights)
    np.testing.assert_array_equal(confusion_matrix(logits, labels, weights), wanted)


def test_rows_are_true_classes_and_columns_predictions():
    matrix = confusion_matrix(jnp.array([[0.0, 0.0, 9.0]]), jnp.array([1]))
    wanted = np.zeros((3, 3))
    wanted[1, 2] = 1
    np.testing.assert_array_equal(matrix, wanted)
    assert matrix.dtype == jnp.float32


def test_a_tie_is_predicted_as_the_first_highest():
    matrix = confusion_matrix(jnp.array([[1.0, 4.0, 4.0]]), jnp.array([0]))
    assert np.argwhere(np.asarray(matrix)).tolist() == [[0, 1]]


def test_padding_with_nan_scores_leaves_the_confusion_matrix_alone():
    logits = jnp.array([[3.0, 1.0], [jnp.nan, jnp.nan], [0.0, 1.0]])
    matrix = confusion_matrix(logits, jnp.array([0, 0, 0]), jnp.array([1.0, 0.0, 2.0]))
    np.testing.assert_array_equal(matrix, [[1, 2], [0, 0]])


@given(
    scores,
    st.lists(st.lists(st.booleans(), min_size=CLASSES, max_size=CLASSES), min_size=ROWS, max_size=ROWS),
)
@settings(max_examples=40, deadline=None)
def test_average_precision_is_scikit_learns_with_ties_and_a_nan_is_the_lowest(logits, targets):
    logits, targets = np.array(logits, np.float32), np.array(targets)
    found = average_precision(logits, targets)
    np.testing.assert_array_equal(np.isnan(found), ~targets.any(axis=0))
    there = targets.any(axis=0)
    if there.any():
        wanted = average_precision_score(
            targets[:, there], np.nan_to_num(logits[:, there], nan=-9), average=None
        )
        np.testing.assert_allclose(found[there], wanted, rtol=1e-12)


def test_average_precision_of_a_large_set_is_scikit_learns():
    rng = np.random.default_rng(0)
    targets = rng.random((3000, 20)) < 0.1
    logits = (rng.normal(size=(3000, 20)) + targets).astype(np.float32).round(1)  # with ties
    wanted = average_precision_score(targets, logits, average=None)
    assert 0.1 < wanted.min() < wanted.max() < 0.9
    np.testing.assert_allclose(average_precision(logits, targets), wanted, rtol=1e-12)
    for k, (recall, precision) in enumerate(precision_recall(logits, targets)):
        p, r, _ = precision_recall_curve(targets[:, k], logits[:, k])
        # scikit-learn goes on to a recall of 0, and leaves out what comes after the last one found.
        count = len(p) - 1
        np.testing.assert_allclose(np.stack([recall, precision])[:, :count], [r[-2::-1], p[-2::-1]])
