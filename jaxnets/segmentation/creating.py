"""Segmenters on any backbone."""

from typing import Any

from jaxnets.errors import InputError, unknown_name
from jaxnets.models import create_model, model_info
from jaxnets.segmentation.segmenter import Segmenter

KINDS = (
    "fcn", "deeplabv2", "deeplabv3", "deeplabv3plus", "lraspp", "refinenet", "refinenet_lw", "segnet",
    "unet",
)  # fmt: skip
"""The kinds of segmenters. All but SegNet, which mirrors its own encoder, stand on any backbone."""


def create_segmenter(
    kind: str, backbone: str | None = None, num_classes: int = 21, **settings: Any
) -> Segmenter:
    """Creates a segmenter on a backbone, without parameters.

    Args:
        kind: "fcn", "deeplabv2", "deeplabv3", "deeplabv3plus", "lraspp", "refinenet", "refinenet_lw",
            "segnet" or "unet".
        backbone: a classifier of `jaxnets.list_models()` that has maps of strides up to 32; None for
            the usual one of the kind.
        num_classes: the background among them.
        **settings: of `build` in the file of the kind, such as `output_stride=16`, or
            `norm="frozen"` for a backbone that has been trained.

    Raises:
        InputError: an unknown name or setting, or a value that does not fit.

    Example:
        >>> model = create_segmenter("fcn", backbone="resnet18", num_classes=11, output_stride=16)
        >>> model.num_classes
        11
    """
    if kind not in KINDS:
        raise unknown_name("kind of segmenter", kind, KINDS)
    if backbone is not None:
        if "backbone" not in model_info(kind).settings:
            raise InputError(f"backbone: {kind} has its own; leave it out")
        settings["backbone"] = backbone
    return create_model(kind, num_classes, **settings)
