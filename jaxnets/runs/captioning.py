"""Runs of captioners: from a flat configuration to a directory, and back from it.

Beside what every run has, the directory holds `vocabulary.json`.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxnets import data
from jaxnets.captioning import (
    COLOR_WORDS,
    Captioning,
    CaptionSource,
    Vocabulary,
    create_captioner,
    evaluate_captions,
    make_writer,
)
from jaxnets.captioning.vocabulary import END
from jaxnets.config import Config, parse_settings, read_config
from jaxnets.data import decoding
from jaxnets.errors import InputError
from jaxnets.runs.fitting import begin, fit, load_variables
from jaxnets.training import History

KEPT_IN_MEMORY = 2**29  # bytes of images up to which they are drawn or decoded only once

# What of a configuration says nothing to a captioner, and must be as it is.
_OF_CLASSIFIERS = ("balance", "mixup", "cutmix", "loss", "label_smoothing")


def train(config: Config, progress: bool = True) -> tuple[Path, History]:
    """Trains a captioner as configured, or goes on with a run; see `jaxnets.runs.train`.

    Raises:
        InputError: for anything in the configuration that does not fit, data without captions, or a
            run whose vocabulary is not that of the data.
    """
    config = begin(config)
    for name in _OF_CLASSIFIERS:
        usual = Config.__dataclass_fields__[name].default
        if getattr(config, name) != usual:
            raise InputError(f"{name} is of classifiers; with task captioning it must stay {usual!r}")
    dataset = _load_dataset(config)
    captions = [dataset.train.captions(index) for index in range(len(dataset.train))]
    vocabulary = Vocabulary.build((c for own in captions for c in own), config.min_count)
    if config.resume and Vocabulary.load(config.run_dir) != vocabulary:
        raise InputError(
            f"resume: the captions of {config.dataset} give another vocabulary than the run in "
            f"{config.run_dir} has; resume it with the captions it was begun with"
        )
    train_source, test_source = (
        _source(source, vocabulary, config) for source in (dataset.train, dataset.test)
    )
    mean, std = _statistics(dataset.train)
    about = {"class_names": (), "image_shape": dataset.image_shape, "mean": mean, "std": std}
    steps = config.epochs * (len(train_source) // config.batch_size)
    return fit(
        config,
        _task(config, vocabulary, mean, std, steps),
        train_source,
        test_source,
        about,
        monitor="test_exact",
        prepare=vocabulary.save,
        progress=progress,
    )


@dataclass(frozen=True)
class CaptionRun:
    """A trained captioner, ready to be used.

    Attributes:
        directory: where it was read from.
        config: how it was trained.
        vocabulary: its words.
        image_shape: (H, W, C) of the images it was trained on.
        task: the captioner, with the normalization of its images.
        variables: what it learned.
    """

    directory: Path
    config: Config
    vocabulary: Vocabulary
    image_shape: tuple[int, int, int]
    task: Captioning
    variables: dict[str, Any]

    def evaluate(
        self, dataset: str | None = None, *, batch_size: int = 64, width: int = 3
    ) -> dict[str, float]:
        """Scores its sentences about the held-out images of a dataset; of its own where None.

        Returns:
            `bleu1` ... `bleu4`, `rouge_l`, `cider`, `cider_d` and `exact`.
        """
        config = self.config if dataset is None else dataclasses.replace(self.config, dataset=dataset)
        held_out = _load_dataset(config, size=self.image_shape[0]).test
        source = CaptionSource(held_out, self.vocabulary, length=config.caption_length)
        members = [(self.task, self.variables)]
        return evaluate_captions(members, source, batch_size=batch_size, width=width)

    def draw_attention(self, image: str | Path, sentence: str, path: str | Path) -> None:
        """Draws where it looked in a picture for each word of a sentence, and for its end.

        Raises:
            InputError: a captioner without attention.
        """
        from jaxnets.explain import plot_attention

        pixels = decoding.read_picture(image, self.image_shape[0], self.image_shape[2])
        tokens = self.vocabulary.encode(sentence, len(sentence.split()) + 1)
        features = self.task.encode(self.variables, {"image": pixels[None]})
        maps = np.asarray(self.task.attention(self.variables, features, tokens[None])[0])
        side = math.isqrt(maps.shape[-1])
        if side * side != maps.shape[-1]:
            raise InputError(f"the {maps.shape[-1]} places of this captioner are no square map")
        words = [self.vocabulary.words[k] if k != END else "(end)" for k in tokens]
        plot_attention(pixels, words, maps.reshape(-1, side, side), path)


def load_run(directory: Path, step: int | Literal["latest", "best"]) -> CaptionRun:
    """Reads the directory of a captioner's run; see `jaxnets.runs.load_run`."""
    config, about = read_config(directory)
    vocabulary = Vocabulary.load(directory)
    return CaptionRun(
        directory=directory,
        config=config,
        vocabulary=vocabulary,
        image_shape=tuple(about["image_shape"]),
        task=_task(config, vocabulary, tuple(about["mean"]), tuple(about["std"]), steps=1),
        variables=load_variables(directory, step),
    )


def caption(
    loaded: Sequence[CaptionRun],
    images: Sequence[str | Path],
    *,
    width: int = 3,
    alpha: float = 0.0,
) -> list[list[tuple[str, float]]]:
    """Describes pictures by one run or by the ensemble of several.

    Args:
        loaded: runs of one vocabulary.
        images: PNG or JPEG files.
        width, alpha: of the beam search.

    Returns:
        For each picture sentences and their scores, best first; those that did not come to their
        end are left out, but for the first.

    Raises:
        InputError: runs of different vocabularies, or a picture that cannot be read.
    """
    first = loaded[0]
    for other in loaded[1:]:
        if other.vocabulary != first.vocabulary:
            raise InputError(
                f"the run in {other.directory} has another vocabulary than that in "
                f"{first.directory}; an ensemble needs runs on the same captions"
            )
    members = [(run.task, run.variables) for run in loaded]
    length = first.config.caption_length
    side, _, channels = first.image_shape
    pixels = np.stack([decoding.read_picture(image, side, channels) for image in images])
    beams = make_writer(members, width=width, length=length, alpha=alpha)({"image": pixels})
    return [
        [
            (first.vocabulary.decode(row), float(score))
            for number, (row, score) in enumerate(zip(tokens, scores, strict=True))
            if number == 0 or END in row
        ]
        for tokens, scores in zip(np.asarray(beams.tokens), np.asarray(beams.scores), strict=True)
    ]


def _task(config: Config, vocabulary: Vocabulary, mean: tuple, std: tuple, steps: int) -> Captioning:
    captioner = create_captioner(
        config.captioner,
        config.model,
        vocabulary,
        feature=config.feature,
        backbone_settings=parse_settings(config.settings),
        **parse_settings(config.captioner_settings),
    )
    return Captioning(
        captioner,
        mean=mean,
        std=std,
        frozen=config.freeze_backbone,
        attention_penalty=config.attention_penalty,
        first_sentence=config.first_sentence,
        word_noise=config.word_noise,
        recolor=config.recolor,
        color_words=vocabulary.numbers(COLOR_WORDS),
        scheduled_sampling=_sampling(config.scheduled_sampling, steps),
        augment=data.augmentation.by_name(config.augment) if config.augment else None,
    )


def _sampling(rate: float, steps: int) -> Callable | None:
    if not 0 <= rate <= 1:
        raise InputError(f"scheduled_sampling is {rate}; it must be from 0 to 1")
    return (lambda step: rate * step / max(1, steps)) if rate else None


def _load_dataset(config: Config, size: int | None = None) -> data.Dataset:
    options: dict[str, Any] = {"size": size or config.image_size}
    if config.dataset.startswith("tfds:"):
        options["data_dir"] = config.data_dir
    if config.dataset.startswith(("tfds:", "captions:")):
        options["strict"] = config.strict
    dataset = data.load(config.dataset, **options)
    if dataset.class_names and not hasattr(dataset.train, "captions"):
        raise InputError(
            f"dataset {dataset.name} has no captions; scenes, captions:PATH and tfds:coco_captions have"
        )
    return dataset


def _source(source: Any, vocabulary: Vocabulary, config: Config) -> CaptionSource:
    keep = len(source) * math.prod(source.image_shape) <= KEPT_IN_MEMORY
    return CaptionSource(source, vocabulary, length=config.caption_length, keep=keep)


def _statistics(source: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over a thousand images, in units of 0 to 1."""
    numbers = np.unique(np.linspace(0, len(source) - 1, 1000).astype(int))
    images = np.stack([source[int(number)]["image"] for number in numbers]) / np.float32(255)
    mean, std = images.mean((0, 1, 2)), images.std((0, 1, 2))
    return tuple(mean.tolist()), tuple(np.maximum(std, 1 / 255).tolist())
