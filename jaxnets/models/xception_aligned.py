"""The aligned Xception of DeepLab. Chen, Zhu, Papandreou, Schroff and Adam 2018, "Encoder-Decoder with
Atrous Separable Convolution for Semantic Image Segmentation", arXiv:1802.02611, figure 4: Xception with
more layers, a separable convolution with a stride in place of each max-pool, and normalization after
depthwise convolutions too. `xception71` is in the authors' program alone.

Kernels are drawn by He's rule.
"""

from functools import partial
from typing import Any, Literal

from flax import linen as nn
from jax import Array

from jaxnets.errors import InputError
from jaxnets.layers import BatchNorm, Conv, DropPath, LinearHead, drop_path_rates
from jaxnets.models import published
from jaxnets.models.classifier import Classifier
from jaxnets.models.settings import Count, CountOrZero, Counts, Positive, Probability, takes_fields_of
from jaxnets.models.strides import strides_and_dilations

PAPER = "Chen et al. 2018, arXiv:1802.02611"

_ENTRY = {"entry": (128, 256, 728), "strides": (2, 2, 2)}
VARIANTS = {
    "xception41": {**_ENTRY, "middle": 8},
    "xception65": {**_ENTRY, "middle": 16},
    "xception71": {"entry": (128, 256, 256, 728, 728), "strides": (2, 1, 2, 1, 2), "middle": 16},
}

_HALVES = {"mean": published.HALVES, "std": published.HALVES}
_TF = {"size": 299, "crop": 0.903, **_HALVES}
WEIGHTS = {
    "xception41": (published.timm("xception41.tf_in1k", 78.55, **_TF),),
    "xception65": (
        published.timm("xception65.ra3_in1k", 83.19, size=299, crop=0.94, **_HALVES),
        published.timm("xception65.tf_in1k", 79.56, **_TF),
    ),
    "xception71": (published.timm("xception71.tf_in1k", 79.92, **_TF),),
}

_EXIT = ((728, 1024, 1024), (1536, 1536, 2048))


def _sepconvs() -> tuple[tuple[str, str], ...]:
    ours, theirs = "backbone/block{n}/sepconv{i}", "blocks.{n-1}.stack.conv{i}"
    layers = (("depthwise", "conv_dw"), ("depthwise_bn", "bn_dw"))
    layers += (("pointwise", "conv_pw"), ("pointwise_bn", "bn_pw"))
    return tuple((f"{ours}/{layer}", f"{theirs}.{name}") for layer, name in layers)


RENAMES = {
    "timm": (
        ("backbone/conv{i}", "stem.{i-1}.conv"),
        ("backbone/bn{i}", "stem.{i-1}.bn"),
        ("backbone/block{n}/shortcut_conv", "blocks.{n-1}.shortcut.conv"),
        ("backbone/block{n}/shortcut_bn", "blocks.{n-1}.shortcut.bn"),
        *_sepconvs(),
        ("head/fc", "head.fc"),
    )
}


class SeparableLayer(nn.Module):
    """A depthwise 3x3 convolution and a 1x1, each with normalization.

    Attributes:
        features: channels that come out.
        stride, dilation: of the depthwise convolution.
        epsilon: of the normalizations.
        relu: whether ReLU follows each.
    """

    features: int
    stride: int
    dilation: int
    epsilon: float
    relu: bool

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        norm = partial(BatchNorm, use_running_average=not train, epsilon=self.epsilon)
        activated = nn.relu if self.relu else lambda x: x
        depthwise = Conv(
            x.shape[-1],
            3,
            strides=self.stride,
            padding=self.dilation,
            groups=x.shape[-1],
            dilation=self.dilation,
            use_bias=False,
            name="depthwise",
        )
        x = activated(norm(name="depthwise_bn")(depthwise(x)))
        x = Conv(self.features, 1, use_bias=False, name="pointwise")(x)
        return activated(norm(name="pointwise_bn")(x))


class Block(nn.Module):
    """Three separable convolutions, the last with the stride, and a shortcut.

    Attributes:
        widths: of the convolutions.
        stride, dilation: of the convolutions.
        epsilon: of the normalizations.
        drop_path: probability of dropping the residual branch.
        last: whether it is the last block, which has no shortcut, and ReLU after each normalization, not
            before each convolution.
    """

    widths: tuple[int, int, int]
    stride: int
    dilation: int
    epsilon: float
    drop_path: float
    last: bool

    @nn.compact
    def __call__(self, x: Array, train: bool) -> tuple[Array, Array]:
        """What comes out, and the maps before the last convolution and its ReLU."""
        y = second = x
        for i, width in enumerate(self.widths, start=1):
            second = y
            layer = SeparableLayer(
                width,
                self.stride if i == 3 else 1,
                self.dilation,
                self.epsilon,
                relu=self.last,
                name=f"sepconv{i}",
            )
            y = layer(y if self.last else nn.relu(y), train)
        if self.last:
            return y, second
        if x.shape != y.shape:
            x = Conv(y.shape[-1], 1, strides=self.stride, use_bias=False, name="shortcut_conv")(x)
            norm = BatchNorm(use_running_average=not train, epsilon=self.epsilon, name="shortcut_bn")
            x = norm(x)
        return x + DropPath(self.drop_path, name="drop_path")(y, deterministic=not train), second


class AlignedXception(nn.Module):
    """Two convolutions, the blocks of the entry flow, the middle flow and the exit flow.

    Attributes:
        entry: widths of the entry flow's blocks.
        strides: of them.
        middle: how many blocks the middle flow has.
        epsilon: of the batch normalizations.
        drop_path: probability of dropping the residual branch of the last block; it grows linearly from
            the first (Huang et al. 2016, arXiv:1603.09382).
        output_stride: the largest stride of a map; blocks that would exceed it are dilated instead
            (`strides_and_dilations`).
    """

    entry: Counts
    strides: Counts
    middle: Count
    epsilon: Positive = 1e-3
    drop_path: Probability = 0.0
    output_stride: Literal[8, 16, 32] = 32

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `conv1`, `conv2` (stride 2), `block1` and so on (strides 4 to 32, up to
        `output_stride`), and before each block with a stride `blockN_sepconv2`, the maps that its last
        convolution reads, without their ReLU."""
        x, out = images, {}
        for i, width in ((1, 32), (2, 64)):
            x = Conv(width, 3, strides=3 - i, padding=1, use_bias=False, name=f"conv{i}")(x)
            norm = BatchNorm(use_running_average=not train, epsilon=self.epsilon, name=f"bn{i}")
            x = out[f"conv{i}"] = nn.relu(norm(x))
        widths = [*((width,) * 3 for width in self.entry), *((self.entry[-1],) * 3,) * self.middle]
        widths += _EXIT
        steps = [*self.strides, *[1] * self.middle, 2, 1]
        geometry = strides_and_dilations(steps, 2, self.output_stride)
        rates = drop_path_rates(self.drop_path, len(widths))
        for i, (own, rate, step, (stride, (dilation, _))) in enumerate(
            zip(widths, rates, steps, geometry, strict=True), start=1
        ):
            last = i == len(widths)
            block = Block(own, stride, dilation, self.epsilon, rate, last, name=f"block{i}")
            x, second = block(x, train)
            if step > 1:
                out[f"block{i}_sepconv2"] = second
            out[f"block{i}"] = x
        return out


@takes_fields_of(AlignedXception)
def build(*, num_classes: CountOrZero = 1000, dropout: Probability = 0.0, **settings: Any) -> Classifier:
    """An aligned Xception for 299 x 299 images; accepts any of at least 32 x 32.

    Args:
        num_classes: 0 for the mean of the last maps.
        dropout: rate before the dense layer.
        **settings: see `AlignedXception`.

    Raises:
        InputError: not as many strides as blocks in the entry flow.
    """
    backbone = AlignedXception(**settings)
    if len(backbone.strides) != len(backbone.entry):
        raise InputError(
            f"strides: wanted one for each of the {len(backbone.entry)} blocks of entry; got "
            f"{len(backbone.strides)}"
        )
    return Classifier(
        backbone=backbone,
        head=LinearHead(num_classes, dropout),
        num_classes=num_classes,
        input_size=(299, 299, 3),
        min_size=32,
    )
