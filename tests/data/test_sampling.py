"""Classes of unequal size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnets import data
from jaxnets.errors import InputError

COUNTS = (3, 10, 7)


@pytest.fixture
def source():
    labels = np.repeat(np.arange(3), COUNTS)
    images = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
    return data.ArraySource(images, labels, ("few", "many", "some"))


def drawn(view):
    return [int(view[index]["image"][0, 0, 0]) for index in range(len(view))]


def test_oversampling_repeats_every_example_of_a_class_alike(source):
    view = data.class_balanced(source, "over")
    np.testing.assert_array_equal(np.bincount(view.labels), [10, 10, 10])
    times = np.bincount(drawn(view))
    assert set(times[:3]) == {3, 4}
    assert set(times[3:13]) == {1}
    assert set(times[13:]) == {1, 2}


def test_undersampling_draws_without_replacement(source):
    view = data.class_balanced(source, "under")
    np.testing.assert_array_equal(np.bincount(view.labels), [3, 3, 3])
    assert len(set(drawn(view))) == 9


@pytest.mark.parametrize("how", ["over", "under"])
def test_the_seed_decides_the_sample_and_labels_go_with_images(source, how):
    view = data.class_balanced(source, how, seed=1)
    assert drawn(view) == drawn(data.class_balanced(source, how, seed=1))
    assert drawn(view) != drawn(data.class_balanced(source, how, seed=2))
    np.testing.assert_array_equal(view.labels, source.labels[drawn(view)])
    assert [view[index]["label"] for index in range(len(view))] == view.labels.tolist()


def test_class_weights_are_inverse_to_frequency_with_mean_one(source):
    weights = data.class_weights(source)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights * COUNTS, (weights * COUNTS)[0], rtol=1e-6)
    np.testing.assert_allclose(weights.mean(), 1, rtol=1e-6)


def test_what_cannot_be_balanced_is_refused(source):
    with pytest.raises(InputError, match="how"):
        data.class_balanced(source, "both")
    lacking = data.ArraySource(source.images, source.labels, ("few", "many", "some", "none"))
    for balance in (data.class_balanced, data.class_weights):
        with pytest.raises(InputError, match="'none'"):
            balance(lacking)


def test_holding_out_takes_its_share_of_every_class_and_nothing_twice(source):
    rest, held = data.hold_out(source, 0.25, seed=3)
    np.testing.assert_array_equal(np.bincount(held.labels), [1, 2, 2])  # 0.75, 2.5 and 1.75, rounded
    assert sorted(drawn(rest) + drawn(held)) == list(range(sum(COUNTS)))
    again, other = data.hold_out(source, 0.25, seed=3)[1], data.hold_out(source, 0.25, seed=4)[1]
    assert drawn(again) == drawn(held) != drawn(other)
    assert data.hold_out(source, 0.01)[1].labels.tolist() == [0, 1, 2]  # one of each at least


def test_what_cannot_be_held_out_is_refused(source):
    for share in (0.0, 1.0, -0.2):
        with pytest.raises(InputError, match="share is"):
            data.hold_out(source, share)
    with pytest.raises(InputError, match="leaves class 'few' without an example.*it has 3"):
        data.hold_out(source, 0.9)


@given(st.lists(st.integers(0, 3), min_size=8, max_size=60), st.integers(2, 8), st.integers(0, 9))
def test_folds_hold_every_example_out_once_and_are_even_in_every_class(labels, count, seed):
    labels = np.array(labels + [0, 1, 2, 3] * 2)
    source = data.ArraySource(np.zeros((len(labels), 1, 1, 1), np.uint8), labels, "abcd")
    parts = data.folds(source, count, seed)
    assert len(parts) == count
    for rest, held in parts:
        assert sorted([*rest.indices, *held.indices]) == list(range(len(labels)))
    assert sorted(i for _, held in parts for i in held.indices) == list(range(len(labels)))
    for kind in range(4):
        shares = [np.sum(labels[held.indices] == kind) for _, held in parts]
        assert max(shares) - min(shares) <= 1
    assert np.ptp([len(held) for _, held in parts]) <= 1


def test_folds_that_cannot_be_are_refused():
    source = data.ArraySource(np.zeros((5, 1, 1, 1), np.uint8), np.array([0, 0, 1, 0, 0]), "ab")
    for count, words in ((1, "folds is 1"), (6, "folds is 6; .* 5 examples"), (2, "class 'b' has one")):
        with pytest.raises(InputError, match=words):
            data.folds(source, count)
