"""Prepared TensorFlow datasets, read without TensorFlow."""

import io
import json
import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxnets import data
from jaxnets.errors import InputError


class BlobImages(tfds.core.GeneratorBasedBuilder):
    """PNGs of several sizes; the green value of an image is its number."""

    VERSION = tfds.core.Version("1.0.0")
    HELD_OUT = "validation"

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(self.features()))

    def features(self):
        return {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=["red", "blue"]),
        }

    def _split_generators(self, _):
        return {"train": self._generate_examples(6), self.HELD_OUT: self._generate_examples(3)}

    def _generate_examples(self, count):
        for number in range(count):
            yield number, {"image": self.image(number), "label": number % 2}

    def image(self, number):
        buffer = io.BytesIO()
        Image.new("RGB", (10, 8 + number), (0, number, 0)).save(buffer, "PNG")
        if number == 5:
            buffer.truncate(45)  # in its pixels
        buffer.seek(0)
        return buffer


class TensorBlobs(BlobImages):
    """Gray arrays of one size."""

    HELD_OUT = "test"

    def features(self):
        return {
            "image": tfds.features.Tensor(shape=(5, 5, 1), dtype=np.uint8),
            "label": tfds.features.ClassLabel(num_classes=2),
        }

    def image(self, number):
        return np.full((5, 5, 1), number, np.uint8)


class ThreeParts(TensorBlobs):
    """With a part for validation and one for testing."""

    def _split_generators(self, _):
        counts = {"train": 6, "test": 2, "validation": 3}
        return {name: self._generate_examples(count) for name, count in counts.items()}


class NamelessBlobs(TensorBlobs):
    """Calls its label something else."""

    def features(self):
        features = super().features()
        return {"image": features["image"], "kind": features["label"]}

    def _generate_examples(self, count):
        for number in range(count):
            yield number, {"image": self.image(number), "kind": number % 2}


class DescribedBlobs(BlobImages):
    """Has captions for labels, as coco_captions."""

    def features(self):
        captions = tfds.features.Sequence({"id": np.int64, "text": tfds.features.Text()})
        return {"image": super().features()["image"], "captions": captions}

    def _generate_examples(self, count):
        for number in range(count):
            captions = [{"id": k, "text": f"blob {number}, told {k}"} for k in range(1 + number % 2)]
            yield number, {"image": self.image(number), "captions": captions}


class VocBlobs(BlobImages):
    """Has objects, as voc: boxes count from 1 and are of fractions."""

    def features(self):
        objects = tfds.features.Sequence(
            {
                "bbox": tfds.features.BBoxFeature(),
                "label": tfds.features.ClassLabel(names=["cat", "dog"]),
                "is_difficult": np.bool_,
            }
        )
        return {"image": super().features()["image"], "objects": objects}

    def _generate_examples(self, count):
        for number in range(count):
            height = 8 + number
            box = tfds.features.BBox(2 / height, 3 / 10, 6 / height, 8 / 10)
            found = [{"bbox": box, "label": 1, "is_difficult": number == 1}] * (number + 1)
            yield number, {"image": self.image(number), "objects": found}


class MaskedBlobs(BlobImages):
    """Has label maps, whose upper row is of the image's number, beside labels."""

    KINDS, WRONG = [], None

    def features(self):
        named = tfds.features.LabeledImage(labels=self.KINDS, shape=(None, None, 1), dtype=np.uint8)
        plain = tfds.features.Image(shape=(None, None, 1), encoding_format="png")
        return super().features() | {"segmentation_mask": named if self.KINDS else plain}

    def _generate_examples(self, count):
        for number in range(count):
            mask = np.zeros((8 + number, 10), np.uint8)
            mask[0], mask[-1] = number, 255
            buffer = io.BytesIO()
            Image.fromarray(mask[:-1] if number == self.WRONG else mask).save(buffer, "PNG")
            buffer.seek(0)
            yield number, {"image": self.image(number), "label": 0, "segmentation_mask": buffer}


class NamedMaskedBlobs(MaskedBlobs):
    """And names for them, too few, and a label map of another size."""

    KINDS, WRONG = ["ground", "sky", "tree", "house"], 2


def prepare(builder, folder):
    builder(data_dir=folder, file_format="array_record").download_and_prepare()
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    for builder in (
        BlobImages,
        TensorBlobs,
        ThreeParts,
        NamelessBlobs,
        DescribedBlobs,
        VocBlobs,
        MaskedBlobs,
        NamedMaskedBlobs,
    ):
        prepare(builder, folder)
    return str(folder)


def test_images_of_any_size_are_decoded_and_resized(folder, caplog):
    dataset = data.load("tfds:blob_images", size=4, data_dir=folder)
    assert dataset.name == "tfds:blob_images"
    assert dataset.class_names == ("red", "blue")
    assert dataset.image_shape == (4, 4, 3)
    assert (len(dataset.train), len(dataset.test)) == (6, 3)
    examples = [dataset.train[index] for index in range(6)]
    readable = [example for example in examples if example.get("weight", 1)]
    found = sorted(int(example["image"][0, 0, 1]) for example in readable)
    assert found == [0, 1, 2, 3, 4]
    assert all(example["label"] == example["image"][0, 0, 1] % 2 for example in readable)
    assert caplog.text.count("blob_images train[") == 1  # the sixth is truncated
    assert sorted(dataset.train.labels) == [0, 0, 0, 1, 1, 1]
    labels = [example["label"] for example in examples]
    np.testing.assert_array_equal(dataset.train.labels, labels)


def test_captions_come_with_their_images(folder):
    dataset = data.load("tfds:described_blobs", size=4, data_dir=folder)
    assert dataset.class_names == ()
    for index in range(6):
        example, sentences = dataset.train[index], dataset.train.captions(index)
        if example.get("weight", 1):
            number = example["image"][0, 0, 1]
            assert sentences == tuple(f"blob {number}, told {k}" for k in range(1 + number % 2))
        else:
            assert set(example) == {"image", "weight"}
    assert data.dataset.read_batch(dataset.train, np.arange(6))["weight"].sum() == 5


def test_objects_come_with_their_images(folder):
    dataset = data.load("tfds:voc_blobs", size=(16, 20), boxes=6, data_dir=folder)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.image_shape == (16, 20, 3)
    for index in range(6):
        example, truth = dataset.train[index], dataset.train.truth(index)
        number = len(truth["labels"]) - 1
        np.testing.assert_allclose(truth["boxes"], np.tile([2, 1, 8, 6], (number + 1, 1)), atol=1e-5)
        assert truth["difficult"].tolist() == [number == 1] * (number + 1)
        assert example.get("weight", 1) == (number >= 0)  # one is truncated
        if number >= 0:
            assert example["valid"].sum() == number + 1
            assert example["image"][0, 0, 1] == number
            wanted = np.multiply([2, 1, 8, 6], np.tile(example["ratio"], 2))
            np.testing.assert_allclose(example["box"][0], wanted, atol=1e-5)
            assert example["size"][0] == 16  # as high as the canvas
            pixels = (10, 8 + number)
            np.testing.assert_allclose(example["ratio"], example["size"][::-1] / pixels, 1e-6)
    assert data.dataset.read_batch(dataset.train, np.arange(6))["weight"].sum() == 5
    few = data.load("tfds:voc_blobs", boxes=2, data_dir=folder).train
    with pytest.raises(InputError, match=r"voc_blobs train\[\d\] has \d objects, and boxes is 2"):
        _ = [few[index] for index in range(6)]
    with pytest.raises(InputError, match="must have features image and objects"):
        data.load("tfds:blob_images", boxes=2, data_dir=folder)


def test_label_maps_come_with_their_images(folder):
    dataset = data.load("tfds:masked_blobs", segmentation=True, size=(16, 20), data_dir=folder)
    assert dataset.class_names == ("0", "1", "2", "3", "4", "5")
    assert dataset.image_shape == (16, 20, 3)
    source = pickle.loads(pickle.dumps(dataset.train))
    for index in range(6):
        example, truth = source[index], source.truth(index)
        number = int(truth[0, 0])
        assert truth.shape == (8 + number, 10)
        assert example.get("weight", 1) == (number != 5)  # one image is truncated
        if number != 5:
            height, width = example["size"]
            shown = example["segmentation"][:height, :width]
            assert example["image"][0, 0, 1] == shown[0, 0] == number
            assert (shown[-1] == 255).all()
            assert (example["segmentation"][:, width:] == 255).all()
    assert data.dataset.read_batch(source, np.arange(6))["segmentation"].shape == (6, 16, 20)
    assert dataset.test[0]["segmentation"].dtype == np.uint8


def test_label_maps_that_do_not_fit_are_refused_by_name(folder):
    dataset = data.load("tfds:named_masked_blobs", segmentation=True, data_dir=folder)
    assert dataset.class_names == ("ground", "sky", "tree", "house")
    refused = []
    for index in range(6):
        try:
            _ = dataset.train[index]
        except InputError as error:
            refused.append(str(error))
    size, label = sorted(refused, key=lambda text: "has the label" in text)
    assert "segmentation_mask is 9 x 10 (height x width), and its picture named_masked_blobs tr" in size
    assert "segmentation_mask has the label 4, and there are 4 classes" in label
    with pytest.raises(InputError, match="image of one channel, called segmentation_mask or .*; it has"):
        data.load("tfds:blob_images", segmentation=True, data_dir=folder)


def test_what_takes_tensorflow_to_prepare_is_read_without(folder, monkeypatch):
    def without(self):
        raise ModuleNotFoundError("No module named 'tensorflow'")

    wanted = data.load("tfds:voc_blobs", data_dir=folder).train
    monkeypatch.setattr(VocBlobs, "_info", without)
    source = data.load("tfds:voc_blobs", data_dir=folder).train
    source = pickle.loads(pickle.dumps(source))
    for index in range(6):
        np.testing.assert_array_equal(source[index]["box"], wanted[index]["box"])
    monkeypatch.setattr(BlobImages, "_info", without)
    with pytest.raises(InputError, match="'blob_images' is not prepared; prepare it once"):
        data.load("tfds:blob_images", data_dir=f"{folder}/elsewhere")


def test_strict_refuses_images_that_cannot_be_decoded(folder):
    dataset = data.load("tfds:blob_images", size=4, data_dir=folder, strict=True)
    with pytest.raises(InputError, match=r"blob_images train\["):
        list(data.eval_batches(dataset.train, 2))


def test_sizes_default_to_the_datasets_own_and_else_to_224(folder):
    assert data.load("tfds:blob_images", data_dir=folder).image_shape == (224, 224, 3)
    dataset = data.load("tfds:tensor_blobs", data_dir=folder)
    assert dataset.image_shape == (5, 5, 1)
    assert dataset.class_names == ("0", "1")
    images = np.stack([dataset.train[index]["image"] for index in range(6)])
    assert images.shape == (6, 5, 5, 1)
    assert sorted(images[:, 0, 0, 0]) == [0, 1, 2, 3, 4, 5]
    three = data.load("tfds:tensor_blobs", data_dir=folder, channels=3, size=7).test
    assert three[0]["image"].shape == three.image_shape == (7, 7, 3)


def test_validation_measures_epochs_and_test_is_for_later(folder):
    dataset = data.load("tfds:three_parts", data_dir=folder)
    lengths = {name: len(source) for name, source in dataset.splits.items()}
    assert lengths == {"train": 6, "val": 3, "test": 2}
    assert dataset.test is dataset.split("validation")
    assert dataset.notes == (
        "train (6 images) is trained on, validation (3 images) measures epochs; "
        "test (2 images) is for `jaxnets eval --split test`",
    )
    two = data.load("tfds:tensor_blobs", data_dir=folder)
    assert two.splits == {"train": two.train, "test": two.test}


def test_a_tilde_is_the_home_folder(folder, monkeypatch):
    monkeypatch.setenv("HOME", folder)
    assert len(data.load("tfds:tensor_blobs", data_dir="~").train) == 6


def test_tfds_sources_pickle(folder):
    source = data.load("tfds:tensor_blobs", data_dir=folder).train
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again[3]["image"], source[3]["image"])


def test_unknown_datasets_are_refused_with_the_nearest(folder):
    with pytest.raises(InputError, match="'fashion_mnist'"):
        data.load("tfds:fashon_mnist", data_dir=folder)
    with pytest.raises(InputError, match=r"9\.9\.9"):
        data.load("tfds:mnist:9.9.9", data_dir=folder)


def test_unprepared_datasets_are_refused_at_once_with_what_prepares_them(folder):
    with pytest.raises(InputError, match=r"not prepared.*array_record'\)\.download_and_prepare"):
        data.load("tfds:mnist", data_dir=folder)


def test_other_file_formats_are_refused(tmp_path):
    prepare(TensorBlobs, tmp_path)
    info = next(tmp_path.glob("tensor_blobs/1.0.0/dataset_info.json"))
    info.write_text(json.dumps({**json.loads(info.read_text()), "fileFormat": "tfrecord"}))
    with pytest.raises(InputError, match="as tfrecord, and must be array_record"):
        data.load("tfds:tensor_blobs", data_dir=str(tmp_path))


def test_other_features_are_refused(folder):
    with pytest.raises(InputError, match="it has image, kind"):
        data.load("tfds:nameless_blobs", data_dir=folder)
