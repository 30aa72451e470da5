"""Images on disk: what is found, what is decoded, and what is refused."""

import io
import logging
import pickle

import numpy as np
import pytest
from PIL import Image

from jaxnets import data
from jaxnets.data import decoding, sampling
from jaxnets.errors import InputError


def save(path, color=(200, 0, 0), size=(8, 8), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, **options)


def truncated_png(path):
    """Its header is right and half of its pixels are missing."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue()[: buffer.tell() // 2])


@pytest.fixture
def root(tmp_path):
    """Two classes of ten images; the red value of an image is its number, so none is like another."""
    for label, name in enumerate(("cat", "dog")):
        for number in range(10):
            save(tmp_path / name / f"{number}.png", (100 * label + number, 0, 0))
    return tmp_path


def numbers(source):
    return [int(source[index]["image"][0, 0, 0]) for index in range(len(source))]


def test_a_folder_a_class_is_split_into_the_same_stratified_fifth(root):
    dataset = data.load(f"folder:{root}", size=4)
    assert dataset.name == f"folder:{root}"
    assert dataset.class_names == ("cat", "dog")
    assert dataset.image_shape == (4, 4, 3)
    np.testing.assert_array_equal(np.bincount(dataset.train.labels), [8, 8])
    np.testing.assert_array_equal(np.bincount(dataset.test.labels), [2, 2])
    train, test = numbers(dataset.train), numbers(dataset.test)
    assert sorted(train + test) == [*range(10), *range(100, 110)]
    assert [number // 100 for number in train] == dataset.train.labels.tolist()
    assert numbers(data.load(f"folder:{root}", size=4).test) == test
    example = dataset.train[0]
    assert example["image"].dtype == np.uint8
    assert example["label"].dtype == np.int32


def test_small_classes_lend_an_image_to_each_part():
    train, test = sampling.split(np.array([0, 0, 1, 1, 1]))
    assert sorted([*train, *test]) == [0, 1, 2, 3, 4]
    assert (len(train), len(test)) == (3, 2)


@pytest.mark.parametrize("held_out", ["test", "val", "validation"])
def test_train_and_test_folders_are_taken_as_they_are(tmp_path, held_out):
    for split, red in (("train", 10), (held_out, 20)):
        for name in ("a", "b"):
            save(tmp_path / split / name / "image.png", (red, 0, 0))
    dataset = data.load(f"folder:{tmp_path}", size=4)
    assert dataset.class_names == ("a", "b")
    assert (numbers(dataset.train), numbers(dataset.test)) == ([10, 10], [20, 20])


def test_a_class_may_be_called_train(tmp_path):
    for name in ("bus", "train"):
        for number in range(2):
            save(tmp_path / name / f"{number}.png")
    assert data.load(f"folder:{tmp_path}").class_names == ("bus", "train")


def test_every_case_of_extension_counts_and_folders_within_a_class_belong_to_it(tmp_path, caplog):
    for name in ("a", "b"):
        save(tmp_path / name / "1.PNG")
        save(tmp_path / name / "2.Jpg")
        save(tmp_path / name / "deeper" / "3.JPEG")
        save(tmp_path / name / ".hidden.png")
        save(tmp_path / ".cache" / name / "4.png")
        (tmp_path / name / "notes.txt").write_text("not an image")
    dataset = data.load(f"folder:{tmp_path}", size=4)
    assert dataset.class_names == ("a", "b")
    assert len(dataset.train) + len(dataset.test) == 6
    assert "2 files" in caplog.text


def test_the_shorter_side_is_fitted_and_the_middle_kept(tmp_path):
    """Of bands red, green, blue in a row, the middle third is green; so it is for a column."""
    bands = np.repeat(np.eye(3, dtype=np.uint8) * 255, 20, axis=0)  # 60 pixels of three bands
    across = np.broadcast_to(bands, (20, 60, 3))
    for name, image in (("across", across), ("down", across.swapaxes(0, 1))):
        path = tmp_path / f"{name}.png"
        Image.fromarray(np.ascontiguousarray(image)).save(path)
        fitted = decoding.decode(str(path), 10, 3)
        np.testing.assert_array_equal(fitted[1:-1, 1:-1], np.broadcast_to([0, 255, 0], (8, 8, 3)))


def test_shrinking_averages(tmp_path):
    """A board of single black and white pixels becomes gray, not black or white."""
    board = np.indices((64, 64)).sum(0) % 2 * 255
    Image.fromarray(board.astype(np.uint8)).save(tmp_path / "board.png")
    assert abs(decoding.decode(str(tmp_path / "board.png"), 8, 1).astype(int) - 127.5).max() < 10


def test_exif_orientation_is_honored(tmp_path):
    """Orientation 6: what is shown is the stored image turned a quarter clockwise."""
    stored = np.zeros((16, 16, 3), np.uint8)
    stored[:, :8] = 255  # white on the left
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    shown = decoding.decode(str(tmp_path / "turned.jpg"), None, 1)[..., 0]
    assert shown[:6].min() > 240  # now on top
    assert shown[10:].max() < 15


def test_modes_become_eight_bits_of_gray_or_rgb(tmp_path):
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    deep = Image.fromarray(np.full((4, 4), 0x4080, np.uint16))
    cases = {
        "palette": (red.convert("P"), (255, 0, 0)),
        "alpha": (red.convert("RGBA"), (255, 0, 0)),
        "bits": (Image.new("1", (4, 4), 1), (255, 255, 255)),
        "deep": (deep, (0x40, 0x40, 0x40)),
    }
    for name, (image, wanted) in cases.items():
        image.save(tmp_path / f"{name}.png")
        pixels = decoding.decode(str(tmp_path / f"{name}.png"), 4, 3)
        np.testing.assert_array_equal(pixels, np.broadcast_to(wanted, (4, 4, 3)), err_msg=name)
    gray = decoding.decode(str(tmp_path / "palette.png"), 4, 1)
    assert gray.shape == (4, 4, 1)
    assert set(gray.ravel()) == {76}  # 0.299 * 255
    red.convert("CMYK").save(tmp_path / "print.jpg")
    assert decoding.decode(str(tmp_path / "print.jpg"), 4, 3)[0, 0].argmax() == 0


def test_broken_files_are_named_and_left_out(root, caplog):
    (root / "cat" / "broken.png").write_bytes(b"no image at all")
    (root / "dog" / "empty.jpg").write_bytes(b"")
    dataset = data.load(f"folder:{root}", size=4)
    assert len(dataset.train) + len(dataset.test) == 20
    assert len(caplog.records) == 1
    assert all(text in caplog.text for text in ("2 of 22", "broken.png", "empty.jpg"))


def test_strict_refuses_broken_files_by_name(root):
    (root / "cat" / "broken.png").write_bytes(b"no image at all")
    with pytest.raises(InputError, match=r"broken\.png"):
        data.load(f"folder:{root}", strict=True)


def test_truncated_images_get_weight_zero_and_are_named_once(root, caplog):
    truncated_png(root / "dog" / "5.png")
    dataset = data.load(f"folder:{root}", size=4)
    assert len(dataset.train) + len(dataset.test) == 20
    assert not caplog.records  # the header is in order
    with caplog.at_level(logging.WARNING, "jaxnets"):
        for _ in range(2):
            batches = [
                batch
                for source in (dataset.train, dataset.test)
                for batch in data.eval_batches(source, 4)
            ]
    assert sum(batch["weight"].sum() for batch in batches) == 19
    assert caplog.text.count("5.png") == 1
    bad = next(index for index, path in enumerate(dataset.train.paths) if path.endswith("dog/5.png"))
    example = dataset.train[bad]
    assert not example["image"].any()
    assert (example["label"], example["weight"]) == (1, 0)


def test_strict_refuses_truncated_images_by_name_when_they_are_read(root):
    truncated_png(root / "dog" / "5.png")
    dataset = data.load(f"folder:{root}", size=4, strict=True)
    with pytest.raises(InputError, match=r"5\.png"):
        list(data.eval_batches(dataset.train, 4))


def test_images_beyond_pillows_limit_are_left_out(root, caplog, monkeypatch):
    save(root / "cat" / "huge.png", size=(50, 50))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    dataset = data.load(f"folder:{root}", size=4)
    assert len(dataset.train) + len(dataset.test) == 20
    assert "huge.png" in caplog.text


def test_folder_sources_pickle(root):
    source = data.load(f"folder:{root}", size=4).train
    assert numbers(pickle.loads(pickle.dumps(source))) == numbers(source)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        data.load(f"folder:{tmp_path / 'nowhere'}")
    save(tmp_path / "image.png")
    with pytest.raises(InputError, match="is not a folder"):
        data.load(f"folder:{tmp_path / 'image.png'}")


def test_folders_without_two_classes_are_refused(tmp_path):
    with pytest.raises(InputError, match="found none"):
        data.load(f"folder:{tmp_path}")
    save(tmp_path / "only" / "image.png")
    with pytest.raises(InputError, match="found only 'only'"):
        data.load(f"folder:{tmp_path}")


def test_a_class_without_images_is_refused_by_name(root):
    (root / "eel").mkdir()
    with pytest.raises(InputError, match="eel has no readable"):
        data.load(f"folder:{root}")
    (root / "eel" / "broken.png").write_bytes(b"")
    with pytest.raises(InputError, match="eel has no readable"):
        data.load(f"folder:{root}")


def test_a_class_of_one_image_cannot_be_split(root):
    save(root / "eel" / "only.png")
    with pytest.raises(InputError, match="'eel'.*one image"):
        data.load(f"folder:{root}")


def test_train_and_test_of_different_classes_are_refused(tmp_path):
    for path in ("train/a", "train/b", "val/a", "val/c"):
        save(tmp_path / path / "image.png")
    with pytest.raises(InputError, match="b, c"):
        data.load(f"folder:{tmp_path}")
