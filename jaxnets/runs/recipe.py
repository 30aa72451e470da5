"""What runs and the command line know of a task."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import optax

from jaxnets import metrics
from jaxnets.config import ImageConfig, RunConfig
from jaxnets.data import Dataset, Source, augmentation, load, sources
from jaxnets.errors import InputError, some
from jaxnets.metrics import Metrics
from jaxnets.models import list_models
from jaxnets.paths import expanded, name_and_source
from jaxnets.training import Task, UpdateRule, evaluation, usual_rule
from jaxnets.training.evaluation import Predictions
from jaxnets.training.task import Variables

Optimizer = optax.GradientTransformation


class Prepared(NamedTuple):
    """A run before its first step.

    Attributes:
        name: what the directory of the run is called after, such as the model's name.
        task: what to learn.
        train: examples to learn from.
        test: examples to measure by.
        about: what the run is to remember besides its configuration, for JSON.
        variables: where to begin, such as pretrained ones; drawn where None.
        transform: what becomes of the optimizer, such as one that leaves some parameters as they are.
        write: called with the directory of a new run, to leave further files there.
        sides: of the training images in each epoch, as for `training.fit`.
        notes: lines for the user, before training begins.
    """

    name: str
    task: Task
    train: Source
    test: Source
    about: Mapping[str, Any] = {}
    variables: Variables | None = None
    transform: Callable[[Optimizer], Optimizer] = lambda optimizer: optimizer
    write: Callable[[Path], None] = lambda directory: None
    sides: Sequence[int] | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Run:
    """A trained model, ready to be used.

    Attributes:
        recipe: of its task.
        directory: where it was read from.
        config: how it was trained.
        about: what it remembers of its data.
        task: what it learned.
        variables: the variables of one of its checkpoints.
    """

    recipe: "Recipe"
    directory: Path
    config: RunConfig
    about: Mapping[str, Any]
    task: Task
    variables: Variables

    def held_out(self, dataset: str | None = None, split: str | None = None) -> Source:
        """The held-out examples of a dataset, of its own where None, as it was trained on them.

        Args:
            dataset: such as "folder:PATH".
            split: "train", "val" or "test"; None for the one that epochs are measured by.

        Raises:
            InputError: a dataset that is not of the kind that the run was trained on, or has no such
                split.
        """
        config = self.config if dataset is None else dataclasses.replace(self.config, dataset=dataset)
        return dataset_of(self.recipe, config, self.about).split(split)

    def evaluate(
        self, dataset: str | None = None, *, split: str | None = None, batch_size: int | None = None
    ) -> dict[str, Any]:
        """Measures it on the held-out examples of a dataset; of its own where None.

        Returns:
            The task's metrics, and measures of whole sets, by name.

        Raises:
            InputError: as `held_out`.
        """
        batch_size = batch_size or 2 * self.config.usual_batch
        return metrics.compute(self.recipe.evaluate(self, self.held_out(dataset, split), batch_size))

    @cached_property
    def origin(self) -> str:
        """What it is called in messages."""
        return str(self.directory)


def measured(run: Run, source: Source, batch_size: int) -> Metrics:
    """The metrics of a run's task on a source, and measures of the whole set: what `Recipe.evaluate` is
    by default."""
    own = run.recipe.measure and partial(run.recipe.measure, run.task)
    return evaluation.measured(run.task, run.variables, source, batch_size=batch_size, measure=own)


class Told(str):
    """A line for a person, which also has what it says as values for programs: none where these are
    among the values of another line.

    Example:
        >>> line = Told("a.png: cat 90%", file="a.png", label="cat", probability=0.9)
        >>> line, line.values["label"]
        ('a.png: cat 90%', 'cat')
    """

    values: Mapping[str, Any]

    def __new__(cls, text: str, **values: Any) -> "Told":
        line = super().__new__(cls, text)
        line.values = values
        return line


class Served(NamedTuple):
    """A model as it is handed on, by `jaxnets.export_model`.

    Attributes:
        run: a pure function `(variables, images uint8[N, H, W, C]) -> outputs`, an array or a dict of
            arrays with a row for each image.
        variables: for it.
        image_shape: (H, W, C).
        name: of the model.
        images: how they are made of pictures, in words.
        outputs: what they are, in words.
        about: what else there is to say, for JSON, such as `class_names`.
    """

    run: Callable[[Any, Any], Any]
    variables: Any
    image_shape: tuple[int, int, int]
    name: str
    images: str
    outputs: str
    about: Mapping[str, Any] = {}


@dataclass(frozen=True)
class NoOptions:
    """Without further options."""


class Recipe(NamedTuple):
    """A task as runs and the command line know it.

    Attributes:
        name: the word for it: `jaxnets train NAME`.
        Config: its configuration, over `RunConfig`; its docstring is what `--help` begins with.
        restore: `(config, about, directory) -> Task` of a run that has been trained.
        load: `(config, about) -> Dataset`. For a run that exists, `about` is what it remembers, which
            the dataset must fit; for a new one it is None. Default: `data.load` of the config's dataset.
        prepare: `(config, dataset, about) -> Prepared`. Default: the task that `restore` makes from the
            configuration alone.
        measure: `(task, predictions) -> Metrics`: measures of a whole set, from what
            `training.predict_all` yields, at the end of each epoch and in `evaluate`; None for those of
            the task itself, if it has a method `measure`.
        evaluate: `(run, source, batch_size) -> Metrics`, by default the task's metrics and
            measures of a whole set.
        predict: `(members, pictures, options) -> lines` for a person, of files; each may be `Told`,
            with its values for `--json`. None if it cannot.
        Predict: a dataclass of the options that `predict` takes.
        draw: `(run) -> paths` of the pictures of a trained run, drawn into its directory.
        inside: `(run) -> weights.Pretrained`: what of it `load_pretrained`, `explain` and `convert` can
            take; None if nothing.
        explain: further methods of `jaxnets explain`, by name: `(run, pictures, path)` draws.
        evaluate_pretrained: `(members, dataset, batch_size, options, split) -> Metrics` of pretrained
            models or several runs, together; None if that has no meaning.
        Evaluate: a dataclass of the options that `evaluate_pretrained` takes.
        serve: `(member, size) -> Served`: what of a run, or of a pretrained model, is handed on, for
            images of this (height, width), or of its own where None; None if nothing.
        make_rule: `(task, optimizer, *, precision, accumulate, ema_decay, remat) -> UpdateRule`, for a
            task with a step of its own; it refuses options that it does not support.
    """

    name: str
    Config: type[RunConfig]
    restore: Callable[[RunConfig, Mapping[str, Any], Path | None], Task]
    load: Callable[[RunConfig, Mapping[str, Any] | None], Dataset] | None = None
    prepare: Callable[[RunConfig, Dataset, Mapping[str, Any] | None], Prepared] | None = None
    measure: Callable[[Task, Predictions], Metrics] | None = None
    evaluate: Callable[[Run, Source, int], Metrics] = measured
    predict: Callable[[Sequence[Any], Sequence[Path], Any], Iterable[str]] | None = None
    Predict: type = NoOptions
    draw: Callable[[Run], list[Path]] = lambda run: []
    inside: Callable[[Run], Any] | None = None
    explain: Mapping[str, Callable[[Run, Sequence[Path], Path], None]] = {}
    evaluate_pretrained: Callable[[Sequence[Any], str, int, Any, str | None], Metrics] | None = None
    Evaluate: type = NoOptions
    serve: Callable[[Any, tuple[int, int] | None], Served] | None = None
    make_rule: Callable[..., UpdateRule] = usual_rule


def located(config: RunConfig) -> RunConfig:
    """The configuration with absolute paths of its data and of weights, and the home directory in place
    of a ~."""
    folder = config.data_dir
    if folder is not None and "://" not in folder:
        folder = str(expanded(folder).absolute())
    directory = None if config.run_dir is None else expanded(config.run_dir)
    dataset = sources.located(config.dataset)
    weights = {name: _located_weights(getattr(config, name)) for name in config.names_weights}
    return dataclasses.replace(config, dataset=dataset, data_dir=folder, run_dir=directory, **weights)


def _located_weights(text: str | None) -> str | None:
    """NAME, SOURCE or NAME=SOURCE with the absolute path of a source that is here."""
    if text is None or text in list_models():
        return text
    name, source = name_and_source(text)
    path = expanded(name if source is None else source)
    if not path.exists():
        return text
    return str(path.absolute()) if source is None else f"{name}={path.absolute()}"


def dataset_of(recipe: Recipe, config: RunConfig, about: Mapping[str, Any] | None) -> Dataset:
    """The dataset of a configuration, as `Recipe.load` has it."""
    return load(config.dataset) if recipe.load is None else recipe.load(config, about)


def prepared(
    recipe: Recipe, config: RunConfig, dataset: Dataset, about: Mapping[str, Any] | None
) -> Prepared:
    """A run before its first step, as `Recipe.prepare` has it."""
    if recipe.prepare is not None:
        return recipe.prepare(config, dataset, about)
    return Prepared(recipe.name, recipe.restore(config, {}, None), dataset.train, dataset.test)


def refuse_growing(run: Prepared) -> None:
    """Raises InputError where images grow, for what takes them as they are."""
    if run.sides is not None:
        raise InputError("image_size: images grow in training alone; give one size here")


def with_batch_size(config: RunConfig, examples: int, replicas: int) -> RunConfig:
    """The configuration with a batch size: the usual one where none is given or, of a small set, the
    largest power of two that is at most a quarter of it; but one example for each device at least."""
    if config.batch_size is not None:
        return config
    size = min(config.usual_batch, 2 ** max(0, int(examples // 4).bit_length() - 1))
    return dataclasses.replace(config, batch_size=-(-size // replicas) * replicas)


def refuse_other_classes(config: RunConfig, dataset: Dataset, about: Mapping[str, Any]) -> None:
    """Raises InputError unless a dataset has the classes that a run remembers."""
    if dataset.class_names != tuple(about["class_names"]):
        raise InputError(
            f"dataset {dataset.name} has classes {some(dataset.class_names)}, but the run in "
            f"{config.run_dir} was trained on {some(about['class_names'])}"
        )


def load_images(config: ImageConfig, **options: Any) -> Dataset:
    """The dataset of a configuration; further options are those of `data.load`, None for the default."""
    augmentation.by_name(config.augment or ())  # for its error, before anything is read
    options = {"size": config.image_size, **options}
    return load(config.dataset, strict=config.strict or None, data_dir=config.data_dir, **options)
