"""Pictures with label maps in prepared TensorFlow datasets, such as oxford_iiit_pet."""

import io
from typing import Any

import numpy as np

from jaxnets.data.labels import LabelSource, numbered

NAMES = ("segmentation_mask", "segmentation_label", "segmentation", "annotation", "mask", "label")
"""What features of label maps are called, the likelier ones first."""


class TfdsLabels(LabelSource):
    """One split of a prepared dataset with label maps, decoded with Pillow onto a canvas on access.

    Args:
        records: the split, with undecoded images.
        name: name of the split in messages.
        feature: what the feature of the label maps is called.
        class_names: as for `LabelSource`.
        **options: likewise.
    """

    def __init__(
        self, records: Any, name: str, feature: str, class_names: tuple[str, ...], **options: Any
    ):
        super().__init__(class_names, **options)
        self._records, self._name, self._feature = records, name, feature

    def __len__(self) -> int:
        return len(self._records)

    def _picture(self, index: int) -> tuple[io.BytesIO, str]:
        return io.BytesIO(self._records[index]["image"]), f"{self._name}[{index}]"

    def _labels(self, index: int) -> tuple[io.BytesIO, str]:
        return _stored(self._records, self._feature, index, self._name)


def feature_of(features: Any) -> str | None:
    """The name of the feature of label maps, one of `NAMES`, or None."""
    import tensorflow_datasets as tfds

    return next(
        (
            name
            for name in NAMES
            if name in features
            and isinstance(features[name], tfds.features.Image)
            and features[name].shape[-1] == 1
            and features[name].np_dtype in (np.uint8, np.uint16)
        ),
        None,
    )


def class_names(feature: Any, name: str, parts: dict[str, Any]) -> tuple[str, ...]:
    """The names of the classes: those of the feature, or numbers, for which all label maps are read.

    Args:
        feature: that of the label maps.
        name: what it is called.
        parts: the splits, with undecoded images, by their names in messages.
    """
    if getattr(feature, "num_classes", None):
        return tuple(feature.names)
    places = [(part, index) for part, records in parts.items() for index in range(len(records))]

    def stored(number: int) -> tuple[io.BytesIO, str]:
        part, index = places[number]
        return _stored(parts[part], name, index, part)

    return numbered(stored, len(places), f"reading {name}")


def _stored(records: Any, feature: str, index: int, name: str) -> tuple[io.BytesIO, str]:
    """An undecoded label map, and its name in messages."""
    return io.BytesIO(records[index][feature]), f"{name}[{index}] {feature}"
