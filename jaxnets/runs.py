"""A training run as a whole: from a flat configuration to a directory, and back from it.

`jaxnets train`, `eval` and `predict` are thin faces of `train`, `load_run`, and its methods. Scripts
that need more freedom call `jaxnets.training.fit` themselves.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from jaxnets import data, training
from jaxnets.classification import Classification
from jaxnets.config import (
    CONFIG_FILE,
    RUNS,
    Config,
    completed,
    newest_run,
    parse_settings,
    read_config,
    refuse_changes,
    write_config,
)
from jaxnets.data import decoding
from jaxnets.errors import InputError
from jaxnets.models import create_model, model_info
from jaxnets.run_pictures import draw_history, draw_predictions
from jaxnets.training import DataParallel, History
from jaxnets.training.fit import CHECKPOINTS
from jaxnets.training.optimizers import OPTIMIZERS
from jaxnets.training.parallel import is_main_process, wait_for_all


def train(config: Config, progress: bool = True) -> tuple[Path, History]:
    """Trains as configured, or goes on with a run; leaves everything in the run's directory.

    Args:
        config: how. With `resume`, everything that makes the numbers must be as it was.
        progress: show a bar and a row for each epoch.

    Returns:
        The directory and the history. In it: `config.json`, `checkpoints/`, `metrics.jsonl`,
        TensorBoard files and `curves.png`, with `plots` those of `draw_plots` too.

    Raises:
        InputError: for anything in the configuration that does not fit.
    """
    config = begin(config)
    dataset = load_dataset(config)
    model = create_model(
        config.model, num_classes=dataset.num_classes, **parse_settings(config.settings)
    )
    task = make_task(config, model, dataset)
    train_source = dataset.train
    if config.balance in ("over", "under"):
        train_source = data.class_balanced(train_source, config.balance, config.seed)
    about = {
        "class_names": dataset.class_names,
        "image_shape": dataset.image_shape,
        "mean": task.mean,
        "std": task.std,
    }
    directory, history = fit(config, task, train_source, dataset.test, about, progress=progress)
    if config.plots and jax.process_count() == 1:
        draw_plots(directory)
    return directory, history


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


@dataclass(frozen=True)
class Run:
    """A trained model, ready to be used.

    Attributes:
        directory: where it was read from.
        config: how it was trained.
        class_names: what its labels mean.
        image_shape: (H, W, C) of the images it was trained on.
        task: the model, with the normalisation of its images.
        variables: what it learnt.
    """

    directory: Path
    config: Config
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    task: Classification
    variables: dict[str, Any]

    def evaluate(
        self, dataset: str | None = None, *, batch_size: int = 128
    ) -> dict[str, float | np.ndarray]:
        """Measures the model on the held-out images of a dataset; of its own where None.

        Returns:
            `loss`, `top1`, `top5` where there are more than five classes, and `confusion`.

        Raises:
            InputError: if the dataset has other classes or channels.
        """
        parallel = DataParallel.create()
        batch_size = -(-batch_size // parallel.replicas) * parallel.replicas
        held_out = self.held_out(dataset)
        return training.evaluate(
            self.task, self.variables, held_out, batch_size=batch_size, parallel=parallel
        )

    def held_out(self, dataset: str | None = None) -> data.Source:
        """The held-out images of a dataset, of its own where None; InputError as for `evaluate`."""
        config = self.config if dataset is None else dataclasses.replace(self.config, dataset=dataset)
        loaded = load_dataset(config, size=self.image_shape[0], channels=self.image_shape[2])
        if loaded.class_names != self.class_names:
            raise InputError(
                f"dataset {loaded.name} has classes {_some(loaded.class_names)}, but the run in "
                f"{self.directory} was trained on {_some(self.class_names)}"
            )
        return loaded.test

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Probabilities f32[N, K] of the classes for images uint8[N, H, W, C]."""
        return np.asarray(self._predict(self.variables, {"image": images}))

    def read_image(self, path: str | Path) -> np.ndarray:
        """Reads a picture as the model wants it: uint8[H, W, C].

        Raises:
            InputError: if it cannot be read.
        """
        return decoding.read_picture(path, self.image_shape[0], self.image_shape[2])

    @cached_property
    def _predict(self):
        scores = jax.jit(self.task.predict)
        if self.config.loss == "bce":
            return lambda *arguments: jax.nn.sigmoid(scores(*arguments))
        return lambda *arguments: jax.nn.softmax(scores(*arguments))


def load_run(directory: str | Path, step: int | Literal["latest", "best"] = "latest") -> Run:
    """Reads a run's directory; nothing else is needed.

    Args:
        directory: that `train` made.
        step: which checkpoint: the "latest", the "best" by test accuracy, or that of a step.

    Raises:
        InputError: if it holds no run or no such checkpoint.
    """
    directory = Path(directory)
    config, about = read_config(directory)
    model = create_model(
        config.model,
        num_classes=len(about["class_names"]),
        **parse_settings(config.settings),
    )
    return Run(
        directory=directory,
        config=config,
        class_names=tuple(about["class_names"]),
        image_shape=tuple(about["image_shape"]),
        task=Classification(
            model, mean=tuple(about["mean"]), std=tuple(about["std"]), loss_name=config.loss
        ),
        variables=load_variables(directory, step),
    )


def draw_plots(directory: str | Path, step: int | Literal["latest", "best"] = "latest") -> list[Path]:
    """Draws the pictures of a run into its directory, and returns which: see `run_pictures`.

    Those of what it predicts, on its held-out images, are for classifiers only.

    Raises:
        InputError: if the directory holds no run or no such checkpoint.
    """
    directory = Path(directory)
    drawn = draw_history(directory)
    if read_config(directory)[0].task == "captioning":
        return drawn
    run = load_run(directory, step)
    return drawn + draw_predictions(directory, run.predict, run.held_out(), run.class_names)


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


def load_dataset(config: Config, size: int | None = None, channels: int | None = None) -> data.Dataset:
    """The dataset as configured, in images that suit the model where no size is given."""
    if size is None:
        size = config.image_size or _natural_size(config)
    options = {"size": size, "channels": channels}
    if config.dataset != "digits":
        options["strict"] = config.strict
    if config.dataset.startswith("tfds:"):
        options["data_dir"] = config.data_dir
    return data.load(config.dataset, **options)


def _natural_size(config: Config) -> int | None:
    """What the model insists on, or was made for where the images have no size of their own."""
    info = model_info(config.model)
    model = create_model(config.model)
    fixed = model.min_size == model.max_size
    return info.input_size[0] if fixed or config.dataset.startswith("folder:") else None


def make_task(config: Config, model, dataset: data.Dataset) -> Classification:
    """The task as configured, with the statistics and the usual augmentation of the training images."""
    mean, std = data.channel_statistics(dataset.train)
    names = (_usual_augmentation(dataset),) if config.augment is None else config.augment
    if config.mixup and config.cutmix:
        raise InputError("mixup and cutmix: give one of the two")
    mix = None
    if config.mixup or config.cutmix:
        mix = (
            data.augmentation.mixup(config.mixup)
            if config.mixup
            else data.augmentation.cutmix(config.cutmix)
        )
    weights = None
    if config.balance == "weights":
        weights = tuple(data.class_weights(dataset.train).tolist())
    return Classification(
        model,
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        loss_name=config.loss,
        label_smoothing=config.label_smoothing,
        class_weights=weights,
        augment=data.augmentation.by_name(names) if names else None,
        mix=mix,
    )


def _usual_augmentation(dataset: data.Dataset) -> str:
    """By the look of the images: grey ones may be of digits, which must not be flipped."""
    height, _, channels = dataset.image_shape
    if channels == 1:
        return "digits"
    return "cifar" if height <= 64 else "imagenet"


def make_optimizer(config: Config, steps_per_epoch: int):
    """The optimiser as configured; its learning rate, weight decay and the like may be traced."""
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


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 3 else shown
