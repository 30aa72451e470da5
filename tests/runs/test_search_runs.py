"""`jaxnets search`: what it leaves, what it prints, what it refuses; and it never sees the test set."""

import dataclasses
import json
import shlex
import statistics

import pytest

from jaxnets import cli, recipes
from jaxnets.classification.recipe import RECIPE, Config
from jaxnets.errors import InputError
from jaxnets.runs import searching
from jaxnets.training.optimizers import OPTIMIZERS

SMALL = (
    "--model", "mlp", "--settings", "widths=[8]", "--image-size", "8", "--optimizer", "nesterov",
    "--strategy", "single", "--augment",
)  # fmt: skip
STAGES = ("--candidates", "4", "--stages", "1", "2")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def without_a_test_set(monkeypatch):
    def load(config, about):
        return dataclasses.replace(RECIPE.load(config, about), test=None)

    blind = RECIPE._replace(load=load)
    monkeypatch.setattr(recipes, "get", lambda name: blind)


@pytest.mark.slow
def test_a_search_leaves_a_table_a_picture_and_the_command_that_trains(
    without_a_test_set, capsys, tmp_path
):
    space = ("--space", "learning_rate=1e-3:0.5", "weight_decay=1e-5:1e-2", "momentum=0.5:0.95")
    cli.main(["search", *SMALL, *STAGES, *space])
    printed = capsys.readouterr().out
    directory = tmp_path / "runs" / "search_mlp_digits_1"
    assert sorted(path.name for path in directory.iterdir()) == [
        "search.json",
        "search.md",
        "search.png",
    ]
    found = json.loads((directory / "search.json").read_text())
    assert [stage["candidates"] for stage in found["stages"]] == [4, 2]
    assert [trial["stage"] for trial in found["trials"]] == [1, 1, 1, 1, 2, 2]
    for trial in found["trials"]:
        for name, (low, high) in found["stages"][trial["stage"] - 1]["space"].items():
            assert low <= trial["values"][name] <= high
    assert len((directory / "search.md").read_text().splitlines()) == 2 + 6
    assert "stage 2 of 2: 2 candidates of 2 epochs; learning_rate" in printed
    command = printed.strip().splitlines()[-1]
    assert command == found["command"]

    parsed = cli._parse(shlex.split(command)[1:])
    best = next(t for t in found["trials"] if t["candidate"] == found["best"])["values"]
    common = {
        "settings": ("widths=[8]",),
        "image_size": 8,
        "optimizer": "nesterov",
        "augment": (),
        "strategy": "single",
        "batch_size": 64,
    }
    wanted = Config(model="mlp", dataset="digits", **common, **best).completed()
    for field in dataclasses.fields(Config):
        assert getattr(parsed, field.name) == getattr(wanted, field.name), field.name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_usual_space_lies_about_what_is_usual(optimizer):
    usual = OPTIMIZERS[optimizer]
    space = searching.usual_space(Config(optimizer=optimizer))
    low, high = space["learning_rate"]
    assert low * high == pytest.approx(usual.learning_rate**2)
    assert high / low == pytest.approx(1e4)
    low, high = space["weight_decay"]
    assert 0 < low < (usual.weight_decay or 1e-4) < high
    fixed = searching.usual_space(Config(optimizer=optimizer, weight_decay=0.0))
    assert list(fixed) == ["learning_rate"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--candidates", "0"), "candidates is 0"),
        (("--stages", "1", "0"), "epochs is 0 in stage 2"),
        (("--space", "learning_rate=0.1:0.01"), "learning_rate is from 0.1 to 0.01"),
        (("--space", "learning_rate=0:0.1"), "learning_rate is from 0 to 0.1"),
        (("--space", "learning_rat=0.1:1"), "'learning_rat'; did you mean 'learning_rate'"),
        (("--space", "learning_rate"), "not of the form NAME=LOW:HIGH"),
        (("--space", "momentum=0.5:0.9"), "adamw has no momentum"),
        (("--optimizer", "momentum", "--space", "momentum=0.5:1"), "momentum goes up to 1"),
        (("--space", "learning_rate=1e-3:1", "--learning-rate", "0.1"), "both set and searched"),
        (("--learning-rate", "0.1", "--weight-decay", "0.1"), "nothing is left to search"),
        (("--optimizer", "adamm"), "unknown optimizer 'adamm'"),
        (("--epochs", "3"), "epochs has no part in a search"),
        (("--finder", "--remat"), "remat has no part in a search"),
        (("--finder", "--candidates", "4"), "candidates: finder has no stages"),
        (("--held-out", "1.5"), "held_out is 1.5"),
        (("--batch-size", "5000"), "batch_size=5000 is more than the 1150 examples"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(arguments, words, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["search", *arguments])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("jaxnets: ")
    assert words in message
    assert len(message.strip().splitlines()) <= 2


def test_the_directory_of_another_search_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "search.json").write_text("{}")
    with pytest.raises(InputError, match="holds search.json already"):
        searching.search(RECIPE, Config(model="mlp", run_dir=tmp_path / "mine"))
    assert (tmp_path / "mine" / "search.json").read_text() == "{}"


def test_the_finder_leaves_a_picture_and_the_command_that_trains(capsys, tmp_path):
    cli.main(["search", "--finder", *SMALL])
    printed = capsys.readouterr().out
    directory = tmp_path / "runs" / "finder_mlp_digits_1"
    assert sorted(path.name for path in directory.iterdir()) == ["finder.json", "finder.png"]
    found = json.loads((directory / "finder.json").read_text())
    assert f"learning rate {found['suggestion']:.2g}" in printed
    rate = float(format(found["suggestion"], ".2g"))
    assert f"--learning-rate {rate}" in printed.splitlines()[-1]
    assert len(found["rates"]) == len(found["losses"])


@pytest.mark.slow
def test_folds_are_runs_measured_on_what_they_did_not_see(capsys, tmp_path):
    cli.main(["search", "--folds", "3", *SMALL, "--epochs", "1", "--run-dir", "cv"])
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "cv" / "folds.json").read_text())
    accuracies = [fold["test_top1"] for fold in found["folds"]]
    assert len(set(accuracies)) > 1
    assert found["mean"]["test_top1"] == pytest.approx(statistics.mean(accuracies))
    assert found["deviation"]["test_top1"] == pytest.approx(statistics.stdev(accuracies))
    for fold in range(1, 4):
        records = (tmp_path / "cv" / f"fold_{fold}" / "metrics.jsonl").read_text()
        assert f'"test_top1": {accuracies[fold - 1]}' in records
    assert "deviation" in printed
    cli.main(["search", "--folds", "3", *SMALL, "--epochs", "1", "--run-dir", "cv"])  # it goes on
    assert json.loads((tmp_path / "cv" / "folds.json").read_text()) == found
