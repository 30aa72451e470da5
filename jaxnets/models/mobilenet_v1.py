"""MobileNet. Howard et al. 2017, "MobileNets: Efficient Convolutional Neural Networks for Mobile
Vision Applications", arXiv:1704.04861, table 1.

Departures from the paper, which leaves them open: ReLU6, as in the authors' program; zeros on all
sides of the maps, as in timm. Weights from Keras want the `tf_padding=True` and `epsilon=1e-3` they
were trained with. Kernels are drawn by He's rule.
"""

from collections.abc import Iterator
from functools import partial
from typing import Literal

from flax import linen as nn
from jax import Array

from jaxnets.layers import BatchNorm, Conv, LinearHead, relu6
from jaxnets.models import published, slim_names
from jaxnets.models.classifier import Classifier
from jaxnets.models.settings import CountOrZero, Positive, Probability
from jaxnets.models.strides import strides_and_dilations

PAPER = "Howard et al. 2017, arXiv:1704.04861"

VARIANTS = {
    "mobilenet_v1_100": {"width": 1.0},
    "mobilenet_v1_050": {"width": 0.5},
    "mobilenet_v1_025": {"width": 0.25},
}

_KERAS_FILE = "mobilenet/mobilenet_{}_224_tf.h5"
_SLIM_FILE = "mobilenet_v1_2018_02_22/mobilenet_v1_{}.tgz"
_FROM_TF = {"tf_padding": True, "epsilon": 1e-3}
WEIGHTS = {
    "mobilenet_v1_100": (
        published.timm(
            "mobilenetv1_100.ra4_e3600_r224_in1k",
            76.09,
            size=256,
            crop=0.95,
            mean=published.HALVES,
            std=published.HALVES,
        ),
        published.keras(_KERAS_FILE.format("1_0"), "MobileNet", 70.424, "tf", settings=_FROM_TF),
        published.slim(_SLIM_FILE.format("1.0_224"), "mobilenet_v1", 70.9, settings=_FROM_TF),
    ),
    "mobilenet_v1_050": (
        published.keras(_KERAS_FILE.format("5_0"), "MobileNet", 64.292, "tf", settings=_FROM_TF),
        published.slim(
            _SLIM_FILE.format("0.5_160"), "mobilenet_v1_050", 59.1, size=160, settings=_FROM_TF
        ),
    ),
    "mobilenet_v1_025": (
        published.keras(_KERAS_FILE.format("2_5"), "MobileNet", 51.582, "tf", settings=_FROM_TF),
        published.slim(
            _SLIM_FILE.format("0.25_128"), "mobilenet_v1_025", 41.5, size=128, settings=_FROM_TF
        ),
    ),
}

_STAGES = ((64, 1), (128, 2), (256, 2), (512, 6), (1024, 2))  # channels and blocks of each

_TIMM = (
    ("backbone/stem/conv", "conv_stem"),
    ("backbone/stem/bn", "bn1"),
    ("backbone/stage{s}_block{b}/depthwise", "blocks.{s-1}.{b-1}.conv_dw"),
    ("backbone/stage{s}_block{b}/depthwise_bn", "blocks.{s-1}.{b-1}.bn1"),
    ("backbone/stage{s}_block{b}/pointwise", "blocks.{s-1}.{b-1}.conv_pw"),
    ("backbone/stage{s}_block{b}/pointwise_bn", "blocks.{s-1}.{b-1}.bn2"),
    ("head/fc", "classifier"),
)


def _blocks() -> Iterator[tuple[str, int]]:
    """The paths of the blocks, and their numbers where they are numbered through."""
    counts = enumerate((depth for _, depth in _STAGES), start=1)
    paths = (f"backbone/stage{stage}_block{i}" for stage, depth in counts for i in range(1, depth + 1))
    return ((path, number) for number, path in enumerate(paths, start=1))


def _keras() -> tuple[tuple[str, ...], ...]:
    """Blocks are numbered through there."""
    rules = []
    for block, number in _blocks():
        for layer, short in (("depthwise", "dw"), ("pointwise", "pw")):
            rules.append((f"{block}/{layer}", f"conv_{short}_{number}"))
            rules.append((f"{block}/{layer}_bn", f"conv_{short}_{number}_bn"))
    return (
        ("backbone/stem/conv", "conv1"),
        ("backbone/stem/bn", "conv1_bn"),
        *rules,
        ("head/fc", "conv_preds", "i o -> o i 1 1"),
    )


def _slim() -> tuple[tuple[str, ...], ...]:
    """Blocks are numbered through there too, the stem as 0."""
    rules = [*slim_names.unit("backbone/stem", "MobilenetV1.Conv2d_0")]
    for block, number in _blocks():
        scope = f"MobilenetV1.Conv2d_{number}"
        rules += [
            (f"{block}/depthwise", f"{scope}_depthwise.depthwise"),
            (f"{block}/pointwise", f"{scope}_pointwise"),
            (f"{block}/{{layer}}_bn", f"{scope}_{{layer}}.BatchNorm"),
        ]
    return (*rules, ("head/fc", "MobilenetV1.Logits.Conv2d_1c_1x1", "i o -> o i 1 1"))


RENAMES = {"timm": _TIMM, "keras": _keras(), "slim": _slim()}


class Stem(nn.Module):
    """The first convolution, 3x3 at stride 2.

    Attributes:
        features: its channels.
        epsilon: of the batch normalization.
        tf_padding: see `build`.
    """

    features: int
    epsilon: float = 1e-5
    tf_padding: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        padding = "SAME" if self.tf_padding else 1
        conv = Conv(self.features, 3, strides=2, padding=padding, use_bias=False, name="conv")
        norm = BatchNorm(use_running_average=not train, epsilon=self.epsilon, name="bn")
        return relu6(norm(conv(x)))


class DepthwiseSeparable(nn.Module):
    """A 3x3 convolution of each channel by itself, then a 1x1 over all of them (figure 3, right).

    Attributes:
        features: channels that come out.
        stride: of the depthwise convolution.
        epsilon: of the batch normalizations.
        tf_padding: see `build`.
        dilation: of the depthwise convolution.
    """

    features: int
    stride: int
    epsilon: float
    tf_padding: bool
    dilation: int = 1

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        norm = partial(BatchNorm, use_running_average=not train, epsilon=self.epsilon)
        channels = x.shape[-1]
        x = Conv(
            channels,
            3,
            strides=self.stride,
            padding=((0, 1), (0, 1)) if self.tf_padding and self.stride == 2 else self.dilation,
            dilation=self.dilation,
            groups=channels,
            use_bias=False,
            name="depthwise",
        )(x)
        x = relu6(norm(name="depthwise_bn")(x))
        x = Conv(self.features, 1, use_bias=False, name="pointwise")(x)
        return relu6(norm(name="pointwise_bn")(x))


class MobileNetV1(nn.Module):
    """A stem and stages of depthwise separable convolutions; the arguments are those of `build`."""

    width: float
    epsilon: float
    tf_padding: bool
    output_stride: int

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `stem` (stride 2) and `stage1` ... `stage5` (strides 2 to 32, up to
        `output_stride`)."""
        settings = {"epsilon": self.epsilon, "tf_padding": self.tf_padding}
        out = {}
        x = Stem(scaled_channels(32, self.width), **settings, name="stem")(images, train)
        out["stem"] = x
        geometry = strides_and_dilations(len(_STAGES), 2, self.output_stride)
        for stage, ((channels, depth), (stride, dilations)) in enumerate(
            zip(_STAGES, geometry, strict=True), start=1
        ):
            for i in range(1, depth + 1):
                x = DepthwiseSeparable(
                    scaled_channels(channels, self.width),
                    stride=stride if i == 1 else 1,
                    dilation=dilations[i > 1],
                    **settings,
                    name=f"stage{stage}_block{i}",
                )(x, train)
            out[f"stage{stage}"] = x
        return out


def scaled_channels(channels: int, width: float) -> int:
    """`channels * width` as the nearest multiple of 8, at least 8 and not below 90 % of it."""
    scaled = max(8, int(channels * width + 4) // 8 * 8)
    return scaled if scaled >= 0.9 * channels * width else scaled + 8


def build(
    *,
    num_classes: CountOrZero = 1000,
    width: Positive,
    epsilon: Positive = 1e-5,
    tf_padding: bool = False,
    dropout: Probability = 0.0,
    output_stride: Literal[8, 16, 32] = 32,
) -> Classifier:
    """A MobileNet for 224 x 224 images; accepts any of at least 32 x 32.

    Args:
        num_classes: 0 for the mean of the last maps.
        width: scales the channels of every layer (the paper's alpha, section 3.3).
        epsilon: of the batch normalizations.
        tf_padding: pads below and right only where the stride is 2 (the first convolution as
            TensorFlow's "SAME"), as in Keras.
        dropout: rate before the dense layer.
        output_stride: the largest stride of a map; stages that would exceed it are dilated instead
            (`strides_and_dilations`).
    """
    return Classifier(
        backbone=MobileNetV1(width, epsilon, tf_padding, output_stride),
        head=LinearHead(num_classes, dropout),
        num_classes=num_classes,
        input_size=(224, 224, 3),
        min_size=32,
    )
