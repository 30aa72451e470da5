"""What a run keeps of its configuration, and what a configuration may hold."""

import dataclasses
import json
from pathlib import Path

import pytest

from jaxnets import config, recipes
from jaxnets.errors import InputError

RECIPES = [recipes.get(name) for name in recipes.TASKS]


@pytest.mark.parametrize("recipe", RECIPES, ids=recipes.TASKS)
def test_the_usual_configuration_is_in_its_ranges_and_is_read_back(recipe, tmp_path):
    usual = recipe.Config().completed()
    usual.check()
    config.write_config(tmp_path, recipe.name, usual, {"class_names": ["a"]})
    name, values, about = config.read_config(tmp_path)
    assert (name, about) == (recipe.name, {"class_names": ["a"]})
    assert recipe.Config.saved(values) == usual


@pytest.mark.parametrize("recipe", RECIPES, ids=recipes.TASKS)
def test_every_range_is_of_a_field_and_no_number_goes_unchecked(recipe):
    fields = {field.name for field in dataclasses.fields(recipe.Config)}
    assert recipe.Config.ranges.keys() <= fields
    numbers = {f.name for f in dataclasses.fields(recipe.Config) if f.type in NUMBERS}
    assert numbers <= recipe.Config.ranges.keys()


NUMBERS = (int, float, int | None, float | None)


@pytest.mark.parametrize("recipe", RECIPES, ids=recipes.TASKS)
def test_no_augmentation_is_called_none(recipe):
    assert recipe.Config(augment=("none",)).completed().augment == ()
    with pytest.raises(InputError, match="none stands alone"):
        recipe.Config(augment=("none", "flip")).completed()


@pytest.mark.parametrize(
    "text",
    [
        "", "no JSON", "[" * 10**5, "[1, 2]", "3", "null", '"task"', "{}", '{"task": "classification"}',
        '{"task": 3, "data": {}}', '{"task": "classification", "data": []}', '{"name": "bert"}',
        b"\xff\xfe",
    ],
)  # fmt: skip
def test_the_file_of_another_program_is_named(text, tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match="config.json") as error:
        recipes.load(tmp_path)
    assert len(str(error.value).splitlines()) <= 2


@pytest.mark.parametrize("recipe", RECIPES, ids=recipes.TASKS)
@pytest.mark.parametrize(
    "change",
    [
        {"epochs": "ten"}, {"epochs": None, "batch_size": [3]}, {"learning_rate": {"a": 1}},
        {"precision": "float16"}, {"augment": "flip"}, {"augment": [1]}, {"settings": 3},
        {"dataset": ["digits"]}, {"momentum": 7}, {"plots": 1}, {"model": "nonsense"}, {"model": 3},
        {"data": {"class_names": 3}}, {"data": {"image_shape": "x"}},
    ],
    ids=str,
)  # fmt: skip
def test_a_field_of_another_type_is_an_error_that_names_the_file(recipe, change, tmp_path):
    about = {"class_names": ["a", "b"], "image_shape": [32, 32, 1], "mean": [0.5], "std": [0.5]}
    saved = {"task": recipe.name, **dataclasses.asdict(recipe.Config()), **change}
    saved["data"] = about | change.get("data", {})
    (tmp_path / "config.json").write_text(json.dumps(saved))
    (tmp_path / "vocabulary.json").write_text('{"words": ["<pad>", "<start>", "<end>", "<unknown>"]}')
    with pytest.raises(InputError, match="config.json"):
        recipes.load(tmp_path)


def test_a_run_whose_home_is_elsewhere_is_one(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run/checkpoints/3").mkdir(parents=True)
    (tmp_path / "run/config.json").touch()
    assert config.is_run("~/run")
    assert config.has_checkpoint(Path("~/run"))
