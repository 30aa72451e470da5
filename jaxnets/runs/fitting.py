"""What every run does, whatever it learns: it begins or goes on, trains, and leaves a directory."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import optax

from jaxnets import data, training
from jaxnets.config import (
    CONFIG_FILE,
    RUNS,
    Config,
    completed,
    newest_run,
    read_config,
    refuse_changes,
    write_config,
)
from jaxnets.errors import InputError
from jaxnets.runs.pictures import draw_history
from jaxnets.training import DataParallel, History
from jaxnets.training.fit import CHECKPOINTS
from jaxnets.training.optimizers import OPTIMIZERS
from jaxnets.training.parallel import is_main_process, wait_for_all


def begin(config: Config) -> Config:
    """Fills in what was left open and, where a run is gone on with, holds it against the run.

    Raises:
        InputError: no epochs, or a resumed run that would not be the one that was begun.
    """
    config = completed(config)
    if config.epochs < 1:
        raise InputError(f"epochs is {config.epochs}; it must be 1 or more")
    if config.resume:
        config = dataclasses.replace(config, run_dir=config.run_dir or newest_run())
        refuse_changes(read_config(config.run_dir)[0], config)
    return config


def fit(
    config: Config,
    task: training.Task,
    train_source: data.Source,
    test_source: data.Source,
    about: dict[str, Any],
    *,
    monitor: str | None = None,
    prepare: Callable[[Path], None] = lambda directory: None,
    progress: bool = True,
) -> tuple[Path, History]:
    """Trains any task as configured, in the run's directory.

    Args:
        config: of `begin`.
        task: what to learn.
        train_source, test_source: examples.
        about: what the run is to remember of its data.
        monitor: what says which checkpoint is best; see `training.loop.Schedule`.
        prepare: called with the directory of a new run, to leave further files there.
        progress: show a bar and a row for each epoch.

    Returns:
        The directory and the history.
    """
    parallel = DataParallel.create(config.strategy)
    steps_per_epoch = data.steps_per_epoch(
        train_source, parallel.local_batch_size(config.batch_size), jax.process_count()
    )
    optimizer = make_optimizer(config, steps_per_epoch)
    directory = config.run_dir if config.resume else _make_directory(config)
    if is_main_process() and not config.resume:
        prepare(directory)
        write_config(directory, config, about)
    try:
        _, history = training.fit(
            task,
            train_source,
            test=test_source,
            optimizer=optimizer,
            epochs=config.epochs,
            batch_size=config.batch_size,
            seed=config.seed,
            directory=directory,
            resume=config.resume,
            precision=config.precision,
            accumulate=config.accumulate,
            ema_decay=config.ema_decay,
            monitor=monitor,
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
        )
    except BaseException:
        with contextlib.suppress(OSError):  # of a full disk, say, which the first error tells better
            draw_history(directory)
        raise
    draw_history(directory)
    return directory, history


def load_variables(directory: Path, step: int | Literal["latest", "best"]) -> dict[str, Any]:
    """The variables of one of a run's checkpoints.

    Raises:
        InputError: if there is none.
    """
    checkpointer = training.Checkpointer(directory / CHECKPOINTS, read_only=True)
    try:
        steps = {"latest": checkpointer.latest_step, "best": checkpointer.best_step}
        return checkpointer.restore_variables(steps.get(step, step))
    finally:
        checkpointer.close()


def make_optimizer(config: Config, steps_per_epoch: int) -> optax.GradientTransformation:
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


def next_directory(stem: str) -> Path:
    """The first of runs/STEM_1, runs/STEM_2 ... that is not there yet."""
    taken = {entry.name for entry in RUNS.glob(f"{stem}_*")}
    return RUNS / next(f"{stem}_{k}" for k in itertools.count(1) if f"{stem}_{k}" not in taken)


def _make_directory(config: Config) -> Path:
    """Makes the directory of a new run; never one that holds a run already."""
    directory = config.run_dir
    if directory is None:
        if jax.process_count() > 1:
            raise InputError("run_dir: with several processes, name one that all of them see")
        path = config.dataset.partition(":")[2] or config.dataset
        what = config.captioner if config.task == "captioning" else config.model
        stem = f"{what}_{Path(path).name}"
        directory = next_directory(stem)
    elif (directory / CONFIG_FILE).exists():
        raise InputError(
            f"run_dir: {directory} holds a run already; go on with it by --resume, or choose another"
        )
    wait_for_all("run directory chosen")  # before the main process writes into it
    directory.mkdir(parents=True, exist_ok=True)
    return directory
