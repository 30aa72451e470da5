"""MobileNetV2. Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
arXiv:1801.04381, tables 1 and 2.

Departures from the paper, which leaves it open: zeros on all sides of the maps, as in torchvision
and timm. Weights from Keras want the `tf_padding=True` and `epsilon=1e-3` they were trained with.
Kernels are drawn by He's rule.
"""

from collections.abc import Iterator
from functools import partial
from typing import Literal

from flax import linen as nn
from jax import Array

from jaxnets.layers import BatchNorm, Conv, DropPath, LinearHead, drop_path_rates, relu6
from jaxnets.models import published, slim_names
from jaxnets.models.classifier import Classifier
from jaxnets.models.mobilenet_v1 import Stem, scaled_channels
from jaxnets.models.settings import CountOrZero, Positive, Probability
from jaxnets.models.strides import strides_and_dilations

PAPER = "Sandler et al. 2018, arXiv:1801.04381"

VARIANTS = {
    "mobilenet_v2_100": {"width": 1.0},
    "mobilenet_v2_140": {"width": 1.4},
}

_KERAS_FILE = "mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{}_224.h5"
_FROM_TF = {"tf_padding": True, "epsilon": 1e-3}
_slim_weights = partial(published.slim, bucket="mobilenet_v2/checkpoints", settings=_FROM_TF)
WEIGHTS = {
    "mobilenet_v2_100": (
        published.timm("mobilenetv2_100.ra_in1k", 72.91),
        published.torchvision("mobilenet_v2-7ebf99e0.pth", "mobilenet_v2", 72.15, resize=232),
        published.torchvision("mobilenet_v2-b0353104.pth", "mobilenet_v2", 71.88),
        published.keras(_KERAS_FILE.format("1.0"), "MobileNetV2", 71.336, "tf", settings=_FROM_TF),
        _slim_weights("mobilenet_v2_1.0_224.tgz", "mobilenet_v2", 71.9),
    ),
    "mobilenet_v2_140": (
        published.timm("mobilenetv2_140.ra_in1k", 76.52),
        published.keras(_KERAS_FILE.format("1.4"), "MobileNetV2", 75.230, "tf", settings=_FROM_TF),
        _slim_weights("mobilenet_v2_1.4_224.tgz", "mobilenet_v2_140", 74.9),
    ),
}

# Table 2: expansion t, channels c, blocks n and stride s of the first block.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """A 1x1 convolution that widens, a depthwise 3x3, and a 1x1 that narrows, without activation
    after it (table 1); with a shortcut from bottleneck to bottleneck where the shape stays.

    Attributes:
        features: channels that come out.
        expansion: how much wider it is within; at 1 the first convolution is left out.
        stride: of the depthwise convolution.
        drop_path: probability of dropping the residual branch, where there is a shortcut.
        epsilon: of the batch normalizations.
        tf_padding: see `build`.
        dilation: of the depthwise convolution.
    """

    features: int
    expansion: int
    stride: int
    drop_path: float
    epsilon: float = 1e-5
    tf_padding: bool = False
    dilation: int = 1

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        norm = partial(BatchNorm, use_running_average=not train, epsilon=self.epsilon)
        hidden = x.shape[-1] * self.expansion
        y = x
        if self.expansion > 1:
            y = Conv(hidden, 1, use_bias=False, name="expand")(y)
            y = relu6(norm(name="expand_bn")(y))
        y = Conv(
            hidden,
            3,
            strides=self.stride,
            padding="SAME" if self.tf_padding else self.dilation,
            dilation=self.dilation,
            groups=hidden,
            use_bias=False,
            name="depthwise",
        )(y)
        y = relu6(norm(name="depthwise_bn")(y))
        y = Conv(self.features, 1, use_bias=False, name="project")(y)
        y = norm(name="project_bn")(y)
        if x.shape != y.shape:
            return y
        return x + DropPath(self.drop_path, name="drop_path")(y, deterministic=not train)


class MobileNetV2(nn.Module):
    """A stem, seven stages of inverted residuals and a 1x1 convolution.

    Attributes:
        width: scales the channels of every layer; those of the last one are never scaled down.
        drop_path: of the last block; it grows linearly from the first.
        epsilon, tf_padding, output_stride: see `build`.
    """

    width: float
    drop_path: float
    epsilon: float
    tf_padding: bool
    output_stride: int

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `stem` (stride 2), `stage1` ... `stage7` (strides 2, 4, 8, 16, 16,
        32, 32, up to `output_stride`) and `last_conv` (stride 32)."""
        rates = iter(drop_path_rates(self.drop_path, sum(n for _, _, n, _ in _STAGES)))
        settings = {"epsilon": self.epsilon, "tf_padding": self.tf_padding}
        out = {}
        x = Stem(scaled_channels(32, self.width), **settings, name="stem")(images, train)
        out["stem"] = x
        steps = [stride for _, _, _, stride in _STAGES]
        geometry = strides_and_dilations(steps, 2, self.output_stride)
        for stage, ((expansion, channels, depth, _), (stride, dilations)) in enumerate(
            zip(_STAGES, geometry, strict=True), start=1
        ):
            for i in range(1, depth + 1):
                x = InvertedResidual(
                    scaled_channels(channels, self.width),
                    expansion,
                    stride if i == 1 else 1,
                    next(rates),
                    **settings,
                    dilation=dilations[i > 1],
                    name=f"stage{stage}_block{i}",
                )(x, train)
            out[f"stage{stage}"] = x
        last = scaled_channels(1280, max(1.0, self.width))
        x = Conv(last, 1, use_bias=False, name="last_conv")(x)
        x = BatchNorm(use_running_average=not train, epsilon=self.epsilon, name="last_bn")(x)
        out["last_conv"] = relu6(x)
        return out


def build(
    *,
    num_classes: CountOrZero = 1000,
    width: Positive,
    epsilon: Positive = 1e-5,
    tf_padding: bool = False,
    drop_path: Probability = 0.0,
    dropout: Probability = 0.2,
    output_stride: Literal[8, 16, 32] = 32,
) -> Classifier:
    """A MobileNetV2 for 224 x 224 images; accepts any of at least 32 x 32.

    Args:
        num_classes: 0 for the mean of the last maps.
        width: scales the channels of every layer, but the last one only up (section 4.1).
        epsilon: of the batch normalizations.
        tf_padding: pads as TensorFlow's "SAME", as in Keras: where the stride is 2 and a map has an even
            side, below and right only.
        drop_path: probability of dropping the residual branch of the last block; it grows
            linearly from the first (Huang et al. 2016, arXiv:1603.09382).
        dropout: rate before the dense layer; 0.2 in torchvision.
        output_stride: the largest stride of a map; stages that would exceed it are dilated instead
            (`strides_and_dilations`).
    """
    return Classifier(
        backbone=MobileNetV2(width, drop_path, epsilon, tf_padding, output_stride),
        head=LinearHead(num_classes, dropout),
        num_classes=num_classes,
        input_size=(224, 224, 3),
        min_size=32,
    )


_TIMM = (
    ("backbone/stem/conv", "conv_stem"),
    ("backbone/stem/bn", "bn1"),
    ("backbone/stage1_block1/depthwise", "blocks.0.0.conv_dw"),
    ("backbone/stage1_block1/depthwise_bn", "blocks.0.0.bn1"),
    ("backbone/stage1_block1/project", "blocks.0.0.conv_pw"),
    ("backbone/stage1_block1/project_bn", "blocks.0.0.bn2"),
    ("backbone/stage{s}_block{b}/expand", "blocks.{s-1}.{b-1}.conv_pw"),
    ("backbone/stage{s}_block{b}/expand_bn", "blocks.{s-1}.{b-1}.bn1"),
    ("backbone/stage{s}_block{b}/depthwise", "blocks.{s-1}.{b-1}.conv_dw"),
    ("backbone/stage{s}_block{b}/depthwise_bn", "blocks.{s-1}.{b-1}.bn2"),
    ("backbone/stage{s}_block{b}/project", "blocks.{s-1}.{b-1}.conv_pwl"),
    ("backbone/stage{s}_block{b}/project_bn", "blocks.{s-1}.{b-1}.bn3"),
    ("backbone/last_conv", "conv_head"),
    ("backbone/last_bn", "bn2"),
    ("head/fc", "classifier"),
)


def _torchvision() -> tuple[tuple[str, str], ...]:
    """Stem, blocks and last convolution are numbered through there, layers in nested sequences."""
    rules = [("backbone/stem/conv", "features.0.0"), ("backbone/stem/bn", "features.0.1")]
    position = 1
    for stage, (expansion, _, depth, _) in enumerate(_STAGES, start=1):
        for i in range(1, depth + 1):
            here, there = f"backbone/stage{stage}_block{i}", f"features.{position}.conv"
            activated = ["expand", "depthwise"] if expansion > 1 else ["depthwise"]
            for j, layer in enumerate(activated):
                rules.append((f"{here}/{layer}", f"{there}.{j}.0"))
                rules.append((f"{here}/{layer}_bn", f"{there}.{j}.1"))
            rules.append((f"{here}/project", f"{there}.{len(activated)}"))
            rules.append((f"{here}/project_bn", f"{there}.{len(activated) + 1}"))
            position += 1
    return (
        *rules,
        ("backbone/last_conv", f"features.{position}.0"),
        ("backbone/last_bn", f"features.{position}.1"),
        ("head/fc", "classifier.1"),
    )


def _blocks() -> Iterator[tuple[str, int]]:
    """The paths of the blocks, and their numbers from 0 where they are numbered through."""
    counts = enumerate((depth for _, _, depth, _ in _STAGES), start=1)
    paths = (f"backbone/stage{stage}_block{i}" for stage, depth in counts for i in range(1, depth + 1))
    return ((path, number) for number, path in enumerate(paths))


def _keras() -> tuple[tuple[str, str], ...]:
    """Blocks are numbered through there, and the first has another name."""
    rules = [("backbone/stem/conv", "Conv1"), ("backbone/stem/bn", "bn_Conv1")]
    for here, number in _blocks():
        there = f"block_{number}" if number else "expanded_conv"
        rules.append((f"{here}/{{layer}}_bn", f"{there}_{{layer}}_BN"))
        rules.append((f"{here}/{{layer}}", f"{there}_{{layer}}"))
    return (
        *rules,
        ("backbone/last_conv", "Conv_1"),
        ("backbone/last_bn", "Conv_1_bn"),
        ("head/fc", "predictions"),
    )


def _slim() -> tuple[tuple[str, ...], ...]:
    """Blocks are numbered through there, but for the first."""
    rules = [*slim_names.unit("backbone/stem", "MobilenetV2.Conv")]
    for here, number in _blocks():
        there = "MobilenetV2.expanded_conv" + (f"_{number}" if number else "")
        rules.append((f"{here}/{{layer}}_bn", f"{there}.{{layer}}.BatchNorm"))
        rules.append((f"{here}/depthwise", f"{there}.depthwise.depthwise"))
        rules.append((f"{here}/{{layer}}", f"{there}.{{layer}}"))
    return (
        *rules,
        ("backbone/last_conv", "MobilenetV2.Conv_1"),
        ("backbone/last_bn", "MobilenetV2.Conv_1.BatchNorm"),
        ("head/fc", "MobilenetV2.Logits.Conv2d_1c_1x1", "i o -> o i 1 1"),
    )


RENAMES = {"torchvision": _torchvision(), "timm": _TIMM, "keras": _keras(), "slim": _slim()}
