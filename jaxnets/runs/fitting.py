"""What every run does, whatever it learns: it begins or goes on, trains, and leaves a directory."""

import contextlib
import dataclasses
import itertools
import shlex
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import optax
from rich.console import Console

from jaxnets import data, training
from jaxnets.config import (
    CONFIG_FILE,
    RUNS,
    RunConfig,
    is_run,
    newest_run,
    read_config,
    refuse_changes,
    write_config,
)
from jaxnets.errors import InputError
from jaxnets.runs.pictures import draw_history
from jaxnets.runs.recipe import Prepared, Recipe, Run, dataset_of, prepared, with_batch_size
from jaxnets.training import DataParallel, History
from jaxnets.training.fitting import CHECKPOINTS
from jaxnets.training.optimizers import OPTIMIZERS
from jaxnets.training.parallel import is_main_process, wait_for_all
from jaxnets.training.task import headline_of

Step = int | Literal["latest", "best"]


def train(
    recipe: Recipe,
    config: RunConfig,
    progress: bool = True,
    *,
    stop: Callable[[int], bool] = lambda step: False,
    script: str | None = None,
) -> tuple[Path, History]:
    """Trains as configured, or resumes a run; leaves everything in the run's directory.

    Args:
        recipe: what to learn.
        config: how, a `recipe.Config`. With `resume`, everything that makes the numbers must be as it
            was.
        progress: show a bar and a row for each epoch.
        stop: asked after each step whether to save and end early; see `training.fit`.
        script: that registered the recipe, for the command that resumes an interrupted run.

    Returns:
        The directory and the history. In it: `config.json`, `checkpoints/`, `metrics.jsonl`,
        TensorBoard files and `curves.png`; with `plots` what `draw_plots` draws too.

    Raises:
        InputError: for anything in the configuration that does not fit.
        KeyboardInterrupt: with a note of the command that resumes the run.
    """
    if config.checkpoint is not None and not config.resume:
        raise InputError(
            f"checkpoint is {config.checkpoint}, which is for --resume; give both or neither"
        )
    config, about = _begun(recipe, config)
    parallel = DataParallel.create(config.strategy)
    dataset = dataset_of(recipe, config, about)
    config = with_batch_size(config, len(dataset.train), parallel.replicas)
    run = prepared(recipe, config, dataset, about)
    steps_per_epoch = data.steps_per_epoch(
        run.train, parallel.local_batch_size(config.batch_size), jax.process_count()
    )
    rule = recipe.make_rule(
        run.task,
        run.transform(make_optimizer(config, steps_per_epoch)),
        precision=config.precision,
        accumulate=config.accumulate,
        ema_decay=config.ema_decay,
    )
    directory = config.run_dir if config.resume else _make_directory(config, run)
    if is_main_process():
        if about is None:
            run.write(directory)
        # Also of a run that is resumed: it may have more epochs now, which it is to have once more.
        write_config(directory, recipe.name, config, run.about if about is None else about)
    if progress and is_main_process():
        for note in run.notes:
            Console(highlight=False, soft_wrap=True).print(note)
    headline = headline_of(run.task)
    try:
        _, history = training.fit(
            run.task,
            run.train,
            test=run.test,
            rule=rule,
            variables=run.variables,
            measure=recipe.measure and partial(recipe.measure, run.task),
            epochs=config.epochs,
            batch_size=config.batch_size,
            seed=config.seed,
            directory=directory,
            resume=config.resume,
            checkpoint=config.checkpoint,
            precision=config.precision,
            ema_decay=config.ema_decay,
            patience=config.patience,
            stop_above=config.stop_above,
            log_every=config.log_every,
            checkpoint_every=config.checkpoint_every,
            keep=config.keep,
            workers=config.workers,
            layer_ratios=config.plots,
            parallel=parallel,
            profile=config.profile,
            progress=progress,
            stop=stop,
        )
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            error.add_note(f"resume it by {resume_command(directory, script)}")
        with contextlib.suppress(OSError):  # of a full disk, say, which the first error tells better
            draw_history(directory, headline)
        raise
    draw_history(directory, headline)
    if config.plots and jax.process_count() == 1:
        recipe.draw(load_run(recipe, directory))
    return directory, history


def resume_command(directory: Path, script: str | None = None) -> str:
    """The command that resumes the run in a directory, of a recipe that a script registered."""
    words = ["jaxnets", "train", *([script] if script else []), "--resume", "--run-dir", str(directory)]
    return shlex.join(words)


def draw_plots(recipe: Recipe, directory: str | Path, step: Step = "latest") -> list[Path]:
    """Draws the pictures of a run into its directory, and returns which.

    Raises:
        InputError: if the directory holds no run or no such checkpoint.
    """
    run = load_run(recipe, directory, step)
    return draw_history(run.directory, headline_of(run.task)) + recipe.draw(run)


def load_run(recipe: Recipe, directory: str | Path, step: Step = "latest") -> Run:
    """Reads a run's directory; nothing else is needed.

    Args:
        recipe: what it has learned.
        directory: that `train` made.
        step: which checkpoint: the "latest", the "best" on the test examples, or that of a step.

    Raises:
        InputError: if it holds no run, one of another task, or no such checkpoint.
    """
    directory = Path(directory)
    config, about = read_run(recipe, directory)
    task = recipe.restore(config, about, directory)
    return Run(recipe, directory, config, about, task, _load_variables(directory, step))


def read_run(recipe: Recipe, directory: str | Path) -> tuple[RunConfig, dict[str, Any]]:
    """The configuration of the run in a directory, and what it remembers of its data.

    Raises:
        InputError: if it holds no run, or one of another task.
    """
    name, values, about = read_config(directory)
    if name != recipe.name:
        raise InputError(f"{directory} holds a run of {name}; wanted one of {recipe.name}")
    config = recipe.Config.saved(values)
    return dataclasses.replace(config, run_dir=Path(directory)), about


def make_optimizer(config: RunConfig, steps_per_epoch: int) -> optax.GradientTransformation:
    """The optimizer as configured; its learning rate, weight decay and the like may be traced."""
    if config.optimizer not in OPTIMIZERS:  # told by create_optimizer, with the nearest names
        return training.create_optimizer(config.optimizer, 0.0)
    usual = OPTIMIZERS[config.optimizer]
    rate = usual.learning_rate if config.learning_rate is None else config.learning_rate
    decay = usual.weight_decay if config.weight_decay is None else config.weight_decay
    warmup = min(1, config.epochs / 10) if config.warmup_epochs is None else config.warmup_epochs
    schedule = training.create_schedule(
        config.schedule,
        rate,
        config.epochs * steps_per_epoch,
        warmup_steps=round(warmup * steps_per_epoch),
    )
    return training.create_optimizer(
        config.optimizer,
        schedule,
        weight_decay=decay,
        momentum=config.momentum,
        clip_norm=config.clip_norm,
    )


def next_directory(name: str, dataset: str) -> Path:
    """The first of runs/NAME_DATASET_1, runs/NAME_DATASET_2 ... that is not there yet."""
    stem = f"{name}_{Path(dataset.partition(':')[2] or dataset).name}"
    taken = {entry.name for entry in RUNS.glob(f"{stem}_*")}
    return RUNS / next(f"{stem}_{k}" for k in itertools.count(1) if f"{stem}_{k}" not in taken)


def _begun(recipe: Recipe, config: RunConfig) -> tuple[RunConfig, Mapping[str, Any] | None]:
    """The whole configuration and, of a run that is resumed, what it remembers of its data."""
    config = config.completed()
    if config.epochs < 1:
        raise InputError(f"epochs is {config.epochs}; it must be 1 or more")
    if not config.resume:
        return config, None
    config = dataclasses.replace(config, run_dir=config.run_dir or newest_run())
    saved, about = read_run(recipe, config.run_dir)
    if config.batch_size is None:
        config = dataclasses.replace(config, batch_size=saved.batch_size)
    refuse_changes(saved, config)
    # A run that was killed before its first checkpoint starts over, from pretrained weights again.
    return config, about if is_run(config.run_dir) and _steps(config.run_dir) else None


def _steps(directory: Path) -> list[str]:
    """The checkpoints of a run, by their steps."""
    return [path.name for path in (directory / CHECKPOINTS).iterdir() if path.name.isdigit()]


def _load_variables(directory: Path, step: Step) -> dict[str, Any]:
    checkpointer = training.Checkpointer(directory / CHECKPOINTS, read_only=True)
    try:
        if not isinstance(step, int):
            step = checkpointer.best_step if step == "best" else checkpointer.latest_step
        return checkpointer.restore_variables(step)
    finally:
        checkpointer.close()


def _make_directory(config: RunConfig, run: Prepared) -> Path:
    """Makes the directory of a new run; never one that holds a run already."""
    directory = config.run_dir
    if directory is None:
        if jax.process_count() > 1:
            raise InputError("run_dir: with several processes, name one that all of them see")
        directory = next_directory(run.name, config.dataset)
    elif (directory / CONFIG_FILE).exists():
        raise InputError(
            f"run_dir: {directory} holds a run already; go on with it by --resume, or choose another"
        )
    wait_for_all("run directory chosen")  # before the main process writes into it
    directory.mkdir(parents=True, exist_ok=True)
    return directory
