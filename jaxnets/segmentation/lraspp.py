"""LR-ASPP. Howard et al. 2019, "Searching for MobileNetV3", arXiv:1905.02244, section 6.4 and figure 10:
a decoder for small nets, which scales the channels of the last map by what the whole picture says, and
adds scores of a finer map.

Departure from the paper: the mean is over the whole map, as in torchvision, not over 49 x 49 positions.
"""

from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from jaxnets.layers import BatchNorm, Conv, resize_bilinear
from jaxnets.models import published
from jaxnets.models.settings import Count, takes_fields_of
from jaxnets.segmentation.building import (
    Settings,
    backbone_of,
    class_names,  # noqa: F401  (what public weights score)
    last_map,
    map_of,
    named_map,
    shared_parts,
    torchvision_rules,
)
from jaxnets.segmentation.segmenter import Segmenter

PAPER = "Howard et al. 2019, arXiv:1905.02244"

VARIANTS = {
    "lraspp": {},
    "lraspp_mobilenet_v3_large": {"backbone": "mobilenet_v3_large", "low_map": "stage3_block1"},
}

WEIGHTS = {
    "lraspp_mobilenet_v3_large": (
        published.torchvision_segmenter(
            "lraspp_mobilenet_v3_large-d234d4ea.pth", "lraspp_mobilenet_v3_large", 57.9, 91.2
        ),
    ),
}

RENAMES = {
    "torchvision": torchvision_rules(
        ("decoder/high_conv", "classifier.cbr.0"),
        ("decoder/high_bn", "classifier.cbr.1"),
        ("decoder/scale", "classifier.scale.1"),
        ("decoder/low_scores", "classifier.low_classifier"),
        ("decoder/high_scores", "classifier.high_classifier"),
    )
}


class LRASPPDecoder(nn.Module):
    """Scores of the last map, scaled by its mean, and of a finer one, added up.

    Attributes:
        num_classes: of the logits.
        low, high: what the backbone calls the finer map and the last one.
        features: channels to which the last map is reduced.
    """

    num_classes: int
    low: str
    high: str
    features: int = 128

    @nn.compact
    def __call__(self, maps: Mapping[str, Array], size: tuple[int, int], train: bool) -> Array:
        low, high = maps[self.low], maps[self.high]
        x = Conv(self.features, 1, use_bias=False, name="high_conv")(high)
        x = nn.relu(BatchNorm(use_running_average=not train, name="high_bn")(x))
        mean = jnp.mean(high, axis=(1, 2), keepdims=True)
        x = x * nn.sigmoid(Conv(self.features, 1, use_bias=False, name="scale")(mean))
        x = resize_bilinear(x, low.shape[1:3], align_corners=False)
        scores = Conv(self.num_classes, 1, name="low_scores")(low)
        return scores + Conv(self.num_classes, 1, name="high_scores")(x)


@takes_fields_of(Settings)
def build(
    *,
    num_classes: Count = 21,
    output_stride: Literal[8, 16, 32] | None = None,
    low_map: str | None = None,
    features: Count = 128,
    **settings: Any,
) -> Segmenter:
    """A segmenter with the decoder of MobileNetV3 for pictures of any size.

    Args:
        num_classes: the background among them.
        output_stride: of the last map; None for 16, or 32 of a backbone that cannot be dilated.
        low_map: the finer map by its name; None for the last of stride 8.
        features: channels to which the last map is reduced.
        **settings: see `building.Settings`.

    Raises:
        InputError: as of `building.backbone_of`, or the backbone has no such map.
    """
    shared = Settings(**settings)
    backbone, by_stride, channels, smallest = backbone_of(shared, output_stride, usual=16)
    low = map_of(by_stride, 8, shared.backbone) if low_map is None else low_map
    _, high = last_map(by_stride, shared.backbone)
    return Segmenter(
        backbone=backbone,
        decoder=LRASPPDecoder(num_classes, named_map(channels, low, shared.backbone), high, features),
        min_size=smallest,
        **shared_parts(shared, num_classes),
    )
