"""Images on disk with boxes of objects, an XML file each, or with label maps, as of Pascal VOC."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from jaxnets.data import decoding, files
from jaxnets.data.dataset import Dataset
from jaxnets.data.labels import BACKGROUND, LabelFiles
from jaxnets.data.objects import MOST, ObjectFiles, Objects, dataset_of
from jaxnets.data.waiting import tracked
from jaxnets.errors import InputError
from jaxnets.paths import expanded, shown

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

_FORMAT = "annotation with object, each with name and bndbox of xmin, ymin, xmax and ymax"


class _File(NamedTuple):
    """What an XML file says; the boxes are half-open, from 0."""

    picture: str
    size: tuple[int, int]
    names: list[str]
    boxes: list[tuple[float, float, float, float]]
    difficult: list[bool]


def load_voc(
    path: str | os.PathLike,
    *,
    size: int | tuple[int, int] | None = None,
    channels: int = 3,
    boxes: int = MOST,
    segmentation: bool = False,
    strict: bool = False,
    interpolation: str = "bilinear",
) -> Dataset:
    """Loads images with boxes of objects, or with label maps, from a folder in Pascal VOC's format.

    The folder is that of a year (VOC2012), with XML files in `Annotations` and images in `JPEGImages`,
    or any other with XML files and images. The splits are those of `ImageSets/Main`: train (or else
    trainval), val and test, as far as they are there with their annotations. Without them, a fixed fifth
    of the images is held out.

    Classes are the twenty of VOC or, if there are others, all that occur, sorted by name. Pixels, which
    VOC counts from 1, count from 0, and the right and lower borders lie behind the last pixel. The
    boxes of parts, such as hands, are left out.

    Label maps are the images in `SegmentationClass`: the indices of their palettes count the background
    and the twenty classes, and 255 is around objects. The splits are then those of
    `ImageSets/Segmentation`.

    Args:
        path: the folder.
        size: side of the canvas that images are scaled to fit on, or its (height, width), in pixels
            (default 512).
        channels: 1 (gray) or 3 (RGB).
        boxes: M, the most objects of an image.
        segmentation: whether examples have label maps instead of boxes.
        strict: raise for an image that cannot be decoded, instead of giving it weight 0.
        interpolation: interpolation for resizing: "bilinear", "bicubic", "lanczos" or "nearest".

    Returns:
        A dataset of `ObjectFiles` or `LabelFiles`; where a fifth was held out, its split "all" is the
        whole.

    Raises:
        InputError: no such folder or files, a file that is not in this format, a missing image or label
            map, an image of more objects than `boxes`, or (strict) an image that cannot be decoded.
    """
    root = expanded(path)
    options = {"size": size, "channels": channels, "strict": strict, "interpolation": interpolation}
    if segmentation:
        return _with_labels(root, **options)
    folder = root / "Annotations" if (root / "Annotations").is_dir() else root
    listed = _splits(root, "Main", folder, ".xml", "XML files, neither directly nor in Annotations/")
    every = list(dict.fromkeys(file for own in listed.values() for file in own))
    read = {file: _read(root, file) for file in tracked(every, len(every), f"reading {shown(folder)}")}
    names = {name for own in read.values() for name in own.names}
    classes = CLASSES if names <= set(CLASSES) else tuple(sorted(names))
    parts = {
        split: _source([read[file] for file in own], classes, boxes=boxes, **options)
        for split, own in listed.items()
    }
    return dataset_of(f"voc:{root}", parts, {split: split for split in parts if split})


def _with_labels(root: Path, **options: Any) -> Dataset:
    """A dataset of label maps."""
    folder, names = root / "SegmentationClass", (BACKGROUND, *CLASSES)
    listed = _splits(root, "Segmentation", folder, ".png", f"label images in {folder.name}/")
    parts = {}
    for split, own in listed.items():
        pictures = [_place(file, "", _around(root)) for file in own]
        parts[split] = LabelFiles(pictures, list(map(str, own)), names, **options)
    return dataset_of(f"voc:{root}", parts, {split: split for split in parts if split})


def _splits(root: Path, kind: str, folder: Path, ending: str, what: str) -> dict[str | None, list[Path]]:
    """The files of each split, or all of them, by None.

    Args:
        root: the folder of a year.
        kind: the folder of `ImageSets` that lists the splits.
        folder: where the files are.
        ending: of their names.
        what: what there is none of, if there are none.
    """
    found = {}
    for split, name in (("train", "train"), ("train", "trainval"), ("val", "val"), ("test", "test")):
        file = root / "ImageSets" / kind / f"{name}.txt"
        if not file.is_file() or split in found:
            continue
        lines = map(str.split, file.read_text(encoding="utf-8").splitlines())
        own = [folder / f"{line[0]}{ending}" for line in lines if line]
        missing = [one for one in own if not one.is_file()]
        if missing and len(missing) < len(own):
            raise InputError(f"{file} lists {shown(missing[0].stem)}, but there is no {missing[0]}")
        if own and not missing:  # years without a public test set list its images
            found[split] = own
    if "train" in found and len(found) > 1:
        return found
    every = sorted(folder.glob(f"*{ending}"))
    if not every:
        years = sorted(one.name for one in root.glob("VOC*") if (one / "JPEGImages").is_dir())
        hint = f"; give the folder of a year, such as {root / years[0]}" if years else ""
        raise InputError(f"{root} holds no {what}{hint}")
    return {None: every}


def _read(root: Path, file: Path) -> _File:
    """Reads an XML file and looks for its image."""
    try:
        text = file.read_bytes()
        if b"<!ENTITY" in text or b"<!DOCTYPE" in text:  # a few bytes of them may unfold to gigabytes
            raise ValueError("it declares entities")
        top = ElementTree.fromstring(text)
        if top.tag != "annotation":
            raise ValueError(f"it is of {top.tag}")
        objects = top.findall("object")
        names = [_text(one, "name") for one in objects]
        corners = [
            [float(_text(one, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
            for one in objects
        ]
        if not np.isfinite(corners).all():
            raise ValueError("a bndbox is not finite")
        difficult = [bool(int(one.findtext("difficult") or 0)) for one in objects]
        sides = tuple(int(float(top.findtext(f"size/{side}") or 0)) for side in ("height", "width"))
    except (ValueError, ElementTree.ParseError, OSError) as error:
        raise InputError(
            f"{file} is not in VOC's format ({_FORMAT}): {decoding.describe(error)}"
        ) from None
    picture = _place(file, top.findtext("filename") or "", (*_around(root), file.parent))
    return _File(
        picture,
        sides if min(sides) > 0 else decoding.size_of(picture),
        names,
        [(left - 1, top - 1, right, bottom) for left, top, right, bottom in corners],
        difficult,
    )


def _text(element: Any, path: str) -> str:
    found = (element.findtext(path) or "").strip()
    if not found:
        raise ValueError(f"an object has no {path}")
    return found


def _around(root: Path) -> tuple[Path, ...]:
    """Where images are looked for."""
    return root / "JPEGImages", root / "images", root


def _place(file: Path, name: str, folders: Sequence[Path]) -> str:
    """The image of an XML file or label map: what it names, or what is called like it."""
    names = [Path(name).name] if name else []
    names += [file.stem + ending for ending in (".jpg", *sorted(files.ENDINGS))]
    folders = list(dict.fromkeys(folders))
    for path in (os.path.join(folder, own) for own in names for folder in folders):
        if os.path.isfile(path):
            return path
    looked = ", ".join(map(str, folders))
    raise InputError(f"{file} is of the image {shown(names[0])}, which is in none of {looked}")


def _source(read: list[_File], classes: tuple[str, ...], **options: Any) -> ObjectFiles:
    boxes = np.array([box for file in read for box in file.boxes], np.float64).reshape(-1, 4)
    labels = [classes.index(name) for file in read for name in file.names]
    difficult = np.array([one for file in read for one in file.difficult], bool)
    objects = Objects(
        starts=np.cumsum([0, *(len(file.names) for file in read)]),
        boxes=boxes,
        labels=np.array(labels, np.int32),
        crowd=np.zeros(len(boxes), bool),
        difficult=difficult,
        area=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
    )
    sizes = np.array([file.size for file in read], np.int32)
    return ObjectFiles([file.picture for file in read], sizes, objects, classes, **options)
