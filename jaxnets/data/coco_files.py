"""Folders in COCO's form: JSON files of annotations, one for each split, and where their images are."""

import json
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxnets.data import splits
from jaxnets.errors import InputError
from jaxnets.paths import shown

_logger = logging.getLogger("jaxnets")


def by_split(root: Path, kind: str) -> dict[str | None, Path]:
    """The files of annotations in a folder or its `annotations` sub-folder.

    Args:
        root: the folder.
        kind: what their names begin with, such as "captions".

    Returns:
        The files by split, one of `splits.NAMES`; or a single file, by None.

    Raises:
        InputError: there are none, or several that are not one for each split.
    """
    found = [*root.glob(f"{kind}*.json"), *root.glob(f"annotations/{kind}*.json")]
    files = sorted(file for file in found if file.is_file())
    if not files:
        raise InputError(f"{root} holds no {kind}*.json, neither directly nor in annotations/")
    if len(files) == 1:
        return {None: files[0]}
    named = {_split_of(file): file for file in files}
    if len(named) < len(files) or None in named or "train" not in named:
        raise InputError(
            f"{root} holds {', '.join(file.name for file in files)}; wanted a single file, or one for "
            "each split, with train, val or test in their names"
        )
    return named


def _split_of(file: Path) -> str | None:
    """The split that one of the words in a file's name stands for; None if none or several do."""
    found = {splits.split_of(word) for word in re.split(r"[\W\d_]+", file.stem)} - {None}
    return found.pop() if len(found) == 1 else None


def read(file: Path) -> Any:
    """What a JSON file holds.

    Raises:
        ValueError: it is no text, or not JSON.
        RecursionError: it is nested too deep.
    """
    return json.loads(file.read_text(encoding="utf-8-sig"))


def place(root: Path, file: Path, kind: str, names: Iterable[str]) -> list[str]:
    """Where images are: next to their JSON file, in the folder, in its `images`, or in its `train2017`.

    Args:
        root: the folder.
        file: the JSON file, of which the name after `kind` may be that of a sub-folder.
        kind: as for `by_split`.
        names: what the file calls the images.

    Raises:
        InputError: there is no such image.
    """
    own = file.stem.removeprefix(f"{kind}_")
    around = (file.parent, root, root / "images", root / own, root / "images" / own)
    folders = list(dict.fromkeys(map(str, around)))
    return [_place(file, name, folders) for name in names]


def _place(file: Path, name: str, folders: Sequence[str]) -> str:
    paths = (os.path.join(folder, name) for folder in folders)
    found = next(filter(os.path.isfile, paths), None)
    if found is None:
        looked = ", ".join(folders)
        raise InputError(f"{file} names the image {shown(name)}, which is in none of {looked}")
    return found


def warn_of_shared(paths: Mapping[str, Iterable[str | os.PathLike]]) -> None:
    """Warns of images that are trained on and measured by.

    Args:
        paths: of the images of each split.
    """
    files = {split: set(map(os.path.normpath, own)) for split, own in paths.items()}
    for split in files.keys() - {"train"}:
        if shared := files["train"] & files[split]:
            _logger.warning(
                "%d images are in both train and %s, such as %s: what is measured on them is too good",
                len(shared), split, shown(min(shared)),
            )  # fmt: skip
