"""Which files a folder holds, and what is left out."""

import os
from collections import Counter

import pytest

from jaxnets.data import files
from jaxnets.errors import InputError


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def names(root, left_out=None):
    found = files.image_files(str(root), Counter() if left_out is None else left_out)
    return [os.path.relpath(path, root) for path in found]


def test_files_are_taken_by_their_ending_and_others_counted_by_it(tmp_path):
    taken = ["a.JPG", "b.jfif", "c.jpe", "d.webp", "e.bmp", "f.tif", "g.tiff", "h.gif", "deep/er/i.Png"]
    for name in [*taken, "1.txt", "2.TXT", "3.pdf", "README", ".hidden.png", ".cache/j.png"]:
        touch(tmp_path / name)
    left_out = Counter()
    assert names(tmp_path, left_out) == sorted(taken)
    assert left_out == {".txt": 2, ".pdf": 1, "no ending": 1}
    assert files.counted(left_out) == "4 files: .txt 2, .pdf 1, no ending 1"


def test_of_many_endings_the_most_frequent_are_named():
    left_out = Counter({f".{k}": 20 - k for k in range(8)})
    assert files.counted(left_out) == "132 files: .0 20, .1 19, .2 18, .3 17, .4 16, others 42"


def test_linked_files_and_folders_are_followed(tmp_path):
    touch(tmp_path / "elsewhere" / "1.png")
    inside = touch(tmp_path / "class" / "2.png").parent
    (inside / "folder").symlink_to(tmp_path / "elsewhere")
    (inside / "3.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    assert names(inside) == ["2.png", "3.png", "folder/1.png"]
    (tmp_path / "classes").mkdir()
    (tmp_path / "classes" / "linked").symlink_to(inside)
    assert files.folders_in(str(tmp_path / "classes"), Counter()) == ["linked"]


def test_links_that_lead_back_or_nowhere_are_left_out_and_counted(tmp_path):
    one, two = touch(tmp_path / "one" / "1.png").parent, touch(tmp_path / "two" / "2.png").parent
    (one / "itself").symlink_to(one)
    (one / "above").symlink_to(tmp_path)
    (one / "other").symlink_to(two)
    (two / "back").symlink_to(one)
    (one / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (one / "circle.png").symlink_to(one / "circle.png")
    left_out = Counter()
    (two / "far above").symlink_to(tmp_path.parent)
    found = files.image_files(str(one), left_out, above=(str(tmp_path),))
    assert [os.path.relpath(path, one) for path in found] == ["1.png", "other/2.png"]
    assert left_out == {files.LOOPING: 4, files.DANGLING: 2}
    left_out.clear()
    assert files.folders_in(str(two), left_out) == ["back"]
    assert left_out[files.LOOPING] == 1


def test_what_is_no_file_is_left_out(tmp_path):
    touch(tmp_path / "1.png")
    os.mkfifo(tmp_path / "pipe.png")  # to open it would wait forever
    left_out = Counter()
    assert names(tmp_path, left_out) == ["1.png"]
    assert left_out == {"special files": 1}


def test_images_beside_folders_are_counted(tmp_path):
    touch(tmp_path / "b" / "1.png")
    touch(tmp_path / "a" / "2.png")
    touch(tmp_path / "3.png")
    touch(tmp_path / "labels.csv")
    left_out = Counter()
    assert files.folders_in(str(tmp_path), left_out) == ["a", "b"]
    assert left_out == {files.LOOSE: 1}


def test_names_that_are_no_text_can_be_read_and_told(tmp_path):
    folder = os.fsencode(tmp_path)
    for name in (b"caf\xe9.png", b"bad.\xff\xfe", b"new\nline.png"):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(b"no image")
    left_out = Counter()
    paths = files.image_files(str(tmp_path), left_out)
    assert len(paths) == 2
    assert files.counted(left_out).encode() == rb"1 files: .\udcff\udcfe 1"
    with pytest.raises(InputError, match=r"2 of 2 images cannot be read") as caught:
        files.check_headers(paths)
    assert b"\n" not in str(caught.value).encode()


def test_a_folder_that_cannot_be_listed_is_named(tmp_path):
    with pytest.raises(InputError, match="folder .*nowhere cannot be listed: No such file"):
        files.image_files(str(tmp_path / "nowhere"), Counter())


def test_only_a_few_of_many_names_are_told():
    assert files.named(["a", "b"]) == "a, b"
    assert files.named(list("abcdefgh")) == "a, b, c, d, e and 3 more"
