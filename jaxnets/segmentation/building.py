"""Backbones for segmenters: their maps by the strides they would have without dilation; and the names
that torchvision has for them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from flax import linen as nn
from flax.core import FrozenDict

from jaxnets.data.voc import CLASSES
from jaxnets.errors import InputError, unknown_name
from jaxnets.layers import NORMS
from jaxnets.models import create_classifier, feature_info, mobilenet_v3, model_info, resnet
from jaxnets.models.published import IMAGENET_MEAN, IMAGENET_STD
from jaxnets.models.resizing import Resizing
from jaxnets.models.settings import Count, NonNegative

VOC_CLASSES = ("background", *CLASSES)
NO_SETTINGS = FrozenDict()


@dataclass(frozen=True)
class Pictures:
    """What the `build` of every segmenter takes beside its own settings: the fields of `Resizing`."""

    min_size: Count | None = 520
    max_size: Count | None = None
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    order: Literal["RGB", "BGR"] = "RGB"


@dataclass(frozen=True)
class Settings(Pictures):
    """What the `build` of a segmenter on any backbone takes beside its own settings.

    Attributes:
        backbone: a classifier of `jaxnets.list_models()`.
        norm, epsilon: of the backbone's normalizations.
        backbone_settings: further settings of the backbone.
        min_size, max_size, mean, std, order: of the pictures; see `Resizing`.
    """

    backbone: str = "resnet50"
    norm: Literal[NORMS] = "batch"
    epsilon: NonNegative = 1e-5
    backbone_settings: Any = NO_SETTINGS


def class_names(num_classes: int) -> tuple[str, ...]:
    """What public weights of so many classes score: the background and the classes of Pascal VOC."""
    return VOC_CLASSES if num_classes == len(VOC_CLASSES) else ()


def shared_parts(pictures: Pictures, num_classes: int) -> dict[str, Any]:
    """The fields of `Segmenter` that do not depend on its kind."""
    own = (getattr(pictures, field.name) for field in fields(Resizing))
    return {
        "num_classes": num_classes,
        "class_names": class_names(num_classes),
        "resizing": Resizing(*own),
    }


def can_be_dilated(backbone: str) -> bool:
    """Whether a classifier has the setting `output_stride`."""
    return "output_stride" in model_info(backbone).settings


def usual_stride(backbone: str, usual: int = 8) -> int:
    """The output stride where none is asked for: the usual one, or 32 of what cannot be dilated."""
    return usual if can_be_dilated(backbone) else 32


def backbone_of(
    settings: Settings, output_stride: int | None, usual: int = 8
) -> tuple[nn.Module, Mapping[int, str], Mapping[str, int], int]:
    """A classifier's backbone, dilated where its maps would exceed a stride.

    Args:
        settings: of which `backbone`, `norm`, `epsilon` and `backbone_settings` are read.
        output_stride: 8, 16 or 32; None for the usual one, or 32 of a backbone that cannot be dilated.
        usual: see there.

    Returns:
        The module; the names of its maps by their strides (the last of each), which are those that the
        maps would have without dilation, so that 32 is the deepest whatever the output stride; the
        channels of the maps by their names; and the shortest side of an image.

    Raises:
        InputError: as of `create_classifier`, or an output stride for a backbone that has none.
    """
    name = settings.backbone
    own = dict(settings.backbone_settings)
    own |= {} if settings.norm == "batch" else {"norm": settings.norm}
    own |= {} if settings.epsilon == 1e-5 else {"epsilon": settings.epsilon}
    plain = create_classifier(name, num_classes=0, **own)
    info = feature_info(plain)
    by_stride = {stride: name for name, (_, stride) in info.items()}
    channels = {name: count for name, (count, _) in info.items()}
    if output_stride is None:
        output_stride = usual_stride(name, usual)
    if output_stride == 32:
        return plain.backbone, by_stride, channels, plain.min_size
    if not can_be_dilated(name):
        raise InputError(
            f"output_stride: {name} cannot be dilated, so its maps have strides up to 32; give 32, or "
            "another backbone, such as 'resnet50'"
        )
    dilated = create_classifier(name, num_classes=0, output_stride=output_stride, **own)
    return dilated.backbone, by_stride, channels, dilated.min_size


def map_of(by_stride: Mapping[int, str], stride: int, backbone: str) -> str:
    """The name of the map of a stride.

    Raises:
        InputError: the backbone has none.
    """
    if stride not in by_stride:
        raise InputError(
            f"backbone: {backbone} has maps of strides {', '.join(map(str, sorted(by_stride)))} and "
            f"none of {stride}; give another, such as 'resnet50'"
        )
    return by_stride[stride]


def last_map(by_stride: Mapping[int, str], backbone: str) -> tuple[int, str]:
    """The stride and the name of the deepest map; that of small nets may have a stride below 32.

    Raises:
        InputError: the last map is a single position, whatever the image.
    """
    stride = min(max(by_stride), 32)
    return stride, map_of(by_stride, stride, backbone)


def named_map(by_name: Mapping[str, int], name: str, backbone: str) -> str:
    """The name of a map, if there is such a one.

    Args:
        by_name: the channels of all maps by their names.
        name: that is asked for.
        backbone: that has the maps.

    Raises:
        InputError: there is none.
    """
    if name not in by_name:
        raise unknown_name(f"map of {backbone}", name, by_name)
    return name


def torchvision_rules(*heads: tuple[str, ...]) -> Callable[[nn.Module], tuple[tuple[str, ...], ...]]:
    """The rules of torchvision's names for a segmenter on a ResNet or a MobileNetV3.

    Args:
        *heads: the rules of its decoder; those of an auxiliary `FCNHead` are added.

    Returns:
        A function from the segmenter to the rules, as for `RENAMES`. It raises InputError for one on a
        backbone that torchvision has no segmenters of.
    """

    def rules(model: nn.Module) -> tuple[tuple[str, ...], ...]:
        return (*_backbone_rules(model.backbone), *heads, *_AUXILIARY)

    return rules


_AUXILIARY = tuple(
    (f"auxiliary_{{map}}/{ours}", f"aux_classifier.{theirs}")
    for ours, theirs in (("conv1", 0), ("bn1", 1), ("conv2", 4))
)


def _backbone_rules(backbone: nn.Module) -> list[tuple[str, ...]]:
    if isinstance(backbone, mobilenet_v3.MobileNetV3):
        return mobilenet_v3.features_rules(backbone.size, "backbone")
    if isinstance(backbone, resnet.ResNet):
        return resnet.backbone_rules("backbone")
    raise InputError(
        f"library: torchvision has no names for a segmenter on {type(backbone).__name__}; its backbones "
        "are ResNets and MobileNetV3"
    )


def resnet_rules(
    prefix: str, *heads: tuple[str, ...]
) -> Callable[[nn.Module], tuple[tuple[str, ...], ...]]:
    """The rules of a library that keeps torchvision's names of a ResNet, such as
    segmentation_models_pytorch.

    Args:
        prefix: of the names in the backbone; may be empty.
        *heads: the rules of the decoder.

    Returns:
        A function from the segmenter to the rules, as for `RENAMES`. It raises InputError for one on
        another backbone.
    """

    def rules(model: nn.Module) -> tuple[tuple[str, ...], ...]:
        if not isinstance(model.backbone, resnet.ResNet):
            raise InputError(
                f"library: there are no names for a segmenter on {type(model.backbone).__name__}; those "
                "that are known are of ResNets"
            )
        return (*resnet.backbone_rules(prefix), *heads)

    return rules
