"""Images on disk with boxes and masks of objects, in a JSON file in COCO's format."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxnets.data import coco_files, outlines
from jaxnets.data.dataset import Dataset
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

    Args:
        path: the folder.
        size: side of the canvas that images are scaled to fit on, or its (height, width), in pixels
            (default 512).
        channels: 1 (gray) or 3 (RGB).
        boxes: M, the most objects of an image, crowds not counted.
        masks: whether examples have masks.
        strict: raise for an image that cannot be decoded, instead of giving it weight 0.
        interpolation: interpolation for resizing: "bilinear", "bicubic", "lanczos" or "nearest".

    Returns:
        A dataset of `ObjectFiles`.

    Raises:
        InputError: no such folder or files, a file that is not in this format or contradicts itself, a
            missing image, an image of more objects than `boxes`, other categories in another split, or
            (strict) an image that cannot be decoded.
    """
    root = expanded(path)
    options = {"size": size, "channels": channels, "boxes": boxes, "strict": strict}
    options["interpolation"] = interpolation
    files = coco_files.by_split(root, KIND)
    parts = {split: read(root, file, masks=masks, **options) for split, file in files.items()}
    for split, part in parts.items():
        if part.class_names != (names := next(iter(parts.values())).class_names):
            raise InputError(
                f"{files[split]} has other categories than {next(iter(files.values()))}: "
                f"{_differing(part.class_names, names)}"
            )
    return dataset_of(f"coco:{root}", parts, {split: file.name for split, file in files.items()})


def read(root: Path, file: Path, *, masks: bool = False, **options: Any) -> ObjectFiles:
    """Reads one JSON file.

    Args:
        root: the folder that its images are in, as for `load_coco`.
        file: the JSON file.
        masks: whether examples have masks.
        **options: those of `ObjectFiles`.

    Raises:
        InputError: as of `load_coco`.
    """
    try:
        content = coco_files.read(file)
        images, categories = content["images"], content["categories"]
        annotations = content["annotations"]
        ids = [image["id"] for image in images]
        paths = [str(image["file_name"]) for image in images]
        sizes = _array([(image["height"], image["width"]) for image in images], np.int32, 2)
        names = [(category["id"], str(category["name"])) for category in categories]
        pictures, labels = _numbers(ids), _numbers(sorted(key for key, _ in names))
        shown_in = [annotation["image_id"] for annotation in annotations]
        kinds = [annotation["category_id"] for annotation in annotations]
        boxes = _array([annotation["bbox"] for annotation in annotations], np.float64, 4)
        of, label = [pictures.get(key) for key in shown_in], [labels.get(key) for key in kinds]
        crowd = np.array([annotation.get("iscrowd", 0) for annotation in annotations], bool)
        area = [annotation.get("area") for annotation in annotations]
        area = np.array([np.nan if own is None else own for own in area], np.float64)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{file} is not in COCO's format of instances ({_FORMAT}): {type(error).__name__} {error}"
        ) from None
    for what, keys, known in (("images", ids, pictures), ("categories", [n[0] for n in names], labels)):
        if len(known) < len(keys):
            twice = Counter(keys).most_common(1)[0][0]
            raise InputError(f"{file} has two {what} of id {twice!r}; give each its own id")
    for what, keys, found in (("image", shown_in, of), ("category", kinds, label)):
        if None in found:
            raise InputError(
                f"{file} has an annotation of {what}_id {keys[found.index(None)]!r}, but no {what} of "
                "that id"
            )
    if not np.isfinite(boxes).all():
        wrong = annotations[int(np.argmin(np.isfinite(boxes).all(1)))]
        raise InputError(f"{file} has the bbox {wrong['bbox']}; wanted four finite numbers")
    order = np.argsort(np.array(of, np.int64), kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(np.array(of, np.int64), minlength=len(ids)))])
    area = np.where(np.isnan(area), boxes[:, 2] * boxes[:, 3], area)
    boxes[:, 2:] += boxes[:, :2]
    objects = Objects(
        starts,
        boxes[order],
        np.array(label, np.int32)[order],
        crowd[order],
        np.zeros(len(order), bool),
        area[order],
        _outlines(file, [annotations[row] for row in order], sizes[np.array(of, int)[order]])
        if masks
        else None,
    )
    placed = coco_files.place(root, file, KIND, paths)
    return ObjectFiles(placed, sizes, objects, [name for _, name in sorted(names)], **options)


def _numbers(keys: Sequence[Any]) -> dict[Any, int]:
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
