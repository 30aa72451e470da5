"""The scripts of one's own that docs/extending.md walks through do what they say, in small."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnets import captioning, cli, create_model, data, list_models, metrics, recipes, training

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


@pytest.mark.slow
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


class Adversaries:
    """A generator of numbers and a critic that tells them from the given ones, both linear."""

    def init(self, key, batch):
        return {"params": {"generator": {"shift": jnp.zeros(())}, "critic": {"slope": jnp.zeros(())}}}

    def losses(self, params, batch, key):
        made = jax.random.normal(key, batch["x"].shape) + params["generator"]["shift"]
        slope = params["critic"]["slope"]
        return {"critic": slope * (made - batch["x"]) + slope**2, "generator": -slope * made}


def test_the_step_of_the_page_moves_a_generator_to_the_data():
    page = (EXPERIMENTS.parent / "docs" / "extending.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {"jax": jax, "optax": optax, "training": training, "metrics": metrics}
    exec(block, names)
    options = {"precision": "float32", "accumulate": 1, "ema_decay": None}
    rule = names["make_rule"](Adversaries(), optax.sgd(0.05), **options)
    source = [{"x": np.float32(x)} for x in np.random.default_rng(0).normal(2, 1, 256)]
    state, history = training.fit(
        Adversaries(), source, rule=rule, batch_size=64, epochs=30, stop_above=None, progress=False
    )
    assert abs(float(state.params["generator"]["shift"]) - 2) < 0.5
    assert len(history.epochs) == 30
