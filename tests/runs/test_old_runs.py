"""Directories of runs that were made before tasks had recipes are evaluated, resumed and explained."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from jaxnets import cli, recipes, runs
from jaxnets.captioning.recipe import describe
from jaxnets.classification import folders

OLD = Path(__file__).parent / "old_runs"
EXPECTED = json.loads((OLD / "expected.json").read_text())
NAMES = ("classifier", pytest.param("captioner", marks=pytest.mark.slow))


@pytest.fixture(params=NAMES)
def name(request, tmp_path, monkeypatch):
    """The name of a run, whose copy lies in the working directory, with the pictures."""
    shutil.copytree(OLD, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return request.param


def test_an_old_run_measures_and_predicts_what_it_did(name):
    run = recipes.load(name)
    assert run.recipe.name == {"classifier": "classification", "captioner": "captioning"}[name]
    measured = run.evaluate()
    wanted = EXPECTED[name]
    for key, value in wanted["evaluated"].items():
        assert measured[key] == pytest.approx(value, rel=1e-4), key
    if name == "classifier":
        (member,) = folders.members_of([run], run.recipe.inside)
        found = folders.probabilities_of(member, ["pictures/12.png"])
        np.testing.assert_allclose(found[0], wanted["predicted"], rtol=1e-4)
    else:
        ((sentence, _), *_), *_ = describe([run], ["pictures/12.png"])
        assert sentence == wanted["caption"][0]
        assert run.config.recolor == 0.5  # called otherwise then


def test_an_old_run_goes_on_as_it_would_have_gone_on(name):
    recipe = recipes.of_run(name)
    config, _ = runs.fitting.read_run(recipe, name)
    config = dataclasses.replace(config, epochs=3, resume=True)
    with jax.default_device(jax.devices()[0]):
        _, history = runs.train(recipe, dataclasses.replace(config, strategy="single"), progress=False)
    for key, value in EXPECTED[name]["resumed"].items():
        assert history.epochs[-1][key] == pytest.approx(value, rel=1e-3, abs=1e-6), key


def test_an_old_run_is_explained(name, capsys):
    method = {"classifier": "occlusion", "captioner": "attention"}[name]
    cli.main(["explain", method, "pictures/12.png", "--model", name, "-o", "why.png"])
    assert capsys.readouterr().out.strip() == "why.png"
    assert np.asarray(Image.open("why.png").convert("L")).std() > 10
