"""`jaxnets prepare`, and training on what it writes."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from jaxnets import cli, data
from jaxnets.classification import images, recipe
from jaxnets.data import preparing


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write_pictures(count, size=(48, 40)):
    rng = np.random.default_rng(0)
    for number in range(count):
        home = f"pictures [x]/class {number % 2}"
        os.makedirs(home, exist_ok=True)
        pixels = rng.integers(0, 128, (*size, 3), np.uint8) + np.uint8(number % 2 * 100)
        Image.fromarray(pixels).save(f"{home}/{number}.jpg")


def test_a_folder_is_prepared_and_said_to_be(capsys):
    write_pictures(20)
    cli.main(["prepare", "folder:pictures [x]", "-o", "files [y]", "--size", "16"])
    said = capsys.readouterr().out
    assert "train  16 images in 1 file" in said
    assert "--dataset records:files [y]" in said
    assert len(data.load("records:files [y]", size=16).train) == 16


def test_records_are_sized_for_the_model_as_a_folder_is():
    for model, side in (("resnet50", 224), ("inception_v3", 299), ("lenet5", 32)):
        config = recipe.Config(model=model, dataset="records:files")
        assert images.natural_shape(config, None) == {"size": side}


@pytest.mark.slow  # it compiles a network
def test_records_are_trained_on(capsys):
    write_pictures(20)
    cli.main(["prepare", "folder:pictures [x]", "-o", "files [y]", "--size", "16"])
    small = ("--model", "mlp", "--settings", "widths=[8]", "--image-size", "8", "--augment")
    options = ("--strategy", "single", "--epochs", "1", "--batch-size", "4")
    cli.main(["train", "--dataset", "records:files [y]", "--run-dir", "run", *options, *small])
    assert "after 1 epochs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["digits", "-o", "files"], "folder:PATH"),
        (["folder:nowhere", "-o", "files"], "not a folder"),
        (["folder:pictures [x]", "-o", "files", "--size", "0"], "size must be"),
        (["folder:pictures [x]", "-o", "pictures [x]"], "is inside"),
        (["folder:pictures [x]", "-o", "pictures [x]/class 0/0.jpg/files"], "is inside"),
        (["folder:pictures [x]", "-o", "file/files"], "Not a directory"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(capsys, arguments, match):
    write_pictures(4)
    open("file", "w").close()
    with pytest.raises(SystemExit) as stop:
        cli.main(["prepare", *arguments])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert match in error
    assert len(error.strip().splitlines()) == 1


def test_an_interrupt_says_that_the_same_command_continues(capsys, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    write_pictures(4)
    monkeypatch.setattr(preparing, "example_of", interrupt)
    with pytest.raises(SystemExit) as stop:
        cli.main(["prepare", "folder:pictures [x]", "-o", "files"])
    assert stop.value.code == 130
    assert "the same command continues" in capsys.readouterr().err


@pytest.mark.slow  # it starts three times
def test_a_killed_command_continues_and_works_without_a_terminal():
    write_pictures(200, (300, 400))
    command = [sys.executable, "-m", "jaxnets", "prepare", "folder:pictures [x]", "--size", "32", "-o"]
    options = {"env": {**os.environ, "PYTHONIOENCODING": "ascii"}, "stdin": subprocess.DEVNULL}
    killed = subprocess.Popen([*command, "killed"], **options)
    until = time.monotonic() + 60
    while not list_of("killed", "unfinished") and time.monotonic() < until:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert list_of("killed", "unfinished")
    for output in ("killed", "whole"):
        done = subprocess.run([*command, output], capture_output=True, text=True, **options)
        assert done.returncode == 0, done.stderr
    assert not list_of("killed", "unfinished")
    assert list_of("killed", "") == list_of("whole", "")
    for name in list_of("whole", ""):
        with open(f"killed/{name}", "rb") as one, open(f"whole/{name}", "rb") as other:
            assert one.read() == other.read()


def list_of(folder, part):
    return sorted(name for name in os.listdir(folder) if part in name) if os.path.isdir(folder) else []
