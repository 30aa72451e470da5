"""Datasets by name, the digits, and what every source and batch is."""

import pickle

import numpy as np
import pytest
from sklearn.datasets import load_digits

from jaxnets import data
from jaxnets.data import sources
from jaxnets.data.dataset import ArraySource, Subset, in_memory, labels_of, read_batch
from jaxnets.errors import InputError


class OneByOne:
    """The least that a source can be: no labels at once, no images at once."""

    class_names = ("even", "odd")
    image_shape = (1, 2, 1)

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return {
            "image": np.full((1, 2, 1), index, np.uint8),
            "label": np.int32(index % 2),
            "weight": np.float32(index != 3),
        }


def test_digits_are_scikit_learns_each_once_and_a_stratified_fifth_is_held_out():
    digits = data.load("digits", size=8)
    assert (len(digits.train), len(digits.test)) == (1437, 360)
    assert digits.class_names == tuple("0123456789")
    assert digits.num_classes == 10
    assert digits.image_shape == (8, 8, 1)
    reference = load_digits()
    wanted = sorted(
        (label, *np.round(image.ravel() / 16 * 255))
        for label, image in zip(reference.target, reference.images, strict=True)
    )
    got = sorted(
        (example["label"], *example["image"].ravel())
        for source in (digits.train, digits.test)
        for example in (source[index] for index in range(len(source)))
    )
    assert got == wanted
    shares = np.bincount(digits.test.labels) / np.bincount(reference.target)
    np.testing.assert_allclose(shares, 0.2, atol=0.006)
    np.testing.assert_array_equal(data.load("digits").test.labels, digits.test.labels)


def test_digits_grow_to_the_size_that_is_asked_for():
    """Shrunk again by averages, they are nearly what they were."""
    small, large = data.load("digits", size=8).test, data.load("digits").test
    assert large.image_shape == (32, 32, 1)
    assert large[0]["image"].dtype == np.uint8
    shrunk = large.images.reshape(-1, 8, 4, 8, 4).mean((2, 4))
    assert np.corrcoef(shrunk.ravel(), small.images.ravel())[0, 1] > 0.97


def test_digits_in_three_channels_repeat_the_gray():
    gray, color = data.load("digits", size=16).train, data.load("digits", size=16, channels=3).train
    assert color.image_shape == (16, 16, 3)
    np.testing.assert_array_equal(color.images, np.repeat(gray.images, 3, -1))


@pytest.mark.parametrize("spec", ["digit", "folder:", "tfds:", "folder", "mnist"])
def test_unknown_specs_are_refused_with_the_known_or_nearest_ones(spec):
    with pytest.raises(InputError, match="digits|folder:PATH|tfds:NAME"):
        data.load(spec)


def test_options_that_a_dataset_does_not_take_are_refused_and_none_is_the_default():
    with pytest.raises(InputError, match="'data_dir'; it takes size, channels"):
        data.load("digits", data_dir="somewhere")
    assert data.load("digits", size=None).image_shape == (32, 32, 1)


@pytest.mark.parametrize("options", [{"size": 0}, {"size": 2.5}, {"channels": 2}])
def test_impossible_shapes_are_refused_by_name(options):
    with pytest.raises(InputError, match=next(iter(options))):
        data.load("digits", **options)


@pytest.mark.parametrize("chosen", [None, [4, 4, 0, 3]])
def test_a_batch_has_its_examples_then_padding_however_they_are_read(chosen):
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 2, 1), np.uint8)
    arrays, single = ArraySource(images, np.arange(5) % 2, "ab"), OneByOne()
    indices = np.array([3, 0, 1, 1, 99])
    numbers = indices[:4]
    if chosen:
        arrays, single = Subset(arrays, chosen), Subset(single, chosen)
        numbers = np.array(chosen)[numbers]
    for source in (arrays, single):
        batch = read_batch(source, indices)
        types = {name: str(values.dtype) for name, values in batch.items()}
        assert types == {"image": "uint8", "label": "int32", "weight": "float32"}
        np.testing.assert_array_equal(batch["image"][:, 0, 1, 0], [*numbers, 0])
        np.testing.assert_array_equal(batch["label"], [*numbers % 2, 0])
        readable = numbers != 3 if source is single else np.ones(4)
        np.testing.assert_array_equal(batch["weight"], [*readable, 0])


def test_labels_are_found_with_and_without_a_short_cut():
    np.testing.assert_array_equal(labels_of(OneByOne()), [0, 1, 0, 1, 0])
    np.testing.assert_array_equal(labels_of(Subset(OneByOne(), [1, 3, 4])), [1, 1, 0])


def test_only_arrays_count_as_in_memory():
    arrays = ArraySource(np.zeros((2, 1, 1, 1), np.uint8), [0, 1], "ab")
    assert in_memory(arrays)
    assert in_memory(Subset(arrays, [0]))
    assert not in_memory(OneByOne())
    assert not in_memory(Subset(OneByOne(), [0]))


def test_sources_in_memory_pickle():
    source = Subset(
        ArraySource(np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1), [0, 1, 0, 1], "ab"), [2]
    )
    assert pickle.loads(pickle.dumps(source))[0]["image"] == 2


def test_the_path_of_a_spec_is_made_absolute_and_nothing_else_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    sources.register("shapes:PATH", lambda path, *, size=None: path)
    try:
        assert sources.located("folder:a/../b[1]") == f"folder:{tmp_path}/a/../b[1]"
        assert sources.located("captions:~/x") == "captions:/home/me/x"
        assert sources.located("folder:a:b") == f"folder:{tmp_path}/a:b"
        assert data.load("shapes:~/x") == "/home/me/x"
    finally:
        del sources._LOADERS["shapes:PATH"]
    for spec in ("digits", "tfds:cifar10/x:1.0.0", "folder:", "nothing:~/x", ""):
        assert sources.located(spec) == spec


@pytest.mark.parametrize("kind", ["folder", "captions", "records"])
def test_the_home_of_an_unknown_user_is_no_dataset(kind):
    with pytest.raises(InputError, match="~nobody-of-this-name/x"):
        data.load(f"{kind}:~nobody-of-this-name/x")
