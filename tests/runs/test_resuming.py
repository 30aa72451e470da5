"""A run is resumed with what it had, from another checkpoint on request, and says how."""

from pathlib import Path

import pytest

from jaxnets import cli, recipes
from jaxnets.training.logs import Recorder, read_history

TOY = str(Path(__file__).parent / "toy.py")
STEPS = 5  # of an epoch


@pytest.fixture(autouse=True)
def toy(tmp_path, monkeypatch):
    """The recipe of the toy task, registered for this test, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recipes, "_OWN", {})


def train(*options):
    cli.main(["train", TOY, "--run-dir", "run", "--strategy", "single", *options])


def refused(capsys, *words):
    """What a command says that exits with 2."""
    with pytest.raises(SystemExit) as stop:
        cli.main(list(words))
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_a_damaged_checkpoint_names_a_whole_one_which_all_commands_take(capsys):
    train("--epochs", "3", "--keep", "3")
    for path in Path("run/checkpoints/15").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:10])
    again = ("train", TOY, "--run-dir", "run", "--resume")
    for words in (again, ("eval", TOY, "run"), ("plots", TOY, "run")):
        told = refused(capsys, *words)
        assert len(told.splitlines()) == 1
        assert "step 15 " in told
        assert told.endswith("step 10 is whole: take it by checkpoint=10, --checkpoint 10\n")
    cli.main(["eval", TOY, "run", "--checkpoint", "10"])
    cli.main(["plots", TOY, "run", "--checkpoint", "10"])
    assert "there are 5, 10, 15" in refused(capsys, "eval", TOY, "run", "--checkpoint", "7")
    cli.main([*again, "--checkpoint", "10"])
    assert "resumed at step 10 of 15" in capsys.readouterr().out
    assert [record["epoch"] for record in read_history("run").epochs] == [1, 2, 3]
    cli.main(["eval", TOY, "run"])


def test_a_checkpoint_without_resume_is_refused_before_a_directory_is_made(capsys):
    told = refused(capsys, "train", TOY, "--run-dir", "run", "--checkpoint", "10")
    assert "checkpoint is 10, which is for --resume" in told
    assert not Path("run").exists()


@pytest.mark.slow
def test_epochs_that_were_added_are_those_of_the_run_from_then_on(capsys, monkeypatch):
    train("--epochs", "1")
    add = Recorder.add_steps

    def add_or_stop(self, record):
        add(self, record)
        if record["step"] == 2 * STEPS:
            raise KeyboardInterrupt

    monkeypatch.setattr(Recorder, "add_steps", add_or_stop)
    with pytest.raises(SystemExit) as stop:
        train("--epochs", "3", "--resume")
    assert stop.value.code == 130
    told = capsys.readouterr().err
    assert f"interrupted; resume it by jaxnets train {TOY} --resume --run-dir run" in told
    monkeypatch.setattr(Recorder, "add_steps", add)
    train("--resume")
    assert [record["epoch"] for record in read_history("run").epochs] == [1, 2, 3]
    train("--resume")
    assert "nothing is left to train: all 3 epochs are trained" in capsys.readouterr().out
