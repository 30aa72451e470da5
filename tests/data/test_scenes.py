"""The scenes: what their sentences say is in their pixels, and held-out ones are held out."""

import pickle
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnets import data
from jaxnets.data import scenery
from jaxnets.data.scenes import COLORS, DIGITS, SceneSource, is_unseen
from jaxnets.errors import InputError

OBJECT = rf"a (small|large) ({'|'.join(COLORS)}) ({'|'.join(DIGITS)})"
SENTENCE = re.compile(rf"{OBJECT} (above|below|left of|right of) {OBJECT}")

numbers = st.integers(0, 10**6)
splits = st.sampled_from(["train", "seen", "test"])


def parse(sentence):
    """The two objects (size, color, digit) and the relation between them."""
    parts = SENTENCE.fullmatch(sentence).groups()
    return parts[:3], parts[3], parts[4:]


@settings(max_examples=60, deadline=None)
@given(numbers, splits, st.sampled_from([32, 64, 97]))
def test_the_sentences_are_true_of_the_picture(index, split, size):
    source = SceneSource(split, size=size)
    scene = source.scene(index)
    assert scene.sentences == source.captions(index)
    assert len(set(scene.sentences)) == 2
    first, relation, second = parse(scene.sentences[0])
    back, converse, forth = parse(scene.sentences[1])
    assert (back, forth) == (second, first)
    assert {relation, converse} in ({"above", "below"}, {"left of", "right of"})
    (left, top, right, bottom), (other_left, other_top, other_right, other_bottom) = scene.boxes
    # The one relation that is told holds, and none of the others could be meant.
    if relation == "above":
        assert bottom <= other_top
        assert left < other_right
        assert other_left < right
    else:
        assert relation == "left of"
        assert right <= other_left
        assert top < other_bottom
        assert other_top < bottom
    for (told_size, color, digit), label, box, mask in zip(
        (first, second), scene.labels, scene.boxes, scene.masks, strict=True
    ):
        assert DIGITS[label] == digit
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert tuple(box) == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        # Handwriting fills its square in height but for a margin.
        assert (box[3] - box[1] > 0.28 * size) == (told_size == "large")
        ink = np.median(scene.image[mask].astype(float), axis=0)
        likeness = {name: np.abs(ink - rgb).sum() for name, rgb in COLORS.items()}
        assert min(likeness, key=likeness.get) == color


def test_a_scene_is_always_the_same_and_scenes_differ():
    one, again = SceneSource("train"), pickle.loads(pickle.dumps(SceneSource("train", count=5)))
    np.testing.assert_array_equal(one[7]["image"], again[7]["image"])
    assert np.abs(one[7]["image"].astype(int) - one[8]["image"]).mean() > 5
    assert one.captions(7) != SceneSource("seen").captions(7)
    assert len({one.captions(index) for index in range(200)}) > 195


def test_unseen_pairs_are_never_trained_on_and_in_every_held_out_scene():
    assert sum(is_unseen(color, digit) for color in COLORS for digit in range(10)) == 10
    pairs = {
        split: [
            [(color, DIGITS.index(digit)) for _, color, digit in parse(sentence)[::2]]
            for sentence in (SceneSource(split).captions(index)[0] for index in range(500))
        ]
        for split in ("train", "seen", "test")
    }
    for split in ("train", "seen"):
        shown = {pair for scene in pairs[split] for pair in scene}
        assert len(shown) == 40
        assert not any(is_unseen(*pair) for pair in shown)
    assert all(any(is_unseen(*pair) for pair in scene) for scene in pairs["test"])
    assert len({pair for scene in pairs["test"] for pair in scene}) == 50


def test_held_out_scenes_have_other_handwriting_and_other_parts_of_the_photographs():
    trained, held_out = (scenery.glyphs_by_digit(held_out) for held_out in (False, True))
    for mine, theirs in zip(trained, held_out, strict=True):
        assert not set(mine) & set(theirs)
        assert 0.15 < len(theirs) / (len(mine) + len(theirs)) < 0.25
    assert {index for part in (*trained, *held_out) for index in part} == set(range(1797))


def test_scenes_are_a_dataset_whose_batches_hold_everything():
    dataset = data.load("scenes", size=48, count=10)
    assert (dataset.name, len(dataset.train), len(dataset.test)) == ("scenes", 10, 2000)
    assert dataset.image_shape == (48, 48, 3)
    batch = next(data.eval_batches(dataset.train, 8))
    assert batch["image"].shape == (8, 48, 48, 3)
    assert batch["label"].shape == (8, 2)
    assert batch["box"].shape == (8, 2, 4)
    assert batch["mask"].shape == (8, 2, 48, 48)
    assert {name: values.dtype for name, values in batch.items()} == {
        "image": np.uint8,
        "label": np.int32,
        "box": np.float32,
        "mask": bool,
        "weight": np.float32,
    }
    np.testing.assert_array_equal(batch["image"][3], dataset.train.scene(3).image)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "tset"}, "unknown split 'tset'"),
        ({"size": 16}, "size is 16"),
        ({"count": 0}, "count is 0"),
    ],
)
def test_what_makes_no_scenes_is_named(options, words):
    with pytest.raises(InputError, match=words):
        SceneSource(**options)
    with pytest.raises(InputError, match="channels is 1"):
        data.load("scenes", channels=1)


def test_scenes_of_more_digits_hold_one_to_so_many_that_lie_apart():
    source = SceneSource("test", objects=5, size=48)
    counts = set()
    for index in range(60):
        scene = source.scene(index)
        counts.add(len(scene.labels))
        assert scene.masks.sum(0).max() == 1
        assert scene.sentences == ()
    assert counts == {1, 2, 3, 4, 5}
    with pytest.raises(InputError, match="no captions; objects=2 has"):
        source.captions(0)


def test_examples_of_fixed_shapes_show_the_same_scene():
    plain = SceneSource("train", size=32)
    example = SceneSource("train", size=32, boxes=4, masks=True)[7]
    scene, truth = plain.scene(7), plain.truth(7)
    np.testing.assert_array_equal(example["image"], scene.image)
    np.testing.assert_array_equal(example["box"], np.pad(scene.boxes, ((0, 2), (0, 0))))
    np.testing.assert_array_equal(example["mask"][:2], scene.masks)
    assert example["valid"].tolist() == [True, True, False, False]
    assert example["area"].tolist() == [*truth["area"], 0, 0] == [*scene.masks.sum((1, 2)), 0, 0]
    assert example["size"].tolist() == [32, 32]
    assert set(example) == {
        "image", "label", "box", "mask", "valid", "crowd", "difficult", "area", "size", "ratio"
    }  # fmt: skip
    assert "mask" not in data.load("scenes", size=32, boxes=4, objects=3, count=3).train[0]


def test_more_objects_than_rows_are_refused():
    with pytest.raises(InputError, match="a scene has 6 objects, and boxes is 4; raise it to 6"):
        data.load("scenes", objects=6, boxes=4)
