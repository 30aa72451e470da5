"""DenseNet. Huang, Liu, van der Maaten and Weinberger 2017, "Densely Connected Convolutional
Networks", arXiv:1608.06993: DenseNet-BC, table 1 (ImageNet) and section 4 (32 x 32 images).

Every layer reads the maps of all layers before it in its block, and adds a few of its own. Departure
from the paper: where there is dropout, the transitions' convolutions have it too, as in the authors'
program; torchvision drops only what a layer adds. The blocks that table 1 gives DenseNet-264 make it
265 layers deep.
"""

from functools import partial
from typing import Literal

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from jaxnets.layers import BatchNorm, Conv, Dropout, LinearHead, avg_pool, max_pool
from jaxnets.models import published
from jaxnets.models.classifier import Classifier
from jaxnets.models.settings import Count, CountOrZero, Counts, Positive, Probability
from jaxnets.models.strides import strides_and_dilations

PAPER = "Huang et al. 2017, arXiv:1608.06993"

VARIANTS = {
    "densenet121": {"depths": (6, 12, 24, 16), "growth": 32, "stem_width": 64},
    "densenet161": {"depths": (6, 12, 36, 24), "growth": 48, "stem_width": 96},
    "densenet169": {"depths": (6, 12, 32, 32), "growth": 32, "stem_width": 64},
    "densenet201": {"depths": (6, 12, 48, 32), "growth": 32, "stem_width": 64},
    "densenet264": {"depths": (6, 12, 64, 48), "growth": 32, "stem_width": 64},
    "densenet190_k40": {
        "num_classes": 10,
        "depths": (31, 31, 31),
        "growth": 40,
        "stem_width": 80,
        "small_input": True,
    },
}

_KERAS_FILE = "densenet/densenet{}_weights_tf_dim_ordering_tf_kernels.h5"
_OF_KERAS = {"license": "BSD-3-Clause", "settings": {"epsilon": 1.001e-5}}
WEIGHTS = {
    "densenet121": (
        published.timm("densenet121.ra_in1k", 76.49, size=288, crop=0.95),
        published.torchvision(
            "densenet121-a639ec97.pth", "densenet121", 74.43, library="torchvision_files"
        ),
        published.keras(_KERAS_FILE.format(121), "DenseNet121", 74.972, "torch", **_OF_KERAS),
    ),
    "densenet161": (published.timm("densenet161.tv_in1k", 77.36),),
    "densenet169": (
        published.timm("densenet169.tv_in1k", 75.90),
        published.keras(_KERAS_FILE.format(169), "DenseNet169", 76.176, "torch", **_OF_KERAS),
    ),
    "densenet201": (
        published.timm("densenet201.tv_in1k", 77.29),
        published.keras(_KERAS_FILE.format(201), "DenseNet201", 77.320, "torch", **_OF_KERAS),
    ),
}

_LAYER, _THEIR_LAYER = "backbone/denseblock{d}_layer{i}", "features.denseblock{d}.denselayer{i}"
_OUTSIDE_THE_LAYERS = (
    ("backbone/norm", "features.norm5"),
    ("backbone/{layer}", "features.{layer}"),
    ("head/fc", "classifier"),
)
_RENAMES = ((_LAYER + "/{layer}", _THEIR_LAYER + ".{layer}"), *_OUTSIDE_THE_LAYERS)
RENAMES = {
    "torchvision": _RENAMES,
    "torchvision_files": (  # torchvision's files are older than its names
        (_LAYER + "/norm{j}", _THEIR_LAYER + ".norm.{j}"),
        (_LAYER + "/conv{j}", _THEIR_LAYER + ".conv.{j}"),
        *_OUTSIDE_THE_LAYERS,
    ),
    "timm": _RENAMES,
    "keras": (
        ("backbone/conv0", "conv1_conv"),
        ("backbone/norm0", "conv1_bn"),
        ("backbone/denseblock{d}_layer{i}/norm{j}", "conv{d+1}_block{i}_{j-1}_bn"),
        ("backbone/denseblock{d}_layer{i}/conv{j}", "conv{d+1}_block{i}_{j}_conv"),
        ("backbone/transition{t}/norm", "pool{t+1}_bn"),
        ("backbone/transition{t}/conv", "pool{t+1}_conv"),
        ("backbone/norm", "bn"),
        ("head/fc", "predictions"),
    ),
}

_conv = partial(Conv, use_bias=False)


class DenseLayer(nn.Module):
    """A 1x1 convolution to 4 times the growth and a 3x3 to the growth, each after normalization
    and ReLU.

    Attributes:
        growth: channels that the layer adds to its input (the paper's k).
        dropout: rate after each convolution.
        dilation: of the 3x3.
        epsilon: of the normalizations.
    """

    growth: int
    dropout: float
    dilation: int
    epsilon: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        norm = partial(BatchNorm, use_running_average=not train, epsilon=self.epsilon)
        drop = partial(Dropout, self.dropout, deterministic=not train)
        y = _conv(4 * self.growth, 1, name="conv1")(nn.relu(norm(name="norm1")(x)))
        y = nn.relu(norm(name="norm2")(drop()(y)))
        y = _conv(self.growth, 3, padding=self.dilation, dilation=self.dilation, name="conv2")(y)
        return jnp.concatenate([x, drop()(y)], axis=-1)


class Transition(nn.Module):
    """Between two blocks: a 1x1 convolution to a share of the channels, and a 2x2 average pool.

    Attributes:
        compression: that share (the paper's theta).
        dropout: rate after the convolution.
        stride: 1 for no pool.
        epsilon: of the normalization.
    """

    compression: float
    dropout: float
    stride: int
    epsilon: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        width = int(x.shape[-1] * self.compression)
        norm = BatchNorm(use_running_average=not train, epsilon=self.epsilon, name="norm")
        x = nn.relu(norm(x))
        x = Dropout(self.dropout, deterministic=not train)(_conv(width, 1, name="conv")(x))
        return avg_pool(x, 2) if self.stride == 2 else x


class DenseNet(nn.Module):
    """A convolution, dense blocks with transitions between them, and a last normalization; the
    arguments are those of `build`."""

    depths: tuple[int, ...]
    growth: int
    stem_width: int
    compression: float
    small_input: bool
    epsilon: float
    dropout: float
    output_stride: int

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `stem` (stride 2, before the max-pool) and `denseblock1` ...
        `denseblock4` (strides 4 to 32, up to `output_stride`); with `small_input` the strides are
        1 and 1, 2, 4. Only the last map is normalized and has passed a ReLU."""
        norm = partial(BatchNorm, use_running_average=not train, epsilon=self.epsilon)
        out = {}
        if self.small_input:
            x = out["stem"] = _conv(self.stem_width, 3, padding=1, name="conv0")(images)
        else:
            x = _conv(self.stem_width, 7, strides=2, padding=3, name="conv0")(images)
            x = out["stem"] = nn.relu(norm(name="norm0")(x))
            x = max_pool(x, 3, strides=2, padding=1)
        first = 1 if self.small_input else 4
        geometry = strides_and_dilations(len(self.depths), first, self.output_stride)
        for block, (depth, (stride, (_, dilation))) in enumerate(
            zip(self.depths, geometry, strict=True), start=1
        ):
            if block > 1:
                name = f"transition{block - 1}"
                x = Transition(self.compression, self.dropout, stride, self.epsilon, name=name)(x, train)
            for i in range(1, depth + 1):
                name = f"denseblock{block}_layer{i}"
                x = DenseLayer(self.growth, self.dropout, dilation, self.epsilon, name=name)(x, train)
            out[f"denseblock{block}"] = x
        out[f"denseblock{len(self.depths)}"] = nn.relu(norm(name="norm")(x))
        return out


def build(
    *,
    num_classes: CountOrZero = 1000,
    depths: Counts,
    growth: Count,
    stem_width: Count,
    compression: Positive = 0.5,
    small_input: bool = False,
    epsilon: Positive = 1e-5,
    dropout: Probability = 0.0,
    output_stride: Literal[8, 16, 32] = 32,
) -> Classifier:
    """A DenseNet for 224 x 224 images; accepts any of at least 29 x 29.

    Args:
        num_classes: 0 for the mean of the last maps.
        depths: layers in each block; each has two convolutions.
        growth: channels that a layer adds (the paper's k).
        stem_width: channels of the first convolution; 2 k in the paper.
        compression: the share of its channels that a transition keeps (the paper's theta).
        small_input: for images of 32 x 32 and fewer: the first convolution is a 3x3 at stride 1,
            and neither normalization nor a max-pool follows it.
        epsilon: of the normalizations; 1.001e-5 in Keras.
        dropout: rate after each convolution but the first (0.2 in the paper, where it trains on
            few images without augmenting them).
        output_stride: the largest stride of a map. Transitions that would exceed it have no pool, and
            the 3x3 convolutions behind are dilated (Yang et al. 2018, "DenseASPP for Semantic
            Segmentation in Street Scenes", section 3).
    """
    side = 32 if small_input else 224
    halvings = 2 ** (len(depths) - 1)
    return Classifier(
        backbone=DenseNet(
            depths, growth, stem_width, compression, small_input, epsilon, dropout, output_stride
        ),
        head=LinearHead(num_classes),
        num_classes=num_classes,
        input_size=(side, side, 3),
        # The padded convolution and max-pool round up, the transitions' pools down.
        min_size=halvings if small_input else 4 * halvings - 3,
    )
