"""A search of hyperparameters as a whole: from a configuration to a directory with what was found.

`jaxnets search` is a thin face of `search`. Scripts that need more freedom call
`jaxnets.training.search` themselves.
"""

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from jaxnets import atomic, data, training
from jaxnets.config import RunConfig
from jaxnets.console import status
from jaxnets.errors import InputError, unknown_name
from jaxnets.layout import CONFIG_FILE
from jaxnets.runs.directories import new_directory, refuse_inside, refuse_taken
from jaxnets.runs.fitting import make_optimizer
from jaxnets.runs.recipe import Recipe, dataset_of, located, prepared, refuse_growing, with_batch_size
from jaxnets.training import DataParallel, SearchResult, Stage
from jaxnets.training.optimizers import WITH_MOMENTUM, usual_settings
from jaxnets.training.search_result import Space

SEARCHABLE = ("learning_rate", "weight_decay", "momentum", "clip_norm")
RESULT_FILE = "search.json"
REACH = 100  # how far below and above what is usual a range goes, where none is given
NO_USUAL_DECAY = (1e-6, 1e-2)  # the range where the usual decay is none

_TAKEN_BY = {RESULT_FILE: RESULT_FILE, CONFIG_FILE: "a run"}
# What belongs to one long run that is kept and gone on with.
_NOT_TAKEN = (
    "epochs", "patience", "resume", "checkpoint", "log_every", "checkpoint_every", "keep",
    "accumulate", "ema_decay", "remat", "profile", "plots",
)  # fmt: skip


def search(
    recipe: Recipe,
    config: RunConfig,
    space: Mapping[str, tuple[float, float]] | None = None,
    stages: Sequence[Stage] | None = None,
    *,
    held_out: float = 0.2,
    together: int | None = None,
    script: str | None = None,
    progress: bool = True,
) -> tuple[Path, SearchResult]:
    """Searches the hyperparameters of a task's optimizer; leaves what it finds in a directory.

    Candidates are compared on a part of the training images that is held out of their training. The
    test images are not touched, so that they still measure what is trained with the best.

    Args:
        recipe: what to learn.
        config: how to train, a `recipe.Config`; the same for all candidates, but for what is searched.
        space: the lowest and highest value of each hyperparameter, of `SEARCHABLE`. None for learning
            rate and weight decay around what is usual with the optimizer, but those that `config` sets.
        stages: see `training.search`.
        held_out: the share of the training examples (of every class, where they have one) to compare
            candidates by.
        together: how many candidates are trained at once; see `training.search`.
        script: that registered the recipe, for the command that trains with the best.
        progress: show a bar, and what each stage found.

    Returns:
        The directory and the result. In it: `search.json` (saved after each stage), `search.md`, a
        table, and `search.png`, a picture.

    Raises:
        InputError: for anything that does not fit.
        DivergenceError: if every candidate diverges.
    """
    refuse_what_has_no_use(config)
    given, config = config, located(config.completed())
    config.check()
    refuse_taken(config.run_dir, _TAKEN_BY)
    refuse_inside(config.run_dir, config.dataset)
    space = usual_space(given) if space is None else dict(space)
    _check_space(given, space)
    if not 0 < held_out < 1:
        raise InputError(f"held_out is {held_out}; it must be between 0 and 1, such as 0.2")
    with status(f"reading {config.dataset}", progress):
        dataset = dataset_of(recipe, config, None)
    train, validation = data.hold_out(dataset.train, held_out, config.seed)
    dataset = dataclasses.replace(dataset, train=train, test=validation)
    config = with_batch_size(config, len(train), replicas=1)
    with status("measuring the images and preparing the model", progress):
        run = prepared(recipe, config, dataset, None)
    refuse_growing(run)
    steps_per_epoch = data.steps_per_epoch(run.train, config.batch_size)

    def optimizer(steps: int, **values):
        epochs = steps // steps_per_epoch
        settings = dataclasses.replace(config, epochs=epochs, **values)
        return run.transform(make_optimizer(settings, steps_per_epoch))

    def save(directory: Path, result: SearchResult) -> None:
        found = {"command": None, **result.to_dict()}
        if result.best is not None:
            found["command"] = train_command(recipe, config, result.best.values, script)
        atomic.write_text(directory / RESULT_FILE, json.dumps(found, indent=1, allow_nan=False) + "\n")
        atomic.write_text(directory / "search.md", result.to_markdown())

    making = new_directory(
        config.run_dir,
        f"search_{run.name}",
        config.dataset,
        taken_by=_TAKEN_BY,
        begun=lambda directory: (directory / RESULT_FILE).exists(),
    )
    with making as directory:
        result = training.search(
            run.task,
            run.train,
            run.test,
            optimizer=optimizer,
            space=space,
            stages=stages,
            batch_size=config.batch_size,
            seed=config.seed,
            precision=config.precision,
            stop_above=config.stop_above,
            together=together,
            workers=config.workers,
            parallel=DataParallel.create(config.strategy),
            variables=run.variables,
            make_rule=recipe.make_rule,
            on_stage=partial(save, directory),
            progress=progress,
        )
    from jaxnets.explain import plot_search

    plot_search(result.to_dict(), directory / "search.png")
    return directory, result


def usual_space(config: RunConfig) -> Space:
    """Learning rate and weight decay, two decades about what is usual of the optimizer, or of the task
    with it; but those that are set."""
    usual, completed = usual_settings(config.optimizer)._asdict(), config.completed()
    usual |= {name: own for name in usual if (own := getattr(completed, name)) is not None}
    space = {name: (value / REACH, value * REACH) for name, value in usual.items()}
    if not usual["weight_decay"]:
        space["weight_decay"] = NO_USUAL_DECAY
    return {name: ends for name, ends in space.items() if getattr(config, name) is None}


def parse_space(texts: Sequence[str]) -> Space:
    """["learning_rate=1e-5:0.1"] as a space.

    Raises:
        InputError: one that is not NAME=LOW:HIGH.
    """
    space = {}
    for text in texts:
        name, _, ends = text.partition("=")
        low, _, high = ends.partition(":")
        try:
            space[name] = (float(low), float(high))
        except ValueError:
            raise InputError(
                f"space: {text!r} is not of the form NAME=LOW:HIGH, such as learning_rate=1e-5:0.1"
            ) from None
    return space


def train_command(
    recipe: Recipe, config: RunConfig, values: Mapping[str, float], script: str | None = None
) -> str:
    """The `jaxnets train` that trains with these hyperparameters, and with the rest of a search."""
    words = ["jaxnets", "train", *([script] if script else []), recipe.name]
    config, usual = config.completed(), recipe.Config()
    for field in dataclasses.fields(config):
        value = values.get(field.name, getattr(config, field.name))
        if field.name in (*_NOT_TAKEN, "run_dir") or value == getattr(usual, field.name):
            continue
        words.append(f"--{field.name.replace('_', '-')}")
        if isinstance(value, tuple):
            words += value
        elif value is not True or getattr(usual, field.name) is None:  # else a flag
            words.append(str(value))
    return shlex.join(words)


def refuse_what_has_no_use(config: RunConfig) -> None:
    usual = type(config)()
    for name in _NOT_TAKEN:
        if getattr(config, name) != getattr(usual, name):
            raise InputError(f"{name} has no part in a search; leave it out, and give it to train")


def _check_space(config: RunConfig, space: Space) -> None:
    for name in space:
        if name not in SEARCHABLE:
            raise unknown_name("hyperparameter", name, SEARCHABLE)
        if name == "momentum" and config.optimizer not in WITH_MOMENTUM:
            raise InputError(
                f"space: {config.optimizer} has no momentum; {', '.join(WITH_MOMENTUM)} have"
            )
        if name == "momentum" and space[name][1] >= 1:
            raise InputError(f"space: momentum goes up to {space[name][1]:g}; it must stay below 1")
        if getattr(config, name) != getattr(RunConfig(), name):
            raise InputError(f"{name} is both set and searched; give one of the two")
    if not space:
        raise InputError("space: learning rate and weight decay are both set; nothing is left to search")
