"""DeepLabV3. Chen, Papandreou, Schroff and Adam 2017, "Rethinking Atrous Convolution for Semantic Image
Segmentation", arXiv:1706.05587, section 3.3: atrous spatial pyramid pooling on the last map of a dilated
backbone.

Departures from the paper, all torchvision's: a 3x3 convolution between the pyramid and the scores,
dropout, an auxiliary head, and no multi-grid in the last stage.
"""

from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax import Array

from jaxnets.layers import BatchNorm, Conv, Dropout
from jaxnets.models import published
from jaxnets.models.settings import Count, Counts, Probability, takes_fields_of
from jaxnets.segmentation.building import (
    Settings,
    backbone_of,
    class_names,  # noqa: F401  (what public weights score)
    last_map,
    map_of,
    named_map,
    shared_parts,
    torchvision_rules,
    usual_stride,
)
from jaxnets.segmentation.fcn import FCNHead
from jaxnets.segmentation.segmenter import Segmenter

PAPER = "Chen et al. 2017, arXiv:1706.05587"

RATES = (12, 24, 36)
"""Of the atrous convolutions at output stride 8 (section 4.1)."""

VARIANTS = {
    "deeplabv3": {"aux": False},
    "deeplabv3_resnet50": {},
    "deeplabv3_resnet101": {"backbone": "resnet101"},
    "deeplabv3_mobilenet_v3_large": {
        "backbone": "mobilenet_v3_large",
        "output_stride": 16,
        "rates": RATES,
        "aux_map": "stage3_block1",
    },
}


def _published(file: str, name: str, miou: float, pixel_accuracy: float) -> tuple:
    return (published.torchvision_segmenter(file, name, miou, pixel_accuracy),)


WEIGHTS = {
    name: _published(f"{name}{file}.pth", name, *claims)
    for name, file, *claims in (
        ("deeplabv3_resnet50", "_coco-cd0a2569", 66.4, 92.4),
        ("deeplabv3_resnet101", "_coco-586e9e4e", 67.4, 92.4),
        ("deeplabv3_mobilenet_v3_large", "-fc3c493d", 60.3, 91.2),
    )
}

RENAMES = {
    "torchvision": torchvision_rules(
        *(
            (f"decoder/aspp/{ours}_{kind}", f"classifier.0.{theirs}.{at}")
            for ours, theirs, first in (
                ("conv1x1", "convs.0", 0),
                ("atrous1", "convs.1", 0),
                ("atrous2", "convs.2", 0),
                ("atrous3", "convs.3", 0),
                ("pooled", "convs.4", 1),
                ("project", "project", 0),
            )
            for at, kind in enumerate(("conv", "bn"), start=first)
        ),
        ("decoder/conv1", "classifier.1"),
        ("decoder/bn1", "classifier.2"),
        ("decoder/conv2", "classifier.4"),
    )
}


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: a 1x1 convolution, 3x3 ones of growing reach and the mean of the
    map, side by side, then a 1x1 convolution over all of them and dropout (figure 5).

    Attributes:
        rates: the dilations of the 3x3 convolutions.
        features: channels of each branch and of what comes out.
        dropout: the rate in training.
    """

    rates: tuple[int, ...] = RATES
    features: int = 256
    dropout: float = 0.5

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        def layer(x: Array, name: str, size: int = 1, rate: int = 1) -> Array:
            padding = size // 2 * rate
            settings = {"padding": padding, "dilation": rate, "use_bias": False}
            x = Conv(self.features, size, **settings, name=f"{name}_conv")(x)
            return nn.relu(BatchNorm(use_running_average=not train, name=f"{name}_bn")(x))

        branches = [layer(x, "conv1x1")]
        branches += [layer(x, f"atrous{i}", 3, rate) for i, rate in enumerate(self.rates, start=1)]
        pooled = layer(jnp.mean(x, axis=(1, 2), keepdims=True), "pooled")
        branches.append(jnp.broadcast_to(pooled, branches[0].shape))
        x = layer(jnp.concatenate(branches, axis=-1), "project")
        return Dropout(self.dropout, name="dropout")(x, deterministic=not train)


class DeepLabV3Decoder(nn.Module):
    """An `ASPP`, a 3x3 convolution and a 1x1 convolution to the classes.

    Attributes:
        num_classes: of the logits.
        map: what the backbone calls the map.
        rates, features, dropout: see `ASPP`.
    """

    num_classes: int
    map: str
    rates: tuple[int, ...] = RATES
    features: int = 256
    dropout: float = 0.5

    @nn.compact
    def __call__(self, maps: Mapping[str, Array], size: tuple[int, int], train: bool) -> Array:
        x = ASPP(self.rates, self.features, self.dropout, name="aspp")(maps[self.map], train)
        x = Conv(self.features, 3, padding=1, use_bias=False, name="conv1")(x)
        x = nn.relu(BatchNorm(use_running_average=not train, name="bn1")(x))
        return Conv(self.num_classes, 1, name="conv2")(x)


@takes_fields_of(Settings)
def build(
    *,
    num_classes: Count = 21,
    output_stride: Literal[8, 16, 32] | None = None,
    rates: Counts | None = None,
    features: Count = 256,
    aux: bool = True,
    aux_map: str | None = None,
    dropout: Probability = 0.5,
    aux_dropout: Probability = 0.1,
    **settings: Any,
) -> Segmenter:
    """A DeepLabV3 for pictures of any size. In training it takes batches of two pictures at least, since
    the mean of the map is normalized over the batch.

    Args:
        num_classes: the background among them.
        output_stride: of the map that is read; None for 8, or 32 of a backbone that cannot be dilated.
        rates: see `ASPP`; None for `RATES` at output stride 8, half of them at 16 and a quarter at 32.
        features: channels of the decoder.
        aux: whether there is an auxiliary head, on
        aux_map: a map by its name; None for the map before, of stride 16 without dilation.
        dropout: rate behind the pyramid.
        aux_dropout: rate before the last layer of the auxiliary head.
        **settings: see `building.Settings`.

    Raises:
        InputError: as of `building.backbone_of`, or the backbone has no such map.
    """
    shared = Settings(**settings)
    backbone, by_stride, channels, smallest = backbone_of(shared, output_stride)
    if rates is None:
        stride = output_stride or usual_stride(shared.backbone)
        rates = tuple(rate * 8 // stride for rate in RATES)
    heads = {}
    if aux:
        name = map_of(by_stride, 16, shared.backbone) if aux_map is None else aux_map
        heads[named_map(channels, name, shared.backbone)] = FCNHead(num_classes, aux_dropout)
    _, last = last_map(by_stride, shared.backbone)
    return Segmenter(
        backbone=backbone,
        decoder=DeepLabV3Decoder(num_classes, last, rates, features, dropout),
        auxiliary=FrozenDict(heads),
        min_size=smallest,
        **shared_parts(shared, num_classes),
    )
