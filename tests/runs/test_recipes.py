"""Anyone's task has everything that a run has: here one of the tests, in toy.py."""

import json
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxnets import cli, recipes, runs, training
from jaxnets.cli import tasks
from jaxnets.errors import InputError
from jaxnets.models import lenet, registry
from jaxnets.training import Checkpointer, DataParallel

TOY = str(Path(__file__).parent / "toy.py")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def toy(monkeypatch):
    """The recipe of the toy task, registered for this test."""
    monkeypatch.setattr(recipes, "_OWN", {})
    return recipes.run_script(TOY)


def train(toy, name, **options):
    config = toy.Config(run_dir=Path(name), **{"epochs": 8, **options})
    directory, history = runs.train(toy, config, progress=False)
    return directory, history


@pytest.mark.slow
def test_one_and_eight_devices_learn_the_line_and_the_best_is_the_lowest_median(toy):
    ends = {}
    for strategy in ("single", "pmap"):
        directory, history = train(toy, strategy, strategy=strategy, learning_rate=0.3)
        medians = [record["test_median"] for record in history.epochs]
        assert 2 * medians[-1] < medians[0]
        assert history.headline == f"test median error {medians[-1]:.4f}"
        assert Checkpointer(directory / "checkpoints", read_only=True).best_step == 5 * (
            1 + int(np.argmin(medians))
        )
        assert history.epochs[-1]["train_seen"] == 80  # of all devices together
        ends[strategy] = history.epochs[-1]["test_loss"]
    # Noise of each device's own, so not the same bits.
    assert ends["single"] == pytest.approx(ends["pmap"], rel=0.05)


@pytest.mark.slow
def test_a_plateau_is_one_of_a_metric_that_is_better_when_lower(toy):
    _, history = train(toy, "run", epochs=30, learning_rate=1e-9, patience=2, strategy="single")
    medians = [record["test_median"] for record in history.epochs]
    assert len(medians) - 1 - int(np.argmin(medians)) == 2
    assert "test_median has not improved" in history.stopped


@pytest.mark.slow
def test_killed_and_resumed_it_ends_in_the_same_bits(whole_and_killed):
    words = [TOY, "--epochs", "12", "--checkpoint-every", "7", "--examples", "320"]
    a, b = whole_and_killed(words, last=240, devices=2)
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert np.abs(a["params"]["w"]).min() > 0.3  # it learned something


def test_the_commands_know_it(toy, capsys):
    cli.main(["train", TOY, "--run-dir", "run", "--epochs", "3", "--plots", "--strategy", "single"])
    printed = capsys.readouterr().out
    assert "test median error" in printed
    assert "pictures      curves.png, line.png, update_ratios.png" in printed
    last = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])
    cli.main(["eval", TOY, "run"])
    assert f"median    {last['test_median']:.4f}" in capsys.readouterr().out
    Path("run/line.png").unlink()
    cli.main(["plots", TOY, "run"])
    assert capsys.readouterr().out.split()[:2] == ["run/curves.png", "run/update_ratios.png"]
    assert Path("run/line.png").exists()
    for command in (
        ["predict", TOY, "run", "x.png"],
        ["explain", TOY, "saliency", "x.png", "--model", "run"],
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main(command)
        assert stop.value.code == 2
        assert "run of line" in capsys.readouterr().err
    monkey = recipes._OWN.pop("line")
    with pytest.raises(InputError, match="holds a run of 'line', which is not among the tasks"):
        recipes.load("run")
    recipes.register(monkey)


@pytest.mark.slow
def test_it_is_searched_with_both_optimizers(toy, capsys):
    cli.main(["search", "line", "--candidates", "4", "--stages", "1", "2", "--space",
              "learning_rate=1e-6:0.3"])  # fmt: skip
    printed = capsys.readouterr().out
    assert "held-out loss" in printed
    found = json.loads(Path("runs/search_line_line_1/search.json").read_text())
    assert found["lower_is_better"]
    finished = [trial for trial in found["trials"] if trial["stage"] == 2]
    losses = [trial["measured"]["loss"] for trial in finished]
    assert finished[int(np.argmin(losses))]["candidate"] == found["best"]
    assert "jaxnets train line --" in printed


@pytest.mark.parametrize("strategy", ["single", "pmap", "shard_map"])
@pytest.mark.parametrize("batch_size", [8, 24, 64])
def test_predict_all_gives_every_example_once_and_in_order(toy, strategy, batch_size):
    source = toy.load(toy.Config(), None).test
    variables = {"params": {"w": np.array([[1.0], [2.0], [3.0]], np.float32), "b": np.float32(0.5)}}
    task, parallel = toy.restore(None, None, None), DataParallel.create(strategy)
    found = training.predict_all(task, variables, source, batch_size=batch_size, parallel=parallel)
    batches, outputs = zip(*found, strict=True)
    x = np.stack([example["x"] for example in source])
    np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in batches]), x)
    np.testing.assert_allclose(np.concatenate(outputs), x @ [1.0, 2.0, 3.0] + 0.5, rtol=1e-5)
    assert np.concatenate([batch["weight"] for batch in batches]).tolist() == [1.0] * 37


def test_a_command_on_a_model_is_of_the_models_task(toy, monkeypatch):
    monkeypatch.setattr(registry, "_OWN", {})
    family = {"TASK": toy.name, "build": lenet.build, "VARIANTS": {"line_net": {}}, "PAPER": "none"}
    registry.register(types.SimpleNamespace(__name__="lines", **family))
    assert tasks.of_run_among(["line_net=weights.pth", "p.png"]) is toy
    assert tasks.of_run_among(["lenet5", "p.png"]) is recipes.get(recipes.DEFAULT)


def test_a_task_of_jaxnets_is_not_replaced_and_an_unknown_one_is_named(toy):
    with pytest.raises(InputError, match="'captioning' is known already"):
        recipes.register(toy._replace(name="captioning"))
    with pytest.raises(InputError, match="unknown task 'lines'; did you mean 'line'"):
        recipes.get("lines")
    with pytest.raises(InputError, match="is not a file"):
        recipes.run_script("nowhere.py")
