"""Masks in COCO's forms, polygons and run lengths, kept as compressed run lengths by pycocotools."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jaxnets.errors import InputError


class Outlines:
    """The masks of many objects, as run lengths in one buffer: about a hundred bytes each.

    Args:
        counts: of each object, the compressed run lengths of `encode`.
    """

    def __init__(self, counts: Iterable[bytes]):
        counts = list(counts)
        self._buffer = b"".join(counts)
        self._ends = np.cumsum([0, *map(len, counts)])

    def masks(self, rows: Sequence[int], height: int, width: int) -> np.ndarray:
        """The masks bool[M, H, W] of some objects of one picture."""
        import pycocotools.mask

        counts = [self._buffer[self._ends[row] : self._ends[row + 1]] for row in rows]
        if not counts:
            return np.zeros((0, height, width), bool)
        found = pycocotools.mask.decode([{"size": [height, width], "counts": own} for own in counts])
        return np.ascontiguousarray(np.moveaxis(found, -1, 0)).astype(bool)


def encode(segmentation: Any, height: int, width: int) -> bytes:
    """The mask that a `segmentation` of COCO stands for, as compressed run lengths.

    Args:
        segmentation: polygons ``[[x1, y1, x2, y2, ...], ...]``, whose union is the object, or run
            lengths ``{"counts": ..., "size": [H, W]}``, compressed or not.
        height: of the picture.
        width: of the picture.

    Raises:
        InputError: another form, or run lengths of a picture of another size.
    """
    import pycocotools.mask

    try:
        if isinstance(segmentation, dict):
            if list(segmentation["size"]) != [height, width]:
                raise InputError(
                    f"its run lengths are of size {segmentation['size']}, the picture {[height, width]}"
                )
            found = segmentation
            if not isinstance(found["counts"], (str, bytes)):
                found = pycocotools.mask.frPyObjects(found, height, width)
        else:
            # pycocotools takes four numbers for a box.
            polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
            if not polygons:
                raise InputError("it has no polygon of three points or more")
            found = pycocotools.mask.merge(pycocotools.mask.frPyObjects(polygons, height, width))
    except InputError:
        raise
    except Exception as error:  # pycocotools raises nearly anything
        raise InputError(f"it is not of polygons or run lengths ({type(error).__name__})") from error
    counts = found["counts"]
    return counts.encode() if isinstance(counts, str) else counts
