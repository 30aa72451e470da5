"""Images on disk with label maps: a folder `images`, and `labels` with a PNG of each one's name."""

import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any

from jaxnets.data import files, splits
from jaxnets.data.dataset import Dataset
from jaxnets.data.labels import LabelFiles, check_classes, numbered
from jaxnets.data.objects import dataset_of
from jaxnets.errors import InputError
from jaxnets.paths import shown

IMAGES, LABELS, CLASSES = "images", "labels", "classes.txt"
ENDING = ".png"  # of label maps; a JPEG would change their numbers

_logger = logging.getLogger("jaxnets")


def load(root: str, *, strict: bool, **options: Any) -> Dataset:
    """Loads a folder for `folder.load_folder`.

    Args:
        root: the folder.
        strict: as for `LabelFiles`; and read the headers of all files here.
        **options: the others of `LabelFiles`.

    Raises:
        InputError: another layout; an image without a label map; a label map of colors where classes
            have no names; too few or too many classes; or (strict) a file that cannot be read.
    """
    for name in (IMAGES, LABELS):
        if not os.path.isdir(os.path.join(root, name)):
            raise InputError(
                f"{shown(root)} has no folder {name!r}; wanted {IMAGES}/ and, with a {ENDING} of each "
                f"image's name, {LABELS}/"
            )
    left_out, notes = Counter(), []
    parts = _splits(root, left_out)
    pairs = {split: _pairs(root, part, left_out, notes) for split, part in parts.items()}
    if left_out:
        _logger.warning("%s: left out %s", shown(root), files.counted(left_out))
    maps = [path for _, own in pairs.values() for path in own]
    if strict:
        files.check_headers([path for images, _ in pairs.values() for path in images] + maps)
    names = _class_names(Path(root) / CLASSES)
    if names is None:
        names = numbered(lambda number: (maps[number],) * 2, len(maps), f"reading {LABELS}")
        notes.append(f"classes are called 0 to {names[-1]}; {CLASSES}, a name on each line, names them")
    sources = {split: LabelFiles(*own, names, strict=strict, **options) for split, own in pairs.items()}
    return dataset_of(f"folder:{root}", sources, parts, notes)


def _splits(root: str, left_out: Counter[str]) -> dict[str | None, str]:
    """The folders of splits in `images`; or by None the only one, or "" for the whole of it."""
    top, loose, found = os.path.join(root, IMAGES), Counter(), {}
    for name in files.folders_in(top, loose):
        split = splits.split_of_folder(name)
        if split is None:
            loose["other folders"] += 1
        elif split in found:
            raise InputError(
                f"{shown(top)} has {found[split]} and {name}, which mean the same; leave one of them"
            )
        else:
            found[split] = name
    if not found:
        return {None: ""}
    if "train" not in found:
        raise InputError(
            f"{shown(top)} has a folder {next(iter(found.values()))!r} and no 'train' to learn from"
        )
    for what, count in loose.items():
        left_out["images of no split" if what == files.LOOSE else what] += count
    if len(found) == 1:
        return {None: found["train"]}
    return {split: found[split] for split in splits.NAMES if split in found}


def _pairs(
    root: str, part: str, left_out: Counter[str], notes: list[str]
) -> tuple[list[str], list[str]]:
    """The images of a part, and their label maps."""
    (images, top), (others, below) = (
        (_by_stem(folder, left_out), folder)
        for folder in (str(Path(root, name, part)) for name in (IMAGES, LABELS))
    )
    if not images:
        raise InputError(f"{shown(top)} holds no image ({' '.join(sorted(files.ENDINGS))})")
    maps = {stem: path for stem, path in others if path.lower().endswith(ENDING)}
    for stem, image in images:
        if stem not in maps:
            other = dict(others).get(stem)
            hint = f"{shown(other)} must be one" if other else "add it, or remove the image"
            raise InputError(
                f"{shown(image)} has no label map {shown(f'{below}{os.sep}{stem}{ENDING}')}; {hint}"
            )
    if spare := len(maps.keys() - dict(images).keys()):
        notes.append(f"{spare:,} label maps in {shown(below)} have no image and are left out")
    return [image for _, image in images], [maps[stem] for stem, _ in images]


def _by_stem(folder: str, left_out: Counter[str]) -> list[tuple[str, str]]:
    """The image files below a folder, each with its path there without the ending."""
    found = files.image_files(folder, left_out)
    return [(os.path.splitext(os.path.relpath(path, folder))[0], path) for path in found]


def _class_names(file: Path) -> tuple[str, ...] | None:
    """The names of the classes, or None where there is no file of them."""
    if not file.is_file():
        return None
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").rstrip().splitlines()]
    except UnicodeDecodeError:
        raise InputError(f"{file} is no UTF-8 text; wanted the name of a class on each line") from None
    if "" in lines:
        raise InputError(f"{file} has no name on line {lines.index('') + 1}; wanted one for each class")
    if twice := next((name for name, count in Counter(lines).items() if count > 1), None):
        raise InputError(f"{file} has {shown(twice)} on two lines; wanted a name for each class")
    try:
        check_classes(lines)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    return tuple(lines)
