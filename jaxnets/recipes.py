"""Every task by its name.

A task is a package: its models, its pure functions, and in `recipe.py` a `RECIPE`, which is what runs
and the command line know of it (`jaxnets.runs.Recipe`). To add one, write the package and name it in
`TASKS`; a script adds one of its own by `register`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jaxnets.config import newest_run, read_config
from jaxnets.errors import InputError, unknown_name
from jaxnets.paths import expanded

if TYPE_CHECKING:
    from jaxnets.runs import Recipe, Run

TASKS = {
    "classification": ("Classification", "MultiLabel"),
    "captioning": ("Captioning", "create_captioner"),
    "detection": ("Detection", "create_detector"),
    "segmentation": ("Segmentation", "create_segmenter"),
}
"""The tasks, and what `jaxnets` itself offers of each."""

DEFAULT = "classification"
"""What `jaxnets train` trains without a word for the task."""

_OWN: dict[str, Recipe] = {}


def names() -> list[str]:
    """The words for all tasks."""
    return [*TASKS, *_OWN]


def get(name: str) -> Recipe:
    """The recipe of a task.

    Raises:
        InputError: there is none of that name.
    """
    if name in _OWN:
        return _OWN[name]
    if name not in TASKS:
        raise unknown_name("task", name, names())
    return importlib.import_module(f"jaxnets.{name}.recipe").RECIPE


def register(recipe: Recipe) -> None:
    """Makes a task of your own known by its name, to `get` and to the command line.

    Raises:
        InputError: the name is that of a task of jaxnets.
    """
    if recipe.name in TASKS:
        raise InputError(f"task {recipe.name!r} is known already; give yours another name")
    _OWN[recipe.name] = recipe


def run_script(path: str | Path) -> Recipe | None:
    """Runs a script that registers a task, a family of models or a dataset of your own.

    Returns:
        The task that it registered last; None if it registered none.

    Raises:
        InputError: there is no such file, or it is not Python.
    """
    path = expanded(path).resolve()
    if not path.is_file():
        raise InputError(f"{path} is not a file; wanted a Python script that registers something")
    if getattr(sys.modules.get(path.stem), "__file__", str(path)) != str(path):
        raise InputError(f"{path} is called as a module that is loaded already; rename it")
    before = dict(_OWN)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    try:
        spec.loader.get_code(path.stem)
    except SyntaxError as error:
        raise InputError(f"{path} is not Python: {error}") from None
    # Under its name, so that worker processes and dataclasses find it.
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    sys.path.append(str(path.parent))  # last, so that nothing there hides a library
    spec.loader.exec_module(module)
    new = [recipe for name, recipe in _OWN.items() if before.get(name) is not recipe]
    return new[-1] if new else None


def of_run(directory: str | Path) -> Recipe:
    """The recipe of the run in a directory.

    Raises:
        InputError: if it holds no run, or one of a task that is not known.
    """
    name, _, _ = read_config(directory)
    if name not in names():
        raise InputError(
            f"{directory} holds a run of {name!r}, which is not among the tasks {', '.join(names())}; "
            "name the script that registers it: jaxnets COMMAND SCRIPT.py ..."
        )
    return get(name)


def load(directory: str | Path | None = None, step: int | Literal["latest", "best"] = "latest") -> Run:
    """Reads a run's directory, of whatever task; the newest under runs/ where None.

    Args:
        directory: that `jaxnets train` made.
        step: which checkpoint: the "latest", the "best" on the test examples, or that of a step.

    Raises:
        InputError: as of `of_run`, or if it holds no such checkpoint.
    """
    from jaxnets.runs import load_run

    directory = newest_run() if directory is None else directory
    return load_run(of_run(directory), directory, step)
