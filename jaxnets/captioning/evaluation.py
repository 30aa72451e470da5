"""Caption generation for whole sets of images, caption scores, and caching of features."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.captioning import decoding
from jaxnets.captioning.frozen import Variables
from jaxnets.captioning.source import CaptionSource
from jaxnets.captioning.task import Batch, Captioning
from jaxnets.captioning.vocabulary import END, START
from jaxnets.errors import InputError
from jaxnets.metrics import text
from jaxnets.training import predict_all

Members = Sequence[tuple[Captioning, Variables]]


class Writer:
    """Generates captions by beam search, with one captioner or an ensemble of several.

    `predict(all_variables, batch)` is a pure function, for `jax.jit` and `training.predict_all`.

    Args:
        members: one or more captioners with their variables. They must have the same vocabulary; their
            log probabilities are averaged.
        width, length, alpha: see `decoding.beam_search`; a width of 1 is greedy decoding.

    Raises:
        InputError: no members, or members with vocabularies of different sizes.
    """

    def __init__(self, members: Members, *, width: int = 3, length: int = 20, alpha: float = 0.0):
        sizes = {task.model.decoder.vocabulary_size for task, _ in members}
        if len(sizes) != 1:
            raise InputError(f"members know {sorted(sizes)} words; an ensemble needs one vocabulary")
        self.tasks = [task for task, _ in members]
        self.variables = {str(number): variables for number, (_, variables) in enumerate(members)}
        self.width, self.length, self.alpha = width, length, alpha

    def predict(self, variables: Variables, batch: Batch) -> decoding.Beams:
        """The captions of a batch of images: `tokens` i32[N, width, length] and `scores`."""
        steps, caches = [], []
        for number, task in enumerate(self.tasks):
            own = variables[str(number)]
            features = task.encode(own, batch)
            caches.append(task.start(own, features))
            steps.append(task.step(own, jnp.repeat(features, self.width, axis=0)))
        return decoding.beam_search(
            decoding.ensemble(steps),
            tuple(caches),
            jnp.full(features.shape[0], START),
            width=self.width,
            end=END,
            length=self.length,
            alpha=self.alpha,
        )


def write_captions(
    members: Members, source: CaptionSource, *, batch_size: int = 64, **options: int | float
) -> list[str]:
    """Generates the best caption for each image of a source, on all devices.

    Args:
        members: as for `Writer`.
        source: the images; its captions are not used.
        batch_size: images per batch.
        **options: options of `Writer`.
    """
    writer = Writer(members, **{"length": source.length, **options})
    predictions = predict_all(writer, writer.variables, source, batch_size=batch_size)
    return [source.vocabulary.decode(row) for _, beams in predictions for row in beams.tokens[:, 0]]


def evaluate_captions(
    members: Members, source: CaptionSource, *, batch_size: int = 64, **options: int | float
) -> dict[str, float]:
    """Scores generated captions for the images of a source against all their reference captions.

    Arguments as for `write_captions`. The references are the complete captions, tokenized as
    the vocabulary does, even if they are truncated in training.

    Returns:
        `bleu1` ... `bleu4`, `rouge_l`, `cider`, `cider_d` and `exact` (`metrics.text.scores`).
    """
    written = write_captions(members, source, batch_size=batch_size, **options)
    references = [
        [tokens for tokens in map(source.vocabulary.tokenize, source.references(index)) if tokens]
        for index in range(len(source))
    ]
    return text.scores([sentence.split() for sentence in written], references)


class FeatureSource:
    """Image features with captions, in memory; made by `cache_features`."""

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
    """Precomputes the features of a frozen backbone, for training a decoder.

    `fit(task, cache_features(...))` trains only the decoder: its variables have no backbone, and are
    merged with those of `task.init` by `{**with_backbone, "params": {**params, "decoder": ...}}`. The
    features take 4 N L D bytes.

    Args:
        task: a task with `frozen=True` and without augmentation, which cannot be applied to features.
        variables: variables that include the backbone.
        source: the images.
        mean: keep only the mean over the locations (L = 1), which is all that Show and Tell and LRCN
            use.
        batch_size: images per batch.

    Raises:
        InputError: a task whose features change during training.
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
