"""Pictures with label maps: where they are read from, how they are scaled, and what is refused."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from jaxnets import data
from jaxnets.data.dataset import read_batch
from jaxnets.data.example import IGNORE
from jaxnets.data.labels import LabelFiles
from jaxnets.data.scenes import DIGITS, SceneSource
from jaxnets.data.sources import options_of
from jaxnets.errors import InputError

HEIGHT, WIDTH = 20, 40
NAMES = ("background", "left", "right")
PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0] + [9] * (3 * 252) + [224, 224, 192]


def halves(left=1, right=2):
    """A picture of two halves, below a row of the background, in which pixels of 255 are ignored."""
    labels = np.full((HEIGHT, WIDTH), left, np.uint8)
    labels[:, WIDTH // 2 :] = right
    labels[0] = 0
    labels[0, :4] = IGNORE
    return labels


def colored(labels):
    """A picture whose red is its label, times 80."""
    return np.stack([np.where(labels == IGNORE, 0, labels * np.uint8(80))] * 3, -1).astype(np.uint8)


def write(root, stem, labels=None, picture=None, palette=False, ending=".png", part=""):
    """An image and its label map in `images` and `labels`."""
    labels = halves() if labels is None else labels
    for name in ("images", "labels"):
        (root / name / part).mkdir(parents=True, exist_ok=True)
    picture = colored(labels) if picture is None else picture
    Image.fromarray(picture).save(root / "images" / part / f"{stem}{ending}")
    image = Image.fromarray(labels)
    if palette:
        image.putpalette(PALETTE)
    image.save(root / "labels" / part / f"{stem}.png")


def load(root, **options):
    return data.load(f"folder:{root}", segmentation=True, **{"size": (30, 20)} | options)


def files(root, stems="12345", classes=NAMES, **options):
    for stem in stems:
        write(root, stem, **options)
    if classes:
        (root / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
    return root


@pytest.mark.parametrize("spec", ["scenes", "coco:x", "voc:x", "folder:x", "tfds:x"])
def test_it_is_an_option_of_all_that_have_label_maps(spec):
    assert "segmentation" in options_of(spec)


def test_an_example_is_a_picture_and_its_label_map_on_a_canvas(tmp_path):
    dataset = load(files(tmp_path))
    assert (len(dataset.train), len(dataset.test), len(dataset.split("all"))) == (4, 1, 5)
    assert dataset.class_names == dataset.train.class_names == NAMES
    source = pickle.loads(pickle.dumps(dataset.split("all")))
    example = source[0]
    types = {name: (str(value.dtype), value.shape) for name, value in example.items()}
    assert types == {
        "image": ("uint8", (30, 20, 3)),
        "segmentation": ("uint8", (30, 20)),
        "size": ("int32", (2,)),
        "ratio": ("float32", (2,)),
    }
    assert example["size"].tolist() == [10, 20]  # 20 x 40 becomes 10 x 20
    assert example["ratio"].tolist() == [0.5, 0.5]
    assert (example["segmentation"][10:] == IGNORE).all()
    np.testing.assert_array_equal(example["segmentation"][:10], halves()[1::2, 1::2])
    assert not example["image"][10:].any()
    assert (example["image"][2:10, :9] == 80).all()
    assert (example["image"][2:10, 11:] == 160).all()
    np.testing.assert_array_equal(source.truth(0), halves())
    assert source.truth(0).dtype == np.uint8
    assert source.picture(0) == str(tmp_path / "images/1.png")
    batch = next(data.eval_batches(dataset.train, 3))
    assert batch["segmentation"].shape == (3, 30, 20)
    assert batch["segmentation"].dtype == np.uint8
    assert dataset.train.truth(0).shape == (HEIGHT, WIDTH)  # also of a part of a set


@pytest.mark.parametrize("canvas", [(13, 31), (47, 33), (20, 40), 64, (1, 1)])
def test_label_maps_are_scaled_as_pillow_does_to_the_nearest_pixel(tmp_path, canvas):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 250, (HEIGHT + 1, WIDTH + 3), np.uint8)
    write(tmp_path, "1", labels, picture=np.stack([labels] * 3, -1))
    paths = [[str(tmp_path / name / "1.png")] for name in ("images", "labels")]
    names = tuple(map(str, range(250)))
    example = LabelFiles(*paths, names, size=canvas, interpolation="nearest")[0]
    height, width = example["size"]
    shown = example["segmentation"][:height, :width]
    np.testing.assert_array_equal(shown, example["image"][:height, :width, 0])
    np.testing.assert_array_equal(
        shown, Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST)
    )
    assert (example["segmentation"][height:] == IGNORE).all()
    assert (example["segmentation"][:, width:] == IGNORE).all()


@pytest.mark.parametrize("kind", ["gray", "palette", "16 bits", "4 bits", "1 bit"])
def test_labels_are_numbers_of_any_format(tmp_path, kind):
    files(tmp_path)
    wanted = halves()
    path = tmp_path / "labels/3.png"
    if kind == "palette":
        image = Image.fromarray(wanted)
        image.putpalette(PALETTE)
        image.save(path)
    elif kind == "16 bits":
        Image.fromarray(wanted.astype(np.uint16)).save(path)
    elif kind == "4 bits":  # of which Pillow makes 8
        wanted = np.where(wanted == IGNORE, 0, wanted)
        Image.fromarray(wanted * 17).save(path, bits=4)
    elif kind == "1 bit":
        wanted = (wanted == 1).astype(np.uint8)
        Image.fromarray(wanted.astype(bool)).save(path)
    source = load(tmp_path).split("all")
    np.testing.assert_array_equal(source.truth(2), wanted)
    np.testing.assert_array_equal(source[2]["segmentation"][:10], wanted[1::2, 1::2])


def test_without_names_classes_are_counted_and_it_is_said(tmp_path):
    files(tmp_path, classes=None)
    write(tmp_path, "deep", halves(1, 4), part="more/deep")
    dataset = load(tmp_path)
    assert dataset.class_names == ("0", "1", "2", "3", "4")
    assert dataset.split("all").picture(5).endswith("images/more/deep/deep.png")
    assert any("classes.txt" in note for note in dataset.notes)
    for stem in ("1", "2", "3", "4", "5"):
        write(tmp_path, stem, halves(0, 0))
    (tmp_path / "labels/more/deep/deep.png").unlink()
    (tmp_path / "images/more/deep/deep.png").unlink()
    with pytest.raises(InputError, match="the 5 label maps have no labels but 0 and 255"):
        load(tmp_path)


def test_splits_are_folders_of_both(tmp_path, caplog):
    for part, stems in {"train": "123", "validation": "45", "test2017": "6"}.items():
        files(tmp_path, stems, part=part)
    write(tmp_path, "7")
    write(tmp_path, "8", part="more")
    (tmp_path / "labels/train/spare.png").write_bytes((tmp_path / "labels/train/1.png").read_bytes())
    (tmp_path / "images/train/notes.txt").write_text("none")
    dataset = load(tmp_path)
    assert {name: len(part) for name, part in dataset.splits.items()} == {
        "train": 3,
        "val": 2,
        "test": 1,
    }
    assert "left out 3 files: images of no split 1, other folders 1, .txt 1" in caplog.text
    assert any("1 label maps in" in note and "have no image" in note for note in dataset.notes)
    for part in ("validation", "test2017"):
        (tmp_path / "images" / part).rename(tmp_path / part)
    assert (len(load(tmp_path).train), len(load(tmp_path).test)) == (2, 1)  # of 3, a fifth is held out
    (tmp_path / "validation").rename(tmp_path / "images/val")
    with pytest.raises(InputError, match="labels/val cannot be listed"):
        load(tmp_path)
    (tmp_path / "images/train").rename(tmp_path / "train")
    with pytest.raises(InputError, match="has a folder 'val' and no 'train'"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ("one", "classes.txt: .* of 2 to 255 classes, .* there are only 'one'"),
        ("a\n\nb", "classes.txt has no name on line 2"),
        ("a\nb\na", "classes.txt has a on two lines"),
        ("\n".join(map(str, range(256))), "classes.txt: .* there are 256"),
    ],
)
def test_names_that_name_no_classes_are_refused(tmp_path, classes, words):
    files(tmp_path, classes=None)
    (tmp_path / "classes.txt").write_text(classes)
    with pytest.raises(InputError, match=words):
        load(tmp_path)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match="has no folder 'images'; wanted images/ and, with a .png"):
        load(tmp_path)
    files(tmp_path)
    (tmp_path / "labels/3.png").rename(tmp_path / "labels/3.jpg")
    with pytest.raises(InputError, match=r"images/3.png has no label map .*labels/3.png; .*3.jpg must"):
        load(tmp_path)
    (tmp_path / "labels/3.jpg").unlink()
    with pytest.raises(InputError, match=r"images/3.png has no label map .*labels/3.png; add it, or"):
        load(tmp_path)
    for image in (tmp_path / "images").iterdir():
        image.unlink()
    with pytest.raises(InputError, match="images holds no image"):
        load(tmp_path)
    with pytest.raises(InputError, match="is not a folder; wanted one with folders images and labels"):
        load(tmp_path / "elsewhere")


def refused(source, index, words):
    """That an example is refused in a line that names its file, however lenient, and so is a batch."""
    for read in (lambda: source[index], lambda: read_batch(source, np.arange(5))):
        with pytest.raises(InputError, match=words) as raised:
            read()
        assert "\n" not in str(raised.value)


def test_a_label_map_of_another_size_is_refused_by_name(tmp_path):
    files(tmp_path)
    Image.fromarray(halves()[1:]).save(tmp_path / "labels/2.png")
    words = r"labels/2.png is 19 x 40 \(height x width\), and its picture .*images/2.png is 20 x 40;"
    refused(load(tmp_path).split("all"), 1, words)
    Image.fromarray(halves().T).save(tmp_path / "labels/2.png")
    refused(load(tmp_path).split("all"), 1, "labels/2.png is 40 x 20 .*EXIF orientation")


def test_a_picture_that_its_orientation_turns_has_the_label_map_of_what_is_seen(tmp_path):
    files(tmp_path)
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn
    Image.fromarray(np.rot90(colored(halves()))).save(tmp_path / "images/2.png", exif=exif)
    example = load(tmp_path).split("all")[1]
    assert (example["image"][2:10, 11:] == 160).all()
    np.testing.assert_array_equal(example["segmentation"][:10], halves()[1::2, 1::2])


@pytest.mark.parametrize("classes", [NAMES, None])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_label_map_of_colors_is_refused_with_some_of_them(tmp_path, classes, mode):
    files(tmp_path, classes=classes)
    Image.fromarray(colored(halves())).convert(mode).save(tmp_path / "labels/2.png")
    words = r"labels/2.png has colors, such as .*\(80, 80, 80\).*: convert it to one channel"
    if classes is None:
        with pytest.raises(InputError, match=words):
            load(tmp_path)
    else:
        refused(load(tmp_path).split("all"), 1, words)
        with pytest.raises(InputError, match=words):
            load(tmp_path).split("all").truth(1)


def test_a_label_above_the_classes_is_refused_by_name(tmp_path):
    files(tmp_path)
    write(tmp_path, "4", halves(1, 3))
    source = load(tmp_path).split("all")
    refused(source, 3, "labels/4.png has the label 3, and there are 3 classes, of labels from 0 to 2")
    with pytest.raises(InputError, match="labels/4.png has the label 3"):
        source.truth(3)
    high = halves().astype(np.uint16)
    high[5, 5] = 256
    Image.fromarray(high).save(tmp_path / "labels/4.png")
    refused(source, 3, "labels/4.png has the label 256, and")  # and not 0, which it is in 8 bits
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(InputError, match="labels/4.png has the label 256; wanted labels below 255"):
        load(tmp_path)
    high[5, 5] = 9
    Image.fromarray(-high.astype(np.int32)).save(tmp_path / "labels/4.tif")
    with pytest.raises(InputError, match="4.tif has the label"):
        LabelFiles(source.paths[3:4], [str(tmp_path / "labels/4.tif")], NAMES).truth(0)


@pytest.mark.parametrize("folder", ["images", "labels"])
def test_what_cannot_be_decoded_gets_no_weight_and_is_named_once(tmp_path, caplog, folder):
    files(tmp_path)
    path = tmp_path / folder / "3.png"
    path.write_bytes(path.read_bytes()[:60])
    source = load(tmp_path).split("all")
    assert source[2]["weight"] == source[2]["weight"] == 0
    assert (source[2]["segmentation"] == IGNORE).all()
    assert caplog.text.count(f"{folder}/3.png") == 1
    batch = read_batch(source, np.arange(7))
    assert batch["weight"].tolist() == [1, 1, 0, 1, 1, 0, 0]
    np.testing.assert_array_equal(batch["segmentation"][2], batch["segmentation"][3])
    strict = load(tmp_path, strict=True).split("all")
    with pytest.raises(InputError, match=f"cannot decode .*{folder}/3.png"):
        strict[2]
    if folder == "labels":
        np.testing.assert_array_equal(source.truth(2), np.full((HEIGHT, WIDTH), IGNORE))
        with pytest.raises(InputError, match="cannot decode .*labels/3.png"):
            strict.truth(2)
    path.write_text("nothing")
    with pytest.raises(InputError, match="1 of 10 images cannot be read"):
        load(tmp_path, strict=True)


def voc(root, train="123", val="45", **lists):
    """A folder as VOC's, of pictures that are JPEG files."""
    for stem in "123456":
        write(root, stem, halves(15, 20), palette=True, ending=".jpg")
    (root / "images").rename(root / "JPEGImages")
    (root / "labels").rename(root / "SegmentationClass")
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    for name, stems in {"train": train, "val": val, **lists}.items():
        (root / f"ImageSets/Segmentation/{name}.txt").write_text("".join(f"{stem}\n" for stem in stems))


def test_voc_has_its_palettes_indices_and_its_lists(tmp_path):
    voc(tmp_path, trainval="12345", test="789")
    dataset = data.load(f"voc:{tmp_path}", segmentation=True, size=32)
    assert len(dataset.class_names) == 21
    assert [dataset.class_names[label] for label in (0, 15, 20)] == ["background", "person", "tvmonitor"]
    assert {name: len(part) for name, part in dataset.splits.items()} == {"train": 3, "val": 2}
    np.testing.assert_array_equal(dataset.train.truth(1), halves(15, 20))
    assert dataset.train.picture(1) == str(tmp_path / "JPEGImages/2.jpg")
    example = dataset.train[0]
    assert example["size"].tolist() == [16, 32]
    assert set(np.unique(example["segmentation"])) == {0, 15, 20, IGNORE}
    whole = tmp_path / "ImageSets/Segmentation"
    for name in ("train", "val", "trainval", "test"):
        (whole / f"{name}.txt").unlink()
    assert len(data.load(f"voc:{tmp_path}", segmentation=True).split("all")) == 6


def test_what_is_missing_of_voc_is_named(tmp_path):
    root = tmp_path / "VOC2012"
    voc(root)
    with pytest.raises(InputError, match="no label images in SegmentationClass/; give .*VOC2012"):
        data.load(f"voc:{tmp_path}", segmentation=True)
    (root / "SegmentationClass/2.png").unlink()
    with pytest.raises(InputError, match="train.txt lists 2, but there is no .*SegmentationClass/2.png"):
        data.load(f"voc:{root}", segmentation=True)
    (root / "ImageSets/Segmentation/train.txt").write_text("1\n3\n")
    (root / "JPEGImages/3.jpg").unlink()
    with pytest.raises(InputError, match="3.png is of the image 3.jpg, which is in none of"):
        data.load(f"voc:{root}", segmentation=True)


def coco(root, annotations, count=5):
    """Pictures of 40 x 20 (width x height) of two categories."""
    images = [
        {"id": n, "file_name": f"{n}.png", "height": HEIGHT, "width": WIDTH} for n in range(1, 1 + count)
    ]
    for image in images:
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / image["file_name"])
    categories = [{"id": 7, "name": "seven"}, {"id": 3, "name": "three"}]
    told = {"images": images, "categories": categories, "annotations": annotations}
    (root / "instances.json").write_text(json.dumps(told))
    return data.load(f"coco:{root}", segmentation=True, size=(30, 20))


def thing(image, left, top, width, height, category=7, **more):
    right, bottom = left + width, top + height
    corners = [left, top, right, top, right, bottom, left, bottom]
    found = {"id": 1, "image_id": image, "bbox": [left, top, width, height], "category_id": category}
    return found | {"segmentation": [corners]} | more


def test_cocos_masks_become_label_maps_where_overlaps_are_ignored(tmp_path):
    run_lengths = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT, HEIGHT * (WIDTH - 1)]}
    dataset = coco(
        tmp_path,
        [
            thing(1, 4, 2, 10, 10, 3),
            thing(1, 8, 2, 10, 10, 7),
            thing(1, 0, 0, 1, HEIGHT, 7, segmentation=run_lengths, iscrowd=1),
            thing(2, 4, 2, 10, 10, 7),
            thing(2, 6, 4, 2, 2, 7),
        ],
    )
    assert dataset.class_names == ("background", "three", "seven")
    source = pickle.loads(pickle.dumps(dataset.split("all")))
    wanted = np.zeros((HEIGHT, WIDTH), np.uint8)
    wanted[:, 0] = 2  # a crowd
    wanted[2:12, 4:14] = 1
    wanted[2:12, 8:18] = 2
    wanted[2:12, 8:14] = IGNORE
    np.testing.assert_array_equal(source.truth(0), wanted)
    np.testing.assert_array_equal(source[0]["segmentation"][:10], wanted[1::2, 1::2])
    assert (source.truth(1)[4:6, 6:8] == IGNORE).all()  # also of one class
    assert not source.truth(2).any()
    assert source.picture(2) == str(tmp_path / "3.png")


def test_cocos_pictures_of_another_size_are_refused_by_name(tmp_path):
    source = coco(tmp_path, []).split("all")
    Image.new("RGB", (WIDTH, HEIGHT + 1)).save(tmp_path / "2.png")
    refused(source, 1, "the label map of .*2.png is 20 x 40 .*, and its picture .*2.png is 21 x 40;")


def test_scenes_have_the_background_and_ten_digits():
    dataset = data.load("scenes", size=48, count=9, objects=5, segmentation=True)
    assert dataset.class_names == ("background", *DIGITS)
    assert (len(dataset.train), len(dataset.test)) == (9, 2000)
    source, plain = pickle.loads(pickle.dumps(dataset.train)), SceneSource("train", size=48, objects=5)
    for index in range(9):
        example, scene = source[index], plain.scene(index)
        assert set(example) == {"image", "size", "ratio", "segmentation"}
        np.testing.assert_array_equal(example["image"], scene.image)
        np.testing.assert_array_equal(example["segmentation"], source.truth(index))
        assert example["segmentation"].dtype == np.uint8
        assert set(np.unique(example["segmentation"])) == {0, *(scene.labels + 1)}
        for label, mask in zip(scene.labels, scene.masks, strict=True):
            assert (example["segmentation"][mask] == label + 1).all()
    assert next(data.train_batches(dataset.train, 4, seed=0))["segmentation"].shape == (4, 48, 48)
