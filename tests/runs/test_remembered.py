"""A run finds its data from anywhere, and goes on with the same data wherever they lie."""

import json
import shutil
from pathlib import Path

import pytest

from jaxnets import cli, training


@pytest.fixture(scope="module")
def trained(tmp_path_factory, folder_of, train_small):
    """A run of one epoch on the folder "data", called "run", both in one directory."""
    place = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        folder_of("data")
        train_small("folder:data", "--run-dir", "run")
    return place


@pytest.fixture(autouse=True)
def run(trained, tmp_path, monkeypatch):
    """The run, as if it had been begun in the working directory, which is the home directory too."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    config = tmp_path / "run" / "config.json"
    assert dataset_of(trained / "run") == f"folder:{trained / 'data'}"
    config.write_text(config.read_text().replace(str(trained), str(tmp_path)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / "run"


def dataset_of(run):
    return json.loads((run / "config.json").read_text())["dataset"]


@pytest.mark.slow
def test_a_run_is_used_from_another_directory(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    cli.main(["eval", str(run)])
    assert "examples  2" in capsys.readouterr().out
    cli.main(["plots", str(run)])
    cli.main(["train", "--resume", "--run-dir", str(run), "--epochs", "2"])
    assert f"{run}/checkpoints/10" in capsys.readouterr().out


def test_a_run_goes_on_after_its_data_have_moved_and_keeps_where_to(run, tmp_path, capsys):
    shutil.move("data", "moved")
    cli.main(["train", "--resume", "--run-dir", "run", "--epochs", "2", "--dataset", "folder:moved"])
    assert dataset_of(run) == f"folder:{tmp_path / 'moved'}"
    cli.main(["eval", "run"])
    assert "examples  2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda new: (new / "cat/0.png").unlink(), "9 training examples"),
        (lambda new: (new / "cat/0.png").rename(new / "cat/00.png"), "called otherwise"),
        (lambda new: (new / "cat").rename(new / "cow"), "classes cow, dog"),
    ],
)
def test_other_data_are_not_gone_on_with(run, refused, folder_of, change, words):
    change(folder_of("new"))
    command = ["train", "--resume", "--run-dir", "run", "--epochs", "2"]
    message = refused(*command, "--dataset", "folder:new")
    assert words in message
    shutil.rmtree("data")
    shutil.move("new", "data")
    assert words in refused(*command)


def test_a_resumption_that_is_refused_leaves_the_configuration(run, refused):
    before = (run / "config.json").read_text()
    assert "no checkpoint of step 3" in refused(
        "train", "--resume", "--run-dir", "run", "--epochs", "9", "--checkpoint", "3"
    )
    assert (run / "config.json").read_text() == before


def test_a_dataset_of_another_kind_is_another_dataset(refused):
    message = refused("train", "--resume", "--run-dir", "run", "--dataset", "digits")
    assert "dataset is 'digits', but the run" in message


def test_a_run_that_remembers_no_files_goes_on_where_classes_and_numbers_agree(run, folder_of, refused):
    config = json.loads((run / "config.json").read_text())
    for name in ("files", "examples"):
        del config["data"][name]
    (run / "config.json").write_text(json.dumps({**config, "dataset": "folder:data"}))
    folder_of("new")
    Path("new/cat/0.png").rename("new/cat/00.png")
    command = ["train", "--resume", "--run-dir", "run", "--dataset", "folder:new"]
    cli.main([*command, "--epochs", "2"])
    Path("new/cat/00.png").unlink()
    refused(*command, "--epochs", "3")


def test_the_home_directory_is_understood_wherever_a_path_is(run, tmp_path, train_small, capsys):
    """As in `--run-dir=~/x`, which shells leave as it is."""
    train_small("folder:~/data", "--run-dir=~/second")
    assert dataset_of(tmp_path / "second") == f"folder:{tmp_path / 'data'}"
    cli.main(["eval", "~/second", "--dataset", "folder:~/data"])
    cli.main(["convert", "mlp", "~/second", "-o=~/mlp.safetensors"])
    cli.main(["predict", "~/mlp.safetensors", "~/data/cat/0.png"])
    cli.main(["explain", "saliency", "~/data/cat/0.png", "--model", "~/second", "-o=~/why.png"])
    assert not (tmp_path / "~").exists()
    assert f"{tmp_path}/data/cat/0.png: " in capsys.readouterr().out


def test_the_run_that_another_begins_from_is_read_once(train_small, monkeypatch):
    read, restore = [], training.Checkpointer.restore_variables
    monkeypatch.setattr(
        training.Checkpointer, "restore_variables", lambda *args: read.append(args) or restore(*args)
    )
    train_small("folder:data", "--pretrained", "run", "--run-dir", "second")
    assert len(read) == 1
