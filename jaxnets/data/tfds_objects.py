"""Pictures with objects in prepared TensorFlow datasets, such as coco and voc."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from jaxnets.data import decoding
from jaxnets.data.objects import blank, example_of


class TfdsObjects:
    """One split of a prepared dataset with ``objects``, decoded with Pillow onto a canvas on access.

    Args:
        records: the split, with undecoded images.
        name: name of the split in messages.
        class_names: the K class names.
        image_shape: (H, W, C) of the canvas.
        boxes: M, the most objects of an image.
        first: the pixel that boxes begin to count with: 1 for those of voc, else 0.
        strict: raise InputError for an image that cannot be decoded, instead of giving it weight 0.
        interpolation: interpolation for resizing, one of `decoding.INTERPOLATIONS`.
        background: color behind what is transparent.
    """

    def __init__(
        self,
        records: Any,
        name: str,
        class_names: tuple[str, ...],
        image_shape: tuple[int, int, int],
        *,
        boxes: int,
        first: int,
        strict: bool,
        interpolation: str,
        background: str,
    ):
        self.class_names, self.image_shape = class_names, image_shape
        self._records, self._name, self._most, self._first = records, name, boxes, first
        self._interpolation, self._background = interpolation, background
        self._unreadable = decoding.UnreadableImages(image_shape, strict)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record, name = self._records[index], f"{self._name}[{index}]"
        height, width, channels = self.image_shape
        canvas = height, width
        try:
            pixels, size, original = decoding.decode_letterboxed(
                io.BytesIO(record["image"]), canvas, channels, self._interpolation, self._background
            )
        except Exception as error:  # Pillow's plugins raise nearly anything on a broken file.
            nothing = blank(canvas, self._most, masks=False)
            return nothing | self._unreadable.stand_in(name, None, error)
        truth = self._truth(record["objects"], original)
        return {"image": pixels} | example_of(truth, original, size, canvas, self._most, name)

    def truth(self, index: int) -> dict[str, np.ndarray]:
        """What is annotated in an image, as of `ObjectFiles.truth`; nothing if it cannot be decoded."""
        record = self._records[index]
        try:
            with Image.open(io.BytesIO(record["image"]), formats=decoding.FORMATS) as image:
                return self._truth(record["objects"], decoding.upright_size(image))
        except Exception:  # Pillow's plugins raise nearly anything; it is told when the image is read
            return self._truth({"bbox": (), "label": ()}, (1, 1))

    def _truth(self, stored: Mapping[str, Any], size: tuple[int, int]) -> dict[str, np.ndarray]:
        height, width = size
        boxes = np.asarray(stored["bbox"], np.float64).reshape(-1, 4)[:, [1, 0, 3, 2]]
        boxes = boxes * (width, height, width, height) - (self._first, self._first, 0, 0)
        none = np.zeros(len(boxes), bool)
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        return {
            "boxes": boxes,
            "labels": np.asarray(stored["label"], np.int32),
            "crowd": np.asarray(stored.get("is_crowd", none), bool),
            "difficult": np.asarray(stored.get("is_difficult", none), bool),
            "area": np.asarray(stored.get("area", area), np.float64),
        }
