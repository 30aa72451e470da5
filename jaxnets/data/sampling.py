"""Class imbalance (over- and undersampling, class weights for the loss), repeats, held-out splits."""

from typing import Literal

import numpy as np

from jaxnets.data import checks
from jaxnets.data.dataset import Source, Subset, labels_of
from jaxnets.errors import InputError


def class_counts(source: Source) -> np.ndarray:
    """The number of examples of each class, int[K].

    Raises:
        InputError: a class has no examples, so that the classes cannot be balanced, or a label is not
            that of a class.
    """
    if not getattr(source, "class_names", ()):
        raise InputError("source has no class_names; wanted the name of each class, to balance them")
    labels = checks.labels(labels_of(source), len(source.class_names))
    if labels.ndim != 1:
        raise InputError("source has images of several labels, whose classes cannot be balanced")
    counts = np.bincount(labels, minlength=len(source.class_names))
    if (counts == 0).any():
        name = source.class_names[int(np.argmin(counts))]
        raise InputError(f"class {name!r} has no example, so the classes cannot be balanced")
    return counts


def class_balanced(source: Source, how: Literal["over", "under"] = "over", seed: int = 0) -> Subset:
    """A view of a source in which every class has the same number of examples.

    Args:
        source: N examples of K classes.
        how: ``"over"`` repeats examples until every class is as large as the largest; within a class,
            the numbers of repeats differ by at most one. ``"under"`` draws as many examples of each
            class as the smallest class has, without replacement.
        seed: seed of the draw.

    Raises:
        InputError: `how` is neither, or a class has no examples.
    """
    if how not in ("over", "under"):
        raise InputError(f"how must be 'over' or 'under', got {how!r}")
    counts, labels = class_counts(source), labels_of(source)
    wanted = counts.max() if how == "over" else counts.min()
    rng = np.random.default_rng(seed)
    chosen = []
    for label, count in enumerate(counts):
        members = np.flatnonzero(labels == label)
        repeats, rest = divmod(wanted, count)
        chosen += [np.repeat(members, repeats), rng.permutation(members)[:rest]]
    return Subset(source, np.sort(np.concatenate(chosen)))


class Repeated(Subset):
    """A view of a source whose training batches hold several copies of each example.

    Made by `repeated`; `train_batches` asks for `repeats`.
    """

    def __init__(self, source: Source, repeats: int):
        super().__init__(source, np.arange(len(source)))
        self.repeats = repeats


def repeated(source: Source, repeats: int) -> Repeated:
    """A view of a source for repeated augmentation (Hoffer et al. 2020, "Augment your batch").

    Every batch of `train_batches` then holds each of its examples `repeats` times, and the train step
    augments every copy with a key of its own. As in DeiT (Touvron et al. 2021), an epoch keeps its
    number of steps, so that it shows one in `repeats` of the examples; as many epochs show all. An
    image is read once for all its copies. Where the batch size is no multiple of `repeats`, some
    examples of a batch have a copy less.

    Example:
        >>> from itertools import islice
        >>> from jaxnets import data
        >>> source = data.repeated(data.load("digits").train, 3)
        >>> [batch] = islice(data.train_batches(source, 6, seed=0), 1)
        >>> batch["label"].tolist()
        [3, 8, 3, 8, 3, 8]

    Args:
        source: N examples.
        repeats: number of copies.

    Raises:
        InputError: `repeats` below 1.
    """
    checks.within("repeats", repeats, 1)
    return Repeated(source, repeats)


def class_weights(source: Source) -> np.ndarray:
    """Weights for a loss that compensate for class imbalance: the inverse class frequencies.

    Args:
        source: examples of K classes.

    Returns:
        float32[K] with mean 1 over the classes.

    Raises:
        InputError: a class has no examples.
    """
    inverse = 1 / class_counts(source)
    return (inverse / inverse.mean()).astype(np.float32)


def hold_out(source: Source, share: float, seed: int = 0) -> tuple[Subset, Subset]:
    """Splits a source into a training part and a validation part.

    Hyperparameters that are chosen on a validation part leave the test set untouched.

    Args:
        source: N examples.
        share: fraction of every class that is held out, rounded, and at least one example; between 0
            and 1. If examples have no label, or several, the fraction of all examples.
        seed: seed of the draw.

    Returns:
        The training part and the held-out part, disjoint views of the source.

    Raises:
        InputError: no examples, a share out of range, or a class that would have no examples left.
    """
    if not 0 < share < 1:
        raise InputError(f"share is {share}; it must be between 0 and 1, such as 0.2")
    if len(source) == 0:
        raise InputError("source is empty; there is nothing to hold out")
    labels = _one_label_each(source)
    groups = np.zeros(len(source), np.int32) if labels is None else labels
    left, held = split(groups, share, seed)
    empty = np.setdiff1d(groups, groups[left])
    if empty.size:
        names = dict(enumerate(getattr(source, "class_names", ())))
        what = "the source" if labels is None else f"class {names.get(empty[0], empty[0])!r}"
        raise InputError(
            f"share is {share}, which leaves {what} without an example to train on: it has "
            f"{np.sum(groups == empty[0])}; hold out less, or add examples"
        )
    return Subset(source, left), Subset(source, held)


def folds(source: Source, count: int, seed: int = 0) -> list[tuple[Subset, Subset]]:
    """Splits a source for cross-validation: each part is held out once, and the rest is for training.

    Args:
        source: N examples.
        count: number of parts, from 2. Those of a class, and all, differ by one example at most.
        seed: seed of the draw.

    Returns:
        For each part, the training examples and the held-out ones, disjoint views of the source.

    Raises:
        InputError: fewer than 2 parts, or a class with a single example.
    """
    if count < 2 or count > len(source):
        raise InputError(f"folds is {count}; it must be from 2 to the {len(source)} examples")
    labels = _one_label_each(source)
    groups = np.zeros(len(source), np.int32) if labels is None else labels
    kinds, counts = np.unique(groups, return_counts=True)
    if counts.min() < 2:
        names = dict(enumerate(getattr(source, "class_names", ())))
        alone = kinds[np.argmin(counts)]
        raise InputError(
            f"folds: class {names.get(alone, alone)!r} has one example, and none to train on where that "
            "is held out; add examples"
        )
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(np.flatnonzero(groups == kind)) for kind in kinds])
    part = np.empty(len(source), np.int64)
    part[order] = np.arange(len(source)) % count
    return [
        (Subset(source, np.flatnonzero(part != i)), Subset(source, np.flatnonzero(part == i)))
        for i in range(count)
    ]


def split(labels: np.ndarray, share: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Splits examples in two, stratified by class.

    Args:
        labels: int[N].
        share: fraction of every class in the second part, rounded, and at least one example; between
            0 and 1.
        seed: seed of the draw.

    Returns:
        The indices of the two parts, int[M] and int[N - M], sorted.
    """
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        held_out[members[: max(1, round(share * len(members)))]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _one_label_each(source: Source) -> np.ndarray | None:
    """The labels of a source, int32[N]; None where its examples have no label, several, or no class."""
    label = np.asarray(source[0].get("label", ()))
    if label.ndim != 0 or not np.issubdtype(label.dtype, np.integer):
        return None
    return labels_of(source)
