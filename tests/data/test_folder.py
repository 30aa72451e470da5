"""Images on disk: what is found, what is decoded, and what is refused."""

import io
import logging
import os
import pickle
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxnets import data
from jaxnets.data import decoding, sampling
from jaxnets.data.dataset import read_batch
from jaxnets.data.folder import read_held_out
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
    assert "left out 2 files: .txt 2" in caplog.text


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


def test_listing_opens_no_file(root, monkeypatch):
    def opened(*args, **options):
        raise AssertionError("a file was opened")

    monkeypatch.setattr(Image, "open", opened)
    monkeypatch.setattr("builtins.open", opened)
    assert len(data.load(f"folder:{root}", size=4).train) == 16


def test_broken_files_are_named_when_they_are_read(root, caplog):
    (root / "cat" / "broken.png").write_bytes(b"no image at all")
    (root / "dog" / "empty.jpg").write_bytes(b"")
    dataset = data.load(f"folder:{root}", size=4)
    assert len(dataset.train) + len(dataset.test) == 22
    assert not caplog.records
    for source in dataset.splits.values():
        list(data.eval_batches(source, 8))
    assert len(caplog.records) == 2
    assert all(f"{name}: cannot identify" in caplog.text for name in ("broken.png", "empty.jpg"))


def test_strict_refuses_broken_files_by_name(root):
    (root / "cat" / "broken.png").write_bytes(b"no image at all")
    with pytest.raises(InputError, match=r"1 of 21 images cannot be read.*broken\.png"):
        data.load(f"folder:{root}", strict=True)
    with pytest.raises(InputError, match=r"1 of 21 images cannot be read.*broken\.png"):
        read_held_out(root, strict=True)


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
    neighbor, stand_in = read_batch(dataset.train, np.array([0, bad]))["image"]
    np.testing.assert_array_equal(stand_in, neighbor)


def test_strict_refuses_truncated_images_by_name_when_they_are_read(root):
    truncated_png(root / "dog" / "5.png")
    dataset = data.load(f"folder:{root}", size=4, strict=True)
    with pytest.raises(InputError, match=r"5\.png"):
        list(data.eval_batches(dataset.train, 4))


def test_images_beyond_pillows_limit_get_weight_zero(root, caplog, monkeypatch):
    save(root / "cat" / "huge.png", size=(50, 50))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    dataset = data.load(f"folder:{root}", size=4)
    batches = [batch for part in dataset.splits.values() for batch in data.eval_batches(part, 8)]
    assert sum(batch["weight"].sum() for batch in batches) == 20
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
    with pytest.raises(InputError, match=r"class folders without an image in .*: eel; add images \("):
        data.load(f"folder:{root}")
    (root / "eel" / "notes.txt").write_text("no image")
    (root / "fox").mkdir()
    with pytest.raises(InputError, match="without an image in .*: eel, fox; "):
        data.load(f"folder:{root}")


def test_a_class_of_one_image_cannot_be_split(root):
    save(root / "eel" / "only.png")
    with pytest.raises(InputError, match="'eel'.*one image"):
        data.load(f"folder:{root}")


def split(root, **parts):
    """An image for each class of each part; its red value is the number of the part."""
    for number, (part, classes) in enumerate(parts.items()):
        for name in classes:
            save(root / part / name / "image.png", (number, 0, 0))
    return root


@pytest.mark.parametrize("held_out", ["valid", "Val", "VALIDATION", "dev", "eval", "Test", "testing"])
@pytest.mark.parametrize("train", ["train", "Training"])
def test_folders_with_usual_names_of_splits_are_read_as_these(tmp_path, train, held_out):
    split(tmp_path, **{train: "ab", held_out: "ab"})
    dataset = data.load(f"folder:{tmp_path}", size=4)
    assert dataset.class_names == ("a", "b")
    assert (numbers(dataset.train), numbers(dataset.test)) == ([0, 0], [1, 1])
    assert dataset.notes == (f"{train} (2 images) is trained on, {held_out} (2 images) measures epochs",)


@pytest.mark.parametrize(
    ("train", "held_out"),
    [
        ("train2017", "val2017"),
        ("Training Set", "Test Set"),
        ("train_images", "valid-data"),
        ("train ", "dev "),
    ],
)
def test_names_of_splits_with_a_year_or_a_word_for_data_are_understood(tmp_path, train, held_out):
    dataset = data.load(f"folder:{split(tmp_path, **{train: 'ab', held_out: 'ab'})}", size=4)
    assert dataset.class_names == ("a", "b")
    assert (numbers(dataset.train), numbers(dataset.test)) == ([0, 0], [1, 1])


def test_classes_with_such_names_are_classes(root):
    (root / "cat").rename(root / "test_1")
    (root / "dog").rename(root / "test_2")
    assert data.load(f"folder:{root}", size=4).class_names == ("test_1", "test_2")


def test_val_measures_epochs_and_test_is_for_later(tmp_path):
    dataset = data.load(f"folder:{split(tmp_path, train='ab', test='ab', val='ab')}", size=4)
    assert numbers(dataset.test) == numbers(dataset.split("validation")) == [2, 2]
    assert numbers(dataset.split("test")) == [1, 1]
    assert numbers(dataset.split("train")) == [0, 0]
    (note,) = dataset.notes
    assert note.endswith(
        "val (2 images) measures epochs; test (2 images) is for `jaxnets eval --split test`"
    )


def test_of_train_alone_a_fifth_is_held_out_and_said(tmp_path):
    for name in "ab":
        for number in range(5):
            save(tmp_path / "train" / name / f"{number}.png")
    dataset = data.load(f"folder:{tmp_path}", size=4)
    assert dataset.class_names == ("a", "b")
    assert (len(dataset.train), len(dataset.test)) == (8, 2)
    assert dataset.notes == ("epochs are measured on a fifth of each class, held out (2 images)",)


def test_a_test_folder_without_class_folders_is_left_out_and_said(tmp_path, caplog):
    split(tmp_path, train="ab", val="ab")
    save(tmp_path / "test" / "1.png")
    dataset = data.load(f"folder:{tmp_path}", size=4)
    assert dataset.splits.keys() == {"train", "val"}
    assert dataset.notes[0] == "test has no class folders and is left out"
    assert "images in no class folder 1" in caplog.text


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"valid": "ab"}, "has a folder 'valid' and no 'train' to learn from"),
        (
            {"train": "ab", "val": "ab", "Validation": "ab"},
            "has Validation and val, which mean",
        ),
        (
            {"train": "ab", "test": "ab", "cats": "c"},
            "has test, train with folders .* beside cats",
        ),
        ({"train": "", "test": "ab"}, "train must have a sub-folder for each .* found none"),
        ({"train": "ab", "test": "abc", "val": "ab"}, "test has classes that .*train has not: c; add"),
        ({"train": "a", "test": "ab"}, "found only 'a'"),
    ],
)
def test_folders_that_are_no_clear_splits_are_refused(tmp_path, parts, message):
    for part in parts:
        (tmp_path / part).mkdir()
    with pytest.raises(InputError, match=message):
        data.load(f"folder:{split(tmp_path, **parts)}")


@pytest.mark.parametrize("empty", [False, True])
def test_a_test_part_without_a_class_is_a_warning_that_names_it(tmp_path, caplog, empty):
    split(tmp_path, train="abcd", val="bd")
    for name in "ac" if empty else "":
        (tmp_path / "val" / name).mkdir()
    dataset = data.load(f"folder:{tmp_path}", size=4)
    assert dataset.class_names == tuple("abcd")
    assert dataset.test.labels.tolist() == [1, 3]
    assert "val has no image of 2 of 4 classes: a, c" in caplog.text


def test_a_test_part_without_any_image_is_refused(tmp_path):
    split(tmp_path, train="ab")
    (tmp_path / "val" / "a").mkdir(parents=True)
    with pytest.raises(InputError, match="val has no image of any class; add some, or remove it"):
        data.load(f"folder:{tmp_path}")


def test_classes_are_called_alike_however_their_accents_are_written(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    split(tmp_path, train=["tea", composed], val=["tea", decomposed])
    assert data.load(f"folder:{tmp_path}", size=4).class_names == (composed, "tea")


def test_class_names_are_the_same_in_a_locale_without_utf8(root):
    (root / "cat").rename(root / "ch\u00e2t")
    program = "import sys; from jaxnets import data; print(ascii(data.load(sys.argv[1]).class_names))"
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    found = subprocess.run(
        [sys.executable, "-c", program, f"folder:{root}"],
        env=os.environ | locale, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout.strip() == ascii(("ch\u00e2t", "dog"))


def test_evaluation_takes_the_part_that_is_asked_for(tmp_path, caplog):
    split(tmp_path, train="ab", test="ab", val="ab")
    for name, folder in ((None, "val"), ("dev", "val"), ("test", "test"), ("Train", "train")):
        names, paths, labels = read_held_out(tmp_path, split=name)
        assert names == ("a", "b")
        assert paths == [str(tmp_path / folder / label / "image.png") for label in "ab"]
        assert labels.tolist() == [0, 1]
    assert caplog.text.count("has val and test: val is measured") == 1  # where none was asked for
    with pytest.raises(InputError, match="unknown split of .*'nowhere'"):
        read_held_out(tmp_path, split="nowhere")
    with pytest.raises(InputError, match="split is 'test', but .*has class folders and no splits"):
        read_held_out(tmp_path / "val", split="test")


def test_evaluation_never_takes_the_training_part_by_itself(tmp_path):
    with pytest.raises(InputError, match="unknown split of .*'test'.*train"):
        read_held_out(split(tmp_path, train="ab"))


def test_the_fingerprint_is_that_of_the_names_of_the_files(tmp_path):
    def fingerprint(root):
        return data.load(f"folder:{root}", size=4).fingerprint

    first = fingerprint(split(tmp_path / "one", train="ab", val="ab"))
    assert fingerprint(split(tmp_path / "elsewhere" / "two", train="ab", val="ab")) == first
    assert fingerprint(f"{tmp_path / 'one'}/") == first
    assert fingerprint(split(tmp_path / "three", train="ab", test="ab")) != first
    assert fingerprint(split(tmp_path / "four", train="ac", val="ac")) != first
    (tmp_path / "one" / "val" / "b" / "image.png").rename(tmp_path / "one" / "val" / "b" / "other.png")
    assert fingerprint(tmp_path / "one") != first


def test_transparent_pictures_get_the_chosen_background(tmp_path):
    for name in "ab":
        for number in range(2):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / name / f"{number}.png")
    assert (data.load(f"folder:{tmp_path}", size=4).train[0]["image"] == 255).all()
    dataset = data.load(f"folder:{tmp_path}", size=4, background="lime")
    assert dataset.train[0]["image"][0, 0].tolist() == [0, 255, 0]
    with pytest.raises(InputError, match="background must be a color"):
        data.load(f"folder:{tmp_path}", background="limes")


def test_a_tilde_is_the_home_folder(root, monkeypatch):
    monkeypatch.setenv("HOME", str(root.parent))
    dataset = data.load(f"folder:~/{root.name}", size=4)
    assert dataset.name == f"folder:{root}"
    assert read_held_out(f"~/{root.name}")[0] == ("cat", "dog")


def content(kind):
    """A file: a picture of some format, or none."""
    if kind not in ("PNG", "JPEG", "GIF", "TIFF"):
        return kind.encode()
    buffer = io.BytesIO()
    Image.new("RGBA" if kind == "PNG" else "L", (6, 5), 99).save(buffer, kind)
    return buffer.getvalue()


NAMES = st.one_of(
    st.sampled_from(
        ["train", "Val", "valid", "test", "a[x]", "*", "~", "[bold]", "-r", "a b", "\n", "é"]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8),
    st.binary(min_size=1, max_size=6).map(os.fsdecode),
).filter(lambda name: not {"/", "\0"} & set(name) and name not in (".", ".."))
FILES = st.dictionaries(
    st.tuples(NAMES, st.sampled_from([".png", ".JPG", ".tif", ".gif", ".txt", ""])).map("".join),
    st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "", "no picture"]),
    max_size=3,
)
PICTURES = st.lists(NAMES, min_size=2, max_size=4).map(lambda names: {f"{n}.png": "PNG" for n in names})
CLASSES = st.dictionaries(NAMES, st.one_of(PICTURES, PICTURES, FILES), min_size=2, max_size=3)
SPLITS = st.fixed_dictionaries({"train": CLASSES}, optional={"dev": CLASSES, "TEST": CLASSES})
TREES = st.one_of(CLASSES, SPLITS, st.dictionaries(NAMES, st.one_of(FILES, CLASSES), max_size=4))


def grow(root, tree):
    for name, below in tree.items():
        place = os.path.join(root, name)
        if os.path.lexists(place):  # such as a name in another case, on some disks
            continue
        if isinstance(below, dict):
            os.mkdir(place)
            grow(place, below)
        else:
            with open(place, "wb") as file:
                file.write(content(below))


def read(root, strict):
    """The message of the refusal; None if every image could be asked for."""
    try:
        dataset = data.load(f"folder:{root}", size=4, strict=strict)
        for source in dataset.splits.values():
            for batch in data.eval_batches(source, 4, threads=0):
                assert batch["label"].max() < dataset.num_classes
    except InputError as error:
        return str(error)
    return None


@settings(max_examples=30, deadline=None)
@given(tree=TREES, strict=st.booleans())
def test_any_folder_is_read_or_refused_in_a_line(tree, strict):
    with tempfile.TemporaryDirectory(prefix="[x] ") as root:
        grow(root, tree)
        message = read(root, strict)
        event("read" if message is None else "refused")
        assert message is None or message.isprintable()
