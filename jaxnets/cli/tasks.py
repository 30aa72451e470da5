"""From the words of a command to its task, and to a form with the fields of that task."""

import dataclasses
from pathlib import Path

from jaxnets import recipes
from jaxnets.config import RUNS, is_run
from jaxnets.runs.recipe import Recipe


def of_task(name: str, recipe: Recipe, does: type, options: type) -> type:
    """A command's form for a task: what the command does, and its own fields over the task's.

    Args:
        name: of the class.
        recipe: of the task; the class has it as `recipe`.
        does: a dataclass with `run` and the fields that the command has for every task.
        options: a dataclass of the fields that the task adds; its docstring is the form's.
    """
    namespace = {"recipe": recipe, "__doc__": options.__doc__}
    return dataclasses.make_dataclass(
        name, [], bases=(does, options), frozen=True, kw_only=True, namespace=namespace
    )


def said(arguments: list[str], registered: Recipe | None) -> tuple[Recipe, list[str]]:
    """The task that the first word names, and the words after it; without one that of the script that
    registered one, or the task of `jaxnets train` alone."""
    if arguments and not arguments[0].startswith("-"):
        return recipes.get(arguments[0]), arguments[1:]
    return registered or recipes.get(recipes.DEFAULT), arguments


def found(arguments: list[str]) -> Recipe:
    """The task of the run among these words; without one that of the newest run, or the usual one."""
    for word in arguments:
        if is_run(word):
            return recipes.of_run(word)
    newest = max(RUNS.glob("*/config.json"), key=lambda path: path.stat().st_mtime, default=None)
    pictures_alone = not any(is_model(word) for word in arguments)
    if newest is not None and pictures_alone:
        return recipes.of_run(newest.parent)
    return recipes.get(recipes.DEFAULT)


def is_model(word: str) -> bool:
    """Whether a word names a model with weights: a run's directory, a model's name, or a source."""
    from jaxnets.models import list_models
    from jaxnets.weights import sources

    name = word.partition("=")[0]
    return is_run(word) or name in list_models() or sources.is_weights(word)


def split_models(words: tuple[str, ...]) -> tuple[list[str], list[Path]]:
    """The models that come first among the words, and the files that follow."""
    count = next((k for k, word in enumerate(words) if not is_model(word)), len(words))
    return list(words[:count]), [Path(word) for word in words[count:]]
