"""Images on disk, in one folder per class."""

import functools
import hashlib
import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxnets.data import decoding, files, label_folder, sampling, splits
from jaxnets.data.dataset import Dataset
from jaxnets.data.waiting import tracked
from jaxnets.errors import InputError, unknown_name
from jaxnets.paths import expanded, shown

_logger = logging.getLogger("jaxnets")

Classes = dict[str, list[str]]  # the image files of each class


class FolderSource:
    """Image files, decoded on access.

    An image that cannot be decoded becomes zeros of weight 0 and is named once in a warning.

    Args:
        paths: N image files.
        labels: int[N]; or 0 or 1 for each class of an image, [N, K].
        class_names: the K class names.
        decode: from a path to an image, uint8 of `image_shape`.
        image_shape: (H, W, C), or with more axes where there are several views of each image.
        strict: raise InputError for an image that cannot be decoded.
    """

    def __init__(
        self,
        paths: Sequence[str],
        labels: np.ndarray,
        class_names: Sequence[str],
        *,
        decode: Callable[[str], np.ndarray],
        image_shape: tuple[int, ...],
        strict: bool,
    ):
        self.paths = list(paths)
        self.labels = np.asarray(labels, np.int32 if np.ndim(labels) == 1 else np.uint8)
        self.class_names = tuple(class_names)
        self.image_shape = image_shape
        self._decode = decode
        self._unreadable = decoding.UnreadableImages(image_shape, strict)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, label = self.paths[index], self.labels[index]
        try:
            return {"image": self._decode(path), "label": label}
        except Exception as error:  # Pillow's plugins raise nearly anything on a broken file.
            return self._unreadable.stand_in(path, label, error)


def load_folder(
    path: str | os.PathLike,
    *,
    size: int | tuple[int, int] | None = None,
    channels: int = 3,
    segmentation: bool = False,
    strict: bool = False,
    interpolation: str = "bilinear",
    background: str = "white",
) -> Dataset:
    """Loads image files from one folder per class, or with label maps.

    PNG, JPEG, WebP, BMP and TIFF files are taken, and the first frame of GIF files: the ending of a
    file's name selects it, its content decides what it is. Folders inside a class folder belong to it,
    links are followed, and hidden files and folders are ignored. What else there is, is left out with a
    warning that counts it. Classes are sorted by name.

    If the folders in `path` are called as parts of a dataset (train, training; val, valid, validation,
    dev, eval; test, testing; in any case, also as train2017 or test_set), each with one folder per
    class, these are its splits. Epochs
    are measured by val if there is one; test is then left for `Dataset.split`. Otherwise every folder in
    `path` is a class. If only training images are given, a fixed fifth of each class is held out.

    Label maps are PNG files in the folder `labels`, of the names of the images in the folder `images`;
    the splits are folders in both, such as `images/train` and `labels/train`. Their pixels, gray or of a
    palette, count the classes from 0; 255 is for pixels to ignore. `classes.txt` has the name of a class
    on each line; without it, the label maps are read here to number the classes.

    Files are not opened here. What turns out to be no image when it is read gets weight 0.

    Args:
        path: the folder; ``~`` is your home.
        size: side of the square that every image is resized to: shorter side, then center crop
            (default 224). Large JPEGs are shrunk by their decoder first; see `decoding.decode`. With
            label maps, that of the canvas, or its (height, width), as for `load_coco`.
        channels: 1 (gray) or 3 (RGB).
        segmentation: whether examples have label maps (`LabelFiles`) instead of labels.
        strict: read the header of every file here, and raise for an unreadable image, here or when it
            is decoded, instead of giving it weight 0.
        interpolation: interpolation for resizing: "bilinear", "bicubic", "lanczos" or "nearest".
        background: color behind what is transparent, such as "white" or "#7f7f7f".

    Raises:
        InputError: no such folder, no class folders, fewer than two classes, a class without images, a
            class with a single image when a fifth must be held out, a class that only a held-out part
            has, names that are of splits beside others, an image without a label map, or (strict) an
            unreadable image.
    """
    if segmentation:
        root = _existing(path, "folders images and labels")
        options = {"channels": channels, "interpolation": interpolation, "background": background}
        return label_folder.load(root, size=size, strict=strict, **options)
    size = 224 if size is None else size
    decoding.check_shape_options(size, channels)
    decoding.check_interpolation(interpolation)
    decoding.check_background(background)
    root, left_out = _existing(path), Counter()
    folders = _split_folders(root, left_out)
    if folders and "train" not in folders:
        raise InputError(
            f"{shown(root)} has a folder {Path(next(iter(folders.values()))).name!r} and no 'train' to "
            "learn from; add one with a folder for each class"
        )
    parts = {name: _classes(folder, left_out, (root,)) for name, folder in folders.items()}
    parts = parts or {"train": _classes(root, left_out)}
    where = folders.get("train", root)
    names = tuple(parts["train"])
    _check_classes(where, parts["train"])
    flat = [Path(folders[name]).name for name in folders if not parts[name]]
    parts = {name: found for name, found in parts.items() if found}
    for name in parts.keys() - {"train"}:
        _check_held_out(folders[name], parts[name], where, names)
    _warn(root, left_out)

    listed = {name: _labeled(found, names) for name, found in parts.items()}
    if strict:
        files.check_headers([path for paths, _ in listed.values() for path in paths])
    notes = [f"{shown(one)} has no class folders and is left out" for one in flat]
    fingerprint = _fingerprint(folders or {"train": root}, parts)
    if len(listed) == 1:
        listed = _with_a_fifth_held_out(*listed["train"], names, where)
        count = len(listed["test"][0])
        notes.append(f"epochs are measured on a fifth of each class, held out ({count:,} images)")
    else:
        counts = {name: (Path(folders[name]).name, len(part[0])) for name, part in listed.items()}
        notes.append(splits.usage(counts))
    options = {"size": size, "channels": channels}
    options |= {"interpolation": interpolation, "background": background}
    sources = sources_of(listed, names, strict=strict, **options)
    test = sources[splits.measuring(sources)]
    return Dataset(f"folder:{root}", sources["train"], test, names, sources, tuple(notes), fingerprint)


def sources_of(
    parts: Mapping[str, tuple[Sequence[str], np.ndarray]],
    names: Sequence[str],
    *,
    size: int,
    channels: int,
    strict: bool,
    **options: Any,
) -> dict[str, FolderSource]:
    """The source of each split, by its paths and labels; further options are of `decoding.decode`."""
    decode = functools.partial(decoding.decode, size=size, channels=channels, **options)
    shape = (size, size, channels)
    return {
        split: FolderSource(*part, names, decode=decode, image_shape=shape, strict=strict)
        for split, part in parts.items()
    }


def read_held_out(
    path: str | os.PathLike, strict: bool = False, split: str | None = None
) -> tuple[tuple[str, ...], list[str], np.ndarray]:
    """Reads the images to evaluate on: those of a split, or all images of the class folders in `path`.

    Args:
        path: the folder, as for `load_folder`.
        strict: raise for an image whose header cannot be read, instead of giving it weight 0.
        split: name of the split; None for val or else test, if the folder has splits.

    Returns:
        The K names of the class folders, in order; the paths of N images; and their labels int32[N].

    Raises:
        InputError: no such folder or split, or fewer than two classes with images.
    """
    root, left_out = _existing(path), Counter()
    folders = _split_folders(root, left_out)
    where = _part(root, folders, split)
    found = _classes(where, left_out, (root,) if folders else ())
    _warn(root, left_out)
    empty = [name for name, own in found.items() if not own]
    if empty:
        _logger.warning("%s has no image of classes: %s", shown(where), files.named(empty))
        found = {name: own for name, own in found.items() if own}
    _check_classes(where, found)
    paths, labels = _labeled(found, tuple(found))
    if strict:
        files.check_headers(paths)
    return tuple(found), paths, labels


def _part(root: str, folders: Mapping[str, str], split: str | None) -> str:
    """The folder of a split, or of the held-out one to measure by."""
    if not folders:
        if split is None:
            return root
        raise InputError(
            f"split is {split!r}, but {shown(root)} has class folders and no splits; leave it out"
        )
    wanted = splits.measuring(folders) if split is None else splits.split_of(split)
    if wanted not in folders:
        raise unknown_name(f"split of {shown(root)}", split or "test", folders)
    if split is None and {"val", "test"} <= folders.keys():
        _logger.warning("%s has val and test: val is measured; name a split for another", shown(root))
    return folders[wanted]


def _existing(path: str | os.PathLike, wanted: str = "a sub-folder per class") -> str:
    root = str(expanded(path))
    if not os.path.isdir(root):
        raise InputError(f"dataset folder {str(root)!r} is not a folder; wanted one with {wanted}")
    return root


def _split_folders(root: str, left_out: Counter[str]) -> dict[str, str]:
    """The folders of splits by "train", "val" and "test"; none if the folders in `root` are classes."""
    found = files.folders_in(root, Counter())

    def is_deep(name: str) -> bool:
        return bool(files.folders_in(os.path.join(root, name), Counter(), (root,)))

    named = {name: splits.split_of(name) for name in found}
    for name in found:
        if (split := splits.split_of_folder(name)) and is_deep(name):  # train2017, say
            named[name] = split
    if not any(named.values()):
        return {}
    others = [name for name in found if named[name] is None]
    if others:
        deep = [name for name in found if named[name] and is_deep(name)]
        if deep:
            raise InputError(
                f"{shown(root)} has {files.named(deep)} with folders inside, as splits have, beside "
                f"{files.named(others)}; move one of the two elsewhere, or rename it"
            )
        return {}
    folders = {}
    for name, split in named.items():
        if split in folders:
            raise InputError(
                f"{shown(root)} has {Path(folders[split]).name} and {name}, which mean the same; leave "
                "one of them"
            )
        folders[split] = os.path.join(root, name)
    return {split: folders[split] for split in splits.NAMES if split in folders}


def _classes(root: str, left_out: Counter[str], above: Sequence[str] = ()) -> Classes:
    """The image files of each class folder, by class name."""
    names = files.folders_in(root, left_out, above)
    found: Classes = {}
    for name in tracked(names, len(names), f"listing {shown(root)}"):
        paths = files.image_files(os.path.join(root, name), left_out, (*above, root))
        found.setdefault(_class_name(name), []).extend(paths)
    return {name: found[name] for name in sorted(found)}


def _class_name(folder: str) -> str:
    """A folder's name as text, whatever the locale: UTF-8, in the composed form (NFC)."""
    return unicodedata.normalize("NFC", os.fsencode(folder).decode("utf-8", "surrogateescape"))


def _check_classes(root: str, found: Classes) -> None:
    if len(found) < 2:
        told = f"only {next(iter(found))!r}" if found else "none"
        raise InputError(
            f"{shown(root)} must have a sub-folder for each of two or more classes; found {told}"
        )
    empty = [name for name, paths in found.items() if not paths]
    if empty:
        raise InputError(
            f"class folders without an image in {shown(root)}: {files.named(empty)}; add images "
            f"({' '.join(sorted(files.ENDINGS))}) or remove them"
        )


def _check_held_out(root: str, found: Classes, train: str, names: Sequence[str]) -> None:
    """Refuses classes that are not trained, and warns of trained ones without an image."""
    odd = [name for name, paths in found.items() if paths and name not in names]
    if odd:
        raise InputError(
            f"{shown(root)} has classes that {shown(train)} has not: {files.named(odd)}; add images of "
            "them there, or remove them here"
        )
    missing = [name for name in names if not found.get(name)]
    if len(missing) == len(names):
        raise InputError(f"{shown(root)} has no image of any class; add some, or remove it")
    if missing:
        _logger.warning(
            "%s has no image of %d of %d classes: %s",
            shown(root), len(missing), len(names), files.named(missing),
        )  # fmt: skip


def _labeled(found: Classes, names: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The paths and labels of all images, by class."""
    counts = [len(found.get(name, ())) for name in names]
    paths = [path for name in names for path in found.get(name, ())]
    return paths, np.repeat(np.arange(len(names), dtype=np.int32), counts)


def _with_a_fifth_held_out(
    paths: Sequence[str], labels: np.ndarray, names: Sequence[str], root: str
) -> dict[str, tuple[list[str], np.ndarray]]:
    for name, count in zip(names, np.bincount(labels), strict=True):
        if count < 2:
            raise InputError(
                f"class {name!r} in {shown(root)} has one image, and a fifth of each class is held "
                "out: add one, or give train and test folders"
            )
    return {
        part: ([paths[index] for index in indices], labels[indices])
        for part, indices in zip(("train", "test"), sampling.split(labels), strict=True)
    }


def _fingerprint(folders: Mapping[str, str], parts: Mapping[str, Classes]) -> str:
    """A hash of the names of all files in order, below the folders of the splits."""
    digest = hashlib.blake2b(digest_size=16)
    for split, found in parts.items():
        for name, paths in found.items():
            relative = "\n".join(path[len(folders[split]) :] for path in paths)
            text = unicodedata.normalize("NFC", f"{split}\n{name}\n{relative}\n").replace(os.sep, "/")
            digest.update(text.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _warn(root: str, left_out: Counter[str]) -> None:
    if left_out:
        _logger.warning("%s: left out %s", shown(root), files.counted(left_out))
