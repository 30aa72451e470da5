"""Classes of unequal size: over- and under-sampling, and weights for the loss."""

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
