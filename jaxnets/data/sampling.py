"""Classes of unequal size: over- and under-sampling, and weights for the loss. Held-out parts."""

from typing import Literal

import numpy as np

from jaxnets.data.dataset import Source, Subset, labels_of
from jaxnets.errors import InputError


def class_counts(source: Source) -> np.ndarray:
    """How many examples each class has, int[K].

    Raises:
        InputError: a class has none, so that no weight and no sample makes up for it.
    """
    counts = np.bincount(labels_of(source), minlength=len(source.class_names))
    if (counts == 0).any():
        name = source.class_names[int(np.argmin(counts))]
        raise InputError(f"class {name!r} has no example, so the classes cannot be balanced")
    return counts


def class_balanced(source: Source, how: Literal["over", "under"] = "over", seed: int = 0) -> Subset:
    """A view of a source in which every class has the same number of examples.

    Args:
        source: N examples of K classes.
        how: ``"over"`` repeats examples until every class is as large as the largest: each example
            comes as often as any other of its class or once more. ``"under"`` keeps as many of each
            class as the smallest has, drawn without replacement.
        seed: of the draw.

    Raises:
        InputError: `how` is neither, or a class has no example.
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


def class_weights(source: Source) -> np.ndarray:
    """Weights for a loss that make up for unequal classes: the inverse of their frequency.

    Args:
        source: examples of K classes.

    Returns:
        float32[K] with mean 1 over the classes.

    Raises:
        InputError: a class has no example.
    """
    inverse = 1 / class_counts(source)
    return (inverse / inverse.mean()).astype(np.float32)


def hold_out(source: Source, share: float, seed: int = 0) -> tuple[Subset, Subset]:
    """Cuts a source in two: what is left to train on, and a validation part of it.

    Settings that are chosen by a validation part leave the test set untouched.

    Args:
        source: N examples.
        share: of every class that is held out, rounded, and at least one; between 0 and 1. Where
            examples have no label, or several, of all of them.
        seed: of the draw.

    Returns:
        What is left and what is held out, views of the source that share no example.

    Raises:
        InputError: a share out of range, or a class that would have no example left.
    """
    if not 0 < share < 1:
        raise InputError(f"share is {share}; it must be between 0 and 1, such as 0.2")
    labels = _one_label_each(source)
    groups = np.zeros(len(source), np.int32) if labels is None else labels
    left, held = split(groups, share, seed)
    empty = np.setdiff1d(groups, groups[left])
    if empty.size:
        what = "the source" if labels is None else f"class {source.class_names[empty[0]]!r}"
        raise InputError(
            f"share is {share}, which leaves {what} without an example to train on: it has "
            f"{np.sum(groups == empty[0])}; hold out less, or give it more"
        )
    return Subset(source, left), Subset(source, held)


def split(labels: np.ndarray, share: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Splits examples in two, every class in proportion.

    Args:
        labels: int[N].
        share: of every class in the second part, rounded, and at least one; between 0 and 1.
        seed: of the draw.

    Returns:
        The indices of the two parts, int[M] and int[N - M], in order.
    """
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        held_out[members[: max(1, round(share * len(members)))]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _one_label_each(source: Source) -> np.ndarray | None:
    """The labels of a source, int32[N]; None where its examples have no label, or several."""
    if np.ndim(source[0].get("label", ())) != 0:
        return None
    return labels_of(source)
