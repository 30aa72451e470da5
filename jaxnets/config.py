"""The configuration that every training run has, and the file in which a run keeps it.

A task's own configuration is a dataclass over `RunConfig`, or over `ImageConfig` where it learns from
images: its fields and defaults, which `jaxnets train --help` shows.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_origin, get_type_hints

from jaxnets import atomic
from jaxnets.errors import InputError
from jaxnets.layout import CHECKPOINTS, CONFIG_FILE
from jaxnets.paths import expanded
from jaxnets.ranges import COUNTS, SEEDS, SIDES, Range, fits, refuse_outside

RUNS = Path("runs")


@dataclass(frozen=True)
class RunConfig:
    """What is configured of any run."""

    model: str | None = None
    """Architecture; `jaxnets models` lists them."""
    settings: tuple[str, ...] = ()
    """Its settings: drop_path=0.2 ..."""
    dataset: str = ""
    """What to train on."""
    data_dir: str | None = None
    """Where tfds keeps datasets."""

    epochs: int = 10
    """Passes over the training set."""
    batch_size: int | None = None
    """Examples a step; None for at most 64."""
    optimizer: str = "adamw"
    """momentum, nesterov, sam or any of Optax's: lamb, contrib.muon ..."""
    optimizer_settings: tuple[str, ...] = ()
    """Its settings: b2=0.95 ..."""
    learning_rate: float | None = None
    """Peak learning rate; None for the optimizer's usual."""
    schedule: str = "cosine"
    """constant, cosine, step, polynomial, exponential, restarts or one_cycle."""
    schedule_settings: tuple[str, ...] = ()
    """Its settings: power=2 ..."""
    warmup_epochs: float | None = None
    """Epochs of warm-up; None for at most 1."""
    weight_decay: float | None = None
    """Of kernels; None for the optimizer's usual."""
    momentum: float = 0.9
    """Of momentum, nesterov, rmsprop, lars and sam."""
    clip_norm: float | None = None
    """Largest global norm of the gradient."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the forward and backward pass."""
    accumulate: int = 1
    """Micro-batches in each step."""
    ema_decay: float | None = None
    """Decay of averaged weights: 0.999, say."""
    remat: bool = False
    """Recompute blocks to save memory."""
    patience: int | None = None
    """Epochs without improvement to stop at."""
    stop_above: float | None = 3.0
    """Stop when the loss passes this multiple of its start."""
    seed: int = 0
    """Seed of all randomness."""

    run_dir: Path | None = None
    """Directory of the run; None for a new one under runs/."""
    resume: bool = False
    """Resume the run in run-dir, or the newest one under runs/."""
    checkpoint: int | None = None
    """Step to resume from; drops later ones."""
    log_every: int = 10
    """Steps between records."""
    checkpoint_every: int | None = None
    """Steps between checkpoints in an epoch."""
    keep: int = 2
    """Checkpoints to keep besides the best."""
    workers: int = 0
    """Processes that load data; 0 for threads."""
    profile: bool = False
    """Trace a few steps for JAX's profiler."""
    plots: bool = False
    """Draw more pictures than the curves."""
    strategy: Literal["auto", "pmap", "shard_map", "single"] = "auto"
    """How to use the devices; auto is pmap for several."""

    ranges: ClassVar[Mapping[str, Range]] = {
        "epochs": Range(1),
        "batch_size": COUNTS,
        "learning_rate": Range(0),
        "warmup_epochs": Range(0),
        "weight_decay": Range(0),
        "momentum": Range(0, 1, below=True),
        "clip_norm": Range(0, above=True),
        "accumulate": Range(1),
        "ema_decay": Range(0, 1, above=True, below=True),
        "patience": Range(1),
        "stop_above": Range(1, above=True),
        "seed": SEEDS,
        "log_every": Range(1),
        "checkpoint": Range(0),
        "checkpoint_every": Range(1),
        "keep": Range(1),
        "workers": Range(0),
    }
    """The numbers that a field may have, where it is not None."""

    usual_batch: ClassVar[int] = 64  # examples a step
    names_weights: ClassVar[tuple[str, ...]] = ()  # fields of NAME, SOURCE or NAME=SOURCE

    # What may differ between a run and its continuation; the dataset may lie elsewhere.
    free_on_resume: ClassVar[frozenset[str]] = frozenset(
        {"epochs", "run_dir", "resume", "checkpoint", "log_every", "checkpoint_every", "keep", "workers",
         "strategy", "stop_above", "patience", "data_dir", "strict", "profile", "plots"}
    )  # fmt: skip

    def completed(self) -> Self:
        """The configuration with what was left open, and depends on other fields, filled in."""
        return self

    def check(self) -> None:
        """Checks every field by its type, and by `ranges`.

        Raises:
            InputError: a value that its field cannot have.
        """
        kinds = get_type_hints(type(self))
        for name in (field.name for field in dataclasses.fields(self)):
            value, kind = getattr(self, name), kinds[name]
            if not fits(value, kind):
                raise InputError(f"{name} is {value!r}; wanted {_words(kind)}")
            if name in self.ranges:
                refuse_outside(name, value, self.ranges[name])

    @classmethod
    def saved(cls, values: Mapping[str, Any]) -> Self:
        """The configuration of a run that was begun with these values.

        Fields that are gone are passed over, and those that came later have their defaults.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        known = {name: value for name, value in values.items() if name in names}
        return cls(**{n: tuple(v) if isinstance(v, list) else v for n, v in known.items()})


@dataclass(frozen=True)
class ImageConfig(RunConfig):
    """What is configured of a run that learns from images."""

    image_size: int | None = None
    """Side of the images in pixels; None for what suits them."""
    strict: bool = False
    """Refuse unreadable images."""
    augment: tuple[str, ...] | None = None
    """Augmentations by name; none for none, None for what suits the dataset."""

    ranges: ClassVar[Mapping[str, Range]] = RunConfig.ranges | {"image_size": SIDES}

    def completed(self) -> Self:
        """The configuration with no augmentation where it is called "none"."""
        if "none" not in (self.augment or ()):
            return self
        if len(self.augment) > 1:
            raise InputError(f"augment is {' '.join(self.augment)}; none stands alone")
        return dataclasses.replace(self, augment=())


def part_of(kind: type, command: Any) -> Any:
    """The part of a command's fields that makes a `kind`, such as a configuration."""
    return kind(**{field.name: getattr(command, field.name) for field in dataclasses.fields(kind)})


def read_config(directory: str | Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """What a run keeps of itself.

    Returns:
        The name of its task, the values of its configuration, and what it knows of its data.

    Raises:
        InputError: if the directory holds no run, or the file of another program.
    """
    path = expanded(directory) / CONFIG_FILE
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{directory} holds no run: it has no {CONFIG_FILE}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    parts = (saved.pop("task", None), saved, saved.pop("data", None)) if isinstance(saved, dict) else ()
    if not all(map(isinstance, parts, (str, dict, dict))) or not parts:
        raise InputError(f"{path} is not the configuration of a run: it names no task or data")
    return parts


def write_config(directory: Path, task: str, config: RunConfig, about: Mapping[str, Any]) -> None:
    """Writes the configuration, and what is known of the data, into a run's directory."""
    values = dataclasses.asdict(config)
    for transient in ("run_dir", "resume", "checkpoint"):
        values.pop(transient)
    text = json.dumps({"task": task, **values, "data": about}, indent=2)
    atomic.write_text(directory / CONFIG_FILE, text + "\n")


def is_run(directory: str | Path) -> bool:
    """Whether a path is the directory of a run; it may have no checkpoint yet."""
    directory = expanded(directory)
    return (directory / CONFIG_FILE).is_file() and (directory / CHECKPOINTS).is_dir()


def has_checkpoint(directory: str | Path) -> bool:
    """Whether a path is the directory of a run that can be used."""
    checkpoints = expanded(directory) / CHECKPOINTS
    return is_run(directory) and any(entry.name.isdecimal() for entry in checkpoints.iterdir())


def find_newest_run(usable: bool = True) -> Path | None:
    """The directory under runs/ that was trained last, if there is one.

    Args:
        usable: pass over runs without a checkpoint; they can only be resumed.
    """
    wanted = has_checkpoint if usable else is_run
    found = [directory for directory in RUNS.glob("*") if wanted(directory)]
    return max(found, key=lambda path: (path / CHECKPOINTS).stat().st_mtime, default=None)


def newest_run(usable: bool = True) -> Path:
    """As `find_newest_run`.

    Raises:
        InputError: if there is none.
    """
    found = find_newest_run(usable)
    if found is None:
        which = " with a checkpoint" if usable else ""
        raise InputError(f"there is no run under {RUNS}/{which}; train one, or name its directory")
    return found


def parse_settings(
    settings: Sequence[str],
    given: Sequence[str] = ("name", "num_classes"),
    argument: str = "settings",
) -> dict[str, Any]:
    """["drop_path=0.2", "small_input=true"] as keyword arguments.

    Args:
        settings: as NAME=VALUE, where VALUE is JSON or plain text.
        given: names that are set otherwise, by the dataset for instance.
        argument: what an error calls them.

    Raises:
        InputError: one that is not NAME=VALUE, or is set otherwise.
    """
    parsed = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"{argument}: {setting!r} is not of the form NAME=VALUE")
        if name in given:
            raise InputError(f"{argument}: {name} is decided by the run; leave it out")
        try:
            parsed[name] = json.loads(value)
        except json.JSONDecodeError:
            parsed[name] = {"True": True, "False": False}.get(value, value)
    return parsed


def _words(kind: Any) -> str:
    """An annotation as a reader knows it."""
    return kind.__name__ if isinstance(kind, type) and get_origin(kind) is None else str(kind)


def refuse_changes(saved: RunConfig, config: RunConfig) -> None:
    """Raises an `InputError` where a resumed run would not give the numbers it was begun for."""
    for field in dataclasses.fields(config):
        before, now = getattr(saved, field.name), getattr(config, field.name)
        if field.name not in config.free_on_resume and before != now:
            raise InputError(
                f"resume: {field.name} is {now!r}, but the run in {config.run_dir} was begun with "
                f"{before!r}; leave it so, or start a new run"
            )
