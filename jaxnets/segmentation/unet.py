"""U-Net. Ronneberger, Fischer and Brox 2015, "U-Net: Convolutional Networks for Biomedical Image
Segmentation", arXiv:1505.04597: the maps of an encoder from deep to shallow, each beside what was made
of the deeper ones (figure 1).

Departures from the paper, those of segmentation_models_pytorch: any backbone is the encoder; maps are
doubled by repeating positions, not by a learned convolution; convolutions are padded and normalized, so
that scores come in the picture's own size; and there is one more block, in that size.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from jaxnets.errors import InputError
from jaxnets.layers import BatchNorm, Conv, resize_nearest
from jaxnets.models.settings import Count, Counts, takes_fields_of
from jaxnets.segmentation.building import (
    Settings,
    backbone_of,
    class_names,  # noqa: F401  (what public weights score)
    last_map,
    resnet_rules,
    shared_parts,
)
from jaxnets.segmentation.segmenter import Segmenter

PAPER = "Ronneberger et al. 2015, arXiv:1505.04597"

VARIANTS = {"unet": {}, "unet_resnet34": {"backbone": "resnet34"}}

RENAMES = {
    "smp": resnet_rules(
        "encoder",
        ("decoder/block{b}/conv{i}", "decoder.blocks.{b-1}.conv{i}.0"),
        ("decoder/block{b}/bn{i}", "decoder.blocks.{b-1}.conv{i}.1"),
        ("decoder/scores", "segmentation_head.0"),
    )
}


class Block(nn.Module):
    """Two 3x3 convolutions with normalization and ReLU; `features` channels come out."""

    features: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        for i in (1, 2):
            x = Conv(self.features, 3, padding=1, use_bias=False, name=f"conv{i}")(x)
            x = nn.relu(BatchNorm(use_running_average=not train, name=f"bn{i}")(x))
        return x


class UNetDecoder(nn.Module):
    """Goes from the deepest map to the size of the images, by a factor of 2 and a `Block` at a time.

    Attributes:
        num_classes: of the scores.
        deepest: the name of the map to begin with.
        steps: for each block its stride, its width, and the map that it reads too, "" for none.
    """

    num_classes: int
    deepest: str
    steps: tuple[tuple[int, int, str], ...]

    @nn.compact
    def __call__(self, maps: Mapping[str, Array], size: tuple[int, int], train: bool) -> Array:
        x = maps[self.deepest]
        for i, (stride, width, name) in enumerate(self.steps, start=1):
            if name:
                x = resize_nearest(x, maps[name].shape[1:3])
                x = jnp.concatenate([x, maps[name]], axis=-1)
            else:
                x = resize_nearest(x, tuple(-(-side // stride) for side in size))
            x = Block(width, name=f"block{i}")(x, train)
        return Conv(self.num_classes, 3, padding=1, name="scores")(x)


@takes_fields_of(Settings)
def build(
    *,
    num_classes: Count = 21,
    widths: Counts = (256, 128, 64, 32, 16),
    **settings: Any,
) -> Segmenter:
    """A U-Net for pictures of any size.

    Args:
        num_classes: the background among them.
        widths: channels of the decoder, the last at the size of the images, each before at half of that.
            Of a backbone with fewer maps the first are left out.
        **settings: see `building.Settings`.

    Raises:
        InputError: as of `building.backbone_of`, or fewer widths than the backbone's maps ask for.
    """
    shared = Settings(**settings)
    backbone, by_stride, _, smallest = backbone_of(shared, output_stride=32)
    deepest, last = last_map(by_stride, shared.backbone)
    count = deepest.bit_length() - 1
    if len(widths) < count:
        raise InputError(
            f"widths: {shared.backbone} has maps up to stride {deepest}, which ask for {count}; got "
            f"{len(widths)}"
        )
    strides = [2**i for i in reversed(range(count))]
    steps = zip(strides, widths[len(widths) - count :], strict=True)
    return Segmenter(
        backbone=backbone,
        decoder=UNetDecoder(
            num_classes,
            last,
            tuple((stride, width, by_stride.get(stride, "")) for stride, width in steps),
        ),
        min_size=smallest,
        **shared_parts(shared, num_classes),
    )
