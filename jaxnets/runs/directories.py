"""Directories of new runs and searches: each is made by one process alone, and kept once it holds
something."""

import contextlib
import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax

from jaxnets.config import RUNS
from jaxnets.errors import InputError
from jaxnets.training.parallel import is_main_process, wait_for_all

LONGEST = 40  # characters of a model's name, and of a dataset's, in that of a directory


@contextlib.contextmanager
def new_directory(
    chosen: Path | None,
    name: str,
    dataset: str,
    *,
    taken_by: Mapping[str, str],
    begun: Callable[[Path], bool],
    claim: str | None = None,
) -> Iterator[Path]:
    """Makes a directory, and takes it away again if what is to fill it is refused before it has begun.

    Args:
        chosen: by the user; None for the first of runs/NAME_DATASET_1, runs/NAME_DATASET_2 ... that is
            not there yet.
        name, dataset: what it is called after.
        taken_by: what a chosen directory must not hold, and what it is if it does, in words.
        begun: whether a directory holds something worth keeping.
        claim: one of `taken_by`, to make in it: of several processes only one can.

    Raises:
        InputError: the chosen directory is taken.
    """
    if chosen is None and jax.process_count() > 1:
        raise InputError("run_dir: with several processes, name one that all of them see")
    refuse_taken(chosen, taken_by)
    wait_for_all("run directory chosen")  # before the main process writes into it
    missing = [path for path in (chosen or RUNS, *(chosen or RUNS).parents) if not path.exists()]
    if chosen is None:
        directory = _make_next(name, dataset)
        missing.insert(0, directory)
    else:
        directory = chosen
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"run_dir: {directory} cannot be made ({error.strerror}); choose another"
            ) from error
    before = set(directory.iterdir())
    if claim is not None and is_main_process():
        try:
            (directory / claim).mkdir()
        except FileExistsError:  # of a process that began at the same time
            raise _taken(directory, taken_by[claim]) from None
    try:
        yield directory
    except InputError:
        if is_main_process() and not begun(directory):
            _take_away(set(directory.iterdir()) - before, missing)
        raise


def refuse_taken(directory: Path | None, taken_by: Mapping[str, str]) -> None:
    """Checks a directory, if one is chosen, before the work of a run that `new_directory` would refuse.

    Raises:
        InputError: it is no directory, or holds what it must not.
    """
    if directory is None:
        return
    if directory.exists() and not directory.is_dir():
        raise InputError(f"run_dir: {directory} is not a directory; choose another")
    for name, words in taken_by.items():
        if (directory / name).exists():
            raise _taken(directory, words)


def refuse_inside(directory: Path | None, dataset: str) -> None:
    """Checks that the folders of a run do not become classes of the folder of images it is trained on.

    Args:
        directory: that is chosen; None for one under runs/.
        dataset: such as "folder:PATH".

    Raises:
        InputError: it is inside.
    """
    kind, _, folder = dataset.partition(":")
    place = directory or RUNS
    if kind == "folder" and folder and place.resolve().is_relative_to(Path(folder).resolve()):
        raise InputError(
            f"run_dir: {place} is inside {folder}, where it would become a class; choose another place "
            "by --run-dir"
        )


def _taken(directory: Path, words: str) -> InputError:
    return InputError(
        f"run_dir: {directory} holds {words} already; go on with a run by --resume, or choose another "
        "directory"
    )


def _make_next(name: str, dataset: str) -> Path:
    """Makes the first directory of its name that is not there; of two processes each gets its own."""
    rest = dataset.partition(":")[2] or dataset
    stem = f"{_safe(name)}_{_safe(os.path.basename(os.path.abspath(rest)))}"
    for number in itertools.count(1):
        directory = RUNS / f"{stem}_{number}"
        with contextlib.suppress(FileExistsError):
            directory.mkdir(parents=True)
            return directory
    raise AssertionError  # numbers do not end


def _safe(name: str) -> str:
    """A name without the characters that mean something to shells, patterns or paths."""
    return re.sub(r"[^\w.+-]+", "_", name)[:LONGEST].strip("_") or "data"


def _take_away(entries: set[Path], directories: Sequence[Path]) -> None:
    for entry in entries:
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    for directory in directories:  # innermost first, while they are empty
        with contextlib.suppress(OSError):
            directory.rmdir()
