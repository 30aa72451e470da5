"""Images on disk with a JSON file of captions, in COCO's format."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxnets.data import coco_files, decoding, splits
from jaxnets.data.dataset import Dataset
from jaxnets.errors import InputError
from jaxnets.paths import expanded

_logger = logging.getLogger("jaxnets")


class CaptionedFiles:
    """Image files with captions, decoded on access.

    An image that cannot be decoded becomes zeros of weight 0 and is named once in a warning.

    Args:
        paths: N image files.
        captions: the captions of each image.
        size: side of the square that every image is resized to, in pixels.
        channels: 1 (gray) or 3 (RGB).
        strict: raise InputError for an image that cannot be decoded.
        interpolation: interpolation for resizing, one of `decoding.INTERPOLATIONS`.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        captions: Sequence[tuple[str, ...]],
        *,
        size: int,
        channels: int,
        strict: bool,
        interpolation: str = "bilinear",
    ):
        self.paths = list(paths)
        self.image_shape, self.interpolation = (size, size, channels), interpolation
        self.class_names = ()
        self._captions = list(captions)
        self._unreadable = decoding.UnreadableImages(self.image_shape, strict)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path = self.paths[index]
        try:
            return {"image": self._decode(path)}
        except Exception as error:  # Pillow's plugins raise nearly anything on a broken file.
            return self._unreadable.stand_in(str(path), None, error)

    def _decode(self, path: Path) -> np.ndarray:
        size, _, channels = self.image_shape
        return decoding.decode(path, size, channels, self.interpolation)

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of an image."""
        return self._captions[index]


def load_captions(
    path: str | os.PathLike,
    *,
    size: int | None = None,
    channels: int = 3,
    strict: bool = False,
    interpolation: str = "bilinear",
) -> Dataset:
    """Loads images with captions from a folder in COCO's format.

    The JSON files are `captions*.json` in the folder or its `annotations` sub-folder: one for each
    split, with one of the names that `load_folder` knows in its own (`captions_train2014.json`), or a
    single one, of whose images a fixed fifth is held out. Images are next to the JSON file, in the
    folder, in its `images` sub-folder, or in a sub-folder named like the part of the file name after
    `captions_`, as in the unpacked COCO.

    Args:
        path: the folder.
        size: side of the square that every image is resized to: shorter side, then center crop
            (default 224).
        channels: 1 (gray) or 3 (RGB).
        strict: raise for images without a caption and images that cannot be decoded. Otherwise the
            former are left out with a warning, and the latter get weight 0.
        interpolation: interpolation for resizing: "bilinear", "bicubic", "lanczos" or "nearest".

    Returns:
        A dataset whose sources have `captions(i)`, and no class names.

    Raises:
        InputError: no such folder or files, a file that is not in COCO's format or has no captions,
            a missing image, or (strict) an image without a caption or that cannot be decoded.
    """
    size = 224 if size is None else size
    decoding.check_shape_options(size, channels)
    decoding.check_interpolation(interpolation)
    root = expanded(path)
    files = coco_files.by_split(root, "captions")
    if None in files:
        parts = _split(*_read(root, files[None], strict), files[None])
        notes = (f"epochs are measured on a fifth of the images, held out ({len(parts['test'][0]):,})",)
    else:
        parts = {split: _read(root, file, strict) for split, file in files.items()}
        counts = {split: (file.name, len(parts[split][0])) for split, file in files.items()}
        notes = (splits.usage(counts),)
        coco_files.warn_of_shared({split: paths for split, (paths, _) in parts.items()})
    options = {"size": size, "channels": channels, "strict": strict, "interpolation": interpolation}
    sources = {split: CaptionedFiles(*part, **options) for split, part in parts.items()}
    test = sources[splits.measuring(sources)]
    return Dataset(f"captions:{root}", sources["train"], test, (), sources, notes)


Part = tuple[list[Path], list[tuple[str, ...]]]


def _split(paths: list[Path], captions: list[tuple[str, ...]], file: Path) -> dict[str, Part]:
    """Holds out a fifth of the files, with all the entries that name them."""
    files = [os.path.normpath(path) for path in paths]  # ./0.png is 0.png
    names = list(dict.fromkeys(files))
    if len(names) < 2:
        raise InputError(f"{file} has one image, and a fifth is held out: add one")
    order = np.random.default_rng(0).permutation(len(names))
    held_out = {names[index] for index in order[: max(1, round(len(names) / 5))]}
    rows = list(zip(paths, captions, files, strict=True))
    return {
        split: tuple(
            map(list, zip(*(row[:2] for row in rows if (row[2] in held_out) is held), strict=True))
        )
        for split, held in (("train", False), ("test", True))
    }


def _read(root: Path, file: Path, strict: bool) -> Part:
    """The images of a JSON file that have captions, and their captions."""
    names, found = _parse(file)
    captions = {key: tuple(filter(_says_something, own)) for key, own in found.items()}
    empty = sum(map(len, found.values())) - sum(map(len, captions.values()))
    without = [key for key, own in captions.items() if not own]
    if len(without) == len(names):
        raise InputError(f"{file} has no captions")
    if without and strict:
        raise InputError(
            f"{len(without)} images of {file} have no caption, the first is {names[without[0]]}; "
            "describe them, or pass strict=False to leave them out"
        )
    if empty:
        _logger.warning("%d captions of %s have no word and are left out", empty, file)
    if without:
        _logger.warning(
            "%d images of %s have no caption and are left out: %s ...",
            len(without), file, names[without[0]],
        )  # fmt: skip
    kept = [key for key, own in captions.items() if own]
    placed = coco_files.place(root, file, "captions", (names[key] for key in kept))
    return list(map(Path, placed)), [captions[key] for key in kept]


def _parse(file: Path) -> tuple[dict[Any, str], dict[Any, list[Any]]]:
    """The file names of a JSON file's images, and what is said of each, by the images' ids."""
    try:
        content = coco_files.read(file)
        entries = [(image["id"], str(image["file_name"])) for image in content["images"]]
        told = [(annotation["image_id"], annotation["caption"]) for annotation in content["annotations"]]
        names, said_of = dict(entries), {key for key, _ in told}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{file} is not in COCO's format (images with id and file_name, annotations with "
            f"image_id and caption): {type(error).__name__} {error}"
        ) from None
    for key, name in entries:
        if names[key] != name:
            raise InputError(
                f"{file} has two images of id {key!r}, {name} and {names[key]}; give each its own id"
            )
    for key in said_of - names.keys():
        raise InputError(f"{file} has a caption of image_id {key!r}, but no image of that id")
    found: dict[Any, list[Any]] = {key: [] for key in names}
    for key, caption in told:
        found[key].append(caption)
    return names, found


def _says_something(caption: Any) -> bool:
    """Whether a caption is a text with a letter or a digit."""
    return isinstance(caption, str) and any(map(str.isalnum, caption))
