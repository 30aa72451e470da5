"""What sources of one's own must be, and what stands in for an image that cannot be read."""

import re

import flax.linen as nn
import jax
import numpy as np
import pytest

from jaxnets import data
from jaxnets.data.dataset import ArraySource, Dataset, Subset, read_batch
from jaxnets.errors import InputError

IMAGES = np.random.default_rng(0).integers(1, 256, (6, 4, 4, 1), np.uint8)
LABELS = np.arange(6) % 2


class Own:
    """Examples by a function of their index."""

    class_names = ("even", "odd")
    image_shape = (4, 4, 1)

    def __init__(self, example, count=6):
        self.example, self.count = example, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.example(index)


def partly_unreadable(*bad):
    """Without the images of some indices, as a folder's source has it."""

    def example(index):
        if index in bad:
            return {
                "image": np.zeros((4, 4, 1), np.uint8),
                "label": np.int32(LABELS[index]),
                "weight": np.float32(0),
            }
        return {"image": IMAGES[index], "label": np.int32(LABELS[index])}

    return Own(example)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES.astype(np.float32), LABELS, "image has floats from .* divide by 255"),
        (IMAGES / IMAGES.max() * 16, LABELS, "image has floats from .* to 16; wanted 0 to 1"),
        (np.full(IMAGES.shape, np.nan), LABELS, "image has floats from nan"),
        (IMAGES.astype(np.uint16), LABELS, "pixels of uint16; wanted uint8"),
        (IMAGES.astype(np.int64), LABELS, "pixels of int64; wanted uint8"),
        (IMAGES > 9, LABELS, "pixels of bool; wanted uint8"),
        (IMAGES[..., 0], LABELS, re.escape("shape (6, 4, 4); wanted [N, H, W, C]")),
        ([IMAGES[0], IMAGES[1, :3]], [0, 1], r"\(4, 4, 1\) in one example and \(3, 4, 1\) in another"),
        (np.array([IMAGES[0], IMAGES[1, :3]], object), [0, 1], "all of one size"),
        (IMAGES[:0], LABELS[:0], "the source is empty"),
        ([], [], "the source is empty"),
        (IMAGES, LABELS.astype(float), "label is float64"),
        (IMAGES, ["even"] * 6, "label is .*'even'; wanted whole numbers"),
        (IMAGES, [[0], [0, 1]] * 3, "label: there are several shapes"),
        (IMAGES, np.eye(2, dtype=int)[LABELS], re.escape("labels have shape (6, 2); wanted [6]")),
        (IMAGES, LABELS[:5], re.escape("labels have shape (5,); wanted [6]")),
        (IMAGES, LABELS - 1, "label -1 is out of range: there are 2 classes"),
        (IMAGES, LABELS + 1, "label 2 is out of range.*from 0 to 1"),
    ],
)
def test_arrays_that_are_no_labeled_images_are_refused_in_a_line(images, labels, message):
    with pytest.raises(InputError, match=message) as caught:
        ArraySource(images, labels, ("even", "odd"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("images", [IMAGES, list(IMAGES), (IMAGES / 255).astype(np.float32)])
def test_arrays_and_lists_of_labeled_images_are_taken(images):
    source = ArraySource(images, LABELS.tolist(), ("even", "odd"))
    np.testing.assert_array_equal(source[3]["image"], images[3])
    assert source[3]["label"] == 1
    assert source.labels.dtype == np.int32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: {"image": IMAGES[i, : 3 + i % 2]}, r"image has shape \(3, 4, 1\).*\(4, 4, 1\)"),
        (lambda i: {"image": IMAGES[i] / (1 if i else 255)} if i % 2 else {}, "image is uint8.*float64"),
        (lambda i: {"more": 1} if i == 2 else {}, "has image, label, another image, label, more"),
    ],
)
def test_examples_that_differ_are_refused(change, message):
    source = Own(lambda i: {"image": IMAGES[i], "label": 0, **change(i)})
    with pytest.raises(InputError, match=message):
        read_batch(source, np.arange(6))


@pytest.mark.parametrize("weight", [-1, float("nan"), None, "much", np.ones((2, 2))])
def test_a_weight_that_is_no_weight_is_refused(weight):
    source = Own(lambda i: {"image": IMAGES[i], "label": 0, "weight": weight})
    with pytest.raises(InputError, match="source: weight is "):
        read_batch(source, np.arange(2))


def test_labels_of_two_classes_may_be_bools():
    batch = read_batch(Own(lambda i: {"image": IMAGES[i], "label": i > 0}), np.arange(2))
    assert batch["label"].dtype == np.int32
    assert batch["label"].tolist() == [0, 1]


@pytest.mark.parametrize("example", [(IMAGES[0], 0), None, IMAGES[0]])
def test_examples_that_are_no_dicts_are_refused(example):
    with pytest.raises(InputError, match=f"an example is a {type(example).__name__}; wanted a dict"):
        read_batch(Own(lambda i: example), np.arange(2))


def test_empty_sources_are_refused_where_batches_are_made_of_them():
    empty = Own(None, count=0)
    for make in (lambda: data.train_batches(empty, 1, seed=0), lambda: data.eval_batches(empty, 1)):
        with pytest.raises(InputError, match="the source is empty"):
            make()
    with pytest.raises(InputError, match="source is empty"):
        data.hold_out(empty, 0.2)


def test_the_next_readable_example_takes_the_place_of_an_unreadable_image():
    for source in (partly_unreadable(1, 2, 5), Subset(partly_unreadable(1, 2, 5), np.arange(6))):
        batch = read_batch(source, np.array([0, 1, 2, 3, 4, 5, 6]))
        taken = [0, 3, 3, 3, 4, 0]  # after the last comes the first
        np.testing.assert_array_equal(batch["image"][:6], IMAGES[taken])
        np.testing.assert_array_equal(batch["label"][:6], LABELS[taken])
        np.testing.assert_array_equal(batch["weight"], [1, 0, 0, 1, 1, 0, 0])
        assert not batch["image"][6].any()  # padding


def test_a_batch_without_a_readable_image_stays_zeros():
    batch = read_batch(partly_unreadable(1, 2), np.array([1, 2, 9]))
    assert not batch["image"].any()
    np.testing.assert_array_equal(batch["weight"], 0)
    np.testing.assert_array_equal(batch["label"], [1, 0, 0])


def test_images_that_a_source_gives_weight_zero_itself_stay_as_they_are():
    source = Own(lambda i: {"image": IMAGES[i], "weight": np.float32(i % 2)})
    np.testing.assert_array_equal(read_batch(source, np.arange(6))["image"], IMAGES)


def test_batch_statistics_are_those_of_the_readable_images():
    """Of two images of which one cannot be read, mean and variance are those of the other."""

    def statistics(images):
        norm = nn.BatchNorm(use_running_average=False, momentum=0.0)
        variables = norm.init(jax.random.key(0), images)
        return norm.apply(variables, images, mutable=["batch_stats"])[1]["batch_stats"]

    batch = read_batch(partly_unreadable(1), np.array([0, 1]))
    found, wanted = (statistics(images / np.float32(255)) for images in (batch["image"], IMAGES[:1]))
    for name in ("mean", "var"):
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5)


def test_a_dataset_has_its_splits_by_any_of_their_names():
    train, test, unseen = (ArraySource(IMAGES[k:], LABELS[k:], "ab") for k in range(3))
    plain = Dataset("plain", train, test, ("a", "b"))
    assert plain.splits == {"train": train, "test": test}
    assert plain.split() is plain.split("Testing") is test
    with pytest.raises(InputError, match="unknown split of plain 'val'"):
        plain.split("val")
    full = Dataset("full", train, test, ("a", "b"), {"val": test, "test": unseen})
    assert full.split() is full.split("validation") is full.split("dev") is test
    assert full.split("test") is unseen
    assert full.split("train") is train
    with pytest.raises(InputError, match="'nowhere'; known: test, train, val"):
        full.split("nowhere")
