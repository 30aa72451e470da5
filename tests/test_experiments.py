"""The scripts of one's own that docs/extending.md walks through do what they say, in small."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxnets import captioning, cli, create_model, data, list_models, recipes

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recipes, "_OWN", {})


def train(script, *options):
    command = ["train", str(EXPERIMENTS / script), "--run-dir", "run", "--strategy", "single"]
    cli.main([*command, "--epochs", "1", *options])
    return [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]


def test_a_task_of_ones_own_is_trained_and_measured_in_under_60_lines(capsys):
    assert len((EXPERIMENTS / "own_task.py").read_text().splitlines()) < 60
    *_, last = train("own_task.py")
    assert f"test error in degrees {last['test_error']:.4f} after 1 epochs" in capsys.readouterr().out
    assert last["test_error"] < 20  # no net that knows nothing: their mean is 22.5
    cli.main(["eval", str(EXPERIMENTS / "own_task.py"), "run"])
    assert f"error     {last['test_error']:.4f}" in capsys.readouterr().out


def test_a_model_of_ones_own_classifies_and_captions():
    *_, last = train("own_model.py", "--model", "plain_net", "--learning-rate", "0.01", "--augment")
    assert last["test_top1"] > 0.2
    assert "plain_net_wide" in list_models("plain*")
    assert create_model("plain_net", num_classes=7).num_classes == 7
    captioner = captioning.create_captioner("show_attend_tell", "plain_net", 30, features=8)
    images, tokens = jnp.zeros((2, 32, 32, 3)), jnp.zeros((2, 5), jnp.int32)
    shapes = jax.eval_shape(
        lambda: captioner.apply(captioner.init(jax.random.key(0), images, tokens), images, tokens)
    )
    assert shapes[0].shape == (2, 5, 30)
    assert shapes[1]["attention"].shape == (2, 5, 16)


def test_a_dataset_of_ones_own_is_loaded_by_its_name():
    recipes.run_script(EXPERIMENTS / "own_dataset.py")
    shapes = data.load("shapes", size=24, channels=3, count=10)
    assert (len(shapes.train), len(shapes.test), shapes.image_shape) == (10, 2, (24, 24, 3))
    again = data.load("shapes", size=24, channels=3, count=10)
    assert (shapes.train[3]["image"] == again.train[3]["image"]).all()
