"""Images on disk with a JSON file of captions, in COCO's format."""

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxnets.data import decoding
from jaxnets.data.dataset import Dataset
from jaxnets.errors import InputError

HELD_OUT_NAMES = ("test", "val")  # in the name of the JSON file of held-out images

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

    The JSON files are `captions*.json` in the folder or its `annotations` sub-folder: either one with
    "train" and one with "test" or "val" in their names, or a single file, of whose images a fixed
    fifth is held out. Images are next to the JSON file, in the folder, in its `images` sub-folder, or
    in a sub-folder named like the part of the file name after `captions_`, as in the unpacked COCO.

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
    root = Path(path)
    files = sorted([*root.glob("captions*.json"), *root.glob("annotations/captions*.json")])
    if not files:
        raise InputError(f"{root} holds no captions*.json, neither directly nor in annotations/")
    train = [file for file in files if "train" in file.stem]
    test = [file for file in files if any(name in file.stem for name in HELD_OUT_NAMES)]
    options = {"size": size, "channels": channels, "strict": strict, "interpolation": interpolation}
    if len(train) == 1 and len(test) == 1:
        parts = [_read(root, file, strict) for file in (*train, *test)]
    elif len(files) == 1:
        paths, captions = _read(root, files[0], strict)
        if len(paths) < 2:
            raise InputError(f"{files[0]} has one image, and a fifth is held out: add one")
        held_out = np.zeros(len(paths), bool)
        order = np.random.default_rng(0).permutation(len(paths))
        held_out[order[: max(1, round(len(paths) / 5))]] = True
        parts = [
            ([paths[i] for i in chosen], [captions[i] for i in chosen])
            for chosen in (np.flatnonzero(~held_out), np.flatnonzero(held_out))
        ]
    else:
        raise InputError(
            f"{root} holds {', '.join(file.name for file in files)}; wanted a single file, or one "
            "with train and one with test or val in its name"
        )
    train_source, test_source = (CaptionedFiles(*part, **options) for part in parts)
    return Dataset(f"captions:{root}", train_source, test_source, ())


def _read(root: Path, file: Path, strict: bool) -> tuple[list[Path], list[tuple[str, ...]]]:
    """The images of a JSON file that have captions, and their captions."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        names = {image["id"]: image["file_name"] for image in content["images"]}
        found: dict[Any, list[str]] = {key: [] for key in names}
        for annotation in content["annotations"]:
            found[annotation["image_id"]].append(str(annotation["caption"]))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{file} is not in COCO's format (images with id and file_name, annotations with the "
            f"image_id of one of them and caption): {type(error).__name__} {error}"
        ) from None
    without = [names[key] for key, own in found.items() if not any(map(str.strip, own))]
    if len(without) == len(names):
        raise InputError(f"{file} has no captions")
    if without and strict:
        raise InputError(
            f"{len(without)} images of {file} have no caption, the first is {without[0]}; describe "
            "them, or pass strict=False to leave them out"
        )
    if without:
        _logger.warning(
            "%d images of %s have no caption and are left out: %s ...", len(without), file, without[0]
        )
    folders = (file.parent, root, root / "images", root / file.stem.removeprefix("captions_"))
    skipped = set(without)
    paths, captions = [], []
    for key, name in names.items():
        if name in skipped:
            continue
        place = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if place is None:
            looked = ", ".join(str(folder) for folder in dict.fromkeys(folders))
            raise InputError(f"{file} names the image {name}, which is in none of {looked}")
        paths.append(place)
        captions.append(tuple(found[key]))
    return paths, captions
