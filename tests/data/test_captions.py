"""Images with captions in COCO's format."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxnets import data
from jaxnets.errors import InputError


def write(root, name, numbers, folder, captions=2):
    """Pictures whose green value is their number, and the JSON file that describes them."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        Image.new("RGB", (9, 7), (0, number, 0)).save(root / folder / f"{number:04}.png")
    content = {
        "images": [{"id": number, "file_name": f"{number:04}.png"} for number in numbers],
        "annotations": [
            {"image_id": number, "id": 10 * number + k, "caption": f"picture {number}, told {k}"}
            for k in range(captions)
            for number in numbers
        ],
    }
    (root / name).write_text(json.dumps(content))
    return content


def numbers(source):
    """The pictures of a source, which must be what their captions say."""
    found = []
    for index in range(len(source)):
        number = int(source[index]["image"][0, 0, 1])
        assert source.captions(index) == (f"picture {number}, told 0", f"picture {number}, told 1")
        found.append(number)
    return sorted(found)


def test_coco_as_it_is_unpacked(tmp_path):
    write(tmp_path, "annotations/captions_train2014.json", range(5), "train2014")
    write(tmp_path, "annotations/captions_val2014.json", range(5, 8), "val2014")
    (tmp_path / "annotations/instances_val2014.json").write_text("{}")
    dataset = data.load(f"captions:{tmp_path}", size=4)
    assert dataset.image_shape == (4, 4, 3)
    assert dataset.class_names == ()
    assert numbers(dataset.train) == [0, 1, 2, 3, 4]
    assert numbers(dataset.test) == [5, 6, 7]


@pytest.mark.parametrize("folder", [".", "images"])
def test_of_a_single_file_a_fifth_is_held_out(tmp_path, folder):
    write(tmp_path, "captions.json", range(10), folder)
    dataset = data.load(f"captions:{tmp_path}", size=4)
    assert len(dataset.test) == 2
    assert sorted(numbers(dataset.train) + numbers(dataset.test)) == list(range(10))
    again = data.load(f"captions:{tmp_path}", size=4)
    assert numbers(again.test) == numbers(dataset.test)


def test_images_without_a_caption_are_left_out_by_name_or_refused(tmp_path, caplog):
    content = write(tmp_path, "captions.json", range(6), ".")
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 3]
    (tmp_path / "captions.json").write_text(json.dumps(content))
    dataset = data.load(f"captions:{tmp_path}", size=4)
    assert sorted(numbers(dataset.train) + numbers(dataset.test)) == [0, 1, 2, 4, 5]
    assert "1 images" in caplog.text
    assert "0003.png" in caplog.text
    with pytest.raises(InputError, match="no caption, the first is 0003.png"):
        data.load(f"captions:{tmp_path}", size=4, strict=True)


def test_an_image_that_cannot_be_decoded_has_no_weight(tmp_path, caplog):
    write(tmp_path, "captions.json", range(4), ".")
    for path in tmp_path.glob("*.png"):
        path.write_bytes(path.read_bytes()[:40])
    source = data.load(f"captions:{tmp_path}", size=4).train
    assert source[0]["weight"] == 0
    assert "cannot decode" in caplog.text
    assert np.all(next(data.eval_batches(source, 2))["weight"] == 0)


def test_an_image_that_cannot_be_decoded_does_not_count_in_the_statistics(tmp_path):
    write(tmp_path, "captions.json", range(200, 220), ".")
    source = data.load(f"captions:{tmp_path}", size=4).train
    whole = data.channel_statistics(source)
    lost = source.paths[3]
    lost.write_bytes(lost.read_bytes()[:40])
    mean, _ = data.channel_statistics(source)
    rest = len(source) * whole[0][1] - int(lost.stem) / 255
    assert mean[1] == pytest.approx(rest / (len(source) - 1))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not in COCO's format"),
        ("[]", "not in COCO's format"),
        ('{"images": [], "annotations": []}', "has no captions"),
        ('{"images": [{"id": 1, "file_name": "a.png"}], "annotations": []}', "has no captions"),
        ('{"images": [], "annotations": [{"image_id": 3, "caption": "x"}]}', "image_id 3, but no image"),
        (
            '{"images": [{"id": 1, "file_name": "a.png"}], '
            '"annotations": [{"image_id": 1, "caption": "x"}]}',
            "names the image a.png, which is in none of",
        ),
    ],
)
def test_a_file_that_describes_nothing_is_named(tmp_path, text, words):
    (tmp_path / "captions.json").write_text(text)
    with pytest.raises(InputError, match=words):
        data.load(f"captions:{tmp_path}")


def told(tmp_path, images, annotations, held_out=("e.png", "what is held out")):
    """What is said of each training picture, by files whose names are given with their ids."""
    for name, entries, own in (
        ("captions_train.json", images, annotations),
        ("captions_test.json", [(0, held_out[0])], [(0, held_out[1])]),
    ):
        for _, file in entries:
            Image.new("RGB", (4, 4)).save(tmp_path / file)
        content = {
            "images": [{"id": key, "file_name": file} for key, file in entries],
            "annotations": [{"image_id": key, "caption": caption} for key, caption in own],
        }
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8-sig")
    source = data.load(f"captions:{tmp_path}", size=4).train
    return [(source.paths[index].name, source.captions(index)) for index in range(len(source))]


def test_val_measures_epochs_and_test_is_left_for_the_end(tmp_path):
    for name, own in (("train", range(5)), ("dev", range(5, 8)), ("test", range(8, 10))):
        write(tmp_path, f"annotations/captions_mine_{name}2014.json", own, "images")
    dataset = data.load(f"captions:{tmp_path}", size=4)
    assert numbers(dataset.test) == [5, 6, 7]
    assert numbers(dataset.split("test")) == [8, 9]
    assert "captions_mine_dev2014.json (3 images) measures epochs" in dataset.notes[0]


def test_two_entries_of_one_file_keep_their_own_captions(tmp_path):
    assert told(tmp_path, [(1, "a.png"), (2, "a.png"), (3, "a.png")], [(1, "one"), (3, "three")]) == [
        ("a.png", ("one",)),
        ("a.png", ("three",)),
    ]


def test_entries_of_one_file_are_held_out_together(tmp_path):
    content = write(tmp_path, "captions.json", range(10), ".", captions=1)
    content["images"] += [{**image, "id": image["id"] + 100} for image in content["images"]]
    content["annotations"] += [
        {**own, "image_id": own["image_id"] + 100} for own in content["annotations"]
    ]
    (tmp_path / "captions.json").write_text(json.dumps(content))
    dataset = data.load(f"captions:{tmp_path}", size=4)
    assert (len(dataset.train), len(dataset.test)) == (16, 4)
    assert not {*dataset.train.paths} & {*dataset.test.paths}


def test_an_id_of_two_images_is_named(tmp_path):
    with pytest.raises(InputError, match="two images of id 7, a.png and b.png"):
        told(tmp_path, [(7, "a.png"), (7, "b.png")], [(7, "one")])


@pytest.mark.parametrize("caption", ["", "  ", ".", None, 3, ["a"], "😀"])
def test_a_caption_without_a_word_is_left_out_and_counted(tmp_path, caplog, caption):
    found = told(tmp_path, [(1, "a.png"), (2, "b.png")], [(1, "one"), (1, caption), (2, caption)])
    assert found == [("a.png", ("one",))]
    assert "2 captions" in caplog.text
    assert "b.png" in caplog.text


def test_folders_without_captions_or_with_too_many_files_are_named(tmp_path):
    with pytest.raises(InputError, match="holds no captions"):
        data.load(f"captions:{tmp_path}")
    for name in ("captions_a.json", "captions_b.json"):
        write(tmp_path, name, range(2), ".")
    with pytest.raises(InputError, match="captions_a.json, captions_b.json; wanted a single file"):
        data.load(f"captions:{tmp_path}")


def test_a_file_of_other_spelling_is_held_out_with_itself(tmp_path):
    content = write(tmp_path, "captions.json", range(5), ".", captions=1)
    content["images"] += [{"id": 10 + n, "file_name": f"./000{n}.png"} for n in range(5)]
    content["annotations"] += [{"image_id": 10 + n, "caption": f"again {n}"} for n in range(5)]
    (tmp_path / "captions.json").write_text(json.dumps(content))
    dataset = data.load(f"captions:{tmp_path}", size=4)
    parts = [{path.resolve() for path in part.paths} for part in (dataset.train, dataset.test)]
    assert len(dataset.test) == 2
    assert not parts[0] & parts[1]


def test_images_to_learn_from_and_to_measure_by_are_told(tmp_path, caplog):
    write(tmp_path, "captions_train.json", range(4), ".")
    write(tmp_path, "captions_val.json", range(3, 6), ".")
    data.load(f"captions:{tmp_path}", size=4)
    assert "1 images are in both train and val, such as" in caplog.text


def test_a_folder_or_a_deep_nest_is_no_file_of_captions(tmp_path):
    (tmp_path / "captions.json").mkdir()
    with pytest.raises(InputError, match="holds no captions"):
        data.load(f"captions:{tmp_path}")
    (tmp_path / "captions_deep.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="is not in COCO's format"):
        data.load(f"captions:{tmp_path}")
