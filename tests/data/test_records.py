"""Prepared images: the same dataset as their folder, at random access."""

import json
import logging
import pickle

import numpy as np
import pytest
from PIL import Image

from jaxnets import data
from jaxnets.data.preparing import prepare
from jaxnets.data.whitening import channel_statistics
from jaxnets.errors import InputError


def save(path, red, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (red, 0, 0)).save(path)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three splits of two classes; the red value of an image is ten times its number."""
    root = tmp_path_factory.mktemp("pictures [x]")
    for start, split in ((0, "train"), (14, "val"), (18, "test")):
        for label, name in enumerate(("cat", "dog")):
            for number in range(7 if split == "train" else 2):
                number = start + label * (7 if split == "train" else 2) + number
                save(root / split / name / f"{number:02}.png", 10 * number)
    return root


@pytest.fixture(scope="module")
def files(root, tmp_path_factory):
    files = tmp_path_factory.mktemp("files") / "records [y]"
    prepare(f"folder:{root}", files, size=20, images_per_shard=4)
    return files


def reds(source):
    return np.array([source[index]["image"][4, 4, 0] for index in range(len(source))], int)


def test_splits_classes_order_and_labels_are_those_of_the_folder(root, files):
    folder, records = (data.load(spec, size=8) for spec in (f"folder:{root}", f"records:{files}"))
    assert records.name == f"records:{files}"
    assert records.class_names == folder.class_names == ("cat", "dog")
    assert records.fingerprint == folder.fingerprint
    assert records.image_shape == (8, 8, 3)
    assert set(records.splits) == {"train", "val", "test"}
    assert records.test is records.splits["val"]
    for split, source in records.splits.items():
        np.testing.assert_array_equal(source.labels, folder.splits[split].labels)
        np.testing.assert_allclose(reds(source), reds(folder.splits[split]), atol=2)
        labels = [source[index]["label"] for index in range(len(source))]
        np.testing.assert_array_equal(source.labels, labels)
        assert source.labels.dtype == labels[0].dtype == np.int32


def test_hosts_read_shards_of_their_own(files):
    source = data.load(f"records:{files}", size=8).train
    found = []
    for host in range(2):
        for batch in data.eval_batches(source, 3, shard_index=host, shard_count=2):
            found += list(batch["image"][batch["weight"] > 0, 4, 4, 0])
    np.testing.assert_allclose(sorted(found), 10 * np.arange(14), atol=2)


def test_sources_pickle_also_once_they_were_read(files):
    source = data.load(f"records:{files}", size=8).train
    source[0]
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(reds(again), reds(source))
    np.testing.assert_array_equal(again.labels, source.labels)


def test_labels_take_no_reading(files, monkeypatch):
    source = data.load(f"records:{files}", size=8).train
    monkeypatch.setattr("jaxnets.data.records.Records.__getitem__", None)
    np.testing.assert_array_equal(np.bincount(source.labels), [7, 7])


def test_channel_statistics_are_near_those_of_the_folder(root, files):
    (mean, std), (mean2, std2) = (
        channel_statistics(data.load(spec, size=8).train)
        for spec in (f"folder:{root}", f"records:{files}")
    )
    np.testing.assert_allclose(mean, mean2, atol=0.01)
    np.testing.assert_allclose(std, std2, atol=0.01)


def test_unreadable_images_leave_no_gap(tmp_path):
    for number in range(10):
        for label, name in enumerate("ab"):
            save(tmp_path / "train" / name / f"{number}.png", 10 * (10 * label + number))
            save(tmp_path / "val" / name / f"{number}.png", 0)
    for path in ("a/3.png", "a/4.png", "a/5.png", "a/6.png", "b/9.png"):
        (tmp_path / "train" / path).write_bytes(b"")
    prepare(f"folder:{tmp_path}", f"{tmp_path}-files", images_per_shard=2)  # a shard has no record
    dataset = data.load(f"records:{tmp_path}-files", size=8)
    assert "5 images could not be read" in dataset.notes[0]
    source = dataset.train
    assert len(source) == len(source.labels) == 15
    wanted = [0, 10, 20, 70, 80, 90, *range(100, 190, 10)]
    np.testing.assert_allclose(reds(source), wanted, atol=2)
    np.testing.assert_array_equal(source.labels, np.array(wanted) >= 100)


def test_options_are_those_of_a_folder(files):
    dataset = data.load(f"records:{files}", size=6, channels=1, interpolation="bicubic")
    assert dataset.train[0]["image"].shape == (6, 6, 1)
    for options in ({"size": 0}, {"channels": 2}, {"interpolation": "cubic"}):
        with pytest.raises(InputError, match=next(iter(options))):
            data.load(f"records:{files}", **options)


def test_enlarging_is_told(files, caplog):
    data.load(f"records:{files}", size=20)
    assert not caplog.records
    with caplog.at_level(logging.WARNING, "jaxnets"):
        assert data.load(f"records:{files}").image_shape == (224, 224, 3)
    assert "20 pixels and are enlarged to 224" in caplog.text


def test_a_tilde_is_home(files, monkeypatch):
    monkeypatch.setenv("HOME", str(files.parent))
    assert len(data.load("records:~/records [y]", size=8).train) == 14


def test_directories_without_prepared_images_are_refused(tmp_path, files):
    for path in (tmp_path, tmp_path / "nowhere", files / "prepared.json"):
        with pytest.raises(InputError, match="jaxnets prepare folder:PATH"):
            data.load(f"records:{path}")
    for text in ("", "[]", "{}", '{"splits": {"train": [{}]}}'):
        (tmp_path / "prepared.json").write_text(text)
        with pytest.raises(InputError, match=r"prepared\.json is damaged"):
            data.load(f"records:{tmp_path}")


@pytest.fixture
def copied(files, tmp_path):
    for path in files.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_a_missing_or_cut_file_is_refused_by_name(copied):
    shard = next(copied.glob("images-train*00002-of*"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(InputError, match=rf"1 of 6 files, such as {shard.name}"):
        data.load(f"records:{copied}")
    shard.unlink()
    with pytest.raises(InputError, match=rf"1 of 6 files, such as {shard.name}"):
        data.load(f"records:{copied}")


def test_what_is_not_complete_or_of_another_version_is_refused(copied):
    manifest = json.loads((copied / "prepared.json").read_text())
    for change, match in (({"complete": False}, "is not complete"), ({"version": 9}, "another version")):
        (copied / "prepared.json").write_text(json.dumps({**manifest, **change}))
        with pytest.raises(InputError, match=match):
            data.load(f"records:{copied}")


@pytest.mark.parametrize("change", [{"splits": {}}, {"size": "8"}])
def test_a_manifest_that_does_not_describe_a_dataset_is_refused(copied, change):
    manifest = json.loads((copied / "prepared.json").read_text())
    (copied / "prepared.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(InputError, match=r"prepared\.json is damaged"):
        data.load(f"records:{copied}", size=8)


@pytest.mark.parametrize("labels", [None, b"", b"text", [0], [77] * 14, [0.5] * 14, [{}] * 14])
def test_labels_that_are_gone_or_damaged_are_refused(copied, labels):
    path = copied / "train-labels.npy"
    path.unlink()
    if isinstance(labels, bytes):
        path.write_bytes(labels)
    elif labels is not None:
        np.save(path, labels)
    with pytest.raises(InputError, match=r"train-labels\.npy is damaged \((?!.*pickle).*\): remove"):
        data.load(f"records:{copied}", size=8)


def test_a_damaged_file_is_an_error_of_a_line_when_it_is_read(copied):
    shard = next(copied.glob("images-train*00001-of*"))
    shard.write_bytes(b"\xff" * shard.stat().st_size)
    source = data.load(f"records:{copied}", size=8).train
    with pytest.raises(
        InputError, match="images-train.*00001-of.* cannot be read.*remove it and run"
    ) as error:
        source[4]
    assert "\n" not in str(error.value)
