"""Images on disk with boxes, masks or label maps of objects, in a JSON file in COCO's format."""

import functools
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnets.data import coco_files, outlines
from jaxnets.data.dataset import Dataset
from jaxnets.data.example import IGNORE
from jaxnets.data.labels import BACKGROUND, LabelFiles, check_classes
from jaxnets.data.objects import MOST, ObjectFiles, Objects, dataset_of
from jaxnets.data.outlines import Outlines
from jaxnets.data.waiting import tracked
from jaxnets.errors import InputError
from jaxnets.paths import expanded, shown

KIND = "instances"

_FORMAT = (
    "images with id, file_name, height and width; categories with id and name; annotations with "
    "image_id, category_id and bbox"
)


def load_coco(
    path: str | os.PathLike,
    *,
    size: int | tuple[int, int] | None = None,
    channels: int = 3,
    boxes: int = MOST,
    masks: bool = False,
    segmentation: bool = False,
    strict: bool = False,
    interpolation: str = "bilinear",
) -> Dataset:
    """Loads images with objects from a folder in COCO's format.

    The JSON files are `instances*.json` in the folder or its `annotations` sub-folder: one for each
    split, as in the unpacked COCO (`instances_train2017.json`), or a single one, of whose images a fixed
    fifth is held out. Images are next to the JSON file, in the folder, in its `images` sub-folder, or in
    a sub-folder named like the part of the file name after `instances_`.

    Labels count the categories in the order of their ids, from 0. Boxes are clipped to their image, and
    those without area are left out of examples; both are counted in a warning. Images without objects
    stay, and crowds are marked as such.

    Label maps are made of the masks, as torchvision's references do: the background is 0, the categories
    count from 1, crowds are of their category, and where several objects are, a pixel is to be ignored.

    Args:
        path: the folder.
        size: side of the canvas that images are scaled to fit on, or its (height, width), in pixels
            (default 512).
        channels: 1 (gray) or 3 (RGB).
        boxes: M, the most objects of an image, crowds not counted.
        masks: whether examples have masks.
        segmentation: whether examples have label maps instead of objects.
        strict: raise for an image that cannot be decoded, instead of giving it weight 0.
        interpolation: interpolation for resizing: "bilinear", "bicubic", "lanczos" or "nearest".

    Returns:
        A dataset of `ObjectFiles` or `LabelFiles`; where a fifth was held out, its split "all" is the
        whole.

    Raises:
        InputError: no such folder or files, a file that is not in this format or contradicts itself, a
            missing image, an image of more objects than `boxes`, other categories in another split, or
            (strict) an image that cannot be decoded.
    """
    root = expanded(path)
    options = {"size": size, "channels": channels, "strict": strict, "interpolation": interpolation}
    if segmentation:
        read = functools.partial(_read_labels, root, **options)
    else:
        read = functools.partial(_read, root, masks=masks, boxes=boxes, **options)
    files = coco_files.by_split(root, KIND)
    parts = {split: read(file) for split, file in files.items()}
    for split, part in parts.items():
        if part.class_names != (names := next(iter(parts.values())).class_names):
            raise InputError(
                f"{files[split]} has other categories than {next(iter(files.values()))}: "
                f"{_differing(part.class_names, names)}"
            )
    return dataset_of(f"coco:{root}", parts, {split: file.name for split, file in files.items()})


class LabelMaps(NamedTuple):
    """The label maps of pictures with objects: `maps(index)`.

    Attributes:
        objects: of the pictures, with masks.
        sizes: i32[N, 2], (height, width) of the pictures.
    """

    objects: Objects
    sizes: np.ndarray

    def __call__(self, index: int) -> np.ndarray:
        """u8[H, W]: 0 without an object, one more than its label with one, `IGNORE` with several."""
        masks = self.objects.masks(index, self.sizes[index])
        found = np.zeros(self.sizes[index], np.uint8)
        for label, mask in zip(self.objects.of(index)["labels"], masks, strict=True):
            found[mask] = label + 1
        found[masks.sum(0, dtype=np.uint16) > 1] = IGNORE
        return found


def _read(root: Path, file: Path, *, masks: bool, **options: Any) -> ObjectFiles:
    """Reads one JSON file.

    Args:
        root: the folder that its images are in, as for `load_coco`.
        file: the JSON file.
        masks: whether examples have masks.
        **options: those of `ObjectFiles`.

    Raises:
        InputError: as of `load_coco`.
    """
    told = _parsed(file)
    placed = coco_files.place(root, file, KIND, told.files)
    return ObjectFiles(placed, told.sizes, _objects(file, told, masks), told.class_names, **options)


def _read_labels(root: Path, file: Path, **options: Any) -> LabelFiles:
    """Reads one JSON file for its label maps."""
    told = _parsed(file)
    placed = coco_files.place(root, file, KIND, told.files)
    names = (BACKGROUND, *told.class_names)
    check_classes(names)
    maps = LabelMaps(_objects(file, told, masks=True), told.sizes)
    return LabelFiles(placed, maps, names, **options)


def _objects(file: Path, told: "_Told", masks: bool) -> Objects:
    """The objects of the images, in their order."""
    picture, label = np.array(told.pictures, np.int64), np.array(told.labels, np.int32)
    order = np.argsort(picture, kind="stable")
    corners, sides = told.boxes[:, :2], told.boxes[:, 2:]
    area = np.where(np.isnan(told.area), sides.prod(1), told.area)
    objects = Objects(
        starts=np.cumsum([0, *np.bincount(picture, minlength=len(told.files))]),
        boxes=np.concatenate([corners, corners + sides], 1)[order],
        labels=label[order],
        crowd=told.crowd[order],
        difficult=np.zeros(len(order), bool),
        area=area[order],
    )
    if not masks:
        return objects
    outlined = [told.annotations[row] for row in order]
    return objects._replace(outlines=_outlines(file, outlined, told.sizes[picture[order]]))


class _Told(NamedTuple):
    """What a JSON file says of N images, K categories and T annotations.

    Attributes:
        ids: of the images and of the categories.
        files: names of the images.
        sizes: i32[N, 2], (height, width).
        class_names: in the order of the categories' ids.
        annotations: as they are in the file.
        pictures: by number, from 0, or None of an unknown id.
        labels: likewise.
        boxes: f64[T, 4], xywh.
        crowd: bool[T].
        area: f64[T], NaN where it is not told.
    """

    ids: tuple[list[Any], list[Any]]
    files: list[str]
    sizes: np.ndarray
    class_names: list[str]
    annotations: list[dict[str, Any]]
    pictures: list[int | None]
    labels: list[int | None]
    boxes: np.ndarray
    crowd: np.ndarray
    area: np.ndarray


def _parsed(file: Path) -> _Told:
    told = _parse(file)
    _check(file, told)
    return told


def _parse(file: Path) -> _Told:
    try:
        content = coco_files.read(file)
        images, annotations = content["images"], content["annotations"]
        ids = [image["id"] for image in images]
        names = sorted((category["id"], str(category["name"])) for category in content["categories"])
        pictures, labels = _numbers(ids), _numbers(key for key, _ in names)
        area = [annotation.get("area") for annotation in annotations]
        return _Told(
            ids=(ids, [key for key, _ in names]),
            files=[str(image["file_name"]) for image in images],
            sizes=_array([(image["height"], image["width"]) for image in images], np.int32, 2),
            class_names=[name for _, name in names],
            annotations=annotations,
            pictures=[pictures.get(annotation["image_id"]) for annotation in annotations],
            labels=[labels.get(annotation["category_id"]) for annotation in annotations],
            boxes=_array([annotation["bbox"] for annotation in annotations], np.float64, 4),
            crowd=np.array([annotation.get("iscrowd", 0) for annotation in annotations], bool),
            area=np.array([np.nan if own is None else own for own in area], np.float64),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{file} is not in COCO's format of instances ({_FORMAT}): {type(error).__name__} {error}"
        ) from None


def _check(file: Path, told: _Told) -> None:
    """Refuses a file that contradicts itself."""
    for what, ids in zip(("images", "categories"), told.ids, strict=True):
        if len(set(ids)) < len(ids):
            twice = Counter(ids).most_common(1)[0][0]
            raise InputError(f"{file} has two {what} of id {twice!r}; give each its own id")
    for what, numbers in (("image", told.pictures), ("category", told.labels)):
        if None in numbers:
            unknown = told.annotations[numbers.index(None)][f"{what}_id"]
            raise InputError(
                f"{file} has an annotation of {what}_id {unknown!r}, but no {what} of that id"
            )
    finite = np.isfinite(told.boxes).all(1)
    if not finite.all():
        wrong = told.annotations[int(finite.argmin())]["bbox"]
        raise InputError(f"{file} has the bbox {wrong}; wanted four finite numbers")


def _numbers(keys: Iterable[Any]) -> dict[Any, int]:
    """Keys by number, in their order; of equal ones the last."""
    return {key: number for number, key in enumerate(keys)}


def _array(rows: list[Any], dtype: Any, columns: int) -> np.ndarray:
    """Rows of so many numbers, [N, columns]."""
    found = np.array(rows, dtype) if rows else np.zeros((0, columns), dtype)
    if found.shape != (len(rows), columns):
        raise ValueError(f"rows of {columns} numbers have the shape {found.shape}")
    return found


def _outlines(file: Path, annotations: Sequence[dict[str, Any]], sizes: np.ndarray) -> Outlines:
    counts = []
    for own, size in zip(
        tracked(annotations, len(annotations), "reading masks"), sizes.tolist(), strict=True
    ):
        try:
            counts.append(outlines.encode(own.get("segmentation"), *size))
        except InputError as error:
            raise InputError(
                f"{file}: the segmentation of annotation {own.get('id')!r} cannot be used: {error}; "
                "mend it, or load without masks"
            ) from error
    return Outlines(counts)


def _differing(names: Sequence[str], others: Sequence[str]) -> str:
    odd = sorted(set(names) ^ set(others))
    return ", ".join(map(shown, odd[:5])) if odd else "the same in another order"
