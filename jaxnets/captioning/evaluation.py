"""Writing captions for whole sets of images, and scoring them; features computed once for all."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.captioning import decoding
from jaxnets.captioning.frozen import Variables
from jaxnets.captioning.source import CaptionSource
from jaxnets.captioning.task import Batch, Captioning
from jaxnets.captioning.vocabulary import END, START, tokenize
from jaxnets.errors import InputError
from jaxnets.metrics import text
from jaxnets.training import predict_all

Members = Sequence[tuple[Captioning, Variables]]


class Writer:
    """Writes sentences about images by beam search, by one captioner or the ensemble of several.

    `predict(all_variables, batch)` is a pure function, for `jax.jit` and `training.predict_all`.

    Args:
        members: a captioner and its variables, or several of one vocabulary, whose log probabilities
            are averaged.
        width, length, alpha: of `decoding.beam_search`; a width of 1 is greedy.

    Raises:
        InputError: no members, or members that know different numbers of words.
    """

    def __init__(self, members: Members, *, width: int = 3, length: int = 20, alpha: float = 0.0):
        sizes = {task.model.decoder.vocabulary_size for task, _ in members}
        if len(sizes) != 1:
            raise InputError(f"members know {sorted(sizes)} words; an ensemble has one vocabulary")
        self.tasks = [task for task, _ in members]
        self.variables = {str(number): variables for number, (_, variables) in enumerate(members)}
        self.width, self.length, self.alpha = width, length, alpha

    def predict(self, variables: Variables, batch: Batch) -> decoding.Beams:
        """The sentences of a batch of images: `tokens` i32[N, width, length] and `scores`."""
        steps, caches = [], []
        for number, task in enumerate(self.tasks):
            own = variables[str(number)]
            features = task.encode(own, batch)
            caches.append(task.start(own, features))
            steps.append(task.step(own, jnp.repeat(features, self.width, axis=0)))
        return decoding.beam_search(
            decoding.ensemble(steps),
            tuple(caches),
            jnp.full(len(features), START),
            width=self.width,
            end=END,
            length=self.length,
            alpha=self.alpha,
        )


def write_captions(
    members: Members, source: CaptionSource, *, batch_size: int = 64, **options: int | float
) -> list[str]:
    """The best sentence for each image of a source, on all devices.

    Args:
        members: as for `Writer`.
        source: the images; its own sentences are not looked at.
        batch_size: images at a time.
        **options: of `Writer`.
    """
    writer = Writer(members, **{"length": source.length, **options})
    predictions = predict_all(writer, writer.variables, source, batch_size=batch_size)
    return [source.vocabulary.decode(row) for _, beams in predictions for row in beams.tokens[:, 0]]


def evaluate_captions(
    members: Members, source: CaptionSource, *, batch_size: int = 64, **options: int | float
) -> dict[str, float]:
    """Scores of what captioners write about the images of a source, against all their sentences.

    Arguments as for `write_captions`. The references are the whole sentences, tokenized by
    `tokenize`, also where training cuts them.

    Returns:
        `bleu1` ... `bleu4`, `rouge_l`, `cider`, `cider_d` and `exact` (`metrics.text.scores`).
    """
    written = write_captions(members, source, batch_size=batch_size, **options)
    references = [
        [tokens for tokens in map(tokenize, source.references(index)) if tokens]
        for index in range(len(source))
    ]
    return text.scores([sentence.split() for sentence in written], references)


class FeatureSource:
    """Features of images with their captions, in memory; made by `cache_features`."""

    def __init__(self, features: np.ndarray, captions: np.ndarray, weights: np.ndarray):
        self.features, self.captions, self.weights = features, captions, weights

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> Batch:
        return {name: values[0] for name, values in self.take(np.array([index])).items()}

    def take(self, indices: np.ndarray) -> Batch:
        return {
            "features": self.features[indices],
            "captions": self.captions[indices],
            "weight": self.weights[indices],
        }


def cache_features(
    task: Captioning,
    variables: Variables,
    source: CaptionSource,
    *,
    mean: bool = False,
    batch_size: int = 64,
) -> FeatureSource:
    """Computes the features of a frozen backbone once, so that training a decoder need not.

    `fit(task, cache_features(...))` trains the decoder alone: its variables have no backbone, and
    go together with `task.init`'s by `{**with_backbone, "params": {**params, "decoder": ...}}`. The
    features take 4 N L D bytes.

    Args:
        task: with `frozen=True` and no augmentation, which features cannot have any more.
        variables: that hold the backbone.
        source: the images.
        mean: keep only the mean over the places, L = 1, which is all that Show and Tell and LRCN read.
        batch_size: images at a time.

    Raises:
        InputError: a task that would change the features as it trains.
    """
    if not task.frozen or task.augment is not None:
        raise InputError("features can be cached for a task with frozen=True and without augment")

    encoder = _Encoder(task, mean)
    parts = [
        (features, batch["captions"], batch["weight"])
        for batch, features in predict_all(encoder, variables, source, batch_size=batch_size)
    ]
    return FeatureSource(*(np.concatenate(column) for column in zip(*parts, strict=True)))


class _Encoder(NamedTuple):
    task: Captioning
    mean: bool

    def predict(self, variables: Variables, batch: Batch) -> jax.Array:
        features = self.task.encode(variables, batch)
        return features.mean(axis=1, keepdims=True) if self.mean else features
