"""How captioners are trained, measured and used by `jaxnets.runs` and the command line.

Beside what every run has, the directory of one holds `vocabulary.json`.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import numpy as np

from jaxnets import data
from jaxnets.captioning.captioner import create_captioner
from jaxnets.captioning.evaluation import Writer, evaluate_captions
from jaxnets.captioning.serving import serve
from jaxnets.captioning.source import CaptionSource
from jaxnets.captioning.task import Captioning
from jaxnets.captioning.vocabulary import COLOR_WORDS, END, Vocabulary
from jaxnets.config import ImageConfig, parse_settings
from jaxnets.data import decoding
from jaxnets.errors import InputError
from jaxnets.metrics import Metrics, Score, Share
from jaxnets.models import create_classifier
from jaxnets.ranges import Range
from jaxnets.runs.recipe import Prepared, Recipe, Run, Told, load_images
from jaxnets.weights import Preprocessing, Pretrained

KEPT_IN_MEMORY = 2**29  # bytes of images up to which they are drawn or decoded only once

# What was not said. Captions of scenes have settings of their own: benchmarks/scenes.md says why.
_USUAL = {
    "model": "resnetv2_50",
    "epochs": 6,
    "attention_penalty": 1.0,
    "first_sentence": False,
    "word_noise": 0.0,
    "recolor": 0.0,
    "caption_length": 20,
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
_GIVEN = ("name", "backbone", "vocabulary", "feature", "backbone_settings")
_SCENES_BACKBONE = ("block=basic", "depths=[1,1]", "widths=[48,128]", "stem_width=32")
_SCENES_DECODER = ("features=192", "dropout=0.1")
_SCENES_ATTENTION = ("embedding=96", "attention_features=96")


@dataclass(frozen=True)
class Config(ImageConfig):
    """A captioner: with no arguments, Show, Attend and Tell on scenes."""

    model: str | None = None
    """Backbone, as `jaxnets models` lists them; None for a ResNet v2, a small one for scenes."""
    dataset: str = "scenes"
    """scenes, captions:PATH (images and a captions*.json in COCO's format) or tfds:NAME."""
    epochs: int | None = None
    """Passes over the training set; None for 6, or 8 of scenes."""

    captioner: Literal["show_and_tell", "lrcn", "show_attend_tell"] = "show_attend_tell"
    """Decoder."""
    captioner_settings: tuple[str, ...] = ()
    """Settings of the decoder as NAME=VALUE: features=512 attention=hard."""
    feature: str | None = None
    """Feature map of the backbone that the decoder reads, by name; None for the last."""
    freeze_backbone: bool = False
    """Train the decoder alone."""
    attention_penalty: float | None = None
    """Weight of the attention coverage penalty; None for 1, or 0.01 for scenes."""
    scheduled_sampling: float = 0.0
    """Final probability of reading a word of its own instead of the true one; it grows linearly."""
    first_sentence: bool | None = None
    """Learn the first sentence of each image alone; None for no, or yes for scenes."""
    word_noise: float | None = None
    """Probability of reading a word of another sentence; None for 0, or 0.5 for scenes."""
    recolor: float | None = None
    """Share of images whose colors are mixed, and color words not learned; None for 0, or 0.5 for
    scenes."""
    min_count: int = 1
    """Rarer words become the unknown word."""
    language: str | None = None
    """Language of the captions: tr and az lowercase an I in their own way; None for others."""
    caption_length: int | None = None
    """Most words of a sentence, with its end; None for 20, or 14 for scenes."""

    ranges: ClassVar[Mapping[str, Range]] = ImageConfig.ranges | {
        "attention_penalty": Range(0),
        "scheduled_sampling": Range(0, 1),
        "word_noise": Range(0, 1),
        "recolor": Range(0, 1),
        "min_count": Range(1),
        "caption_length": Range(2),
    }

    def completed(self) -> "Config":
        """The configuration with everything filled in that depends on the dataset."""
        usual: dict[str, Any] = dict(_USUAL)
        if self.dataset == "scenes":
            usual |= _SCENES
            if self.model is None and not self.settings:
                usual["settings"] = _SCENES_BACKBONE
            if not self.captioner_settings:
                attends = self.captioner == "show_attend_tell"
                usual["captioner_settings"] = _SCENES_DECODER + (_SCENES_ATTENTION if attends else ())
        opened = {name: value for name, value in usual.items() if getattr(self, name) in (None, ())}
        return dataclasses.replace(super().completed(), **opened)

    @classmethod
    def saved(cls, values: Mapping[str, Any]) -> "Config":
        """The configuration of a run: one begun before a field came to be did without."""
        renamed = {"recolour": "recolor"}
        return super().saved(_USUAL | {renamed.get(name, name): v for name, v in values.items()})


@dataclass(frozen=True)
class Predict:
    """Of a captioner: sentences."""

    beams: int = 3
    """Width of the beam search."""
    alpha: float = 0.0
    """Strength of its length penalty: above 0 favors longer sentences."""
    sentences: int = 1
    """How many to print for each picture, best first."""


def load(config: Config, about: Mapping[str, Any] | None) -> data.Dataset:
    """The dataset, with captions."""
    dataset = load_images(config) if about is None else load_images(config, size=about["image_shape"][0])
    if dataset.class_names and not hasattr(dataset.train, "captions"):
        raise InputError(
            f"dataset {dataset.name} has no captions; scenes, captions:PATH and tfds:coco_captions have"
        )
    return dataset


def prepare(config: Config, dataset: data.Dataset, about: Mapping[str, Any] | None) -> Prepared:
    """The vocabulary of the captions, and the task as configured.

    Raises:
        InputError: a run to go on with whose vocabulary is not that of the data.
    """
    captions = (dataset.train.captions(index) for index in range(len(dataset.train)))
    vocabulary = Vocabulary.build(
        (c for own in captions for c in own), config.min_count, config.language
    )
    if about is None:
        mean, std = (tuple(a.tolist()) for a in data.channel_statistics(dataset.train))
        about = {"class_names": (), "image_shape": dataset.image_shape, "mean": mean, "std": std}
    elif Vocabulary.load(config.run_dir) != vocabulary:
        raise InputError(
            f"resume: the captions of {config.dataset} give another vocabulary than the run in "
            f"{config.run_dir} has; resume it with the captions it was begun with"
        )
    train, test = (_source(source, vocabulary, config) for source in (dataset.train, dataset.test))
    steps = config.epochs * (len(train) // config.batch_size)
    return Prepared(
        name=config.captioner,
        task=_task(config, vocabulary, about, steps),
        train=train,
        test=test,
        about=about,
        write=vocabulary.save,
        notes=dataset.notes,
    )


def restore(config: Config, about: Mapping[str, Any], directory: Path) -> Captioning:
    """The task of a trained run."""
    return _task(config, Vocabulary.load(directory), about, steps=1)


def evaluate(run: Run, source: Any, batch_size: int) -> Metrics:
    """Scores of the sentences about a source's images, by beam search: BLEU, ROUGE-L, CIDEr ..."""
    source = CaptionSource(source, Vocabulary.load(run.directory), length=run.config.caption_length)
    scores = evaluate_captions([(run.task, run.variables)], source, batch_size=batch_size)
    kinds = {"exact": Share}
    return {name: kinds.get(name, Score)(value, 1.0) for name, value in scores.items()}


def predict(runs: Sequence[Run], images: Sequence[Path], options: Predict) -> Iterator[Told]:
    """Sentences about each picture, by the ensemble of the runs."""
    if not 1 <= options.sentences <= options.beams:
        raise InputError(
            f"sentences is {options.sentences} and beams is {options.beams}; wanted at least one "
            "sentence, and as many beams or more"
        )
    found = describe(runs, images, width=options.beams, alpha=options.alpha)
    for path, sentences in zip(images, found, strict=True):
        for sentence, score in sentences[: options.sentences]:
            line = f"{path}: {sentence}" + (f" ({score:.2f})" if options.sentences > 1 else "")
            yield Told(line, file=path, sentence=sentence, score=score)


def describe(
    runs: Sequence[Run], images: Sequence[str | Path], *, width: int = 3, alpha: float = 0.0
) -> list[list[tuple[str, float]]]:
    """Describes pictures by one run or by the ensemble of several.

    Args:
        runs: of one vocabulary.
        images: picture files.
        width, alpha: of the beam search.

    Returns:
        For each picture sentences and their scores, best first; those that did not come to their
        end are left out, but for the first.

    Raises:
        InputError: runs of different vocabularies, or a picture that cannot be read.
    """
    first, vocabulary = runs[0], Vocabulary.load(runs[0].directory)
    for other in runs[1:]:
        if Vocabulary.load(other.directory) != vocabulary:
            raise InputError(
                f"the run in {other.directory} has another vocabulary than that in "
                f"{first.directory}; an ensemble needs runs on the same captions"
            )
    members = [(run.task, run.variables) for run in runs]
    writer = Writer(members, width=width, length=first.config.caption_length, alpha=alpha)
    pixels = np.stack([_read_picture(first, image) for image in images])
    beams = jax.jit(writer.predict)(writer.variables, {"image": pixels})
    return [
        [
            (vocabulary.decode(row), float(score))
            for number, (row, score) in enumerate(zip(tokens, scores, strict=True))
            if number == 0 or END in row
        ]
        for tokens, scores in zip(np.asarray(beams.tokens), np.asarray(beams.scores), strict=True)
    ]


def draw_attention(run: Run, images: Sequence[Path], path: Path) -> None:
    """Draws where a captioner looked in a picture for each word of its sentence, and for its end.

    Raises:
        InputError: several pictures, or a captioner without attention.
    """
    from jaxnets.explain import plot_attention

    if len(images) > 1:
        raise InputError(f"images: {len(images)} given; this method draws one at a time")
    ((sentence, _), *_), *_ = describe([run], images)
    vocabulary, pixels = Vocabulary.load(run.directory), _read_picture(run, images[0])
    tokens = vocabulary.encode(sentence, len(sentence.split()) + 1)
    features = run.task.encode(run.variables, {"image": pixels[None]})
    maps = np.asarray(run.task.attention(run.variables, features, tokens[None])[0])
    side = math.isqrt(maps.shape[-1])
    if side * side != maps.shape[-1]:
        raise InputError(f"the {maps.shape[-1]} places of this captioner are no square map")
    words = [vocabulary.words[k] if k != END else "(end)" for k in tokens]
    plot_attention(pixels, words, maps.reshape(-1, side, side), path)


def inside(run: Run) -> Pretrained:
    """The backbone of a captioner, as a model without a head."""
    settings = parse_settings(run.config.settings)
    model = create_classifier(run.config.model, num_classes=0, **settings)
    variables = run.task.joined(run.variables)
    side, _, channels = run.about["image_shape"]
    mean, std = (tuple(np.broadcast_to(run.about[name], channels).tolist()) for name in ("mean", "std"))
    return Pretrained(
        model=model.clone(input_size=tuple(run.about["image_shape"])),
        variables={
            name: {"backbone": jax.tree.map(np.asarray, parts["backbone"])}
            for name, parts in variables.items()
            if "backbone" in parts
        },
        preprocessing=Preprocessing(side, side, "bilinear", mean, std),
        class_names=(),
        settings=settings,
        origin=run.origin,
    )


def _read_picture(run: Run, image: str | Path) -> np.ndarray:
    size, _, channels = run.about["image_shape"]
    return decoding.read_picture(image, size, channels)


def _task(config: Config, vocabulary: Vocabulary, about: Mapping[str, Any], steps: int) -> Captioning:
    captioner = create_captioner(
        config.captioner,
        config.model,
        vocabulary,
        feature=config.feature,
        backbone_settings=parse_settings(config.settings),
        **parse_settings(config.captioner_settings, given=_GIVEN),
    )
    return Captioning(
        captioner,
        mean=tuple(about["mean"]),
        std=tuple(about["std"]),
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


def _source(source: Any, vocabulary: Vocabulary, config: Config) -> CaptionSource:
    keep = len(source) * math.prod(source.image_shape) <= KEPT_IN_MEMORY
    return CaptionSource(source, vocabulary, length=config.caption_length, keep=keep)


RECIPE = Recipe(
    name="captioning",
    Config=Config,
    load=load,
    prepare=prepare,
    restore=restore,
    evaluate=evaluate,
    predict=predict,
    Predict=Predict,
    inside=inside,
    serve=serve,
    explain={"attention": draw_attention},
)
