"""Runs of classifiers: from a flat configuration to a directory, and back from it."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from jaxnets import data, training
from jaxnets.classification import Classification
from jaxnets.config import Config, parse_settings, read_config
from jaxnets.data import decoding
from jaxnets.errors import InputError
from jaxnets.models import create_model, model_info
from jaxnets.runs.fitting import begin, fit, load_variables
from jaxnets.training import DataParallel, History


def train(config: Config, progress: bool = True) -> tuple[Path, History]:
    """Trains a classifier; see `jaxnets.runs.train`."""
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
    return fit(config, task, train_source, dataset.test, about, progress=progress)


@dataclass(frozen=True)
class Run:
    """A trained model, ready to be used.

    Attributes:
        directory: where it was read from.
        config: how it was trained.
        class_names: what its labels mean.
        image_shape: (H, W, C) of the images it was trained on.
        task: the model, with the normalization of its images.
        variables: what it learned.
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


def load_run(directory: Path, step: int | Literal["latest", "best"]) -> Run:
    """Reads the directory of a classifier's run; see `jaxnets.runs.load_run`."""
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
    """By the look of the images: gray ones may be of digits, which must not be flipped."""
    height, _, channels = dataset.image_shape
    if channels == 1:
        return "digits"
    return "cifar" if height <= 64 else "imagenet"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 3 else shown
