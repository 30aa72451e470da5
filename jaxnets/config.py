"""The flat configuration of a training run, and the file in which the run keeps it."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jaxnets import atomic
from jaxnets.errors import InputError

CONFIG_FILE = "config.json"
RUNS = Path("runs")


@dataclass(frozen=True)
class Config:
    """How to train a classifier, or a captioner."""

    task: Literal["classification", "captioning"] = "classification"
    """What to learn about images: a label, or a sentence."""
    model: str | None = None
    """Architecture, of a captioner its backbone; `jaxnets models` lists them. None for lenet5, or a
    small ResNet for captioning."""
    settings: tuple[str, ...] = ()
    """Settings of the architecture, as NAME=VALUE: drop_path=0.2 small_input=true."""
    dataset: str | None = None
    """digits, scenes, folder:PATH (a sub-folder for each class), captions:PATH (images and a
    captions*.json in COCO's format) or tfds:NAME. None for digits, or scenes for captioning."""
    data_dir: str | None = None
    """Where tfds datasets were prepared; None for its own default."""
    image_size: int | None = None
    """Side of the images in pixels; None for what suits dataset and model."""
    strict: bool = False
    """Refuse a folder with an unreadable image, instead of leaving the image out."""
    balance: Literal["none", "weights", "over", "under"] = "none"
    """Imbalanced classes: weigh the loss, or repeat or drop examples."""
    augment: tuple[str, ...] | None = None
    """Augmentations by name, in this order; None for what suits the dataset."""
    mixup: float = 0.0
    """Strength of mixup (alpha of its beta distribution); 0 for none."""
    cutmix: float = 0.0
    """Strength of cutmix; 0 for none."""

    captioner: Literal["show_and_tell", "lrcn", "show_attend_tell"] = "show_attend_tell"
    """Captioning: the decoder."""
    captioner_settings: tuple[str, ...] = ()
    """Captioning: settings of the decoder, as NAME=VALUE: features=512 attention=hard."""
    feature: str | None = None
    """Captioning: the map of the backbone that is read, by name; None for the last."""
    freeze_backbone: bool = False
    """Captioning: leave the backbone as it is."""
    attention_penalty: float | None = None
    """Captioning: weight of the wish to look at every place; None for 1, as in the paper, or 0.01 for
    scenes, most of which is background."""
    scheduled_sampling: float = 0.0
    """Captioning: how often own words are read instead of true ones at the end; it grows linearly."""
    first_sentence: bool | None = None
    """Captioning: learn the first sentence of each image alone, not one drawn anew each time; None for
    no, or yes for scenes."""
    word_noise: float | None = None
    """Captioning: the share of words read in training that is replaced by those of other sentences;
    None for 0, or 0.5 for scenes."""
    recolor: float | None = None
    """Captioning: the share of training images whose colors are mixed, and whose color words are not
    learned; None for 0, or 0.5 for scenes."""
    min_count: int = 1
    """Captioning: rarer words become unknown words."""
    caption_length: int | None = None
    """Captioning: the most words of a sentence, with its end; None for 20, or 14 for scenes."""

    loss: Literal["cross_entropy", "hinge", "mse", "bce"] = "cross_entropy"
    """Training loss."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes."""
    epochs: int | None = None
    """Passes over the training images; None for 30, for captioning 6, or 8 of scenes."""
    batch_size: int = 64
    """Images a step, over all devices and processes."""
    optimizer: str = "adamw"
    """sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw or lars."""
    learning_rate: float | None = None
    """Peak learning rate; None for what is usual with the optimizer."""
    schedule: str = "cosine"
    """Of the learning rate: constant, cosine or step."""
    warmup_epochs: float | None = None
    """Epochs in which the learning rate rises from 0; None for 1, or a tenth of a short run."""
    weight_decay: float | None = None
    """On kernels, never on biases and norms; None for what is usual with the optimizer."""
    momentum: float = 0.9
    """Of momentum, nesterov, rmsprop and lars."""
    clip_norm: float | None = None
    """Scale gradients down to this global norm."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the forward and backward pass."""
    accumulate: int = 1
    """Micro-batches to each step, for batches that do not fit in memory."""
    ema_decay: float | None = None
    """Keep a moving average of the weights, and measure with it: 0.999, say."""
    patience: int | None = None
    """Stop after so many epochs without a better test accuracy."""
    stop_above: float | None = 3.0
    """Stop when the loss passes so many times its start."""
    seed: int = 0
    """Of parameters, order, augmentation and dropout."""

    run_dir: Path | None = None
    """Where the run is kept; None for a new folder under runs/."""
    resume: bool = False
    """Go on with the run in run-dir, or with the newest one under runs/."""
    log_every: int = 10
    """Steps between two records in metrics.jsonl."""
    checkpoint_every: int | None = None
    """Steps between two checkpoints, besides those at the end of each epoch."""
    keep: int = 2
    """How many of the last checkpoints to keep, besides the best."""
    workers: int = 0
    """Processes that read and decode images; 0 reads in the background of this one."""
    profile: bool = False
    """Write a trace of a few steps, for JAX's profiler, into the run's directory."""
    plots: bool = False
    """Draw more than the curves: each layer's update-to-weight ratio, the confusion matrix and the worst
    mistakes."""
    strategy: Literal["auto", "pmap", "shard_map", "single"] = "auto"
    """How to use the devices: pmap where there is more than one."""


# What may differ between a run and its continuation.
_FREE_ON_RESUME = {
    "epochs", "run_dir", "resume", "log_every", "checkpoint_every", "keep", "workers", "strategy",
    "stop_above", "patience", "data_dir", "strict", "profile", "plots",
}  # fmt: skip


# What was not said. Captions of scenes have a recipe of their own: benchmarks/scenes.md says why.
_USUAL = {
    "classification": {"model": "lenet5", "dataset": "digits", "epochs": 30},
    "captioning": {
        "model": "resnetv2_50",
        "dataset": "scenes",
        "epochs": 6,
        "attention_penalty": 1.0,
        "first_sentence": False,
        "word_noise": 0.0,
        "recolor": 0.0,
        "caption_length": 20,
    },
}
_SCENES = {
    "epochs": 8,
    "learning_rate": 2e-3,
    "weight_decay": 0.1,
    "clip_norm": 5.0,
    "attention_penalty": 0.01,
    "first_sentence": True,
    "word_noise": 0.5,
    "recolor": 0.5,
    "caption_length": 14,
}
_SCENES_BACKBONE = ("block=basic", "depths=[1,1]", "widths=[48,128]", "stem_width=32")
_SCENES_DECODER = ("features=192", "dropout=0.1")
_SCENES_ATTENTION = ("embedding=96", "attention_features=96")


def completed(config: Config) -> Config:
    """The configuration with everything filled in that depends on the task and was left open."""
    usual = dict(_USUAL[config.task])
    if config.task == "captioning" and config.dataset in (None, "scenes"):
        usual |= _SCENES
        if config.model is None and not config.settings:
            usual["settings"] = _SCENES_BACKBONE
        if not config.captioner_settings:
            attends = config.captioner == "show_attend_tell"
            usual["captioner_settings"] = _SCENES_DECODER + (_SCENES_ATTENTION if attends else ())
    opened = {name: value for name, value in usual.items() if getattr(config, name) in (None, ())}
    return dataclasses.replace(config, **opened)


def alone(command: Config) -> Config:
    """The configuration itself, of a command that has fields of its own besides."""
    names = [field.name for field in dataclasses.fields(Config)]
    return Config(**{name: getattr(command, name) for name in names})


def read_config(directory: str | Path) -> tuple[Config, dict[str, Any]]:
    """The configuration of the run in a directory, and what it knows of its data.

    Raises:
        InputError: if it holds no run.
    """
    path = Path(directory) / CONFIG_FILE
    try:
        saved = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{directory} holds no run: it has no {CONFIG_FILE}") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    names = {field.name for field in dataclasses.fields(Config)}
    values = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in saved.items()
        if name in names
    }
    # A run that was begun before a field came to be did without: not as scenes are learned now.
    values = {**_USUAL[saved.get("task", "classification")], **values}
    return Config(**values, run_dir=Path(directory)), saved["data"]


def newest_run() -> Path:
    """The directory under runs/ that was trained last.

    Raises:
        InputError: if there is none.
    """
    found = list(RUNS.glob(f"*/{CONFIG_FILE}"))
    if not found:
        raise InputError(f"there is no run under {RUNS}/; train one, or name its directory")
    return max(found, key=lambda path: path.stat().st_mtime).parent


def write_config(directory: Path, config: Config, about: dict[str, Any]) -> None:
    """Writes the configuration, and what is known of the data, into a run's directory."""
    values = dataclasses.asdict(config)
    for transient in ("run_dir", "resume"):
        values.pop(transient)
    atomic.write_text(directory / CONFIG_FILE, json.dumps({**values, "data": about}, indent=2) + "\n")


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """["drop_path=0.2", "small_input=true"] as keyword arguments.

    Raises:
        InputError: one that is not NAME=VALUE.
    """
    parsed = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"settings: {setting!r} is not of the form NAME=VALUE")
        try:
            parsed[name] = json.loads(value)
        except json.JSONDecodeError:
            parsed[name] = {"True": True, "False": False}.get(value, value)
    return parsed


def refuse_changes(saved: Config, config: Config) -> None:
    """Raises an `InputError` where a resumed run would not give the numbers it was begun for."""
    for field in dataclasses.fields(Config):
        before, now = getattr(saved, field.name), getattr(config, field.name)
        if field.name not in _FREE_ON_RESUME and before != now:
            raise InputError(
                f"resume: {field.name} is {now!r}, but the run in {config.run_dir} was begun with "
                f"{before!r}; leave it so, or start a new run"
            )
