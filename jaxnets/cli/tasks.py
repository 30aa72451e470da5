"""From the words of a command to its task, and to a form with the fields of that task."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxnets import paths, recipes
from jaxnets.config import find_newest_run, is_run, newest_run

if TYPE_CHECKING:
    from jaxnets.runs import Recipe


def form_of(command: type, recipe: Recipe, options: type) -> type:
    """A command with the fields of a task.

    Args:
        command: a dataclass with `run`, and the fields that it has for every task.
        recipe: of the task; the form has it as `recipe`.
        options: a dataclass of the fields that the task adds.
    """
    namespace = {"recipe": recipe, "__doc__": f"{command.__doc__}\n\n{options.__doc__}"}
    return dataclasses.make_dataclass(
        command.__name__, [], bases=(command, options), frozen=True, kw_only=True, namespace=namespace
    )


def expanded(command: Any) -> Any:
    """A command with the home directory in place of the ~ that its paths begin with."""

    def expand(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(expand, value))
        return paths.expanded(value) if isinstance(value, Path) else value

    return dataclasses.replace(command, **{name: expand(value) for name, value in vars(command).items()})


def of_words(words: list[str], registered: Recipe | None) -> tuple[Recipe, list[str]]:
    """The task to train, and the words that follow: it is what the first word says, the one that a
    script registered, that of the run to resume, or else the usual one."""
    if words and not words[0].startswith("-"):
        return recipes.get(words[0]), words[1:]
    if registered is not None:
        return registered, words
    if "--resume" in words:
        return recipes.of_run(_run_dir(words) or newest_run(usable=False)), words
    return recipes.get(recipes.DEFAULT), words


def of_run_among(words: list[str]) -> Recipe:
    """The task of the run or the model among these words; without one that of the newest run, or the
    usual one."""
    for word in words:
        if is_run(word):
            return recipes.of_run(word)
    for word in words:
        if is_model(word) and (task := task_of(word)) in recipes.names():
            return recipes.get(task)
    asks_for_help = not {"-h", "--help"}.isdisjoint(words)
    newest = None if asks_for_help or any(map(is_model, words)) else find_newest_run()
    return recipes.get(recipes.DEFAULT) if newest is None else recipes.of_run(newest)


def is_model(word: str) -> bool:
    """Whether a word names a model with weights: a directory, a model's name, or a source."""
    from jaxnets.models import list_models
    from jaxnets.weights import sources

    name, _ = paths.name_and_source(word)
    return paths.expanded(word).is_dir() or name in list_models() or sources.is_weights(word)


def task_of(word: str) -> str | None:
    """The task of a model by a word for it; None where the word does not tell."""
    from jaxnets import weights
    from jaxnets.models import model_info

    name = weights.model_named_by(word)
    return None if name is None else model_info(name).task


def split_models(words: tuple[str, ...]) -> tuple[list[str], list[Path]]:
    """The models that come first among the words, and the files that follow."""
    count = next((k for k, word in enumerate(words) if not is_model(word)), len(words))
    return list(words[:count]), [paths.expanded(word) for word in words[count:]]


def _run_dir(words: list[str]) -> str | None:
    """The value of --run-dir, as `--run-dir X` or `--run-dir=X`."""
    for word, following in zip(words, [*words[1:], None], strict=True):
        name, equals, value = word.partition("=")
        if name in ("--run-dir", "--run_dir"):
            return value if equals else following
    return None
