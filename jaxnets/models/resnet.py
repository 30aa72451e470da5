"""ResNet. He, Zhang, Ren and Sun 2015, "Deep Residual Learning for Image Recognition",
arXiv:1512.03385, table 1 and figure 5.

Rows with other numbers widen the bottleneck's 3x3 convolution (Zagoruyko and Komodakis 2016, "Wide
Residual Networks", arXiv:1605.07146) or cut it into groups (Xie et al. 2016, "Aggregated Residual
Transformations for Deep Neural Networks", arXiv:1611.05431, table 2).

Departure from the paper: where a bottleneck halves its maps, the stride is in the 3x3 convolution
("version 1.5", as in torchvision), not in the first 1x1; `stride_in_1x1=True` puts it there. Weights
from Keras want that, `use_bias=True` and `epsilon=1.001e-5`, with which they were trained.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from flax import linen as nn
from jax import Array

from jaxnets.errors import InputError, unknown_name
from jaxnets.layers import (
    NORMS,
    Conv,
    DropPath,
    LinearHead,
    NonLocalBlock,
    drop_path_rates,
    max_pool,
    norm_layer,
)
from jaxnets.layers.attention import NON_LOCAL_MODES
from jaxnets.models import published
from jaxnets.models.classifier import Classifier
from jaxnets.models.settings import Count, CountOrZero, Counts, NonNegative, Probability, takes_fields_of
from jaxnets.models.strides import blocks_of_stage, steps_of_stages, strides_and_dilations

PAPER = (
    "He et al. 2015, arXiv:1512.03385 (wide: Zagoruyko and Komodakis 2016, arXiv:1605.07146; "
    "ResNeXt: Xie et al. 2016, arXiv:1611.05431)"
)

VARIANTS = {
    "resnet18": {"block": "basic", "depths": (2, 2, 2, 2)},
    "resnet34": {"block": "basic", "depths": (3, 4, 6, 3)},
    "resnet50": {"depths": (3, 4, 6, 3)},
    "resnet101": {"depths": (3, 4, 23, 3)},
    "resnet152": {"depths": (3, 8, 36, 3)},
    "wide_resnet50_2": {"depths": (3, 4, 6, 3), "width_per_group": 128},
    "wide_resnet101_2": {"depths": (3, 4, 23, 3), "width_per_group": 128},
    "resnext50_1x64d": {"depths": (3, 4, 6, 3), "groups": 1, "width_per_group": 64},
    "resnext50_2x40d": {"depths": (3, 4, 6, 3), "groups": 2, "width_per_group": 40},
    "resnext50_4x24d": {"depths": (3, 4, 6, 3), "groups": 4, "width_per_group": 24},
    "resnext50_8x14d": {"depths": (3, 4, 6, 3), "groups": 8, "width_per_group": 14},
    "resnext50_32x4d": {"depths": (3, 4, 6, 3), "groups": 32, "width_per_group": 4},
    "resnext101_32x4d": {"depths": (3, 4, 23, 3), "groups": 32, "width_per_group": 4},
    "resnext101_32x8d": {"depths": (3, 4, 23, 3), "groups": 32, "width_per_group": 8},
    "resnext101_64x4d": {"depths": (3, 4, 23, 3), "groups": 64, "width_per_group": 4},
}

_KERAS_FILE = "resnet/resnet{}_weights_tf_dim_ordering_tf_kernels.h5"
_OF_KERAS = {
    "license": "MIT",
    "settings": {"stride_in_1x1": True, "use_bias": True, "epsilon": 1.001e-5},
}
_SLIM_FILE = "resnet_v1_{}_2016_08_28.tar.gz"
_OF_SLIM = {
    "mean": published.VGG_MEAN,
    "std": published.VGG_STD,
    "settings": {"stride_last": True, "tf_padding": True},
}
WEIGHTS = {
    "resnet18": (
        published.timm("resnet18.a1_in1k", 73.16, size=288, crop=1.0),
        published.torchvision("resnet18-f37072fd.pth", "resnet18", 69.76),
    ),
    "resnet34": (
        published.timm(
            "resnet34.ra4_e3600_r224_in1k",
            78.97,
            size=288,
            crop=1.0,
            mean=published.HALVES,
            std=published.HALVES,
        ),
        published.torchvision("resnet34-b627a593.pth", "resnet34", 73.31),
    ),
    "resnet50": (
        published.timm("resnet50.a1_in1k", 81.24, size=288, crop=1.0),
        published.torchvision("resnet50-11ad3fa6.pth", "resnet50", 80.86, resize=232),
        published.torchvision("resnet50-0676ba61.pth", "resnet50", 76.13),
        published.keras(_KERAS_FILE.format(50), "ResNet50", 74.928, "caffe", **_OF_KERAS),
        published.slim(_SLIM_FILE.format(50), "resnet_v1_50", 75.2, **_OF_SLIM),
    ),
    "resnet101": (
        published.timm("resnet101.a1h_in1k", 82.80, size=288, crop=1.0),
        published.torchvision("resnet101-cd907fc2.pth", "resnet101", 81.89, resize=232),
        published.torchvision("resnet101-63fe2227.pth", "resnet101", 77.37),
        published.keras(_KERAS_FILE.format(101), "ResNet101", 76.420, "caffe", **_OF_KERAS),
        published.slim(_SLIM_FILE.format(101), "resnet_v1_101", 76.4, **_OF_SLIM),
    ),
    "resnet152": (
        published.timm("resnet152.a1h_in1k", 83.49, size=288, crop=1.0),
        published.torchvision("resnet152-f82ba261.pth", "resnet152", 82.28, resize=232),
        published.torchvision("resnet152-394f9c45.pth", "resnet152", 78.31),
        published.keras(_KERAS_FILE.format(152), "ResNet152", 76.604, "caffe", **_OF_KERAS),
        published.slim(_SLIM_FILE.format(152), "resnet_v1_152", 76.8, **_OF_SLIM),
    ),
    "wide_resnet50_2": (
        published.timm("wide_resnet50_2.racm_in1k", 82.26, size=288, crop=0.95),
        published.torchvision("wide_resnet50_2-9ba9bcbe.pth", "wide_resnet50_2", 81.60, resize=232),
        published.torchvision("wide_resnet50_2-95faca4d.pth", "wide_resnet50_2", 78.47),
    ),
    "wide_resnet101_2": (
        published.torchvision("wide_resnet101_2-d733dc28.pth", "wide_resnet101_2", 82.51, resize=232),
        published.torchvision("wide_resnet101_2-32ee1156.pth", "wide_resnet101_2", 78.85),
    ),
    "resnext50_32x4d": (
        published.timm("resnext50_32x4d.a1h_in1k", 82.02, size=288, crop=1.0),
        published.torchvision("resnext50_32x4d-1a0047aa.pth", "resnext50_32x4d", 81.20, resize=232),
        published.torchvision("resnext50_32x4d-7cdf4587.pth", "resnext50_32x4d", 77.62),
    ),
    "resnext101_32x4d": (published.timm("resnext101_32x4d.gluon_in1k", 80.34),),
    "resnext101_32x8d": (
        published.torchvision("resnext101_32x8d-110c445d.pth", "resnext101_32x8d", 82.83, resize=232),
        published.torchvision("resnext101_32x8d-8ba56ff5.pth", "resnext101_32x8d", 79.31),
    ),
    "resnext101_64x4d": (
        published.torchvision("resnext101_64x4d-173b62eb.pth", "resnext101_64x4d", 83.25, resize=232),
    ),
}

_LAYER = "resnet.encoder.stages.{s-1}.layers.{b-1}"
_RENAMES = (
    ("backbone/stem/{layer}", "{layer}"),
    ("backbone/stage{s}_block{b}/downsample_conv", "layer{s}.{b-1}.downsample.0"),
    ("backbone/stage{s}_block{b}/downsample_bn", "layer{s}.{b-1}.downsample.1"),
    ("backbone/stage{s}_block{b}/{layer}", "layer{s}.{b-1}.{layer}"),
    ("head/fc", "fc"),
)
_HUGGING_FACE = (
    ("backbone/stem/conv1", "resnet.embedder.embedder.convolution"),
    ("backbone/stem/bn1", "resnet.embedder.embedder.normalization"),
    ("backbone/stage{s}_block{b}/conv{i}", f"{_LAYER}.layer.{{i-1}}.convolution"),
    ("backbone/stage{s}_block{b}/bn{i}", f"{_LAYER}.layer.{{i-1}}.normalization"),
    ("backbone/stage{s}_block{b}/downsample_conv", f"{_LAYER}.shortcut.convolution"),
    ("backbone/stage{s}_block{b}/downsample_bn", f"{_LAYER}.shortcut.normalization"),
    ("head/fc", "classifier.1"),
)
_KERAS = (
    ("backbone/stem/{kind}1", "conv1_{kind}"),
    ("backbone/stage{s}_block{b}/downsample_{kind}", "conv{s+1}_block{b}_0_{kind}"),
    ("backbone/stage{s}_block{b}/conv{i}", "conv{s+1}_block{b}_{i}_conv"),
    ("backbone/stage{s}_block{b}/bn{i}", "conv{s+1}_block{b}_{i}_bn"),
    ("head/fc", "predictions"),
)


def _slim(model: Classifier) -> list[tuple[str, ...]]:
    """A net's name is the scope of its layers."""
    scope = model.model_name.replace("resnet", "resnet_v1_")
    block = f"{scope}.block{{s}}.unit_{{b}}.bottleneck_v1"
    return [
        ("backbone/stem/conv1", f"{scope}.conv1"),
        ("backbone/stem/bn1", f"{scope}.conv1.BatchNorm"),
        ("backbone/stage{s}_block{b}/downsample_conv", f"{block}.shortcut"),
        ("backbone/stage{s}_block{b}/downsample_bn", f"{block}.shortcut.BatchNorm"),
        ("backbone/stage{s}_block{b}/conv{i}", f"{block}.conv{{i}}"),
        ("backbone/stage{s}_block{b}/bn{i}", f"{block}.conv{{i}}.BatchNorm"),
        ("head/fc", f"{scope}.logits", "i o -> o i 1 1"),
    ]


RENAMES = {
    "torchvision": _RENAMES,
    "timm": _RENAMES,
    "keras": _KERAS,
    "slim": _slim,
    "transformers": _HUGGING_FACE,
}


def backbone_rules(prefix: str) -> list[tuple[str, str]]:
    """The rules of torchvision's names of the backbone, within a model that calls it `prefix`; may be
    empty."""
    start = f"{prefix}." if prefix else ""
    return [(ours, start + theirs) for ours, theirs in _RENAMES if ours.startswith("backbone/")]


_HE_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
_conv = partial(Conv, kernel_init=_HE_FAN_OUT)


class Stem(nn.Module):
    """The first convolution: 7x7 at stride 2, or 3x3 at stride 1 for small images."""

    small_input: bool
    norm: Callable[..., nn.Module]
    use_bias: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv = partial(_conv, 64, use_bias=self.use_bias, name="conv1")
        x = conv(3, padding=1)(x) if self.small_input else conv(7, strides=2, padding=3)(x)
        return nn.relu(self.norm(name="bn1")(x))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (figure 5, left).

    Attributes:
        planes: the channels of both.
        stride: of the first.
        dilations: of both.
        drop_path: probability of dropping the residual branch.
        norm: `norm(name=...)` makes a normalization.
        use_bias: whether the convolutions have biases.
    """

    planes: int
    stride: int
    dilations: tuple[int, int]
    drop_path: float
    norm: Callable[..., nn.Module]
    use_bias: bool

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        first, second = self.dilations
        conv3x3 = partial(_conv3x3, self.planes, use_bias=self.use_bias)
        y = conv3x3(strides=self.stride, dilation=first, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y))
        y = conv3x3(dilation=second, name="conv2")(y)
        y = self.norm(name="bn2")(y)
        y = DropPath(self.drop_path, name="drop_path")(y, deterministic=not train)
        return nn.relu(_shortcut(x, self.planes, self.stride, self.norm, self.use_bias) + y)


class Bottleneck(nn.Module):
    """A 1x1 convolution that narrows, a 3x3, a 1x1 that widens, and a shortcut (figure 5, right).

    Attributes:
        planes: a quarter of the channels that come out, and those of the 3x3 in a plain ResNet.
        stride: of the 3x3, or of the first 1x1.
        dilations: of the 3x3 where it has the stride, and where the first 1x1 has it.
        drop_path: probability of dropping the residual branch.
        norm: `norm(name=...)` makes a normalization.
        use_bias: whether the convolutions have biases.
        groups: of the 3x3.
        width_per_group: channels in a group of the 3x3 where `planes` is 64.
        stride_in_1x1: where the stride is.
    """

    planes: int
    stride: int
    dilations: tuple[int, int]
    drop_path: float
    norm: Callable[..., nn.Module]
    use_bias: bool
    groups: int
    width_per_group: int
    stride_in_1x1: bool

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        width = self.planes * self.width_per_group // 64 * self.groups
        stride1, stride2 = (self.stride, 1) if self.stride_in_1x1 else (1, self.stride)
        dilation = self.dilations[self.stride_in_1x1]
        conv = partial(_conv, use_bias=self.use_bias)
        conv3x3 = partial(_conv3x3, use_bias=self.use_bias, groups=self.groups)
        y = conv(width, 1, strides=stride1, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y))
        y = conv3x3(width, strides=stride2, dilation=dilation, name="conv2")(y)
        y = nn.relu(self.norm(name="bn2")(y))
        y = conv(4 * self.planes, 1, name="conv3")(y)
        y = self.norm(name="bn3")(y)
        y = DropPath(self.drop_path, name="drop_path")(y, deterministic=not train)
        return nn.relu(_shortcut(x, 4 * self.planes, self.stride, self.norm, self.use_bias) + y)


def _conv3x3(features: int, dilation: int, **settings: Any) -> nn.Conv:
    """A 3x3 convolution that keeps the size of the maps at stride 1."""
    return _conv(features, 3, padding=dilation, dilation=dilation, **settings)


def _shortcut(
    x: Array, channels: int, stride: int, norm: Callable[..., nn.Module], use_bias: bool
) -> Array:
    """The identity or, where the number of channels changes, a 1x1 convolution (option B of section
    3.3). Where only the size does, every other position."""
    if x.shape[-1] == channels:
        return x if stride == 1 else x[:, ::stride, ::stride]
    x = _conv(channels, 1, strides=stride, use_bias=use_bias, name="downsample_conv")(x)
    return norm(name="downsample_bn")(x)


class ResNet(nn.Module):
    """A stem and stages of residual blocks.

    Attributes:
        depths: blocks in each stage.
        block: "basic" or "bottleneck".
        groups: groups of the bottleneck's 3x3 convolution (ResNeXt's cardinality).
        width_per_group: channels of each group in the first stage; they double with each stage.
        stride_in_1x1: True for the paper's place of the bottleneck's stride.
        stride_last: whether the last block of a stage halves the maps for the next, instead of the first
            block of that (as in TF-Slim): the maps of all stages but the last are then half as large.
        use_bias: whether the convolutions have biases, as in Keras.
        small_input: for images of 32 x 32, down to 8 x 8: the stem is a 3x3 convolution at stride 1
            and there is no max-pool.
        output_stride: the largest stride of a map. Stages that would exceed it are dilated instead
            (`strides_and_dilations`); their maps are larger, their parameters the same. Bottlenecks
            are torchvision's with `replace_stride_with_dilation`, which has no dilated basic blocks.
        dilate_first: whether the convolution that loses its stride is dilated like those behind it, as
            in segmentation_models_pytorch.
        ceil_pool: whether the max-pool rounds sizes up, as in Caffe's nets.
        tf_padding: pads the max-pool as TensorFlow's "SAME": where a map has an even side, below and
            right only.
        norm: "batch"; "frozen" for batch normalization that is not trained; or "group" for group
            normalization with 32 groups (Wu and He 2018, "Group Normalization", arXiv:1803.08494).
        epsilon: added to the variance by the normalizations.
        non_local: the stages, by the names of their maps, that end in a non-local block (Wang et al.
            2018, "Non-local Neural Networks", arXiv:1711.07971). It starts as the identity, so a
            trained net can be given one. Memory grows with the square of the positions in a map.
        non_local_mode: see `jaxnets.layers.NonLocalBlock`.
        drop_path: probability of dropping the residual branch of the last block; it grows linearly
            from the first (Huang et al. 2016, "Deep Networks with Stochastic Depth",
            arXiv:1603.09382).
    """

    depths: Counts
    block: Literal["basic", "bottleneck"] = "bottleneck"
    groups: Count = 1
    width_per_group: Count = 64
    stride_in_1x1: bool = False
    stride_last: bool = False
    use_bias: bool = False
    small_input: bool = False
    output_stride: Literal[8, 16, 32] = 32
    dilate_first: bool = False
    ceil_pool: bool = False
    tf_padding: bool = False
    norm: Literal[NORMS] = "batch"
    epsilon: NonNegative = 1e-5
    non_local: tuple[str, ...] = ()
    non_local_mode: Literal[NON_LOCAL_MODES] = "embedded_gaussian"
    drop_path: Probability = 0.0

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `stem` (stride 2, before the max-pool) and `stage1` ... `stage4`
        (strides 4 to 32, up to `output_stride`); with `small_input` the strides are 1 and 1 to 8."""
        norm = norm_layer(self.norm, train, self.epsilon)
        block = {
            "basic": BasicBlock,
            "bottleneck": partial(
                Bottleneck,
                groups=self.groups,
                width_per_group=self.width_per_group,
                stride_in_1x1=self.stride_in_1x1,
            ),
        }[self.block]
        rates = iter(drop_path_rates(self.drop_path, sum(self.depths)))
        out = {}
        x = out["stem"] = Stem(self.small_input, norm, self.use_bias, name="stem")(images)
        if not self.small_input:
            padding = "SAME" if self.tf_padding else 1
            x = max_pool(x, 3, strides=2, padding=padding, ceil_mode=self.ceil_pool)
        steps = steps_of_stages(len(self.depths), self.stride_last)
        geometry = strides_and_dilations(steps, self.stem_stride, self.output_stride)
        for stage, (depth, (stride, dilations)) in enumerate(
            zip(self.depths, geometry, strict=True), start=1
        ):
            if self.dilate_first:
                dilations = dilations[1:] * 2
            blocks = blocks_of_stage(depth, stride, dilations, self.stride_last)
            for i, (stride, dilations) in enumerate(blocks, start=1):
                x = block(
                    planes=32 * 2**stage,
                    stride=stride,
                    dilations=dilations,
                    drop_path=next(rates),
                    norm=norm,
                    use_bias=self.use_bias,
                    name=f"stage{stage}_block{i}",
                )(x, train)
            if f"stage{stage}" in self.non_local:
                x = NonLocalBlock(self.non_local_mode, name=f"stage{stage}_non_local")(x)
            out[f"stage{stage}"] = x
        return out

    @property
    def stem_stride(self) -> int:
        """The stride of the maps that the first stage reads."""
        return 1 if self.small_input else 4


@takes_fields_of(ResNet)
def build(*, num_classes: CountOrZero = 1000, dropout: Probability = 0.0, **settings: Any) -> Classifier:
    """A ResNet for 224 x 224 images; accepts any of at least 32 x 32.

    Args:
        num_classes: 0 for the mean of the last maps.
        dropout: rate before the dense layer.
        **settings: see `ResNet`.

    Raises:
        InputError: an unknown stage, a setting of the bottleneck for the basic block, or channels that
            cannot be cut into 32 groups.
    """
    backbone = ResNet(**settings)
    bottleneck = (backbone.groups, backbone.width_per_group, backbone.stride_in_1x1)
    if backbone.block == "basic" and bottleneck != (1, 64, False):
        raise InputError(
            "groups, width_per_group and stride_in_1x1 belong to the bottleneck and this net has "
            'basic blocks; leave them out, or give block="bottleneck"'
        )
    width = backbone.groups * backbone.width_per_group
    if backbone.norm == "group" and width % 32:
        raise InputError(
            f'norm: "group" wants multiples of 32 channels, and the 3x3 convolutions have {width}; '
            'give other groups and width_per_group, or norm="batch"'
        )
    stages = [f"stage{i}" for i in range(1, len(backbone.depths) + 1)]
    for name in backbone.non_local:
        if name not in stages:
            raise unknown_name("stage", name, stages)
    side = 32 if backbone.small_input else 224
    return Classifier(
        backbone=backbone,
        head=LinearHead(num_classes, dropout),
        num_classes=num_classes,
        input_size=(side, side, 3),
        min_size=min(backbone.stem_stride * 2 ** (len(stages) - 1), backbone.output_stride),
    )
