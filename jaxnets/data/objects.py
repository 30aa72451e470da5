"""Pictures with objects: their boxes in flat arrays, and the examples of fixed shapes they become."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnets.data import coco_files, decoding, sampling, splits
from jaxnets.data.dataset import Dataset
from jaxnets.data.outlines import Outlines
from jaxnets.errors import InputError
from jaxnets.paths import shown

_logger = logging.getLogger("jaxnets")

SIZE, MOST = 512, 100  # of the canvas in pixels, and of the objects, where nothing else is said


class Objects(NamedTuple):
    """The objects of N pictures, in flat arrays.

    Attributes:
        starts: i64[N + 1]; those of picture i are ``starts[i]:starts[i + 1]``.
        boxes: f64[T, 4], xyxy in pixels of the file, as they are annotated.
        labels: i32[T].
        crowd: bool[T].
        difficult: bool[T].
        area: f64[T], in pixels of the file.
        outlines: their masks, or None.
    """

    starts: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    difficult: np.ndarray
    area: np.ndarray
    outlines: Outlines | None = None

    def of(self, index: int) -> dict[str, np.ndarray]:
        """The arrays of a picture, by name, without masks."""
        rows = slice(*self.starts[index : index + 2])
        names = ("boxes", "labels", "crowd", "difficult", "area")
        return {name: getattr(self, name)[rows] for name in names}

    def masks(self, index: int, size: tuple[int, int]) -> np.ndarray:
        """The masks bool[M, H, W] of a picture of (height, width)."""
        return self.outlines.masks(range(*self.starts[index : index + 2]), *map(int, size))


class ObjectFiles:
    """Image files with objects, decoded on access onto a canvas.

    `source[i]` has what `example_of` returns. An image that cannot be decoded, or has another size than
    its annotations say, becomes zeros of weight 0 without objects, and is named once in a warning.

    Args:
        paths: N image files.
        sizes: i32[N, 2], their (height, width).
        objects: what they show.
        class_names: the K class names.
        size: side of the canvas in pixels, or its (height, width).
        channels: 1 (gray) or 3 (RGB).
        boxes: M, the most objects of a picture.
        strict: raise InputError for an image that cannot be decoded.
        interpolation: interpolation for resizing, one of `decoding.INTERPOLATIONS`.

    Raises:
        InputError: an option out of range, or a picture of more objects than `boxes`.
    """

    def __init__(
        self,
        paths: Sequence[str],
        sizes: np.ndarray,
        objects: Objects,
        class_names: Sequence[str],
        *,
        size: int | tuple[int, int] | None = None,
        channels: int = 3,
        boxes: int = MOST,
        strict: bool = False,
        interpolation: str = "bilinear",
    ):
        self.paths, self.class_names = list(paths), tuple(class_names)
        self.image_shape = (*canvas_of(size), channels)
        decoding.check_shape_options(None, channels)
        decoding.check_interpolation(interpolation)
        check_most(boxes)
        self._sizes, self._objects = sizes, objects
        self._most, self._interpolation = boxes, interpolation
        self._unreadable = decoding.UnreadableImages(self.image_shape, strict)
        self._check()

    def _check(self) -> None:
        """Refuses pictures of too many objects, and counts boxes that had to be mended."""
        objects = self._objects
        picture = np.repeat(np.arange(len(self.paths)), np.diff(objects.starts))
        clipped = clip(objects.boxes, self._sizes[picture])
        empty = ~has_area(clipped)
        outside = (np.abs(clipped - objects.boxes) >= 1).any(1) & ~empty
        for wrong, told in (
            (outside, "reach out of their picture and are clipped"),
            (empty, "have no area in their picture and are left out of training"),
        ):
            if wrong.any():
                first = self.paths[picture[wrong.argmax()]]
                _logger.warning("%d boxes %s, the first in %s", wrong.sum(), told, shown(first))
        counts = np.bincount(picture[~empty & ~objects.crowd], minlength=1)
        if counts.max() > self._most:
            raise too_many(shown(self.paths[counts.argmax()]), counts.max(), self._most)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, canvas = self.paths[index], self.image_shape[:2]
        try:
            pixels, size, original = self._decode(path)
            if original != tuple(self._sizes[index]):
                raise InputError(
                    f"it is {original[0]} x {original[1]} (height x width), and its annotations are of "
                    f"{' x '.join(map(str, self._sizes[index]))}"
                )
        except Exception as error:  # Pillow's plugins raise nearly anything on a broken file.
            nothing = blank(canvas, self._most, masks=self._objects.outlines is not None)
            return nothing | self._unreadable.stand_in(path, None, error)
        truth = self.truth(index)
        return {"image": pixels} | example_of(truth, original, size, canvas, self._most, shown(path))

    def _decode(self, path: str) -> tuple[np.ndarray, tuple[int, int], tuple[int, int]]:
        height, width, channels = self.image_shape
        return decoding.decode_letterboxed(path, (height, width), channels, self._interpolation)

    def truth(self, index: int) -> dict[str, np.ndarray]:
        """What is annotated in a picture, in pixels of its file, for `jaxnets.metrics.detection`.

        Returns:
            ``boxes`` f64[M, 4], as they are annotated, ``labels`` i32[M], ``crowd`` and ``difficult``
            bool[M], ``area`` f64[M] and, if they were asked for, ``masks`` bool[M, H, W].
        """
        found = self._objects.of(index)
        if self._objects.outlines is not None:
            found["masks"] = self._objects.masks(index, self._sizes[index])
        return found

    def picture(self, index: int) -> str:
        """The file of a picture."""
        return self.paths[index]


def dataset_of(
    name: str,
    parts: Mapping[str | None, Any],
    named: Mapping[str | None, str],
    notes: Sequence[str] = (),
) -> Dataset:
    """A dataset of its splits, or of a single part, by None, of which a fixed fifth is held out; the
    whole of it is the split "all".

    Args:
        name: the spec.
        parts: the sources by split, such as `ObjectFiles`.
        named: what the user calls the splits.
        notes: of the dataset, beside that of what is used for what.
    """
    if None in parts:
        whole = parts[None]
        train, test = sampling.hold_out(whole, 0.2)
        usage = f"epochs are measured on a fifth of the images, held out ({len(test):,})"
        return Dataset(name, train, test, whole.class_names, {"all": whole}, (usage, *notes))
    coco_files.warn_of_shared({split: part.paths for split, part in parts.items()})
    usage = splits.usage({split: (named[split], len(part)) for split, part in parts.items()})
    train, test = parts["train"], parts[splits.measuring(parts)]
    return Dataset(name, train, test, train.class_names, parts, (usage, *notes))


def canvas_of(size: int | Sequence[int] | None) -> tuple[int, int]:
    """The (height, width) of a canvas from its side, from both, or by default.

    Raises:
        InputError: other than one or two numbers of pixels.
    """
    size = SIZE if size is None else size
    sides = (size, size) if isinstance(size, int) else size
    if not isinstance(sides, Sequence) or len(sides) != 2 or isinstance(sides, str):
        raise InputError(f"size must be a number of pixels, or (height, width), got {size!r}")
    for side in sides:
        decoding.check_shape_options(side, 3)
    return tuple(sides)


def check_most(boxes: int) -> None:
    """Checks the most objects of a picture.

    Raises:
        InputError: it is not a number of at least 1.
    """
    if not isinstance(boxes, int) or boxes < 1:
        raise InputError(f"boxes must be the most objects of a picture, at least 1, got {boxes!r}")


def clip(boxes: np.ndarray, size: Any) -> np.ndarray:
    """Boxes [T, 4] cut at the borders of pictures of (height, width), one for all or [T, 2]."""
    size = np.asarray(size)
    return np.clip(boxes, 0, size[..., [1, 0, 1, 0]])


def has_area(boxes: np.ndarray) -> np.ndarray:
    """Which boxes [T, 4] have a width and a height, bool[T]."""
    return (boxes[:, 2:] > boxes[:, :2]).all(1)


def example_of(
    truth: Mapping[str, np.ndarray],
    original: tuple[int, int],
    size: tuple[int, int],
    canvas: tuple[int, int],
    most: int,
    name: str,
) -> dict[str, np.ndarray]:
    """The objects of a picture as arrays of fixed shapes, on the canvas that it was scaled onto.

    Boxes are clipped to the picture; those that have no area then are left out. Crowds come last, and
    are left out where there is no room.

    Args:
        truth: as of `ObjectFiles.truth`.
        original: (height, width) of the picture in its file.
        size: (height, width) of the picture on the canvas.
        canvas: (height, width).
        most: M, the number of rows.
        name: of the picture, for errors.

    Returns:
        ``box`` f32[M, 4] in pixels of the canvas, ``label`` i32[M], ``valid``, ``crowd`` and
        ``difficult`` bool[M], ``area`` f32[M] in pixels of the file, ``size`` i32[2], ``ratio`` f32[2]
        (x, y), pixels of the canvas per pixel of the file, and, where the truth has masks, ``mask``
        bool[M, H, W].

    Raises:
        InputError: more than `most` objects, crowds not counted.
    """
    boxes = clip(truth["boxes"], original)
    kept = np.flatnonzero(has_area(boxes))
    kept = kept[np.argsort(truth["crowd"][kept], kind="stable")]
    singles = int(np.sum(~truth["crowd"][kept]))
    if singles > most:
        raise too_many(name, singles, most)
    kept = kept[:most]
    found = blank(canvas, most, masks="masks" in truth)
    rows = slice(len(kept))
    found["size"][:] = size
    found["ratio"][:] = size[1] / original[1], size[0] / original[0]
    found["box"][rows] = boxes[kept] * np.tile(found["ratio"], 2)
    found["valid"][rows] = True
    for own, name in (("label", "labels"), *((name, name) for name in ("crowd", "difficult", "area"))):
        found[own][rows] = truth[name][kept]
    if "masks" in truth:
        down, right = decoding.nearest(original, size)
        masks = truth["masks"][kept]
        found["mask"][rows, : size[0], : size[1]] = masks[:, down[:, None], right[None]]
    return found


def blank(canvas: tuple[int, int], most: int, masks: bool) -> dict[str, np.ndarray]:
    """The entries of `example_of` for a picture without objects that fills its canvas."""
    rows = {
        "box": np.zeros((most, 4), np.float32),
        "label": np.zeros(most, np.int32),
        "area": np.zeros(most, np.float32),
        **{name: np.zeros(most, bool) for name in ("valid", "crowd", "difficult")},
        "size": np.array(canvas, np.int32),
        "ratio": np.ones(2, np.float32),
    }
    return rows | ({"mask": np.zeros((most, *canvas), bool)} if masks else {})


def too_many(name: str, count: int, most: int) -> InputError:
    """The error for a picture of more objects than there are rows."""
    return InputError(f"{name} has {count} objects, and boxes is {most}; raise it to {count} or more")
