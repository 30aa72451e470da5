"""Pictures with label maps: their files, and the examples of one shape that they become."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps

from jaxnets.data import decoding
from jaxnets.data.example import IGNORE
from jaxnets.data.objects import canvas_of
from jaxnets.data.waiting import tracked
from jaxnets.errors import InputError
from jaxnets.paths import shown

BACKGROUND = "background"

File = str | PathLike | IO[bytes]

_STEPS = {"L;2": 85, "L;4": 17}  # from one gray level to the next, where Pillow makes 8 bits of 2 or 4
_COLORS = 3  # that a message names


class LabelSource:
    """Pictures with label maps, decoded on access onto a canvas.

    `source[i]` has ``image`` u8[H, W, C] and the entries of `example_of`. A picture or label map that
    cannot be decoded becomes zeros of weight 0, all to be ignored, and is named once in a warning. What
    would be learned wrong without notice raises: label maps of another size than their picture, of
    colors, or with labels of no class.

    Subclasses have ``_picture(index)``, the file of a picture and its name in messages, and
    ``_labels(index)``, likewise, where an array u8[H, W] may stand in place of the file.

    Args:
        class_names: the K class names, of the labels from 0 to K - 1.
        size: side of the canvas in pixels, or its (height, width).
        channels: 1 (gray) or 3 (RGB).
        strict: raise InputError for what cannot be decoded.
        interpolation: of the picture, one of `decoding.INTERPOLATIONS`.
        background: color behind what is transparent.

    Raises:
        InputError: an option out of range, or classes that `check_classes` refuses.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        size: int | tuple[int, int] | None = None,
        channels: int = 3,
        strict: bool = False,
        interpolation: str = "bilinear",
        background: str = "white",
    ):
        self.class_names = tuple(class_names)
        check_classes(self.class_names)
        self.image_shape = (*canvas_of(size), channels)
        decoding.check_shape_options(None, channels)
        decoding.check_interpolation(interpolation)
        decoding.check_background(background)
        self._options = channels, interpolation, background
        self._unreadable = decoding.UnreadableImages(self.image_shape, strict)

    def __getitem__(self, index: int) -> dict[str, Any]:
        file, name = self._picture(index)
        canvas = self.image_shape[:2]
        try:
            pixels, size, original = decoding.decode_letterboxed(file, canvas, *self._options)
        except Exception as error:  # Pillow's plugins raise nearly anything on a broken file.
            return blank(canvas) | self._unreadable.stand_in(name, None, error)
        labels, called, stand_in = self._read(index)
        if labels is None:
            return blank(canvas) | stand_in
        if labels.shape != original:
            turned = labels.shape == original[::-1]
            raise InputError(
                f"{shown(called)} is {_by(labels.shape)} (height x width), and its picture "
                f"{shown(name)} is {_by(original)}; wanted one size"
                + (", that of the picture as its EXIF orientation turns it" if turned else "")
            )
        labels = checked(labels, len(self.class_names), called)
        return {"image": pixels} | example_of(labels, size, canvas)

    def truth(self, index: int) -> np.ndarray:
        """The label map u8[H, W] of a picture, in pixels of its file; `IGNORE` if it cannot be decoded.

        Raises:
            InputError: it has colors, or labels of no class; or (strict) it cannot be decoded.
        """
        labels, called, _ = self._read(index)
        if labels is None:
            return np.full(decoding.size_of(self._picture(index)[0]), IGNORE, np.uint8)
        return checked(labels, len(self.class_names), called)

    def _read(self, index: int) -> tuple[np.ndarray | None, str, dict[str, Any]]:
        """A label map and its name in messages; None for one that cannot be decoded, and what stands in
        for its picture."""
        stored, called = self._labels(index)
        try:
            return read(stored, called), called, {}
        except InputError:
            raise
        except Exception as error:  # Pillow's plugins raise nearly anything on a broken file.
            return None, called, self._unreadable.stand_in(called, None, error)


class LabelFiles(LabelSource):
    """Image files with label maps.

    Args:
        paths: N image files.
        maps: N label images, or a function from the number of a picture to its label map u8[H, W].
        class_names: as for `LabelSource`.
        **options: likewise.
    """

    def __init__(
        self,
        paths: Sequence[str],
        maps: Sequence[str] | Callable[[int], np.ndarray],
        class_names: Sequence[str],
        **options: Any,
    ):
        super().__init__(class_names, **options)
        self.paths, self._maps = list(paths), maps if callable(maps) else list(maps)

    def __len__(self) -> int:
        return len(self.paths)

    def picture(self, index: int) -> str:
        """The file of a picture."""
        return self.paths[index]

    def _picture(self, index: int) -> tuple[str, str]:
        return self.paths[index], self.paths[index]

    def _labels(self, index: int) -> tuple[str | np.ndarray, str]:
        if callable(self._maps):
            return self._maps(index), f"the label map of {self.paths[index]}"
        return self._maps[index], self._maps[index]


def read(stored: File | np.ndarray, name: str) -> np.ndarray:
    """The numbers int[H, W] in a label image: gray levels, of 8 or 16 bits, or indices of a palette.

    Args:
        stored: the file, or the numbers.
        name: of the file, for errors.

    Raises:
        InputError: it has colors instead of numbers.
        Exception: of nearly any type, if the file is broken.
    """
    if isinstance(stored, np.ndarray):
        return stored
    with Image.open(stored, formats=decoding.FORMATS) as image:
        step = _STEPS.get(str(image.tile[0][-1]), 1) if image.tile else 1
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode in ("1", "L", "P", "I") or image.mode.startswith("I;16"):
            found = np.asarray(image)
            return found.astype(np.uint8) if found.dtype == bool else found // found.dtype.type(step)
        colors = image.convert("RGB").getcolors(image.width * image.height)
    told = ", ".join(str(color) for _, color in sorted(colors, reverse=True)[:_COLORS])
    raise InputError(
        f"{shown(name)} has colors, such as {told}, where labels are wanted: convert it to one channel "
        f"(gray or a palette) that counts the classes from 0, with {IGNORE} for pixels to ignore"
    )


def checked(labels: np.ndarray, count: int, name: str) -> np.ndarray:
    """A label map as uint8, if all of it are classes or `IGNORE`.

    Args:
        labels: int[H, W].
        count: K, the number of classes.
        name: of the label map, for errors.

    Raises:
        InputError: another number, which the message names.
    """
    odd = (labels >= count) & (labels != IGNORE)
    if labels.dtype.kind == "i":
        odd |= labels < 0
    if odd.any():
        raise InputError(
            f"{shown(name)} has the label {labels[odd].max()}, and there are {count} classes, of labels "
            f"from 0 to {count - 1} (and {IGNORE} for pixels to ignore)"
        )
    return labels.astype(np.uint8, copy=False)


def check_classes(names: Sequence[str]) -> None:
    """Checks that there are two classes or more, with labels below `IGNORE`.

    Raises:
        InputError: there are not.
    """
    if not 2 <= len(names) <= IGNORE:
        told = f"only {names[0]!r}" if len(names) == 1 else f"{len(names):,}"
        raise InputError(
            f"label maps are of 2 to {IGNORE} classes, the background among them, and there are {told}"
        )


def example_of(labels: np.ndarray, size: tuple[int, int], canvas: tuple[int, int]) -> dict[str, Any]:
    """A label map on the canvas that its picture was scaled onto, to the nearest pixel.

    Args:
        labels: u8[H', W'].
        size: (height, width) of the picture on the canvas.
        canvas: (height, width).

    Returns:
        ``segmentation`` u8[H, W], `IGNORE` right of the picture and below; ``size`` i32[2]; and
        ``ratio`` f32[2] (x, y), pixels of the canvas per pixel of the file.
    """
    found = blank(canvas)
    rows, columns = decoding.nearest(labels.shape, size)
    found["segmentation"][: size[0], : size[1]] = labels[rows[:, None], columns[None]]
    found["size"][:] = size
    found["ratio"][:] = size[1] / labels.shape[1], size[0] / labels.shape[0]
    return found


def blank(canvas: tuple[int, int]) -> dict[str, np.ndarray]:
    """The entries of `example_of` for a picture that fills its canvas, all of it to be ignored."""
    return {
        "segmentation": np.full(canvas, IGNORE, np.uint8),
        "size": np.array(canvas, np.int32),
        "ratio": np.ones(2, np.float32),
    }


def numbered(stored: Callable[[int], tuple[File, str]], count: int, what: str) -> tuple[str, ...]:
    """Names for classes that have none, "0", "1" and so on: the label maps are read for the highest.

    Args:
        stored: the file of a label map and its name in messages, by its number. Files that cannot be
            decoded are passed over.
        count: how many label maps there are.
        what: what is shown of it if it takes long, such as "reading labels".

    Raises:
        InputError: a label map of colors, or labels that are too few or too many for classes.
    """

    def highest(number: int) -> tuple[int, str]:
        file, name = stored(number)
        try:
            labels = read(file, name)
        except InputError:
            raise
        except Exception:  # Pillow's plugins raise nearly anything; it is told when the map is read
            return 0, name
        return int(labels[labels != IGNORE].max(initial=0)), name

    with ThreadPoolExecutor() as pool:
        most, name = max(tracked(pool.map(highest, range(count)), count, what), default=(0, ""))
    if most == 0:
        raise InputError(
            f"the {count} label maps have no labels but 0 and {IGNORE}, which is for pixels to ignore; "
            "wanted two classes or more, counted from 0"
        )
    if most > IGNORE:
        raise InputError(
            f"{shown(name)} has the label {most}; wanted labels below {IGNORE}, which is for pixels to "
            "ignore"
        )
    return tuple(map(str, range(most + 1)))


def _by(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
