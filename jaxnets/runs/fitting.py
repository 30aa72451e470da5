"""What every run does, whatever it learns: it begins or goes on, trains, and leaves a directory."""

import contextlib
import dataclasses
import shlex
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import optax

from jaxnets import atomic, data, training
from jaxnets.config import (
    RunConfig,
    has_checkpoint,
    newest_run,
    parse_settings,
    read_config,
    refuse_changes,
    write_config,
)
from jaxnets.console import PlainConsole, status
from jaxnets.data import sources
from jaxnets.errors import InputError
from jaxnets.layout import CHECKPOINTS, CONFIG_FILE
from jaxnets.paths import expanded
from jaxnets.runs.directories import new_directory, refuse_inside, refuse_taken
from jaxnets.runs.pictures import draw_history
from jaxnets.runs.recipe import Prepared, Recipe, Run, dataset_of, located, prepared, with_batch_size
from jaxnets.runs.remembered import refuse_other_files, with_files
from jaxnets.training import DataParallel, History, Task
from jaxnets.training.optimizers import usual_settings
from jaxnets.training.parallel import is_main_process
from jaxnets.training.schedules import RISING
from jaxnets.training.task import headline_of

Step = int | Literal["latest", "best"]

# What has a field of its own.
_DECIDED = ("learning_rate", "weight_decay", "momentum", "clip_norm", "total_steps", "warmup_steps")
_TAKEN_BY = {CONFIG_FILE: "a run", CHECKPOINTS: "a run"}


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
    config, remembered = _begun(recipe, config)
    # A run that was killed before its first checkpoint starts over, from pretrained weights again.
    about = remembered if config.resume and has_checkpoint(config.run_dir) else None
    parallel = DataParallel.create(config.strategy)
    progress = progress and is_main_process()
    with status(f"reading {config.dataset}", progress):
        dataset = dataset_of(recipe, config, about)
    if remembered is not None:
        refuse_other_files(remembered, dataset, config)
    config = with_batch_size(config, len(dataset.train), parallel.replicas)
    with status("measuring the images and preparing the model", progress):
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
        remat=config.remat,
    )
    for note in run.notes if progress else ():
        PlainConsole(soft_wrap=True).print(note)
    if about is None:
        remembered = with_files(run.about, dataset)
    with _in_directory(recipe, config, run, remembered, new=about is None, script=script) as directory:
        _, history = training.fit(
            run.task,
            run.train,
            test=run.test,
            rule=rule,
            variables=run.variables,
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
            sides=run.sides,
            measure=recipe.measure and partial(recipe.measure, run.task),
            parallel=parallel,
            profile=config.profile,
            progress=progress,
            stop=stop,
        )
    draw_history(directory, headline_of(run.task))
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
    directory = expanded(directory)
    config, about = read_run(recipe, directory)
    task = _restored(recipe, config, about)
    return Run(recipe, directory, config, about, task, _load_variables(directory, step))


def read_run(recipe: Recipe, directory: str | Path) -> tuple[RunConfig, dict[str, Any]]:
    """The configuration of the run in a directory, and what it remembers of its data.

    Raises:
        InputError: if it holds no run, one of another task, or the file of another program.
    """
    directory = expanded(directory)
    name, values, about = read_config(directory)
    if name != recipe.name:
        raise InputError(f"{directory} holds a run of {name}; wanted one of {recipe.name}")
    with _told_of(directory / CONFIG_FILE):
        config = recipe.Config.saved(values)
        config.check()
    return dataclasses.replace(config, run_dir=directory), about


def make_optimizer(config: RunConfig, steps_per_epoch: int) -> optax.GradientTransformation:
    """The optimizer as configured; its learning rate, weight decay and momentum may be traced."""
    rate = config.learning_rate
    if rate is None:
        rate = usual_settings(config.optimizer).learning_rate
    warmup = config.warmup_epochs
    if warmup is None:
        warmup = 0 if config.schedule in RISING else min(1, config.epochs / 10)
    schedule = training.create_schedule(
        config.schedule,
        rate,
        config.epochs * steps_per_epoch,
        warmup_steps=round(warmup * steps_per_epoch),
        **parse_settings(config.schedule_settings, _DECIDED, "schedule_settings"),
    )
    return create_configured(config, schedule)


def create_configured(config: RunConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """The optimizer as configured, with another schedule of the learning rate."""
    decay = config.weight_decay
    if decay is None:
        decay = usual_settings(config.optimizer).weight_decay
    return training.create_optimizer(
        config.optimizer,
        schedule,
        weight_decay=decay,
        momentum=config.momentum,
        clip_norm=config.clip_norm,
        **parse_settings(config.optimizer_settings, _DECIDED, "optimizer_settings"),
    )


def _begun(recipe: Recipe, config: RunConfig) -> tuple[RunConfig, Mapping[str, Any] | None]:
    """The whole configuration and, of a run that is resumed, what it remembers of its data."""
    config = located(config.completed())
    config.check()
    if not config.resume:
        refuse_taken(config.run_dir, _TAKEN_BY)
        refuse_inside(config.run_dir, config.dataset)
        return config, None
    config = dataclasses.replace(config, run_dir=config.run_dir or newest_run(usable=False))
    saved, about = read_run(recipe, config.run_dir)
    if config.batch_size is None:
        config = dataclasses.replace(config, batch_size=saved.batch_size)
    saved = located(saved)
    if sources.has_path(saved.dataset) and sources.has_path(config.dataset):
        # It may have been moved; what it holds is compared once it is read.
        saved = dataclasses.replace(saved, dataset=config.dataset)
    refuse_changes(saved, config)
    if has_checkpoint(config.run_dir):
        _restored(recipe, saved, about)
    return config, about


@contextlib.contextmanager
def _in_directory(
    recipe: Recipe,
    config: RunConfig,
    run: Prepared,
    remembered: Mapping[str, Any],
    *,
    new: bool,
    script: str | None,
) -> Iterator[Path]:
    """The directory of a run, with what it keeps of itself; if it fails, what it recorded is drawn.

    Args:
        recipe, config, run: what is trained.
        remembered: of its data.
        new: whether it begins.
        script: that registered the recipe, for the command that resumes it.
    """
    making = contextlib.nullcontext(config.run_dir)
    if not config.resume:
        making = new_directory(
            config.run_dir,
            run.name,
            config.dataset,
            taken_by=_TAKEN_BY,
            begun=_has_begun,
            claim=CHECKPOINTS,
        )
    with making as directory:
        before = None
        if is_main_process():
            if config.resume:
                before = (directory / CONFIG_FILE).read_text(encoding="utf-8")
                began = len(training.read_history(directory).steps)
            if new:
                run.write(directory)
            # Also of a run that is resumed: it may have more epochs now, and its data lie elsewhere.
            write_config(directory, recipe.name, config, remembered)
        try:
            yield directory
        except BaseException as error:
            if before and len(training.read_history(directory).steps) == began:  # it was refused
                atomic.write_text(directory / CONFIG_FILE, before)
            if isinstance(error, KeyboardInterrupt):
                error.add_note(f"resume it by {resume_command(directory, script)}")
            with contextlib.suppress(OSError):  # of a full disk, say, which the first error tells better
                draw_history(directory, headline_of(run.task))
            raise


def _has_begun(directory: Path) -> bool:
    return bool(training.read_history(directory).steps) or has_checkpoint(directory)


def _restored(recipe: Recipe, config: RunConfig, about: Mapping[str, Any]) -> Task:
    """The task of a run that has been read."""
    with _told_of(config.run_dir / CONFIG_FILE):
        return recipe.restore(config, about, config.run_dir)


@contextlib.contextmanager
def _told_of(path: Path) -> Iterator[None]:
    """Errors inside as those of a file from which everything inside comes."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise InputError(f"{path} is not as a run writes it ({what})") from error


def _load_variables(directory: Path, step: Step) -> dict[str, Any]:
    checkpointer = training.Checkpointer(directory / CHECKPOINTS, read_only=True)
    try:
        if not isinstance(step, int):
            step = checkpointer.best_step if step == "best" else checkpointer.latest_step
        return checkpointer.restore_variables(step)
    finally:
        checkpointer.close()
