"""Preparing a folder: what is written, what is refused, and that a kill costs nothing but time."""

import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxnets.data import preparing
from jaxnets.data.preparing import prepare
from jaxnets.errors import InputError


def save(path, color=(200, 0, 0), size=(40, 30), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, **options)


@pytest.fixture
def root(tmp_path):
    """Two classes of ten images."""
    for label, name in enumerate(("cat [x]", "dog")):
        for number in range(10):
            save(tmp_path / "pictures" / name / f"{number}.png", (100 * label + number, 0, 0))
    return tmp_path / "pictures"


def contents(directory):
    return {path.name: path.read_bytes() for path in sorted(Path(directory).iterdir())}


def unreadable(path):
    path.write_bytes(b"no image")


def test_tfds_reads_the_images_with_their_classes_and_file_names(root, tmp_path):
    done = prepare(f"folder:{root}", tmp_path / "files", size=20)
    builder = tfds.builder_from_directory(str(tmp_path / "files"))
    assert builder.info.features["label"].names == ["cat [x]", "dog"]
    assert {name: info.num_examples for name, info in builder.info.splits.items()} == {
        "train": 16,
        "test": 4,
    }
    assert sum(map(len, done.splits["train"])) == 16
    found = {}
    for split in ("train", "test"):
        for record in builder.as_data_source(split):
            name = record["file_name"].decode()
            found[name] = record
            assert record["image"].shape == (20, 26, 3)
            assert name.split("/")[0] == ["cat [x]", "dog"][record["label"]]
            number = int(Path(name).stem)
            assert abs(int(record["image"][5, 5, 0]) - (100 * record["label"] + number)) <= 2
    assert len(found) == 20


@pytest.mark.slow  # two processes import jax
def test_files_are_the_same_whatever_the_processes_and_shards_are_filled_in_order(
    root, tmp_path, monkeypatch
):
    unreadable(root / "dog" / "3.png")
    monkeypatch.setattr(preparing, "_WORTH_A_PROCESS", 1)
    for count in (1, 2):
        prepare(f"folder:{root}", tmp_path / str(count), size=20, processes=count, images_per_shard=3)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    assert len(list((tmp_path / "1").glob("images-train*"))) == 6


KILLED = """
    import hashlib, os, shutil, signal, sys
    from pathlib import Path
    import tensorflow_datasets as tfds
    from jaxnets.data import load
    from jaxnets.data.preparing import prepare

    def prepared(directory):
        prepare("folder:" + sys.argv[1], directory, size=20, processes=1, images_per_shard=4)
        return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}

    def kill_at(moment, directory):
        '''Kills this process at the moment-th time that it opens or renames an image or a result.'''
        left, places = [moment], (str(directory), sys.argv[1])
        def hook(event, arguments):
            if event in ("open", "os.rename") and str(arguments[0]).startswith(places):
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)

    base = Path(sys.argv[2])
    whole = prepared(base / "whole")
    kills = 0
    for moment in (*range(1, 6), *range(10, 90, 10)):
        directory = base / f"killed{moment}"
        process = os.fork()
        if process == 0:
            kill_at(moment, directory)
            prepared(directory)
            os._exit(0)
        kills += os.waitpid(process, 0)[1] == signal.SIGKILL
        assert prepared(directory) == whole, moment
    print(kills)
"""


def test_after_a_kill_at_any_moment_the_same_call_gives_the_same_files(root, tmp_path):
    """The program imports jax and tfds, and forks for each kill: that takes seconds."""
    unreadable(root / "dog" / "3.png")
    program = textwrap.dedent(KILLED)
    command = [sys.executable, "-c", program, str(root), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= 8


def test_finished_shards_are_kept(root, tmp_path, monkeypatch):
    files = tmp_path / "files"
    convert, converted = preparing.example_of, []

    def interrupted(job, **options):
        if len(converted) == 10:
            raise KeyboardInterrupt
        converted.append(job.name)
        return convert(job, **options)

    monkeypatch.setattr(preparing, "example_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(f"folder:{root}", files, size=20, processes=1, images_per_shard=4)
    assert len(list(files.glob("images-train*"))) == 2
    assert not list(files.glob("*unfinished*"))
    first = (files / "images-train.array_record-00000-of-00004").stat().st_mtime_ns
    again = []
    monkeypatch.setattr(preparing, "example_of", lambda job, **o: again.append(job) or convert(job, **o))
    prepare(f"folder:{root}", files, size=20, processes=1, images_per_shard=4)
    assert len(again) == 12
    assert first == (files / "images-train.array_record-00000-of-00004").stat().st_mtime_ns
    prepare(f"folder:{root}", files, size=20, processes=1)
    assert len(again) == 12


def test_a_shard_that_is_gone_or_cut_is_written_again(root, tmp_path):
    files = tmp_path / "files"
    prepare(f"folder:{root}", files, size=20, images_per_shard=4)
    whole = contents(files)
    shards = sorted(files.glob("images-train*"))
    shards[1].unlink()
    shards[2].write_bytes(shards[2].read_bytes()[:-100])
    prepare(f"folder:{root}", files, size=20, images_per_shard=4)
    assert contents(files) == whole


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"size": 21}, "size 20, not 21"),
        ({"quality": 95}, "quality 90, not 95"),
        ({}, "from other files"),
    ],
)
def test_other_options_or_files_are_refused(root, tmp_path, change, match):
    prepare(f"folder:{root}", tmp_path / "files", size=20)
    if not change:
        save(root / "dog" / "new.png")
    with pytest.raises(InputError, match=match):
        prepare(f"folder:{root}", tmp_path / "files", **{"size": 20, **change})


def test_a_directory_with_other_files_is_refused_and_left_alone(root, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="has other files \\(thesis.tex\\)"):
        prepare(f"folder:{root}", tmp_path / "mine")
    assert contents(tmp_path / "mine") == {"thesis.tex": b""}
    with pytest.raises(InputError, match="is a file"):
        prepare(f"folder:{root}", tmp_path / "mine" / "thesis.tex")


@pytest.mark.parametrize("inside", ["", "files", "dog"])
def test_an_output_inside_the_folder_is_refused(root, inside):
    with pytest.raises(InputError, match="is inside"):
        prepare(f"folder:{root}", root / inside)


@pytest.mark.parametrize(
    ("spec", "options", "match"),
    [
        ("digits", {}, "folder:PATH, got 'digits'"),
        ("folder:", {}, "folder:PATH"),
        ("folder:x", {"size": 0}, "size must be"),
        ("folder:x", {"quality": 101}, "quality must be"),
        ("folder:x", {"processes": 0}, "processes must be"),
        ("folder:nowhere", {}, "is not a folder"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(tmp_path, spec, options, match):
    with pytest.raises(InputError, match=match):
        prepare(spec, tmp_path / "files", **options)
    assert not (tmp_path / "files").exists()


def test_unreadable_images_are_left_out_and_named(root, tmp_path, caplog):
    for number in range(7):
        unreadable(root / "dog" / f"{number}.png")
    done = prepare(f"folder:{root}", tmp_path / "files", size=20, images_per_shard=4)
    assert sum(len(shard) for shards in done.splits.values() for shard in shards) == 13
    assert len(caplog.records) == 1
    assert "7 of 20 images" in caplog.text
    assert "dog/0.png (not an image), dog/1.png" in caplog.text
    assert caplog.text.count("dog/") == 5
    assert "and 2 more" in caplog.text
    builder = tfds.builder_from_directory(str(tmp_path / "files"))
    assert sum(info.num_examples for info in builder.info.splits.values()) == 13


def test_strict_refuses_unreadable_images_by_name_now_and_later(root, tmp_path):
    unreadable(root / "dog" / "5.png")
    with pytest.raises(InputError, match=r"dog/5\.png"):
        prepare(f"folder:{root}", tmp_path / "files", strict=True)
    prepare(f"folder:{root}", tmp_path / "files")
    with pytest.raises(InputError, match=r"dog/5\.png"):
        prepare(f"folder:{root}", tmp_path / "files", strict=True)


def test_a_split_without_a_readable_image_is_refused(tmp_path):
    for split in ("train", "val"):
        for name in "ab":
            save(tmp_path / "pictures" / split / name / "1.png")
            if split == "val":
                unreadable(tmp_path / "pictures" / split / name / "1.png")
    with pytest.raises(InputError, match="no image of split val"):
        prepare(f"folder:{tmp_path / 'pictures'}", tmp_path / "files")


def test_two_at_once_are_refused(root, tmp_path, monkeypatch):
    def meanwhile(*arguments, **options):
        with pytest.raises(InputError, match="another process"):
            prepare(f"folder:{root}", tmp_path / "files")
        raise KeyboardInterrupt

    monkeypatch.setattr(preparing, "example_of", meanwhile)
    with pytest.raises(KeyboardInterrupt):
        prepare(f"folder:{root}", tmp_path / "files", processes=1)


def test_a_full_disk_is_an_error_of_a_line(root, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # bytes of a file
    try:
        with pytest.raises(InputError, match="cannot write .*images-train.*File too large") as error:
            prepare(f"folder:{root}", tmp_path / "files")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "files").glob("*unfinished*"))


def test_odd_names_are_kept(tmp_path):
    """Of classes for us; TensorFlow Datasets, which keeps them on lines, gets them escaped."""
    names = ["a\nb", " c ", "é"]
    for name in names:
        for number in range(2):
            save(tmp_path / "pictures" / name / f"\udce9{number}.png")
    done = prepare(f"folder:{tmp_path / 'pictures'}", tmp_path / "files")
    assert sorted(done.class_names) == sorted(names)
    builder = tfds.builder_from_directory(str(tmp_path / "files"))
    assert sorted(builder.info.features["label"].names) == sorted(["a\\nb", "c", "é"])
    found = builder.as_data_source("train")[0]["file_name"]
    assert found in [os.fsencode(f"{name}/\udce9{k}.png") for name in names for k in range(2)]


def test_paths_may_have_a_tilde_and_dots(root, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    plain = prepare("folder:~/pictures", "~/one [y]")
    assert (tmp_path / "one [y]").is_dir()
    assert prepare("folder:./pictures/", "two") == plain
    assert contents(tmp_path / "one [y]") == contents(tmp_path / "two")


WAITS = """
    import os, sys, time
    from pathlib import Path
    from jaxnets.data.processes import mapped

    def work(number):
        Path(sys.argv[1], str(os.getpid())).touch()
        time.sleep(1000)

    if __name__ == "__main__":
        with mapped(work, range(100), 2) as results:
            list(results)
"""


@pytest.mark.slow
def test_processes_end_when_their_parent_is_killed(tmp_path):
    script = tmp_path / "waits.py"
    script.write_text(textwrap.dedent(WAITS))
    (tmp_path / "pids").mkdir()
    parent = subprocess.Popen([sys.executable, script, tmp_path / "pids"])
    until = time.monotonic() + 60
    while len(children := list((tmp_path / "pids").iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while any(Path("/proc", child.name).exists() for child in children) and time.monotonic() < until:
        time.sleep(0.05)
    assert len(children) == 2
    assert not any(Path("/proc", child.name).exists() for child in children)
