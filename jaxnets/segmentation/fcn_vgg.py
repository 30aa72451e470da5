"""The FCNs of the paper, on VGG-16. Long, Shelhamer and Darrell 2014, "Fully Convolutional Networks for
Semantic Segmentation", arXiv:1411.4038, figure 3, and the journal's version, arXiv:1605.06211, which
trains all skips at once.

As the authors' Caffe models have it: the first convolution pads pictures by 100 pixels, so that the
dense layers of VGG, as convolutions, find 7 x 7 positions whatever the size; scores of a coarse map are
enlarged by a transposed convolution and added to those of a finer one, which is cut to where the coarse
one lies; and so is what is left of the padding at the end.

The enlarging is bilinear and was never trained, so its kernels are constants, not parameters.
"""

from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from jaxnets.dtypes import at_least_float32
from jaxnets.layers import CONSTANTS, Conv, Dropout, max_pool
from jaxnets.layers.geometry import over_channels
from jaxnets.layers.lowering import conv_transpose
from jaxnets.models.settings import Count, Probability, takes_fields_of
from jaxnets.segmentation.building import Pictures, shared_parts
from jaxnets.segmentation.segmenter import Segmenter

PAPER = "Long et al. 2014, arXiv:1411.4038"

_CAFFE = {
    "min_size": None,
    "mean": (104.00699 / 255, 116.66877 / 255, 122.67892 / 255),
    "std": (1 / 255,) * 3,
    "order": "BGR",
}
VARIANTS = {
    "fcn32s_vgg16": {"stride": 32, **_CAFFE},
    "fcn16s_vgg16": {"stride": 16, **_CAFFE},
    "fcn8s_vgg16": {"stride": 8, **_CAFFE},
    "fcn8s_atonce_vgg16": {"stride": 8, "scales": (1e-2, 1e-4), **_CAFFE},
}

DEPTHS = (2, 2, 3, 3, 3)
"""Convolutions in each stage of VGG-16."""

CROPS = {32: 19, 16: 27, 8: 31}
"""Where in the enlarged scores the picture begins, by their stride before."""

SKIPS = ((4, 5), (3, 9))
"""The stages whose scores are added, and where in them the coarser scores begin."""


class VGG16(nn.Module):
    """VGG-16 with dense layers as convolutions, on padded pictures.

    Attributes:
        widths: channels of each stage.
        hidden: channels of the two layers behind.
        dropout: after each of these.
    """

    widths: tuple[int, ...]
    hidden: int
    dropout: float

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `stage1` ... `stage5`, each after its max-pool, and `fc7`."""
        x, out = images, {}
        for stage, (depth, width) in enumerate(zip(DEPTHS, self.widths, strict=True), start=1):
            for i in range(1, depth + 1):
                padding = 100 if stage == i == 1 else 1
                x = Conv(width, 3, padding=padding, name=f"stage{stage}_conv{i}")(x)
                x = nn.relu(x)
            x = out[f"stage{stage}"] = max_pool(x, 2, ceil_mode=True)
        x = nn.relu(Conv(self.hidden, 7, name="fc6")(x))
        x = Dropout(self.dropout, name="dropout6")(x, deterministic=not train)
        x = nn.relu(Conv(self.hidden, 1, name="fc7")(x))
        out["fc7"] = Dropout(self.dropout, name="dropout7")(x, deterministic=not train)
        return out


class Skips(nn.Module):
    """Scores of the last map, enlarged and added to those of finer maps.

    Attributes:
        num_classes: how many.
        stride: of the finest map that is scored.
        scales: of the maps of `SKIPS` before they are scored.
    """

    num_classes: int
    stride: int
    scales: tuple[float, ...]

    @nn.compact
    def __call__(self, maps: Mapping[str, Array], size: tuple[int, int], train: bool) -> Array:
        def score(x: Array, name: str) -> Array:
            scores = Conv(self.num_classes, 1, kernel_init=nn.initializers.zeros, name=name)(x)
            return at_least_float32(scores)

        x, stride = score(maps["fc7"], "score_fc7"), 32
        for (stage, begin), scale in zip(SKIPS, self.scales, strict=False):
            if stride == self.stride:
                break
            x, stride = Enlarged(2, name=f"enlarged{stride}")(x), stride // 2
            skip = maps[f"stage{stage}"]
            if scale != 1:
                skip = ConstantScale(scale, name=f"scale_stage{stage}")(skip)
            x = x + _cut(score(skip, f"score_stage{stage}"), begin, x.shape[1:3])
        x = Enlarged(stride, name=f"enlarged{stride}")(x)
        return _cut(x, CROPS[stride], size)


class Enlarged(nn.Module):
    """Scores between those there are, by a transposed convolution with a bilinear kernel: as in Caffe,
    a whole [F, F, C, C], zero between different classes.

    Attributes:
        factor: by which maps grow; the kernel has twice the side.
    """

    factor: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [N, H, W, C] to [N, (H + 1) factor, (W + 1) factor, C]."""
        kernel = self.variable(CONSTANTS, "kernel", _bilinear, self.factor, x.shape[-1]).value
        return conv_transpose(x, kernel.astype(x.dtype), (self.factor,) * 2, ((0, 0), (0, 0)))


class ConstantScale(nn.Module):
    """A factor for each channel, as Caffe's Scale that is not trained.

    Attributes:
        value: of all, unless weights are loaded.
    """

    value: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.variable(CONSTANTS, "scale", jnp.full, x.shape[-1:], self.value, jnp.float32).value
        return x * over_channels(scale.astype(x.dtype), x)


def _bilinear(factor: int, channels: int) -> Array:
    """f32[2 factor, 2 factor, channels, channels]."""
    tent = 1 - np.abs(np.arange(2 * factor) - (factor - 0.5)) / factor
    kernel = np.outer(tent, tent)[:, :, None, None] * np.eye(channels)
    return jnp.asarray(kernel, jnp.float32)


def _cut(x: Array, begin: int, size: tuple[int, int]) -> Array:
    return x[:, begin : begin + size[0], begin : begin + size[1]]


@takes_fields_of(Pictures)
def build(
    *,
    num_classes: Count = 21,
    stride: Literal[8, 16, 32],
    scales: tuple[float, float] = (1.0, 1.0),
    widths: tuple[Count, Count, Count, Count, Count] = (64, 128, 256, 512, 512),
    hidden: Count = 4096,
    dropout: Probability = 0.5,
    **settings: Any,
) -> Segmenter:
    """An FCN on VGG-16 for pictures of any size.

    Args:
        num_classes: the background among them.
        stride: of the finest map that is scored.
        scales: of the maps of strides 16 and 8 before they are scored, with which all skips can be
            trained at once.
        widths: channels of VGG's stages.
        hidden: channels of its dense layers.
        dropout: rate after each of these.
        **settings: of the pictures; see `building.Pictures`.
    """
    return Segmenter(
        backbone=VGG16(widths, hidden, dropout),
        decoder=Skips(num_classes, stride, scales),
        **shared_parts(Pictures(**settings), num_classes),
    )


def _caffe(model: Segmenter) -> tuple[tuple[str, ...], ...]:
    """The names of the layers in the authors' models."""
    last = model.decoder.stride
    enlarged = {16: "upscore_pool4", 32: "upscore2"}
    enlarged[last] = "upscore" if last == 32 else f"upscore{last}"
    turned = "h w i o -> i o -h -w"
    return (
        ("backbone/stage{s}_conv{i}", "conv{s}_{i}"),
        ("backbone/{layer}", "{layer}"),
        ("decoder/score_fc7", "score_fr"),
        ("decoder/score_stage{s}", "score_pool{s}"),
        ("decoder/scale_stage{s}", "scale_pool{s}"),
        *((f"decoder/enlarged{stride}", name, turned) for stride, name in enlarged.items()),
    )


RENAMES = {"caffe": _caffe}
