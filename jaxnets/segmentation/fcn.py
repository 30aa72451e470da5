"""FCN on any backbone. Long, Shelhamer and Darrell 2014, "Fully Convolutional Networks for Semantic
Segmentation", arXiv:1411.4038, in torchvision's form: a head on the last map of a dilated backbone, and
a second one on the map before, which helps training.

The paper's own nets, on VGG-16 with skips and deconvolutions, are in `fcn_vgg`.
"""

from collections.abc import Mapping
from typing import Any, Literal

from flax import linen as nn
from flax.core import FrozenDict
from jax import Array

from jaxnets.layers import BatchNorm, Conv, Dropout
from jaxnets.models import published
from jaxnets.models.settings import Count, Probability, takes_fields_of
from jaxnets.segmentation.building import (
    Settings,
    backbone_of,
    class_names,  # noqa: F401  (what public weights score)
    last_map,
    map_of,
    shared_parts,
    torchvision_rules,
)
from jaxnets.segmentation.segmenter import Segmenter

PAPER = "Long et al. 2014, arXiv:1411.4038"

VARIANTS = {
    "fcn": {"aux": False},
    "fcn_resnet50": {},
    "fcn_resnet101": {"backbone": "resnet101"},
}

WEIGHTS = {
    "fcn_resnet50": (
        published.torchvision_segmenter("fcn_resnet50_coco-1167a1af.pth", "fcn_resnet50", 60.5, 91.4),
    ),
    "fcn_resnet101": (
        published.torchvision_segmenter("fcn_resnet101_coco-7ecb50ca.pth", "fcn_resnet101", 63.7, 91.9),
    ),
}

RENAMES = {
    "torchvision": torchvision_rules(
        ("decoder/head/conv1", "classifier.0"),
        ("decoder/head/bn1", "classifier.1"),
        ("decoder/head/conv2", "classifier.4"),
    )
}


class FCNHead(nn.Module):
    """A 3x3 convolution to a quarter of the channels, dropout, and a 1x1 convolution to the classes.

    Attributes:
        num_classes: of the logits.
        dropout: the rate in training.
    """

    num_classes: int
    dropout: float = 0.1

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = Conv(x.shape[-1] // 4, 3, padding=1, use_bias=False, name="conv1")(x)
        x = nn.relu(BatchNorm(use_running_average=not train, name="bn1")(x))
        x = Dropout(self.dropout, name="dropout")(x, deterministic=not train)
        return Conv(self.num_classes, 1, name="conv2")(x)


class FCNDecoder(nn.Module):
    """An `FCNHead` on one map.

    Attributes:
        num_classes, dropout: of the head.
        map: what the backbone calls it.
    """

    num_classes: int
    map: str
    dropout: float = 0.1

    @nn.compact
    def __call__(self, maps: Mapping[str, Array], size: tuple[int, int], train: bool) -> Array:
        return FCNHead(self.num_classes, self.dropout, name="head")(maps[self.map], train)


@takes_fields_of(Settings)
def build(
    *,
    num_classes: Count = 21,
    output_stride: Literal[8, 16, 32] | None = None,
    aux: bool = True,
    dropout: Probability = 0.1,
    aux_dropout: Probability = 0.1,
    **settings: Any,
) -> Segmenter:
    """An FCN for pictures of any size.

    Args:
        num_classes: the background among them.
        output_stride: of the map that is scored; None for 8, or 32 of a backbone that cannot be dilated.
        aux: whether there is an auxiliary head on the map before.
        dropout, aux_dropout: rates before the last layer of either head.
        **settings: see `building.Settings`.

    Raises:
        InputError: as of `building.backbone_of`.
    """
    shared = Settings(**settings)
    backbone, by_stride, _, smallest = backbone_of(shared, output_stride)
    _, last = last_map(by_stride, shared.backbone)
    heads = {}
    if aux:
        heads[map_of(by_stride, 16, shared.backbone)] = FCNHead(num_classes, aux_dropout)
    return Segmenter(
        backbone=backbone,
        decoder=FCNDecoder(num_classes, last, dropout),
        auxiliary=FrozenDict(heads),
        min_size=smallest,
        **shared_parts(shared, num_classes),
    )
