"""DeepLab v2. Chen, Papandreou, Kokkinos, Murphy and Yuille 2016, "DeepLab: Semantic Image Segmentation
with Deep Convolutional Nets, Atrous Convolution, and Fully Connected CRFs", arXiv:1606.00915: atrous
convolutions of several rates score the last map of a dilated backbone, side by side, and the scores are
added up (section 3.2, figure 7). `deeplabv2_vgg16_largefov` has a single rate (table 1).

Left out: the maximum over the scores of three sizes of a picture, and the conditional random field.
"""

from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import Any, Literal

from flax import linen as nn
from jax import Array

from jaxnets.errors import InputError
from jaxnets.layers import Conv, Dropout
from jaxnets.models.resnet import ResNet
from jaxnets.models.settings import Count, CountOrZero, Counts, Probability, takes_fields_of
from jaxnets.models.vgg import VGG
from jaxnets.segmentation.building import (
    Settings,
    backbone_of,
    class_names,  # noqa: F401  (what public weights score)
    last_map,
    shared_parts,
)
from jaxnets.segmentation.segmenter import Segmenter

PAPER = "Chen et al. 2016, arXiv:1606.00915"

RATES = (6, 12, 18, 24)

# As in Caffe: pixels of 0 to 255 without their mean, in the picture's own size.
_CAFFE = {
    "min_size": None,
    "mean": (104.008 / 255, 116.669 / 255, 122.675 / 255),
    "std": (1 / 255,) * 3,
    "order": "BGR",
}
_VGG = {
    "backbone": "vgg16",
    "backbone_settings": {"pool_window": 3},
    "hidden": 1024,
    "dropout": 0.5,
    **_CAFFE,
}
VARIANTS = {
    "deeplabv2": {},
    "deeplabv2_resnet101": {
        "backbone": "resnet101",
        "norm": "frozen",
        "backbone_settings": {"stride_in_1x1": True, "ceil_pool": True},
        **_CAFFE,
    },
    "deeplabv2_vgg16": _VGG,
    "deeplabv2_vgg16_largefov": {**_VGG, "rates": (12,)},
}


class Branch(nn.Module):
    """Scores of a map by an atrous 3x3 convolution, alone or before two 1x1 ones.

    Attributes:
        num_classes: of the scores.
        rate: of the dilation.
        hidden: channels between; 0 for the 3x3 convolution alone.
        dropout: rate after each hidden layer.
    """

    num_classes: int
    rate: int
    hidden: int
    dropout: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        atrous = {"kernel_size": 3, "padding": self.rate, "dilation": self.rate}
        if not self.hidden:
            return Conv(self.num_classes, **atrous, name="fc8")(x)
        for name, settings in (("fc6", atrous), ("fc7", {"kernel_size": 1})):
            x = nn.relu(Conv(self.hidden, **settings, name=name)(x))
            x = Dropout(self.dropout, name=f"dropout_{name}")(x, deterministic=not train)
        return Conv(self.num_classes, 1, name="fc8")(x)


class DeepLabV2Decoder(nn.Module):
    """A `Branch` for each rate, added up.

    Attributes:
        map: the map to score.
        rates: of the branches.
        num_classes, hidden, dropout: see `Branch`.
    """

    num_classes: int
    map: str
    rates: tuple[int, ...]
    hidden: int
    dropout: float

    @nn.compact
    def __call__(self, maps: Mapping[str, Array], size: tuple[int, int], train: bool) -> Array:
        scores = (
            Branch(self.num_classes, rate, self.hidden, self.dropout, name=f"branch{i}")
            for i, rate in enumerate(self.rates, start=1)
        )
        return reduce(add, (branch(maps[self.map], train) for branch in scores))


@takes_fields_of(Settings)
def build(
    *,
    num_classes: Count = 21,
    output_stride: Literal[8, 16, 32] | None = None,
    rates: Counts = RATES,
    hidden: CountOrZero = 0,
    dropout: Probability = 0.0,
    **settings: Any,
) -> Segmenter:
    """A DeepLab v2 for pictures of any size.

    Args:
        num_classes: the background among them.
        output_stride: of the map that is scored; None for 8, or 32 of a backbone that cannot be dilated.
        rates: of the atrous convolutions.
        hidden: channels of two layers between each of these and its scores; 0 for none.
        dropout: rate after each of the two.
        **settings: see `building.Settings`.

    Raises:
        InputError: as of `building.backbone_of`.
    """
    shared = Settings(**settings)
    backbone, by_stride, _, smallest = backbone_of(shared, output_stride)
    _, last = last_map(by_stride, shared.backbone)
    return Segmenter(
        backbone=backbone,
        decoder=DeepLabV2Decoder(num_classes, last, rates, hidden, dropout),
        align_corners=True,
        min_size=smallest,
        **shared_parts(shared, num_classes),
    )


def _rules(model: Segmenter) -> tuple[tuple[str, ...], ...]:
    """The names of kazuto1011/deeplab-pytorch for a ResNet; for a VGG those of Caffe's layers."""
    if isinstance(model.backbone, VGG):
        hidden = tuple(
            (f"decoder/branch{{b}}/{layer}", f"{name}_{{b}}")
            for layer, name in (("fc6", "fc6"), ("fc7", "fc7"), ("fc8", "fc8_voc12"))
        )
        alone = tuple((ours, theirs.removesuffix("_{b}")) for ours, theirs in hidden)
        return (
            ("backbone/stage{s}_conv{i}", "conv{s}_{i}"),
            *(alone if len(model.decoder.rates) == 1 else hidden),
        )
    if not isinstance(model.backbone, ResNet):
        raise InputError(
            f"library: there are no names for a DeepLab v2 on {type(model.backbone).__name__}; the "
            "backbones that have some are ResNets and VGGs"
        )
    block, theirs = "backbone/stage{s}_block{b}", "base.layer{s+1}.block{b}"
    names = {"downsample_": "shortcut", "1": "reduce", "2": "conv3x3", "3": "increase"}
    return (
        ("backbone/stem/conv1", "base.layer1.conv1.conv"),
        ("backbone/stem/bn1", "base.layer1.conv1.bn"),
        *(
            (f"{block}/{ours + kind if ours.endswith('_') else kind + ours}", f"{theirs}.{name}.{kind}")
            for ours, name in names.items()
            for kind in ("conv", "bn")
        ),
        ("decoder/branch{b}/fc8", "base.aspp.c{b-1}"),
    )


RENAMES = {"deeplab": _rules}
