"""Segmenters with weights, measured on datasets whose classes have other numbers."""

import logging
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.data.dataset import Source, traced
from jaxnets.data.example import IGNORE
from jaxnets.data.pictures import as_bytes, read_if_whole
from jaxnets.data.waiting import tracked
from jaxnets.errors import InputError, some
from jaxnets.metrics import Metrics, Ratio, Share, Sum
from jaxnets.metrics.segmentation import confusion, scores
from jaxnets.segmentation.segmenting import segment
from jaxnets.weights import Pretrained

_logger = logging.getLogger("jaxnets")

BACKGROUND = "background"
SYNONYMS = {
    "airplane": "aeroplane",
    "couch": "sofa",
    "dining table": "diningtable",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "tv": "tvmonitor",
}
"""COCO's names of classes and Pascal VOC's."""


def measure(loaded: Pretrained, source: Source) -> Metrics:
    """The measures of `metrics.segmentation`, on pictures that `segment` reads in their own size.

    Classes are found by their names. Pixels of classes that the segmenter does not know count as
    background, or, if it has none, not at all. Means are over the classes that both know.

    Args:
        loaded: the segmenter.
        source: pictures with `picture` and `truth`, as of `data.labels.LabelFiles`.

    Raises:
        InputError: the segmenter knows none of the classes, or no picture can be read.
    """
    model = loaded.model
    numbers = _numbers(model.class_names, source.class_names)
    variables = jax.tree.map(jnp.asarray, loaded.variables)  # onto the device once
    count, pictures = model.num_classes, 0
    matrix = np.zeros((count, count), np.int64)
    for index in tracked(range(len(source)), len(source), "measuring"):
        pixels, truth = _picture_and_truth(source, index)
        if pixels is not None:
            (found,) = segment(model, variables, [pixels])
            matrix += confusion(numbers[truth], found, count)
            pictures += 1
    if not pictures:
        raise InputError("none of the pictures to measure by can be read; repair or replace them")
    shared = np.setdiff1d(numbers[: len(source.class_names)], [IGNORE])
    found = scores(matrix)
    iou = found["iou"][shared]
    return {
        "images": Sum(np.float64(pictures)),
        "miou": Ratio(np.nanmean(iou), 1.0),
        **{name: Share(found[name], 1.0) for name in ("pixel_accuracy", "mean_accuracy")},
        "fw_iou": Ratio(found["fw_iou"], 1.0),
        **by_class(iou, [model.class_names[k] for k in shared]),
    }


def by_class(iou: np.ndarray, names: Sequence[str]) -> Metrics:
    """The intersection over union of each class by its own name, but of classes that are nowhere."""
    rows = zip(names, iou, strict=True)
    return {f"iou {name}": Ratio(value, 1.0) for name, value in rows if not np.isnan(value)}


def _picture_and_truth(source: Source, index: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """A picture and its label map as they are in their files, or else as the source scales them; None
    for a picture that cannot be read."""
    whole, number = traced(source, index)
    if hasattr(whole, "picture"):
        pixels = read_if_whole(whole.picture(number))
        # Bytes, which `segment` scales as the references do.
        return (None, None) if pixels is None else (as_bytes(pixels), whole.truth(number))
    example = whole[number]
    if not example.get("weight", 1):
        return None, None
    height, width = example.get("size", example["segmentation"].shape)
    return example["image"][:height, :width], example["segmentation"][:height, :width]


def _numbers(own: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """The segmenter's label for each label of a source, u8[256]."""
    known: Mapping[str, int] = {SYNONYMS.get(name, name): k for k, name in enumerate(own)}
    numbers = np.full(256, IGNORE, np.uint8)
    found = [known.get(SYNONYMS.get(name, name)) for name in names]
    unknown = [name for name, number in zip(names, found, strict=True) if number is None]
    if not set(names) - {*unknown, BACKGROUND}:
        raise InputError(
            f"dataset: the segmenter has none of its classes, {some(names)}; it has {some(own)}"
        )
    if unknown:
        told = f"{len(unknown)} of {len(names)}", some(unknown)
        _logger.warning("%s classes are unknown to the segmenter and count as background: %s", *told)
    rest = known.get(BACKGROUND, IGNORE)
    numbers[: len(names)] = [rest if number is None else number for number in found]
    return numbers
