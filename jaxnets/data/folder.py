"""Images on disk, in one folder per class."""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from jaxnets.data import decoding, sampling
from jaxnets.data.dataset import Dataset
from jaxnets.errors import InputError

EXTENSIONS = (".png", ".jpg", ".jpeg")
TEST_FOLDERS = ("test", "val", "validation")

_NAMED_AT_MOST = 5  # unreadable files listed in one warning

_logger = logging.getLogger("jaxnets")


class FolderSource:
    """Image files, decoded on access.

    An image with a valid header that cannot be decoded becomes zeros of weight 0 and is named once in
    a warning.

    Args:
        paths: N image files.
        labels: int[N].
        class_names: the K class names.
        size: side of the square that every image is resized to, in pixels.
        channels: 1 (gray) or 3 (RGB).
        strict: raise InputError for an image that cannot be decoded.
        interpolation: interpolation for resizing, one of `decoding.INTERPOLATIONS`.
    """

    def __init__(
        self,
        paths: Sequence[str],
        labels: np.ndarray,
        class_names: Sequence[str],
        *,
        size: int,
        channels: int,
        strict: bool,
        interpolation: str = "bilinear",
    ):
        self.paths = list(paths)
        self.labels = np.asarray(labels, np.int32)
        self.class_names = tuple(class_names)
        self.image_shape, self.interpolation = (size, size, channels), interpolation
        self._unreadable = decoding.UnreadableImages(self.image_shape, strict)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, label = self.paths[index], self.labels[index]
        try:
            image = self._decode(path)
        except Exception as error:  # Pillow's plugins raise nearly anything on a broken file.
            return self._unreadable.stand_in(path, label, error)
        return {"image": image, "label": label}

    def _decode(self, path: str) -> np.ndarray:
        size, _, channels = self.image_shape
        return decoding.decode(path, size, channels, self.interpolation)


def load_folder(
    path: str | os.PathLike,
    *,
    size: int | None = None,
    channels: int = 3,
    strict: bool = False,
    interpolation: str = "bilinear",
) -> Dataset:
    """Loads PNG and JPEG files from one folder per class.

    If there is a ``path/train`` and a ``path/test``, ``path/val`` or ``path/validation`` (the first
    that exists), each with one folder per class, these are the two sources. Otherwise every folder in
    `path` is a class, and a fixed fifth of each class is held out. Folders inside a class folder
    belong to it. Hidden files and folders are ignored; other files are ignored with a warning that
    counts them. Classes are sorted by name.

    The header of every file is read here, in threads. Files whose header is not that of an image (or
    with more pixels than Pillow's limit against decompression bombs) are left out with a warning.

    Args:
        path: the folder.
        size: side of the square that every image is resized to: shorter side, then center crop
            (default 224).
        channels: 1 (gray) or 3 (RGB).
        strict: raise for an unreadable image, here or when it is decoded, instead of leaving it out.
        interpolation: interpolation for resizing: "bilinear", "bicubic", "lanczos" or "nearest".

    Raises:
        InputError: no such folder, no class folders, fewer than two classes, a class without
            readable images, a class with a single image when a fifth must be held out, different
            classes in train and test, or (strict) an unreadable image.
    """
    size = 224 if size is None else size
    decoding.check_shape_options(size, channels)
    decoding.check_interpolation(interpolation)
    root = Path(path)
    if not root.is_dir():
        raise InputError(
            f"dataset folder {str(root)!r} is not a folder; wanted one with a sub-folder per class"
        )
    test_root = next((root / name for name in TEST_FOLDERS if (root / name).is_dir()), None)
    if test_root is not None and (root / "train").is_dir():
        class_names, train = _read_split(root / "train", strict)
        test_names, test = _read_split(test_root, strict)
        if class_names != test_names:
            odd = sorted(set(class_names) ^ set(test_names))
            raise InputError(
                f"{root / 'train'} and {test_root} must have the same class folders; "
                f"only in one of them: {', '.join(odd)}"
            )
    else:
        class_names, (paths, labels) = _read_split(root, strict)
        for name, count in zip(class_names, np.bincount(labels), strict=True):
            if count < 2:
                raise InputError(
                    f"class {name!r} in {root} has one image, and a fifth of each class is held "
                    "out: add one, or give train and test folders"
                )
        train_indices, test_indices = sampling.split(labels)
        train, test = (
            ([paths[index] for index in indices], labels[indices])
            for indices in (train_indices, test_indices)
        )
    options = {"size": size, "channels": channels, "strict": strict, "interpolation": interpolation}
    return Dataset(
        f"folder:{root}",
        FolderSource(*train, class_names, **options),
        FolderSource(*test, class_names, **options),
        class_names,
    )


def read_held_out(
    path: str | os.PathLike, strict: bool = False
) -> tuple[tuple[str, ...], list[str], np.ndarray]:
    """Reads the evaluation images: those of ``path/test``, ``val`` or ``validation`` (the first that
    exists), or else all images of the class folders in `path`.

    Args:
        path: the folder.
        strict: raise for an image whose header cannot be read, instead of leaving it out.

    Returns:
        The K names of the class folders, in order; the paths of N images; and their labels int32[N].

    Raises:
        InputError: as for `load_folder`.
    """
    root = Path(path)
    if not root.is_dir():
        raise InputError(
            f"dataset folder {str(root)!r} is not a folder; wanted one with a sub-folder per class"
        )
    held_out = [root / name for name in TEST_FOLDERS if (root / name).is_dir()]
    class_names, (paths, labels) = _read_split(held_out[0] if held_out else root, strict)
    return class_names, paths, labels


def _read_split(root: Path, strict: bool) -> tuple[tuple[str, ...], tuple[list[str], np.ndarray]]:
    """The class names of a folder of classes, and the paths and labels of its readable images."""
    class_names = tuple(
        sorted(entry.name for entry in root.iterdir() if entry.is_dir() and entry.name[0] != ".")
    )
    if len(class_names) < 2:
        found = f"only {class_names[0]!r}" if class_names else "none"
        raise InputError(f"{root} must have a sub-folder for each of two or more classes; found {found}")
    paths, labels, others = [], [], 0
    for label, name in enumerate(class_names):
        files = _files(root / name)
        images = [file for file in files if file.lower().endswith(EXTENSIONS)]
        others += len(files) - len(images)
        paths += images
        labels += [label] * len(images)
    if others:
        _logger.warning("%d files under %s are neither PNG nor JPEG: left out", others, root)
    readable = _check_headers(root, paths, strict)
    labels = np.asarray(labels, np.int32)[readable]
    for name, count in zip(class_names, np.bincount(labels, minlength=len(class_names)), strict=True):
        if count == 0:
            raise InputError(
                f"class folder {root / name} has no readable PNG or JPEG image: add one or remove it"
            )
    return class_names, ([paths[index] for index in readable], labels)


def _files(root: Path) -> list[str]:
    """Every file under `root` that is not hidden, sorted by path."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name[0] != "."]
        found += [os.path.join(folder, name) for name in files if name[0] != "."]
    return sorted(found)


def _check_headers(root: Path, paths: list[str], strict: bool) -> np.ndarray:
    """The indices of the files with a valid image header; warns of the others, or raises if strict."""
    with ThreadPoolExecutor() as pool:
        errors = list(pool.map(decoding.header_error, paths))
    bad = [f"{path} ({error})" for path, error in zip(paths, errors, strict=True) if error]
    if bad and strict:
        raise InputError(
            f"{len(bad)} of {len(paths)} images cannot be read, the first is {bad[0]}; "
            "repair or remove them, or pass strict=False to leave them out"
        )
    if bad:
        more = f" and {len(bad) - _NAMED_AT_MOST} more" if len(bad) > _NAMED_AT_MOST else ""
        _logger.warning(
            "%d of %d images under %s cannot be read and are left out: %s%s",
            len(bad), len(paths), root, ", ".join(bad[:_NAMED_AT_MOST]), more,
        )  # fmt: skip
    return np.flatnonzero([error is None for error in errors])
