"""Images with any number of labels each, from a CSV file."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image

from jaxnets import data
from jaxnets.data.dataset import labels_of, read_batch
from jaxnets.errors import InputError


def write(folder, text, files=("a.png", "b.png", "deep/c.png", "d e.png")):
    """A CSV file of this text beside pictures, of which each has another gray."""
    for level, name in enumerate(files):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 7), (40 * level,) * 3).save(path)
    table = folder / "labels.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    return table


def rows(source):
    """What a source holds, as gray levels and names."""
    return {
        int(example["image"][0, 0, 0]) // 40: [
            source.class_names[k] for k in np.flatnonzero(example["label"])
        ]
        for example in (source[index] for index in range(len(source)))
    }


SPLITS = """\ufefffile,labels,note,split
a.png,cat; traffic light ;,x,train
b.png,,"a, b",Training

deep/c.png,"dog;cat;cat",,test
"d e.png", dog,,train
"""


def test_rows_have_the_labels_of_their_column_and_are_in_the_split_of_theirs(tmp_path):
    dataset = data.load(f"csv:{write(tmp_path, SPLITS)}", size=4)
    assert dataset.class_names == ("cat", "dog", "traffic light")
    assert rows(dataset.train) == {0: ["cat", "traffic light"], 1: [], 3: ["dog"]}
    assert rows(dataset.test) == {2: ["cat", "dog"]}
    assert dataset.image_shape == (4, 4, 3)
    assert dataset.train[0]["label"].dtype == np.uint8
    np.testing.assert_array_equal(labels_of(dataset.train), [[1, 0, 1], [0, 0, 0], [0, 1, 0]])
    assert dataset.notes[0] == "3 classes, 1.2 labels an image"
    assert "train (3 images) is trained on, test (1 images) measures epochs" in dataset.notes[1]


def test_without_splits_a_fixed_fifth_is_held_out(tmp_path, monkeypatch):
    names = [f"{k}.png" for k in range(6)]
    text = "labels,file\n" + "".join(f"{'ab'[k % 2]},{name}\n" for k, name in enumerate(names))
    write(tmp_path, text, names)
    monkeypatch.chdir(tmp_path)
    dataset = data.load("csv:labels.csv", size=4)
    train, test = rows(dataset.train), rows(dataset.test)
    assert len(test) == 1
    assert train | test == {k: ["ab"[k % 2]] for k in range(6)}
    assert rows(data.load("csv:labels.csv", size=4).test) == test


def test_a_split_column_may_come_first(tmp_path):
    text = "split,file,labels\nval,a.png,x\ntrain,b.png,x\ntest,d e.png,\n"
    dataset = data.load(f"csv:{write(tmp_path, text)}", size=4)
    assert {name: rows(source) for name, source in dataset.splits.items()} == {
        "train": {1: ["x"]}, "val": {0: ["x"]}, "test": {3: []},
    }  # fmt: skip
    assert dataset.test is dataset.splits["val"]


def test_the_fingerprint_is_of_files_and_labels_wherever_they_lie(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    table = write(here, SPLITS)
    shutil.copytree(here, there)
    before = data.load(f"csv:{table}").fingerprint
    assert data.load(f"csv:{there / 'labels.csv'}").fingerprint == before
    table.write_text(SPLITS.replace("dog,,train", "cat,,train"))
    assert data.load(f"csv:{table}").fingerprint != before


def test_a_broken_image_has_weight_0_and_its_batch_the_labels_of_the_others(tmp_path, caplog):
    table = write(tmp_path, SPLITS)
    (tmp_path / "a.png").write_bytes(b"no picture")
    source = data.load(f"csv:{table}", size=4).train
    batch = read_batch(source, np.arange(3))
    np.testing.assert_array_equal(batch["weight"], [0, 1, 1])
    np.testing.assert_array_equal(batch["label"][1:], [[0, 0, 0], [0, 1, 0]])
    assert batch["label"].dtype == np.uint8
    assert "cannot decode" in caplog.text
    with pytest.raises(InputError, match=r"1 of 4 images cannot be read, the first is .*a\.png"):
        data.load(f"csv:{table}", strict=True)


def test_classes_that_a_split_has_no_image_of_are_named(tmp_path, caplog):
    data.load(f"csv:{write(tmp_path, SPLITS)}")
    assert "test has no image of 1 of 3 classes, which its mAP leaves out: traffic light" in caplog.text
    assert "train has" not in caplog.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,label\na.png,x\n", "has no column 'labels' in its first line, which is 'file, label'"),
        ("", "has no column 'file'"),
        ("file,labels\n", "has no row below its header"),
        ("file,labels\na.png,\nb.png,;\n", "has no label in any row"),
        ("file,labels\na.png,x\n", "there is one image"),
        ("file,labels\na.png,x\n\nno.png,x\n", "line 4: there is no file no.png"),
        ("file,labels\na.png,x\nb.png,x\n./a.png,y\n", "line 4: ./a.png is in line 2 already"),
        ("file,labels\na.png,x\n,y\n", "line 3: the column file is empty"),
        ("file,labels,split\na.png,x,train\nb.png,x,dogs\n", "line 3: split is 'dogs'; wanted train"),
        ("file,labels,split\na.png,x,test\n", "has no row of split train, but of test"),
        ("file,labels\na.png,x,y\n", "line 2: 3 columns, where the header has 2"),
        ("file,labels\na.png,x\n".encode("utf-16"), "is no UTF-8 text"),
        (f'file,labels\na.png,"{"x" * (csv.field_size_limit() + 1)}"\n', "below line 1: field larger"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(tmp_path, text, words):
    with pytest.raises(InputError) as error:
        data.load(f"csv:{write(tmp_path, text)}")
    assert words in str(error.value)
    assert "labels.csv" in str(error.value) or "one image" in words


def test_a_file_that_is_not_there_or_no_file_is_refused(tmp_path):
    for path, words in ((tmp_path, "Is a directory"), (tmp_path / "no.csv", "No such file")):
        with pytest.raises(InputError, match=words):
            data.load(f"csv:{path}")
    with pytest.raises(InputError, match="did you mean 'csv:labels.csv'"):
        data.load("labels.csv")
