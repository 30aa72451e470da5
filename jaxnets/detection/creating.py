"""Detectors on any backbone."""

from typing import Any

from jaxnets.detection.detector import Detector
from jaxnets.errors import InputError, unknown_name
from jaxnets.models import create_model

KINDS = {"faster_rcnn": True, "mask_rcnn": True, "retinanet": False, "fcos": False}
"""The kinds of detectors, and whether the first channel of their scores is the background."""


def create_detector(
    kind: str, backbone: str = "resnet50", num_classes: int = 80, **settings: Any
) -> Detector:
    """Creates a detector on a backbone, without parameters.

    Its labels count the classes from 0, unlike those of published detectors.

    Args:
        kind: "faster_rcnn", "mask_rcnn", "retinanet" or "fcos".
        backbone: a classifier of `jaxnets.list_models()` that has maps of strides up to 32.
        num_classes: kinds of objects; the background is not counted.
        **settings: of `build` in the file of the kind, such as `anchor_size=16` for small objects,
            `norm="frozen"` for a backbone that has been trained, or `min_size=512, max_size=512`.

    Raises:
        InputError: an unknown name or setting, or a value that does not fit.

    Example:
        >>> model = create_detector("retinanet", backbone="resnet18", num_classes=10)
        >>> model.num_classes, model.maps
        (10, ('stage2', 'stage3', 'stage4'))
    """
    if kind not in KINDS:
        raise unknown_name("kind of detector", kind, KINDS)
    if not isinstance(num_classes, int) or num_classes < 1:
        raise InputError(
            f"num_classes is {num_classes!r}; wanted the number of kinds of objects, 1 or more"
        )
    if "first_label" in settings:
        raise InputError("first_label: it follows from the kind; leave it out")
    background = KINDS[kind]
    return create_model(
        kind,
        num_classes=num_classes + background,
        backbone=backbone,
        first_label=-int(background),
        **settings,
    )
