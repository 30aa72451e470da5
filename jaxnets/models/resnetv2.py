"""ResNet with pre-activation. He, Zhang, Ren and Sun 2016, "Identity Mappings in Deep Residual
Networks", arXiv:1603.05027, figure 4 (e) and table 5; and, for images of 32 x 32, the wide residual
networks of Zagoruyko and Komodakis 2016, "Wide Residual Networks", arXiv:1605.07146, table 1.

Normalization and ReLU come before each convolution, nothing comes after the sum, and the last maps
are normalized once more. Departures from the first paper, as in timm: the stride of a bottleneck is
in its 3x3 convolution, and the first convolution's maps are pooled as they are, so that the first
block has its own normalization and ReLU as all others. (Keras's "V2" nets are others again: they
have biases, and halve their maps in the last block of a stage.)
"""

from functools import partial
from typing import Any, Literal

from flax import linen as nn
from jax import Array

from jaxnets.errors import InputError
from jaxnets.layers import (
    BatchNorm,
    Conv,
    Dropout,
    DropPath,
    LinearHead,
    drop_path_rates,
    max_pool,
)
from jaxnets.models import published
from jaxnets.models.classifier import Classifier
from jaxnets.models.settings import Count, CountOrZero, Counts, Probability, takes_fields_of

PAPER = "He et al. 2016, arXiv:1603.05027 (wide: Zagoruyko and Komodakis 2016, arXiv:1605.07146)"

_WIDE = {"num_classes": 10, "block": "basic", "stem_width": 16, "small_input": True}

VARIANTS = {
    "resnetv2_50": {"depths": (3, 4, 6, 3)},
    "resnetv2_101": {"depths": (3, 4, 23, 3)},
    "resnetv2_152": {"depths": (3, 8, 36, 3)},
    "resnetv2_200": {"depths": (3, 24, 36, 3)},
    "wrn_16_8": {"depths": (2, 2, 2), "widths": (128, 256, 512), **_WIDE},
    "wrn_28_10": {"depths": (4, 4, 4), "widths": (160, 320, 640), **_WIDE},
}

_HALVES = {"mean": published.HALVES, "std": published.HALVES}
WEIGHTS = {
    "resnetv2_50": (published.timm("resnetv2_50.a1h_in1k", 81.41, size=288, crop=1.0, **_HALVES),),
    "resnetv2_101": (published.timm("resnetv2_101.a1h_in1k", 83.00, size=288, crop=1.0, **_HALVES),),
}

RENAMES = {
    "timm": (
        ("backbone/conv1", "stem.conv"),
        ("backbone/stage{s}_block{b}/bn{i}", "stages.{s-1}.blocks.{b-1}.norm{i}"),
        ("backbone/stage{s}_block{b}/downsample_conv", "stages.{s-1}.blocks.{b-1}.downsample.conv"),
        ("backbone/stage{s}_block{b}/{layer}", "stages.{s-1}.blocks.{b-1}.{layer}"),
        ("backbone/norm", "norm"),
        ("head/fc", "head.fc", "i o -> o i 1 1"),
    )
}

_HE_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
_conv = partial(Conv, use_bias=False, kernel_init=_HE_FAN_OUT)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    Attributes:
        width: the channels of both.
        stride: of the first.
        dropout: rate before the second.
        drop_path: probability of dropping the residual branch.
    """

    width: int
    stride: int
    dropout: float
    drop_path: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        norm = partial(BatchNorm, use_running_average=not train)
        active = nn.relu(norm(name="bn1")(x))
        y = _conv(self.width, 3, strides=self.stride, padding=1, name="conv1")(active)
        y = nn.relu(norm(name="bn2")(y))
        y = Dropout(self.dropout, deterministic=not train)(y)
        y = _conv(self.width, 3, padding=1, name="conv2")(y)
        y = DropPath(self.drop_path, name="drop_path")(y, deterministic=not train)
        return _shortcut(x, active, self.width, self.stride) + y


class Bottleneck(nn.Module):
    """A 1x1 convolution that narrows to a quarter, a 3x3, a 1x1 that widens, and a shortcut.

    Attributes:
        width: the channels that come out.
        stride: of the 3x3.
        dropout: rate before the last convolution.
        drop_path: probability of dropping the residual branch.
    """

    width: int
    stride: int
    dropout: float
    drop_path: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        norm = partial(BatchNorm, use_running_average=not train)
        narrow = self.width // 4
        active = nn.relu(norm(name="bn1")(x))
        y = _conv(narrow, 1, name="conv1")(active)
        y = nn.relu(norm(name="bn2")(y))
        y = _conv(narrow, 3, strides=self.stride, padding=1, name="conv2")(y)
        y = nn.relu(norm(name="bn3")(y))
        y = Dropout(self.dropout, deterministic=not train)(y)
        y = _conv(self.width, 1, name="conv3")(y)
        y = DropPath(self.drop_path, name="drop_path")(y, deterministic=not train)
        return _shortcut(x, active, self.width, self.stride) + y


def _shortcut(x: Array, active: Array, width: int, stride: int) -> Array:
    """The input or, where the shape changes, a 1x1 convolution of the activated input."""
    if stride == 1 and x.shape[-1] == width:
        return x
    return _conv(width, 1, strides=stride, name="downsample_conv")(active)


class ResNetV2(nn.Module):
    """A convolution, stages of residual blocks, and a last normalization.

    Attributes:
        depths: blocks in each stage.
        block: "basic" or "bottleneck".
        widths: channels that come out of each stage.
        stem_width: channels of the first convolution.
        small_input: for images of 32 x 32 and fewer: the first convolution is a 3x3 at stride 1 and
            there is no max-pool.
        block_dropout: rate before the last convolution of each block (Zagoruyko and Komodakis,
            section 2.4, take 0.3 for CIFAR and 0.4 for SVHN).
        drop_path: probability of dropping the residual branch of the last block; it grows linearly
            from the first (Huang et al. 2016, "Deep Networks with Stochastic Depth",
            arXiv:1603.09382).
    """

    depths: Counts
    block: Literal["basic", "bottleneck"] = "bottleneck"
    widths: Counts = (256, 512, 1024, 2048)
    stem_width: Count = 64
    small_input: bool = False
    block_dropout: Probability = 0.0
    drop_path: Probability = 0.0

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `stem` (stride 2, before the max-pool) and `stage1` ... `stage4`
        (strides 4 to 32); with `small_input` the strides are 1 and 1, 2, ... Only the last map is
        normalized and has passed a ReLU."""
        block = {"basic": BasicBlock, "bottleneck": Bottleneck}[self.block]
        rates = iter(drop_path_rates(self.drop_path, sum(self.depths)))
        out = {}
        if self.small_input:
            x = out["stem"] = _conv(self.stem_width, 3, padding=1, name="conv1")(images)
        else:
            x = out["stem"] = _conv(self.stem_width, 7, strides=2, padding=3, name="conv1")(images)
            x = max_pool(x, 3, strides=2, padding=1)
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True), start=1):
            for i in range(1, depth + 1):
                x = block(
                    width=width,
                    stride=2 if i == 1 and stage > 1 else 1,
                    dropout=self.block_dropout,
                    drop_path=next(rates),
                    name=f"stage{stage}_block{i}",
                )(x, train)
            out[f"stage{stage}"] = x
        x = nn.relu(BatchNorm(use_running_average=not train, name="norm")(x))
        out[f"stage{len(self.depths)}"] = x
        return out


@takes_fields_of(ResNetV2)
def build(*, num_classes: CountOrZero = 1000, dropout: Probability = 0.0, **settings: Any) -> Classifier:
    """A ResNet with pre-activation for 224 x 224 images; accepts any of at least 32 x 32.

    Args:
        num_classes: 0 for the mean of the last maps.
        dropout: rate before the dense layer.
        **settings: see `ResNetV2`.

    Raises:
        InputError: other than one width for each stage, or a bottleneck's width that cannot be
            quartered.
    """
    backbone = ResNetV2(**settings)
    depths, widths = backbone.depths, backbone.widths
    if len(widths) != len(depths):
        raise InputError(f"widths: wanted one for each of {len(depths)} stages, got {widths}")
    if backbone.block == "bottleneck" and any(width % 4 for width in widths):
        raise InputError(f"widths: a bottleneck wants multiples of 4, got {widths}")
    side, stride = (32, 1) if backbone.small_input else (224, 4)
    return Classifier(
        backbone=backbone,
        head=LinearHead(num_classes, dropout),
        num_classes=num_classes,
        input_size=(side, side, 3),
        min_size=stride * 2 ** (len(depths) - 1),
    )
