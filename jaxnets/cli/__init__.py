"""The command line: `jaxnets train | search | eval | predict | plots | explain | ...`.

Each command is a thin face of a library call. What a user got wrong is said in a line or two, with
exit status 2 and no traceback.
"""

import functools
import logging
import operator
import os
import sys
from typing import Annotated, Any

import tyro

from jaxnets import recipes
from jaxnets.cli import search, tasks, train, trained
from jaxnets.cli.explain import Explain
from jaxnets.cli.trained import Plots
from jaxnets.cli.zoo import Augmentations, Convert, Models, Summary
from jaxnets.config import newest_run
from jaxnets.errors import InputError
from jaxnets.runs.fitting import read_run
from jaxnets.runs.recipe import Recipe

_OF_A_TASK = {
    "train": train.command,
    "search": search.command,
    "eval": trained.eval_command,
    "predict": trained.predict_command,
}
_OF_ALL = {
    "plots": Plots,
    "explain": Explain,
    "models": Models,
    "summary": Summary,
    "convert": Convert,
    "augmentations": Augmentations,
}


_FLAGS = (tyro.conf.FlagCreatePairsOff,)  # --resume, without a --no-resume beside it


def main(arguments: list[str] | None = None) -> None:
    """Runs one command. Exits with 2 for what the user got wrong, 130 for an interrupt."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    # Threads that save in the background also log, with tracebacks, what `save` and `wait` raise.
    for name in ("absl", "asyncio", "concurrent.futures"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sys.unraisablehook = _print_unless_a_failed_save
    try:
        command = _parse(sys.argv[1:] if arguments is None else arguments)
        command.run()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads this has read enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # as if by the signal that others end with
    except (InputError, OSError) as error:  # OSError: no space left, no permission, no such file
        print(f"jaxnets: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\njaxnets: interrupted; a training run goes on with --resume", file=sys.stderr)
        sys.exit(130)


def _print_unless_a_failed_save(unraisable) -> None:
    """After a failed save TensorStore's threads go on to report to an event loop that has ended."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _parse(arguments: list[str]) -> Any:
    """The command that the words stand for: COMMAND [SCRIPT.py] [TASK] ..."""
    name, *rest = arguments or [""]
    registered = None
    for place, word in enumerate(rest[:2]):
        if word.endswith(".py"):
            registered = recipes.run_script(rest.pop(place))
            break
    recipe = recipes.get(recipes.DEFAULT)
    if name in ("train", "search"):
        recipe, rest = tasks.said(rest, registered)
    elif name in ("eval", "predict"):
        recipe = tasks.found(rest)
    command = _cli(recipe, [name, *rest])
    if name == "train" and command.resume:
        return _resumed(command, rest)
    return command


def _resumed(command: Any, options: list[str]) -> Any:
    """A command to go on with a run: what is not given again is as the run had it."""
    directory = command.run_dir or newest_run()
    recipe = recipes.of_run(directory)
    saved, _ = read_run(recipe, directory)
    form = train.command(recipe)
    return tyro.cli(form, prog="jaxnets train", args=options, default=form(**vars(saved)), config=_FLAGS)


def _cli(recipe: Recipe, arguments: list[str]) -> Any:
    forms = {name: form(recipe) for name, form in _OF_A_TASK.items()} | _OF_ALL
    commands = [Annotated[form, tyro.conf.subcommand(name)] for name, form in forms.items()]
    arguments = [word for word in arguments if word]
    return tyro.cli(
        functools.reduce(operator.or_, commands), prog="jaxnets", args=arguments, config=_FLAGS
    )
