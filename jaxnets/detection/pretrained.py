"""Detectors with weights, measured on datasets whose classes have other numbers."""

import logging
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.data.dataset import Source, traced
from jaxnets.data.pictures import read_if_whole
from jaxnets.detection.detecting import Detections, detect
from jaxnets.detection.evaluation import measures
from jaxnets.errors import InputError, some
from jaxnets.metrics import Metrics, Sum
from jaxnets.weights import Pretrained

_logger = logging.getLogger("jaxnets")


def measure(loaded: Pretrained, source: Source) -> Metrics:
    """The measures of `evaluation.measures`, on pictures that are read as `detect` reads them.

    The classes are those of the source that the detector knows by the same name.

    Args:
        loaded: the detector.
        source: pictures with `truth`, as of `data.objects.ObjectFiles`.

    Raises:
        InputError: the detector knows none of the classes, or no picture can be read.
    """
    model, names = loaded.model, list(source.class_names)
    unknown = [name for name in names if name not in model.class_names]
    if len(unknown) == len(names):
        raise InputError(
            f"dataset: the detector has none of its classes, {some(names)}; it has "
            f"{some([name for name in model.class_names if name])}"
        )
    if unknown:
        told = f"{len(unknown)} of {len(names)}", some(unknown)
        _logger.warning("%s classes are unknown to the detector and are not measured: %s", *told)
    numbers = {name: k for k, name in enumerate(names)}
    variables = jax.tree.map(jnp.asarray, loaded.variables)  # onto the device once
    found, there = [], []
    for index in range(len(source)):
        picture, ratio = _picture(source, index)
        if picture is None:
            continue
        (own,) = detect(model, variables, [picture])
        found.append(_numbered(own, numbers, ratio))
        there.append(_known(source.truth(index), names, unknown))
    return {"images": Sum(np.float64(len(found))), **measures(found, there)}


def _picture(source: Source, index: int) -> tuple[np.ndarray | None, np.ndarray | float]:
    """A picture as it is in its file, or else as the source scales it and by how much; None for one that
    cannot be read."""
    whole, number = traced(source, index)
    if hasattr(whole, "picture"):
        return read_if_whole(whole.picture(number)), 1.0
    example = whole[number]
    if not example.get("weight", 1):
        return None, 1.0
    height, width = example["size"]
    return example["image"][:height, :width], np.tile(example["ratio"], 2)


def _numbered(found: Detections, numbers: Mapping[str, int], ratio: Any) -> dict[str, np.ndarray]:
    """What was found of the classes of the source, by its numbers and in pixels of the file."""
    known = np.array([name in numbers for name in found.names], bool)
    image = {
        "boxes": found.boxes[known] / ratio,
        "scores": found.scores[known],
        "labels": np.array([numbers[name] for name in found.names if name in numbers], np.int32),
    }
    return image if found.masks is None else image | {"masks": found.masks[known]}


def _known(truth: Mapping[str, Any], names: list[str], unknown: list[str]) -> dict[str, np.ndarray]:
    """What there is to find of the classes that the detector knows."""
    known = np.array([names[label] not in unknown for label in truth["labels"]], bool)
    return {name: np.asarray(values)[known] for name, values in truth.items()}
