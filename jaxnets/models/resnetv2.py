"""ResNet with pre-activation. He, Zhang, Ren and Sun 2016, "Identity Mappings in Deep Residual
Networks", arXiv:1603.05027, figure 4 (e) and table 5; and, for images of 32 x 32, the wide residual
networks of Zagoruyko and Komodakis 2016, "Wide Residual Networks", arXiv:1605.07146, table 1.

Normalization and ReLU come before each convolution, nothing comes after the sum, and the last maps
are normalized once more. Departures from the first paper, as in timm: the stride of a bottleneck is
in its 3x3 convolution, and the first convolution's maps are pooled as they are, so that the first
block has its own normalization and ReLU as all others. Keras's "V2" nets are others again: they want
`stride_last=True`, `use_bias=True`, `pool_padding="zeros"` and `epsilon=1.001e-5`.
"""

from functools import partial
from typing import Any, Literal

import jax.numpy as jnp
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
from jaxnets.models.settings import Count, CountOrZero, Counts, Positive, Probability, takes_fields_of
from jaxnets.models.strides import blocks_of_stage, steps_of_stages, strides_and_dilations

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
_KERAS_FILE = "resnet/resnet{}v2_weights_tf_dim_ordering_tf_kernels.h5"
_OF_KERAS = {
    "size": 299,
    "license": "BSD-3-Clause",
    "settings": {"stride_last": True, "use_bias": True, "pool_padding": "zeros", "epsilon": 1.001e-5},
}
_SLIM_FILE = "resnet_v2_{}_2017_04_14.tar.gz"
_OF_SLIM = {
    "size": 299,
    "settings": {"stride_last": True, "use_bias": True, "tf_padding": True},
}
WEIGHTS = {
    "resnetv2_50": (
        published.timm("resnetv2_50.a1h_in1k", 81.41, size=288, crop=1.0, **_HALVES),
        published.keras(_KERAS_FILE.format(50), "ResNet50V2", 75.960, "tf", **_OF_KERAS),
        published.slim(_SLIM_FILE.format(50), "resnet_v2_50", 75.6, **_OF_SLIM),
    ),
    "resnetv2_101": (
        published.timm("resnetv2_101.a1h_in1k", 83.00, size=288, crop=1.0, **_HALVES),
        published.keras(_KERAS_FILE.format(101), "ResNet101V2", 77.234, "tf", **_OF_KERAS),
        published.slim(_SLIM_FILE.format(101), "resnet_v2_101", 77.0, **_OF_SLIM),
    ),
    "resnetv2_152": (
        published.keras(_KERAS_FILE.format(152), "ResNet152V2", 78.032, "tf", **_OF_KERAS),
        published.slim(_SLIM_FILE.format(152), "resnet_v2_152", 77.8, **_OF_SLIM),
    ),
}


def _slim(model: Classifier) -> list[tuple[str, ...]]:
    """A net's name is the scope of its layers. A norm has the scope of the convolution before it."""
    scope = model.model_name.replace("resnetv2_", "resnet_v2_")
    block = f"{scope}.block{{s}}.unit_{{b}}.bottleneck_v2"
    return [
        ("backbone/conv1", f"{scope}.conv1"),
        ("backbone/stage{s}_block{b}/bn1", f"{block}.preact"),
        ("backbone/stage{s}_block{b}/bn{i}", f"{block}.conv{{i-1}}.BatchNorm"),
        ("backbone/stage{s}_block{b}/downsample_conv", f"{block}.shortcut"),
        ("backbone/stage{s}_block{b}/{layer}", f"{block}.{{layer}}"),
        ("backbone/norm", f"{scope}.postnorm"),
        ("head/fc", f"{scope}.logits", "i o -> o i 1 1"),
    ]


RENAMES = {
    "slim": _slim,
    "keras": (
        ("backbone/conv1", "conv1_conv"),
        ("backbone/stage{s}_block{b}/bn1", "conv{s+1}_block{b}_preact_bn"),
        ("backbone/stage{s}_block{b}/bn{i}", "conv{s+1}_block{b}_{i-1}_bn"),
        ("backbone/stage{s}_block{b}/conv{i}", "conv{s+1}_block{b}_{i}_conv"),
        ("backbone/stage{s}_block{b}/downsample_conv", "conv{s+1}_block{b}_0_conv"),
        ("backbone/norm", "post_bn"),
        ("head/fc", "predictions"),
    ),
    "timm": (
        ("backbone/conv1", "stem.conv"),
        ("backbone/stage{s}_block{b}/bn{i}", "stages.{s-1}.blocks.{b-1}.norm{i}"),
        ("backbone/stage{s}_block{b}/downsample_conv", "stages.{s-1}.blocks.{b-1}.downsample.conv"),
        ("backbone/stage{s}_block{b}/{layer}", "stages.{s-1}.blocks.{b-1}.{layer}"),
        ("backbone/norm", "norm"),
        ("head/fc", "head.fc", "i o -> o i 1 1"),
    ),
}

_HE_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
_conv = partial(Conv, use_bias=False, kernel_init=_HE_FAN_OUT)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    Attributes:
        width: the channels of both.
        stride: of the first.
        dilations: of both.
        dropout: rate before the second.
        drop_path: probability of dropping the residual branch.
        stride_last, use_bias, epsilon: see `ResNetV2`.
    """

    width: int
    stride: int
    dilations: tuple[int, int]
    dropout: float
    drop_path: float
    stride_last: bool
    use_bias: bool
    epsilon: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        norm = partial(BatchNorm, use_running_average=not train, epsilon=self.epsilon)
        active = nn.relu(norm(name="bn1")(x))
        first, second = self.dilations
        y = _conv3x3(self.width, first, strides=self.stride, name="conv1")(active)
        y = nn.relu(norm(name="bn2")(y))
        y = Dropout(self.dropout, deterministic=not train)(y)
        y = _conv3x3(self.width, second, use_bias=self.use_bias, name="conv2")(y)
        y = DropPath(self.drop_path, name="drop_path")(y, deterministic=not train)
        return _shortcut(self, x, active) + y


class Bottleneck(nn.Module):
    """A 1x1 convolution that narrows to a quarter, a 3x3, a 1x1 that widens, and a shortcut.

    Attributes:
        width: the channels that come out.
        stride: of the 3x3.
        dilations: of the 3x3, that of the first.
        dropout: rate before the last convolution.
        drop_path: probability of dropping the residual branch.
        stride_last, use_bias, epsilon: see `ResNetV2`.
    """

    width: int
    stride: int
    dilations: tuple[int, int]
    dropout: float
    drop_path: float
    stride_last: bool
    use_bias: bool
    epsilon: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        norm = partial(BatchNorm, use_running_average=not train, epsilon=self.epsilon)
        narrow = self.width // 4
        active = nn.relu(norm(name="bn1")(x))
        y = _conv(narrow, 1, name="conv1")(active)
        y = nn.relu(norm(name="bn2")(y))
        y = _conv3x3(narrow, self.dilations[0], strides=self.stride, name="conv2")(y)
        y = nn.relu(norm(name="bn3")(y))
        y = Dropout(self.dropout, deterministic=not train)(y)
        y = _conv(self.width, 1, use_bias=self.use_bias, name="conv3")(y)
        y = DropPath(self.drop_path, name="drop_path")(y, deterministic=not train)
        return _shortcut(self, x, active) + y


def _conv3x3(features: int, dilation: int, **settings: Any) -> Conv:
    """A 3x3 convolution that keeps the size of the maps at stride 1."""
    return _conv(features, 3, padding=dilation, dilation=dilation, **settings)


def _shortcut(block: BasicBlock | Bottleneck, x: Array, active: Array) -> Array:
    """The input or, where the shape changes, a 1x1 convolution of the activated input. A block that is
    dilated in place of a stride, in which the dilations differ, keeps its convolution. Where the last
    block of a stage has the stride there is none, and every other position of the input is taken."""
    stride, (before, after) = block.stride, block.dilations
    if x.shape[-1] == block.width and (block.stride_last or (stride == 1 and before == after)):
        return x if stride == 1 else x[:, ::stride, ::stride]
    return _conv(block.width, 1, strides=stride, use_bias=block.use_bias, name="downsample_conv")(active)


class ResNetV2(nn.Module):
    """A convolution, stages of residual blocks, and a last normalization.

    Attributes:
        depths: blocks in each stage.
        block: "basic" or "bottleneck".
        widths: channels that come out of each stage.
        stem_width: channels of the first convolution.
        stride_last: whether the last block of a stage halves the maps for the next, instead of the first
            block of that (as in Keras and TF-Slim): the maps of all stages but the last are then half as
            large.
        use_bias: whether the convolutions that no normalization follows within their block have biases:
            the first of all, the last of each block, and those of the shortcuts.
        epsilon: added to the variance by the normalizations.
        pool_padding: how the max-pool sees its padding: "left_out", or "zeros" (as in Keras), which can
            be the maximum.
        tf_padding: pads the max-pool as TensorFlow's "SAME": where a map has an even side, below and
            right only.
        small_input: for images of 32 x 32 and fewer: the first convolution is a 3x3 at stride 1 and
            there is no max-pool.
        output_stride: the largest stride of a map. Stages that would exceed it are dilated instead
            (`strides_and_dilations`), and their parameters are the same.
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
    stride_last: bool = False
    use_bias: bool = False
    epsilon: Positive = 1e-5
    pool_padding: Literal["left_out", "zeros"] = "left_out"
    tf_padding: bool = False
    small_input: bool = False
    output_stride: Literal[8, 16, 32] = 32
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
        conv = partial(_conv, self.stem_width, use_bias=self.use_bias, name="conv1")
        if self.small_input:
            x = out["stem"] = conv(3, padding=1)(images)
        else:
            x = out["stem"] = conv(7, strides=2, padding=3)(images)
            x = self._pooled(x)
        steps = steps_of_stages(len(self.depths), self.stride_last)
        geometry = strides_and_dilations(steps, self.stem_stride, self.output_stride)
        for stage, (depth, width, (stride, dilations)) in enumerate(
            zip(self.depths, self.widths, geometry, strict=True), start=1
        ):
            blocks = blocks_of_stage(depth, stride, dilations, self.stride_last)
            for i, (stride, dilations) in enumerate(blocks, start=1):
                x = block(
                    width=width,
                    stride=stride,
                    dilations=dilations,
                    dropout=self.block_dropout,
                    drop_path=next(rates),
                    stride_last=self.stride_last,
                    use_bias=self.use_bias,
                    epsilon=self.epsilon,
                    name=f"stage{stage}_block{i}",
                )(x, train)
            out[f"stage{stage}"] = x
        norm = BatchNorm(use_running_average=not train, epsilon=self.epsilon, name="norm")
        x = nn.relu(norm(x))
        out[f"stage{len(self.depths)}"] = x
        return out

    def _pooled(self, x: Array) -> Array:
        if self.pool_padding == "zeros":
            return max_pool(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), 3, strides=2)
        return max_pool(x, 3, strides=2, padding="SAME" if self.tf_padding else 1)

    @property
    def stem_stride(self) -> int:
        """The stride of the maps that the first stage reads."""
        return 1 if self.small_input else 4


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
    side = 32 if backbone.small_input else 224
    return Classifier(
        backbone=backbone,
        head=LinearHead(num_classes, dropout),
        num_classes=num_classes,
        input_size=(side, side, 3),
        min_size=min(backbone.stem_stride * 2 ** (len(depths) - 1), backbone.output_stride),
    )
