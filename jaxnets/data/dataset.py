"""Datasets: two random-access sources of labeled images, and the names of their classes.

A source supports ``len(source)`` and ``source[i]``, a dict with ``image`` (uint8[H, W, C], or floats in
[0, 1]), its annotations, such as ``label`` (int32; or uint8[K], 1 for each class of an image that may
have several), and, for sources with images that may be unreadable, ``weight`` (float32; 0 if
unreadable). All arrays of the same name have the same shape. Sources can be pickled, so that they can
be sent to Grain's workers. A source with captions also has ``source.captions(i) -> tuple[str, ...]``,
and one with objects or label maps ``source.truth(i)``, what is annotated in pixels of the picture's
file (`objects.ObjectFiles.truth`, `labels.LabelSource.truth`).

A batch is also a dict: ``image`` uint8[B, H, W, C], ``label`` int32[B] and ``weight`` float32[B],
which is 1 for examples and 0 for padding and for the stand-ins of unreadable images.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from jaxnets.data import checks, splits
from jaxnets.errors import InputError, unknown_name

Batch = dict[str, np.ndarray]

_LOOKED_AT = 256  # images whose pixels are looked at before training; the others as they are read


class Source(Protocol):
    """A random-access source of labeled images.

    Optionally, a source also has ``labels`` (int32[N], without decoding images) and
    ``take(indices) -> {"image": uint8[B, H, W, C], "label": int32[B]}`` (many examples at once,
    from memory); without them, `labels_of` and `read_batch` read examples one by one.
    """

    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, Any]: ...


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Labeled images for training and held-out images for testing.

    Attributes:
        name: the spec that it was loaded by, such as ``"digits"``.
        train: source of training examples.
        test: source of held-out examples, by which epochs are measured.
        class_names: the K class names; label k stands for ``class_names[k]``.
        splits: all sources, by the names "train", "val" and "test". `test` is "val" where there is one,
            and `splits["test"]` is then another part, that no run sees. Where a part of a single set was
            held out, "all" may be the whole set, for evaluating what was trained elsewhere.
        notes: lines for the user, of what is used for what.
        fingerprint: hash of the names of its files, which stays when their folder is moved; None if it
            is not made of files.
    """

    name: str
    train: Source
    test: Source
    class_names: tuple[str, ...]
    splits: Mapping[str, Source] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    fingerprint: str | None = None

    def __post_init__(self):
        own = {"train": self.train, splits.measuring(self.splits): self.test}
        object.__setattr__(self, "splits", {**self.splits, **own})

    def split(self, name: str | None = None) -> Source:
        """The source of a split, by any of its usual names; `test` if None.

        Raises:
            InputError: there is no such split.
        """
        if name is None:
            return self.test
        known = name if name in self.splits else splits.split_of(name)
        if known not in self.splits:
            raise unknown_name(f"split of {self.name}", name, self.splits)
        return self.splits[known]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every image."""
        return self.train.image_shape


def check_source(name: str, source: Any) -> None:
    """Checks that something is a source, by its form.

    Raises:
        InputError: it has no length, or no examples by number.
    """
    arrays = isinstance(source, (Mapping, str, np.ndarray))
    if arrays or not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
        hint = f"; give its {name}" if isinstance(source, Dataset) else ""
        raise InputError(
            f"{name} is a {type(source).__name__}; wanted a source, with len(source) and "
            f"source[i]{hint or ', such as ArraySource'}"
        )


class ArraySource:
    """A source over arrays in memory.

    Args:
        images: uint8[N, H, W, C], or floats in [0, 1].
        labels: int[N], from 0 to K - 1.
        class_names: the K class names.

    Raises:
        InputError: no images, images of several shapes, of another type or range, or labels that are
            not classes.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, class_names: Sequence[str]):
        self.images = images if hasattr(images, "dtype") else _stacked("images", images)
        self.class_names = tuple(class_names)
        if len(self.images) == 0:
            raise InputError("images: the source is empty; give at least one image")
        if len(self.images.shape) != 4:
            raise InputError(
                f"images have shape {tuple(self.images.shape)}; wanted [N, H, W, C], all of one size"
            )
        checks.pixels(self.images[:_LOOKED_AT])
        self.labels = checks.labels(labels, len(self.class_names) or None).astype(np.int32)
        if self.labels.shape != (len(self.images),):
            raise InputError(
                f"labels have shape {self.labels.shape}; wanted [{len(self.images)}], one for each image"
            )
        self.image_shape = self.images.shape[1:]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.images[index], "label": self.labels[index]}

    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        return {"image": self.images[indices], "label": self.labels[indices]}


class Subset:
    """The examples of a source at some indices, which may repeat.

    Args:
        source: the underlying source.
        indices: int[M].
    """

    def __init__(self, source: Source, indices: np.ndarray):
        self.source = source
        self.indices = np.asarray(indices)
        self.class_names = getattr(source, "class_names", ())
        self.image_shape = getattr(source, "image_shape", None)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self.source[int(self.indices[index])]

    def take(self, indices: np.ndarray) -> Batch:
        return read_batch(self.source, self.indices[indices])

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of an image, if the source has captions."""
        return self.source.captions(int(self.indices[index]))

    def truth(self, index: int) -> Any:
        """What is annotated in an image, if the source has objects or label maps."""
        return self.source.truth(int(self.indices[index]))

    def picture(self, index: int) -> str:
        """The file of an image, if the source is of files with objects or label maps."""
        return self.source.picture(int(self.indices[index]))

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """int32[M]."""
        return labels_of(self.source)[self.indices]


def labels_of(source: Source) -> np.ndarray:
    """The labels of a source, int32[N]; or [N, K] of images that may have several.

    Raises:
        InputError: labels that are not whole numbers.
    """
    labels = getattr(source, "labels", None)
    if labels is None:
        labels = [source[index]["label"] for index in range(len(source))]
    return checks.labels(labels).astype(np.int32)


def is_multi_label(source: Source, count: int) -> bool:
    """Whether the images of a source may have several labels: an example's has a number for each of
    `count` classes."""
    example = source[0] if len(source) else None
    return isinstance(example, Mapping) and np.shape(example.get("label")) == (count,)


def traced(source: Source, index: int) -> tuple[Source, int]:
    """The source that an example is part of in the end, and its index there."""
    while isinstance(source, Subset):
        source, index = source.source, int(source.indices[index])
    return source, index


def in_memory(source: Source) -> bool:
    """Whether reading the source is plain indexing, so that threads and workers do not pay off."""
    while isinstance(source, Subset):
        source = source.source
    return hasattr(source, "take")


def read_batch(source: Source, indices: np.ndarray) -> Batch:
    """Reads the examples at `indices` as one batch; indices past the end give padding.

    An image that the source could not read (zeros of weight 0) would be part of the statistics of batch
    normalization. The next readable example of the batch takes its place, with its label, for the sake
    of augmentations that mix examples; its weight stays 0.

    Args:
        source: N examples.
        indices: int[B], at least 0; indices of N and above become zeros of weight 0.

    Raises:
        InputError: examples that are not dicts, or differ in their names, shapes or types.
    """
    indices = np.asarray(indices)
    present = np.flatnonzero(indices < len(source))
    if hasattr(source, "take"):
        found = source.take(indices[present])
    else:
        found = _collated([source[int(index)] for index in indices[present]] or [source[0]])
        found = {name: values[: len(present)] for name, values in found.items()}
    batch = {"weight": np.zeros(len(indices), np.float32)}
    batch["weight"][present] = 1
    for name, values in found.items():
        batch.setdefault(name, np.zeros((len(indices), *values.shape[1:]), values.dtype))
        batch[name][present] = values
    return _without_stand_ins(batch, present)


def _collated(examples: Sequence[Mapping[str, Any]]) -> Batch:
    """The examples as one batch, with their weights."""
    for example in examples:
        if not isinstance(example, Mapping):
            raise InputError(
                f"source: an example is a {type(example).__name__}; wanted a dict of arrays, such as "
                '{"image": ..., "label": ...}'
            )
        if example.keys() - {"weight"} != examples[0].keys() - {"weight"}:
            raise InputError(
                f"source: one example has {', '.join(examples[0])}, another {', '.join(example)}; "
                "wanted the same in each"
            )
    names = [name for name in examples[0] if name != "weight"]
    batch = {name: _stacked(name, [example[name] for example in examples]) for name in names}
    if "label" in batch and batch["label"].dtype == bool:  # of two classes
        batch["label"] = batch["label"].astype(np.int32)
    return {**batch, "weight": np.array([_weight(example) for example in examples], np.float32)}


def _weight(example: Mapping[str, Any]) -> float:
    try:
        weight = float(example.get("weight", 1))
    except (TypeError, ValueError):
        weight = -1.0
    if not 0 <= weight < np.inf:
        raise InputError(f"source: weight is {example['weight']!r}; wanted a number of 0 or more")
    return weight


def _stacked(name: str, values: Sequence[Any]) -> np.ndarray:
    """Arrays of one shape and kind as one, with the type of the first."""
    arrays = [np.asarray(value) for value in values]
    for other in arrays:
        if other.shape != arrays[0].shape:
            raise InputError(
                f"source: {name} has shape {arrays[0].shape} in one example and {other.shape} in "
                "another; wanted one shape"
            )
        if other.dtype.kind != arrays[0].dtype.kind:
            raise InputError(
                f"source: {name} is {arrays[0].dtype} in one example and {other.dtype} in another; "
                "wanted one type"
            )
    return np.stack(arrays).astype(arrays[0].dtype, copy=False) if arrays else np.zeros(0)


def _without_stand_ins(batch: Batch, present: np.ndarray) -> Batch:
    """The batch with a readable example in place of each image of zeros and weight 0."""
    weights = batch["weight"][present]
    if weights.all() or "image" not in batch:
        return batch
    blank = present[weights == 0]
    blank = blank[[not batch["image"][row].any() for row in blank]]
    readable = present[weights > 0]
    if len(blank) and len(readable):
        nearest = readable[np.searchsorted(readable, blank) % len(readable)]
        for name in batch.keys() - {"weight"}:
            batch[name][blank] = batch[name][nearest]
    return batch
