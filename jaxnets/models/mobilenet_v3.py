"""MobileNetV3. Howard et al. 2019, "Searching for MobileNetV3", arXiv:1905.02244, tables 1 and 2.

Departures from the paper, which leaves it open: zeros on all sides of the maps, and a squeeze to a
quarter of the channels rounded to a multiple of 8, as in torchvision. Kernels are drawn by He's rule.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from flax import linen as nn
from jax import Array
from jax.nn import hard_sigmoid, hard_swish

from jaxnets.dtypes import at_least_float32
from jaxnets.layers import Conv, Dropout, SqueezeExcite, global_avg_pool, norm_layer
from jaxnets.models import published
from jaxnets.models.classifier import Classifier
from jaxnets.models.mobilenet_v1 import scaled_channels
from jaxnets.models.settings import CountOrZero, NonNegative, Probability, takes_fields_of

PAPER = "Howard et al. 2019, arXiv:1905.02244"

VARIANTS = {"mobilenet_v3_large": {"size": "large"}, "mobilenet_v3_small": {"size": "small"}}

WEIGHTS = {
    "mobilenet_v3_large": (
        published.torchvision(
            "mobilenet_v3_large-5c1a4163.pth", "mobilenet_v3_large", 75.27, resize=232
        ),
        published.torchvision("mobilenet_v3_large-8738ca79.pth", "mobilenet_v3_large", 74.04),
    ),
    "mobilenet_v3_small": (
        published.torchvision("mobilenet_v3_small-047dcff4.pth", "mobilenet_v3_small", 67.67),
    ),
}

# Tables 1 and 2, a stage for each number of channels: kernel size, channels, squeeze-and-excitation,
# hard swish instead of ReLU, stride of the first block, and the width within each block.
_STAGES = {
    "large": (
        (3, 16, False, False, 1, (16,)),
        (3, 24, False, False, 2, (64, 72)),
        (5, 40, True, False, 2, (72, 120, 120)),
        (3, 80, False, True, 2, (240, 200, 184, 184)),
        (3, 112, True, True, 1, (480, 672)),
        (5, 160, True, True, 2, (672, 960, 960)),
    ),
    "small": (
        (3, 16, True, False, 2, (16,)),
        (3, 24, False, False, 2, (72, 88)),
        (5, 40, True, True, 2, (96, 240, 240)),
        (5, 48, True, True, 1, (120, 144)),
        (5, 96, True, True, 2, (288, 576, 576)),
    ),
}
_HIDDEN = {"large": 1280, "small": 1024}

_conv = partial(Conv, use_bias=False)


class InvertedResidual(nn.Module):
    """A 1x1 convolution that widens, a depthwise one, squeeze-and-excitation, and a 1x1 that narrows,
    without activation after it (figure 4); with a shortcut where the shape stays.

    Attributes:
        features: channels that come out.
        hidden: channels within; where they are those that come in, the first convolution is left out.
        kernel, stride, dilation: of the depthwise convolution.
        squeeze: whether there is squeeze-and-excitation.
        activation: of the first two convolutions.
        norm: `norm(name=...)` makes a normalization.
    """

    features: int
    hidden: int
    kernel: int
    stride: int
    dilation: int
    squeeze: bool
    activation: Callable[[Array], Array]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = x
        if self.hidden != x.shape[-1]:
            y = _conv(self.hidden, 1, name="expand")(y)
            y = self.activation(self.norm(name="expand_bn")(y))
        y = _conv(
            self.hidden,
            self.kernel,
            strides=self.stride,
            padding=self.kernel // 2 * self.dilation,
            dilation=self.dilation,
            groups=self.hidden,
            name="depthwise",
        )(y)
        y = self.activation(self.norm(name="depthwise_bn")(y))
        if self.squeeze:
            width = scaled_channels(self.hidden // 4, 1.0)
            y = SqueezeExcite(width=width, gate=hard_sigmoid, name="squeeze")(y)
        y = self.norm(name="project_bn")(_conv(self.features, 1, name="project")(y))
        return x + y if self.stride == 1 and x.shape[-1] == self.features else y


class MobileNetV3(nn.Module):
    """A stem, stages of inverted residuals and a 1x1 convolution.

    Attributes:
        size: "large" or "small".
        output_stride: the largest stride of a map. Stages that would exceed it are dilated instead, by
            torchvision's rule for these nets: in their first block too, unlike a ResNet's.
        norm: "batch", or "frozen" for batch normalization that is not trained.
        epsilon: added to the variance by the normalizations.
    """

    size: Literal["large", "small"]
    output_stride: Literal[8, 16, 32] = 32
    norm: Literal["batch", "frozen"] = "batch"
    epsilon: NonNegative = 1e-3

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `stem` (stride 2), `stage1` ... `stage6` (of the large net: strides 2, 4,
        8, 16, 16, 32; of the small one to `stage5`: 4, 8, 16, 16, 32), `last_conv` (stride 32), all up
        to `output_stride`; and `stage3_block1`, as each first block that halves the maps where others
        follow, which torchvision's detectors and segmenters read."""
        norm = norm_layer(self.norm, train, self.epsilon)
        if self.norm == "batch":
            norm = partial(norm, momentum=0.99)  # section 6.1.1
        out = {}
        x = _conv(16, 3, strides=2, padding=1, name="stem_conv")(images)
        x = out["stem"] = hard_swish(norm(name="stem_bn")(x))
        reached, dilation = 2, 1
        for stage, (kernel, channels, squeeze, swish, stride, widths) in enumerate(
            _STAGES[self.size], start=1
        ):
            halves = stride == 2
            if reached * stride > self.output_stride:
                dilation, stride = dilation * stride, 1
            reached *= stride
            for i, hidden in enumerate(widths, start=1):
                name = f"stage{stage}_block{i}"
                x = InvertedResidual(
                    features=channels,
                    hidden=hidden,
                    kernel=kernel,
                    stride=stride if i == 1 else 1,
                    dilation=dilation,
                    squeeze=squeeze,
                    activation=hard_swish if swish else nn.relu,
                    norm=norm,
                    name=name,
                )(x)
                if i == 1 and halves and len(widths) > 1:
                    out[name] = x
            out[f"stage{stage}"] = x
        x = _conv(6 * x.shape[-1], 1, name="last_conv")(x)
        out["last_conv"] = hard_swish(norm(name="last_bn")(x))
        return out


class Head(nn.Module):
    """Global average pooling, a dense layer with hard swish, dropout, and a dense layer to the classes.

    Attributes:
        hidden: width of the first dense layer.
        num_classes: 0 for the hidden units [N, hidden].
        dropout: the rate in training.
    """

    hidden: int
    num_classes: int
    dropout: float

    @nn.compact
    def __call__(self, features: Array, train: bool = False) -> Array:
        x = hard_swish(nn.Dense(self.hidden, name="fc1")(global_avg_pool(features)))
        if self.num_classes == 0:
            return x
        x = Dropout(self.dropout, name="dropout")(x, deterministic=not train)
        return at_least_float32(nn.Dense(self.num_classes, name="fc2")(x))


@takes_fields_of(MobileNetV3)
def build(*, num_classes: CountOrZero = 1000, dropout: Probability = 0.2, **settings: Any) -> Classifier:
    """A MobileNetV3 for 224 x 224 images; accepts any of at least 32 x 32, or the output stride.

    Args:
        num_classes: 0 for the units that the last dense layer would have read.
        dropout: rate before the last dense layer; 0.2 in torchvision.
        **settings: see `MobileNetV3`.
    """
    backbone = MobileNetV3(**settings)
    return Classifier(
        backbone=backbone,
        head=Head(_HIDDEN[backbone.size], num_classes, dropout),
        num_classes=num_classes,
        input_size=(224, 224, 3),
        min_size=backbone.output_stride,
    )


def features_rules(size: str, prefix: str) -> list[tuple[str, str]]:
    """The rules of torchvision's names for the backbone: blocks are numbered through there, and the
    layers in each.

    Args:
        size: of the net.
        prefix: of all names there.
    """
    rules = [("backbone/stem_conv", f"{prefix}.0.0"), ("backbone/stem_bn", f"{prefix}.0.1")]
    position, before = 1, 16
    for stage, (_, channels, squeeze, _, _, widths) in enumerate(_STAGES[size], start=1):
        for i, hidden in enumerate(widths, start=1):
            layers = ["expand"] if hidden != before else []
            layers += ["depthwise", "squeeze", "project"] if squeeze else ["depthwise", "project"]
            here = f"backbone/stage{stage}_block{i}"
            for j, layer in enumerate(layers):
                there = f"{prefix}.{position}.block.{j}"
                if layer == "squeeze":
                    rules.append((f"{here}/squeeze/{{layer}}", f"{there}.{{layer}}"))
                else:
                    rules += [(f"{here}/{layer}", f"{there}.0"), (f"{here}/{layer}_bn", f"{there}.1")]
            position, before = position + 1, channels
    last = f"{prefix}.{position}"
    return [*rules, ("backbone/last_conv", f"{last}.0"), ("backbone/last_bn", f"{last}.1")]


def _torchvision(model: Classifier) -> list[tuple[str, str]]:
    rules = features_rules(model.backbone.size, "features")
    return [*rules, ("head/fc1", "classifier.0"), ("head/fc2", "classifier.3")]


RENAMES = {"torchvision": _torchvision}
