"""The command line: `jaxnets train | search | eval | predict | caption | explain | ...`.

Each command is a thin face of a library call. What a user got wrong is said in a line or two, with
exit status 2 and no traceback.
"""

import logging
import os
import sys
from typing import Annotated

import tyro

from jaxnets.cli.explain import Explain
from jaxnets.cli.search import Search
from jaxnets.cli.train import Train
from jaxnets.cli.trained import Caption, Eval, Plots, Predict
from jaxnets.cli.zoo import Augmentations, Convert, Models, Summary
from jaxnets.config import newest_run, read_config
from jaxnets.errors import InputError

Command = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Search, tyro.conf.subcommand("search")]
    | Annotated[Eval, tyro.conf.subcommand("eval")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Caption, tyro.conf.subcommand("caption")]
    | Annotated[Plots, tyro.conf.subcommand("plots")]
    | Annotated[Explain, tyro.conf.subcommand("explain")]
    | Annotated[Models, tyro.conf.subcommand("models")]
    | Annotated[Summary, tyro.conf.subcommand("summary")]
    | Annotated[Convert, tyro.conf.subcommand("convert")]
    | Annotated[Augmentations, tyro.conf.subcommand("augmentations")]
)


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


def _parse(arguments: list[str]) -> Command:
    command = _cli(Command, arguments)
    if isinstance(command, Train) and command.resume:
        # What is not given again is as the run had it.
        saved, _ = read_config(command.run_dir or newest_run())
        default = Train(**vars(saved))
        command = _cli(Train, arguments[1:], default=default)
    return command


def _cli(form, arguments: list[str], **options):
    return tyro.cli(form, prog="jaxnets", args=arguments, **options)
