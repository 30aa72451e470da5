"""Writing captions for whole sets of images, and scoring them; features computed once for all."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.captioning import decoding
from jaxnets.captioning.frozen import Variables
from jaxnets.captioning.source import CaptionSource
from jaxnets.captioning.task import Batch, Captioning
from jaxnets.captioning.vocabulary import END, START, tokenize
from jaxnets.data import eval_batches
from jaxnets.errors import InputError
from jaxnets.metrics import text

Members = Sequence[tuple[Captioning, Variables]]


def make_writer(
    members: Members, *, width: int = 3, length: int = 20, alpha: float = 0.0
) -> Callable[[Batch], decoding.Beams]:
    """A function from batches of images to their sentences by beam search, compiled once a shape.

    Args:
        members: a captioner and its variables, or several of one vocabulary, whose log probabilities
            are averaged.
        width, length, alpha: of `decoding.beam_search`; a width of 1 is greedy.

    Raises:
        InputError: no members, or members that know different numbers of words.
    """
    sizes = {task.model.decoder.vocabulary_size for task, _ in members}
    if len(sizes) != 1:
        raise InputError(f"members know {sorted(sizes)} words; an ensemble has one vocabulary")
    tasks = [task for task, _ in members]

    @jax.jit
    def write(all_variables, batch):
        steps, caches = [], []
        for task, variables in zip(tasks, all_variables, strict=True):
            features = task.encode(variables, batch)
            caches.append(task.start(variables, features))
            steps.append(task.step(variables, jnp.repeat(features, width, axis=0)))
        return decoding.beam_search(
            decoding.ensemble(steps),
            tuple(caches),
            jnp.full(len(features), START),
            width=width,
            end=END,
            length=length,
            alpha=alpha,
        )

    return lambda batch: write([variables for _, variables in members], batch)


def write_captions(
    members: Members, source: CaptionSource, *, batch_size: int = 64, **options: int | float
) -> list[str]:
    """The best sentence for each image of a source.

    Args:
        members: as for `make_writer`.
        source: the images; its own sentences are not looked at.
        batch_size: images at a time.
        **options: of `make_writer`.
    """
    writer = make_writer(members, **{"length": source.length, **options})
    written = []
    for batch in eval_batches(source, batch_size):
        tokens = np.asarray(writer({"image": batch["image"]}).tokens[:, 0])
        written += [source.vocabulary.decode(row) for row in tokens]
    return written[: len(source)]


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

    @jax.jit
    def encode(variables, batch):
        features = task.encode(variables, batch)
        return features.mean(axis=1, keepdims=True) if mean else features

    parts = []
    for batch in eval_batches(source, batch_size):
        features = np.asarray(encode(variables, {"image": batch["image"]}))
        parts.append((features, batch["captions"], batch["weight"]))
    columns = (np.concatenate(column)[: len(source)] for column in zip(*parts, strict=True))
    return FeatureSource(*columns)
