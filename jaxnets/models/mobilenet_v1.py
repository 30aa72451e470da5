"""MobileNet. Howard et al. 2017, "MobileNets: Efficient Convolutional Neural Networks for Mobile
Vision Applications", arXiv:1704.04861, table 1.

Departures from the paper, which leaves them open: ReLU6, as in the authors' program; zeros on all
sides of the maps, as in timm. Weights from Keras want the `tf_padding=True` and `epsilon=1e-3` they
were trained with. Kernels are drawn by He's rule.
"""

from functools import partial

from flax import linen as nn
from jax import Array

from jaxnets.layers import BatchNorm, Conv, LinearHead, relu6
from jaxnets.models import published
from jaxnets.models.classifier import Classifier
from jaxnets.models.settings import CountOrZero, Positive, Probability

PAPER = "Howard et al. 2017, arXiv:1704.04861"

VARIANTS = {
    "mobilenet_v1_100": {"width": 1.0},
    "mobilenet_v1_050": {"width": 0.5},
    "mobilenet_v1_025": {"width": 0.25},
}

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


def _keras() -> tuple[tuple[str, ...], ...]:
    """Blocks are numbered through there."""
    rules, number = [], 0
    for stage, (_, depth) in enumerate(_STAGES, start=1):
        for i in range(1, depth + 1):
            number += 1
            block = f"backbone/stage{stage}_block{i}"
            for layer, short in (("depthwise", "dw"), ("pointwise", "pw")):
                rules.append((f"{block}/{layer}", f"conv_{short}_{number}"))
                rules.append((f"{block}/{layer}_bn", f"conv_{short}_{number}_bn"))
    return (
        ("backbone/stem/conv", "conv1"),
        ("backbone/stem/bn", "conv1_bn"),
        *rules,
        ("head/fc", "conv_preds", "i o -> o i 1 1"),
    )


RENAMES = {"timm": _TIMM, "keras": _keras()}


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
    """

    features: int
    stride: int
    epsilon: float
    tf_padding: bool

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        norm = partial(BatchNorm, use_running_average=not train, epsilon=self.epsilon)
        channels = x.shape[-1]
        x = Conv(
            channels,
            3,
            strides=self.stride,
            padding=((0, 1), (0, 1)) if self.tf_padding and self.stride == 2 else 1,
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

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `stem` (stride 2) and `stage1` ... `stage5` (strides 2 to 32)."""
        settings = {"epsilon": self.epsilon, "tf_padding": self.tf_padding}
        out = {}
        x = Stem(scaled_channels(32, self.width), **settings, name="stem")(images, train)
        out["stem"] = x
        for stage, (channels, depth) in enumerate(_STAGES, start=1):
            for i in range(1, depth + 1):
                x = DepthwiseSeparable(
                    scaled_channels(channels, self.width),
                    stride=2 if i == 1 and stage > 1 else 1,
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
) -> Classifier:
    """A MobileNet for 224 x 224 images; accepts any of at least 32 x 32.

    Args:
        num_classes: 0 for the mean of the last maps.
        width: scales the channels of every layer (the paper's alpha, section 3.3).
        epsilon: of the batch normalizations.
        tf_padding: pads below and right only where the stride is 2 (the first convolution as
            TensorFlow's "SAME"), as in Keras.
        dropout: rate before the dense layer.
    """
    return Classifier(
        backbone=MobileNetV1(width, epsilon, tf_padding),
        head=LinearHead(num_classes, dropout),
        num_classes=num_classes,
        input_size=(224, 224, 3),
        min_size=32,
    )
