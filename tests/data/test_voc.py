"""Images with objects in Pascal VOC's format."""

import pickle

import pytest
from PIL import Image

from jaxnets import data
from jaxnets.errors import InputError

BOX = ("dog", (5, 3, 14, 12))


def write(root, stem, *objects, size=(20, 40), more="", pictures="JPEGImages", notes="Annotations"):
    """A picture of 40 x 20 (width x height) and the XML file of its objects."""
    for folder in (root / pictures, root / notes):
        folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 20), (0, 9, 0)).save(root / pictures / f"{stem}.jpg")
    told = "".join(
        f"<object><name>{name}</name><bndbox>"
        + "".join(
            f"<{side}>{value}</{side}>"
            for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        + f"</bndbox>{''.join(rest)}</object>"
        for name, box, *rest in objects
    )
    height, width = size
    (root / notes / f"{stem}.xml").write_text(
        f"<annotation><filename>{stem}.jpg</filename><size><width>{width}</width>"
        f"<height>{height}</height><depth>3</depth></size>{told}{more}</annotation>"
    )


def lists(root, **stems):
    (root / "ImageSets/Main").mkdir(parents=True)
    for name, own in stems.items():
        (root / f"ImageSets/Main/{name}.txt").write_text("".join(f"{stem}\n" for stem in own))


def load(root, **options):
    return data.load(f"voc:{root}", **{"size": (30, 20), "boxes": 3} | options)


def test_boxes_count_from_0_and_end_behind_their_last_pixel(tmp_path):
    hand = "<part><name>hand</name><bndbox><xmin>1</xmin><ymin>1</ymin></bndbox></part>"
    write(tmp_path, "1", BOX, ("person", ("45.70", 1, 90, 20), hand, "<difficult>1</difficult>"))
    write(tmp_path, "2")
    lists(tmp_path, train=["1"], val=["2"])
    dataset = load(tmp_path)
    assert len(dataset.class_names) == 20
    truth = dataset.train.truth(0)
    assert truth["boxes"].tolist() == [[4, 2, 14, 12], [44.70, 0, 90, 20]]
    assert [dataset.class_names[label] for label in truth["labels"]] == ["dog", "person"]
    assert truth["difficult"].tolist() == [False, True]
    assert truth["area"][0] == 100
    example = pickle.loads(pickle.dumps(dataset.train))[0]
    assert example["box"].tolist() == [[2, 1, 7, 6], [0] * 4, [0] * 4]  # the other one is outside
    assert not dataset.test[0]["valid"].any()
    assert dataset.test.picture(0) == str(tmp_path / "JPEGImages/2.jpg")


def test_difficult_objects_are_marked(tmp_path):
    for stem in "12":
        write(tmp_path, stem, BOX, (*BOX, "<difficult>1</difficult>"))
    assert load(tmp_path).train[0]["difficult"].tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("stems", "sizes"),
    [
        (
            {"train": "12", "val": "3", "trainval": "123", "test": "45"},
            {"train": 2, "val": 1, "test": 2},
        ),
        ({"trainval": "123", "test": "45"}, {"train": 3, "test": 2}),
        ({"train": "12", "val": "3", "test": "89"}, {"train": 2, "val": 1}),  # not annotated
        ({"test": "45"}, {"train": 4, "test": 1, "all": 5}),
    ],
)
def test_splits_are_those_of_the_image_sets(tmp_path, stems, sizes):
    for stem in "12345":
        write(tmp_path, stem, BOX)
    lists(tmp_path, **stems)
    assert {name: len(part) for name, part in load(tmp_path).splits.items()} == sizes


def test_any_folder_of_such_files_is_read_and_classes_are_those_that_occur(tmp_path):
    for stem in "12345":
        write(
            tmp_path,
            stem,
            ("dog", (1, 1, 3, 3)),
            ("axolotl", (1, 1, 3, 3)),
            size=(0, 0),
            pictures=".",
            notes=".",
        )
    (tmp_path / "2.xml").write_text((tmp_path / "2.xml").read_text().replace("2.jpg", "elsewhere"))
    dataset = load(tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (4, 1)
    assert dataset.class_names == ("axolotl", "dog")
    assert dataset.train[1]["box"][0].tolist() == [0, 0, 1.5, 1.5]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not in VOC's format .*no element found"),
        ("<svg/>", "not in VOC's format .*it is of svg"),
        (
            "<annotation><object><name>cat</name></object></annotation>",
            "not in VOC's format .*an object has no bndbox/xmin",
        ),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', "not in VOC's format .*it declares entities"),
    ],
)
def test_a_file_of_another_format_is_refused_by_name(tmp_path, text, words):
    write(tmp_path, "1", BOX)
    (tmp_path / "Annotations/2.xml").write_text(text)
    with pytest.raises(
        InputError, match=f"2.xml is {words}" if "not in" in words else f"2.xml.*{words}"
    ):
        load(tmp_path)


def test_what_is_missing_is_named(tmp_path):
    write(tmp_path / "VOC2007", "1", BOX)
    write(tmp_path / "VOC2007", "2", BOX, BOX, BOX, BOX)
    with pytest.raises(InputError, match="no XML files.* the folder of a year, such as .*VOC2007"):
        load(tmp_path)
    with pytest.raises(InputError, match="2.jpg has 4 objects, and boxes is 3"):
        load(tmp_path / "VOC2007")
    lists(tmp_path / "VOC2007", train=["1", "3"], val=["2"])
    with pytest.raises(InputError, match="train.txt lists 3, but there is no .*3.xml"):
        load(tmp_path / "VOC2007")
    (tmp_path / "VOC2007/JPEGImages/1.jpg").unlink()
    (tmp_path / "VOC2007/ImageSets/Main/train.txt").write_text("1")
    with pytest.raises(InputError, match="1.xml is of the image 1.jpg, which is in none of"):
        load(tmp_path / "VOC2007")
