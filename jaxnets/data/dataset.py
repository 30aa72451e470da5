"""Datasets: two random-access sources of labeled images, and the names of their classes.

A source supports ``len(source)`` and ``source[i]``, a dict with ``image`` (uint8[H, W, C]), its
annotations, such as ``label`` (int32), and, for sources with images that may be unreadable, ``weight``
(float32; 0 if unreadable). All arrays of the same name have the same shape. Sources can be pickled,
so that they can be sent to Grain's workers. A source with captions also has
``source.captions(i) -> tuple[str, ...]``.

A batch is also a dict: ``image`` uint8[B, H, W, C], ``label`` int32[B] and ``weight`` float32[B],
which is 1 for examples and 0 for padding and unreadable images.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

Batch = dict[str, np.ndarray]


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
        test: source of held-out examples.
        class_names: the K class names; label k stands for ``class_names[k]``.
    """

    name: str
    train: Source
    test: Source
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every image."""
        return self.train.image_shape


class ArraySource:
    """A source over arrays in memory.

    Args:
        images: uint8[N, H, W, C].
        labels: int[N].
        class_names: the K class names.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, class_names: Sequence[str]):
        self.images = images
        self.labels = np.asarray(labels, np.int32)
        self.class_names = tuple(class_names)
        self.image_shape = images.shape[1:]

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

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """int32[M]."""
        return labels_of(self.source)[self.indices]


def labels_of(source: Source) -> np.ndarray:
    """The labels of a source, int32[N]."""
    labels = getattr(source, "labels", None)
    if labels is None:
        labels = [source[index]["label"] for index in range(len(source))]
    return np.asarray(labels, np.int32)


def in_memory(source: Source) -> bool:
    """Whether reading the source is plain indexing, so that threads and workers do not pay off."""
    while isinstance(source, Subset):
        source = source.source
    return hasattr(source, "take")


def read_batch(source: Source, indices: np.ndarray) -> Batch:
    """Reads the examples at `indices` as one batch; indices past the end give padding.

    Args:
        source: N examples.
        indices: int[B], at least 0; indices of N and above become zeros of weight 0.
    """
    indices = np.asarray(indices)
    present = np.flatnonzero(indices < len(source))
    if hasattr(source, "take"):
        found = source.take(indices[present])
    else:
        examples = [source[int(index)] for index in indices[present]]
        plain = examples[0] if examples else source[0]
        found = {
            name: np.array([example[name] for example in examples], np.asarray(value).dtype).reshape(
                len(examples), *np.shape(value)
            )
            for name, value in plain.items()
            if name != "weight"
        }
        found["weight"] = np.array([example.get("weight", 1) for example in examples], np.float32)
    batch = {"weight": np.zeros(len(indices), np.float32)}
    batch["weight"][present] = 1
    for name, values in found.items():
        batch.setdefault(name, np.zeros((len(indices), *values.shape[1:]), values.dtype))
        batch[name][present] = values
    return batch
