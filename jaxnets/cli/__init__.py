"""The command line: `jaxnets train | search | eval | predict | plots | explain | ...`.

Each command is a thin face of a library call. What a user got wrong is said in a line or two, with
exit status 2 and no traceback.
"""

import contextlib
import functools
import io
import logging
import operator
import os
import signal
import sys
import threading
from typing import Annotated, Any

import tyro

from jaxnets import recipes
from jaxnets.cli import tasks
from jaxnets.cli.explain import Explain
from jaxnets.cli.export import Export
from jaxnets.cli.features import Features
from jaxnets.cli.prepare import Prepare
from jaxnets.cli.search import Search
from jaxnets.cli.signals import Terminated
from jaxnets.cli.train import Train
from jaxnets.cli.trained import Eval, Plots, Predict
from jaxnets.cli.zoo import Augmentations, Convert, Models, Summary
from jaxnets.config import newest_run
from jaxnets.console import status
from jaxnets.errors import InputError
from jaxnets.paths import shown

_COMMANDS = {
    "train": Train,
    "search": Search,
    "eval": Eval,
    "predict": Predict,
    "plots": Plots,
    "features": Features,
    "explain": Explain,
    "models": Models,
    "summary": Summary,
    "convert": Convert,
    "export": Export,
    "prepare": Prepare,
    "augmentations": Augmentations,
}
_FLAGS = (tyro.conf.FlagCreatePairsOff,)  # --resume, without a --no-resume beside it


def main(arguments: list[str] | None = None) -> None:
    """Runs one command. Exits with 2 for what the user got wrong, 130 for an interrupt, 143 for SIGTERM
    during training."""
    _prepare_streams()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    # Threads that save in the background also log, with tracebacks, what `save` and `wait` raise.
    # So does tensorboardX what a run stops for: a loss that is not finite.
    for name in ("absl", "asyncio", "concurrent.futures", "tensorboardX"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sys.unraisablehook = _print_unless_known
    try:
        command = _parse(sys.argv[1:] if arguments is None else arguments)
        command.run()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads this has read enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # as if by the signal that others end with
    except (InputError, OSError, MemoryError) as error:  # OSError: no space, permission or such file
        _say(f"jaxnets: {shown(str(error))}")
        sys.exit(2)
    except KeyboardInterrupt as error:
        terminated = isinstance(error, Terminated)
        how = getattr(error, "__notes__", ["a training run goes on with --resume"])
        _say(f"\njaxnets: {'terminated' if terminated else 'interrupted'}; {how[0]}")
        sys.exit(143 if terminated else 130)  # 128 and the number of the signal


def _say(text: str) -> None:
    """Prints to standard error, if anyone reads it: the exit status tells the others."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _prepare_streams() -> None:
    """Makes standard output and error take every text, whatever their encoding, even if closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started the program
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for the rest of the program
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _print_unless_known(unraisable) -> None:
    """Prints an exception that Python has to ignore, but for two that are known.

    An interrupt in JAX's callback of the garbage collector is lost, so the signal is sent once more.
    After a failed save TensorStore's threads go on to report to an event loop that has ended."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        number = signal.SIGTERM if issubclass(unraisable.exc_type, Terminated) else signal.SIGINT
        again = threading.Timer(0.05, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()
    elif str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _parse(arguments: list[str]) -> Any:
    """The command that the words stand for: COMMAND [SCRIPT.py] [TASK] ..."""
    if not arguments:
        return _cli(_COMMANDS, [])
    name, *words = arguments
    scripts = [word for word in words[:2] if word.endswith(".py")]
    if len(scripts) > 1:
        raise InputError(f"scripts: {' and '.join(scripts)} given; one command runs only one")
    script, registered = next(iter(scripts), None), None
    if script is not None:
        words.remove(script)
        registered = recipes.run_script(script)
    with status("starting", enabled=name in ("train", "search", "eval", "predict")):
        if name in ("train", "search"):
            recipe, words = tasks.of_words(words, registered)
        elif name in ("eval", "predict"):
            recipe = tasks.of_run_among(words)
        else:
            return _cli(_COMMANDS, [name, *words])
    form = _COMMANDS[name].of(recipe)
    form.script = script
    command = _cli(_COMMANDS | {name: form}, [name, *words])
    if name == "train" and command.resume:
        from jaxnets.runs.fitting import read_run

        # What is not given again is as the run had it.
        saved, _ = read_run(recipe, command.run_dir or newest_run(usable=False))
        options = {"prog": "jaxnets train", "config": _FLAGS}
        return tasks.expanded(tyro.cli(form, args=words, default=form(**vars(saved)), **options))
    return command


def _cli(commands: dict[str, type], arguments: list[str]) -> Any:
    forms = [Annotated[form, tyro.conf.subcommand(name)] for name, form in commands.items()]
    form = functools.reduce(operator.or_, forms)
    return tasks.expanded(tyro.cli(form, prog="jaxnets", args=arguments, config=_FLAGS))
