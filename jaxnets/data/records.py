"""Prepared images: shortened JPEGs in ArrayRecord files, read at random access; `preparing` writes them.

A directory of prepared images is a dataset in the on-disk format of TensorFlow Datasets
(``tfds.builder_from_directory`` reads it) with two things beside it, so that a training run starts
without reading the records: ``prepared.json``, a `Manifest`, and the labels of each split.
"""

import dataclasses
import functools
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnets.data import checks, decoding, splits
from jaxnets.data.dataset import Dataset
from jaxnets.data.tfds import TfdsSource
from jaxnets.errors import InputError
from jaxnets.paths import expanded

DATASET = "images"  # what TensorFlow Datasets calls it
MANIFEST = "prepared.json"
VERSION = 1  # of the manifest, and of how pictures are shortened

_logger = logging.getLogger("jaxnets")


class Unreadable(NamedTuple):
    """An image that was left out: its place in the listing of its split, its name, and the reason."""

    index: int
    name: str
    why: str


@dataclasses.dataclass
class Shard:
    """One file of records.

    Attributes:
        images: number of images that it is made from.
        size: size of the file in bytes; None until it is written.
        left_out: those of the images that cannot be read.
    """

    images: int
    size: int | None = None
    left_out: list[Unreadable] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        """The number of records."""
        return self.images - len(self.left_out)


@dataclasses.dataclass
class Manifest:
    """What is to be prepared, and how much of it is done.

    Attributes:
        fingerprint: `Dataset.fingerprint` of the folder.
        size: maximum of the shorter side of the images, in pixels.
        quality: JPEG quality.
        class_names: the K class names.
        splits: the shards of each split.
        complete: whether all shards, labels and metadata are written.
    """

    fingerprint: str
    size: int
    quality: int
    class_names: tuple[str, ...]
    splits: dict[str, list[Shard]]
    complete: bool = False
    version: int = VERSION

    @property
    def left_out(self) -> list[Unreadable]:
        return [image for shards in self.splits.values() for shard in shards for image in shard.left_out]

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def read(cls, directory: Path) -> "Manifest":
        """Reads the manifest of a directory.

        Raises:
            InputError: there is none, or none of this version of jaxnets.
        """
        path = directory / MANIFEST
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            splits = {
                name: [_shard(**shard) for shard in found["splits"][name]] for name in found["splits"]
            }
            manifest = cls(**{**found, "splits": splits, "class_names": tuple(found["class_names"])})
            if "train" not in splits or len(splits) < 2 or not isinstance(manifest.size, int):
                raise ValueError("no train and test, or no size")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InputError(
                f"{directory} has no prepared images; make them with "
                f"`jaxnets prepare folder:PATH -o {directory}`"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{path} is damaged ({decoding.describe(error)}): remove {directory}, prepare it again"
            ) from error
        if manifest.version != VERSION:
            raise InputError(
                f"{directory} was prepared by another version of jaxnets; remove it and prepare it again"
            )
        return manifest


def _shard(images: int, size: int | None, left_out: list[list]) -> Shard:
    return Shard(images, size, [Unreadable(*image) for image in left_out])


def shard_path(directory: Path, split: str, number: int, shards: int) -> Path:
    """Where a shard is, by the naming of TensorFlow Datasets."""
    return directory / f"{DATASET}-{split}.array_record-{number:05}-of-{shards:05}"


def files_of(directory: Path, manifest: Manifest) -> Iterator[tuple[Path, Shard]]:
    """All shards, and where they are."""
    for split, shards in manifest.splits.items():
        for number, shard in enumerate(shards):
            yield shard_path(directory, split, number, len(shards)), shard


def labels_path(directory: Path, split: str) -> Path:
    """Where the labels of a split are, int32[N]."""
    return directory / f"{split}-labels.npy"


def is_whole(shard: Shard, path: Path) -> bool:
    """Whether a shard is written and still as it was."""
    return shard.size is not None and path.exists() and path.stat().st_size == shard.size


def encode(image: bytes, label: int, name: str) -> bytes:
    """The record of an image, a serialized ``tf.train.Example``.

    Args:
        image: a JPEG file.
        label: its class.
        name: name of the file that it was made from; may hold bytes that are not UTF-8.
    """
    from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

    def of_bytes(value: bytes):
        return tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=[value]))

    features = {
        "image": of_bytes(image),
        "label": tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=[label])),
        "file_name": of_bytes(os.fsencode(name)),
    }
    example = tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def decode(record: bytes) -> dict[str, Any]:
    """The undecoded JPEG and the label of a record."""
    from tensorflow_datasets.proto import tf_example_pb2

    # Not by `FeaturesDict.deserialize_example_np`, which takes five times as long.
    features = tf_example_pb2.Example.FromString(record).features.feature
    return {
        "image": features["image"].bytes_list.value[0],
        "label": features["label"].int64_list.value[0],
    }


class Instruction(NamedTuple):
    """Which records of a file to read; in the form that array_record wants."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


class Records:
    """The undecoded records of a split, ``{"image": bytes, "label": int}``; it can be pickled.

    Args:
        directory: the directory of prepared images.
        split: name of the split.
        shards: its shards, in order.
    """

    def __init__(self, directory: Path, split: str, shards: list[Shard]):
        self._instructions = [
            Instruction(
                str(shard_path(directory, split, number, len(shards))), 0, len(shard), len(shard)
            )
            for number, shard in enumerate(shards)
            if len(shard)
        ]
        self._length = sum(map(len, shards))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            record = self._files[index]
        except (RuntimeError, OSError) as error:  # damaged, or gone; RuntimeError is array_record's
            raise InputError(
                f"{self._file_of(index)} cannot be read: {decoding.describe(error)}; if it is damaged, "
                "remove it and run `jaxnets prepare` again"
            ) from error
        return decode(record)

    def _file_of(self, index: int) -> str:
        ends = np.cumsum([instruction.take for instruction in self._instructions])
        return self._instructions[np.searchsorted(ends, index, side="right")].filename

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_files"}

    @functools.cached_property
    def _files(self) -> Any:
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        return ArrayRecordDataSource(self._instructions)


def _labels(path: Path, images: int, num_classes: int) -> np.ndarray:
    """The labels of a split, as they were written.

    Raises:
        InputError: they are gone or damaged.
    """
    try:
        labels = checks.labels(np.load(path, allow_pickle=False), num_classes)
        if labels.shape != (images,):
            raise ValueError(f"it has {labels.size} labels of {images} images")
    except (OSError, EOFError, ValueError) as error:
        reason = decoding.describe(error)
        if "pickle" in reason:  # NumPy advises to run what may be in it
            reason = "it is no array of numbers"
        raise InputError(
            f"{path} is damaged ({reason}): remove {path.parent}, prepare it again"
        ) from None
    return labels


def load_records(
    path: str | os.PathLike,
    *,
    size: int | None = None,
    channels: int = 3,
    strict: bool = False,
    interpolation: str = "bilinear",
) -> Dataset:
    """Loads images that `jaxnets prepare` has written: the splits, classes and order of their folder.

    Args:
        path: the directory of prepared images.
        size: side of the square that every image is resized to: shorter side, then center crop
            (default 224).
        channels: 1 (gray) or 3 (RGB).
        strict: raise for an image that cannot be decoded, instead of giving it weight 0.
        interpolation: interpolation for resizing: "bilinear", "bicubic", "lanczos" or "nearest".

    Raises:
        InputError: no prepared images there, or not all of them.
    """
    size = 224 if size is None else size
    decoding.check_shape_options(size, channels)
    decoding.check_interpolation(interpolation)
    directory = expanded(path)
    manifest = Manifest.read(directory)
    files = list(files_of(directory, manifest))
    missing = [file.name for file, shard in files if not is_whole(shard, file)]
    if missing or not manifest.complete:
        which = f" ({len(missing)} of {len(files)} files, such as {missing[0]})" if missing else ""
        raise InputError(
            f"{directory} is not complete{which}; run the `jaxnets prepare` that made it again"
        )
    if size > manifest.size:
        _logger.warning(
            "images in %s have a shorter side of %d pixels and are enlarged to %d; prepare them with "
            "--size %d", directory, manifest.size, size, size,
        )  # fmt: skip
    sources = {}
    for split, shards in manifest.splits.items():
        source = sources[split] = TfdsSource(
            Records(directory, split, shards),
            f"{directory} {split}", manifest.class_names, (size, size, channels), size, strict,
            interpolation,
        )  # fmt: skip
        source.labels = _labels(labels_path(directory, split), len(source), len(manifest.class_names))
    test = sources[splits.measuring(sources)]
    count = len(manifest.left_out)
    notes = (
        (f"{count} images could not be read when they were prepared, and are left out",) if count else ()
    )
    return Dataset(
        f"records:{directory}", sources["train"], test, manifest.class_names, sources,
        notes, manifest.fingerprint,
    )  # fmt: skip
