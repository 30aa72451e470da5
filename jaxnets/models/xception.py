"""Xception. Chollet 2016, "Xception: Deep Learning with Depthwise Separable Convolutions",
arXiv:1610.02357, figure 5.

The max-pools are padded on all sides, as in timm. Weights from Keras want the `tf_padding=True` and
`epsilon=1e-3` they were trained with. Kernels are drawn by He's rule.
"""

from functools import partial
from typing import Literal

from flax import linen as nn
from jax import Array

from jaxnets.layers import (
    BatchNorm,
    Conv,
    DropPath,
    LinearHead,
    SeparableConv,
    drop_path_rates,
    max_pool,
)
from jaxnets.models import published
from jaxnets.models.classifier import Classifier
from jaxnets.models.settings import CountOrZero, Positive, Probability
from jaxnets.models.strides import strides_and_dilations

PAPER = "Chollet 2016, arXiv:1610.02357"

VARIANTS = {"xception": {}}

WEIGHTS = {
    "xception": (
        published.PublishedWeights(
            "timm:v0.1-cadene/xception-43020ad28.pth",
            library="timm",
            architecture="legacy_xception",
            claims={published.TOP1: 79.06},
            resize=333,
            size=299,
            interpolation="bicubic",
            mean=published.HALVES,
            std=published.HALVES,
        ),
        published.keras(
            "xception/xception_weights_tf_dim_ordering_tf_kernels.h5",
            "Xception",
            79.006,
            "tf",
            size=299,
            license="MIT",
            settings={"tf_padding": True, "epsilon": 1e-3},
        ),
    ),
}

RENAMES = {
    "timm": (
        ("backbone/block1/sepconv1/depthwise", "block1.rep.0.conv1"),
        ("backbone/block1/sepconv1/pointwise", "block1.rep.0.pointwise"),
        ("backbone/block1/bn1", "block1.rep.1"),
        ("backbone/block1/sepconv2/depthwise", "block1.rep.3.conv1"),
        ("backbone/block1/sepconv2/pointwise", "block1.rep.3.pointwise"),
        ("backbone/block1/bn2", "block1.rep.4"),
        ("backbone/block{n}/sepconv1/depthwise", "block{n}.rep.1.conv1"),
        ("backbone/block{n}/sepconv1/pointwise", "block{n}.rep.1.pointwise"),
        ("backbone/block{n}/bn1", "block{n}.rep.2"),
        ("backbone/block{n}/sepconv2/depthwise", "block{n}.rep.4.conv1"),
        ("backbone/block{n}/sepconv2/pointwise", "block{n}.rep.4.pointwise"),
        ("backbone/block{n}/bn2", "block{n}.rep.5"),
        ("backbone/block{n}/sepconv3/depthwise", "block{n}.rep.7.conv1"),
        ("backbone/block{n}/sepconv3/pointwise", "block{n}.rep.7.pointwise"),
        ("backbone/block{n}/bn3", "block{n}.rep.8"),
        ("backbone/block{n}/shortcut_conv", "block{n}.skip"),
        ("backbone/block{n}/shortcut_bn", "block{n}.skipbn"),
        ("backbone/{layer}/depthwise", "{layer}.conv1"),
        ("backbone/{layer}", "{layer}"),
        ("head/fc", "fc"),
    ),
    "keras": (
        ("backbone/conv1", "block1_conv1"),
        ("backbone/bn1", "block1_conv1_bn"),
        ("backbone/conv2", "block1_conv2"),
        ("backbone/bn2", "block1_conv2_bn"),
        ("backbone/block1/shortcut_conv", "conv2d"),
        ("backbone/block1/shortcut_bn", "batch_normalization"),
        ("backbone/block2/shortcut_conv", "conv2d_1"),
        ("backbone/block2/shortcut_bn", "batch_normalization_1"),
        ("backbone/block3/shortcut_conv", "conv2d_2"),
        ("backbone/block3/shortcut_bn", "batch_normalization_2"),
        ("backbone/block12/shortcut_conv", "conv2d_3"),
        ("backbone/block12/shortcut_bn", "batch_normalization_3"),
        ("backbone/block{n}/sepconv{i}/{part}", "block{n+1}_sepconv{i}.{part}"),
        ("backbone/block{n}/bn{i}", "block{n+1}_sepconv{i}_bn"),
        ("backbone/conv{n}/{part}", "block14_sepconv{n-2}.{part}"),
        ("backbone/bn{n}", "block14_sepconv{n-2}_bn"),
        ("head/fc", "predictions"),
    ),
}

# The separable convolutions of each block: entry flow, middle flow, exit flow.
_BLOCKS = (
    *((128, 128), (256, 256), (728, 728)),
    *((728, 728, 728),) * 8,
    (728, 1024),
)
_MIDDLE = range(4, 12)  # which blocks keep the size of their maps
_STEPS = [1 if i in _MIDDLE else 2 for i in range(1, len(_BLOCKS) + 1)]


class Block(nn.Module):
    """Separable convolutions, a max-pool where maps are halved, and a linear shortcut.

    Attributes:
        widths: output channels of each separable convolution.
        stride: 2 to halve the maps.
        relu_first: whether ReLU precedes the first convolution too; it does the others.
        drop_path: probability of dropping the residual branch.
        epsilon: of the batch normalizations.
        tf_padding: see `build`.
        dilation: of the convolutions.
        keep_size: whether what would halve the maps is computed at every position.
    """

    widths: tuple[int, ...]
    stride: int
    relu_first: bool
    drop_path: float
    epsilon: float
    tf_padding: bool
    dilation: int = 1
    keep_size: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        norm = partial(BatchNorm, use_running_average=not train, epsilon=self.epsilon)
        y = x
        for i, width in enumerate(self.widths, start=1):
            if i > 1 or self.relu_first:
                y = nn.relu(y)
            y = _conv3x3(width, self.dilation, name=f"sepconv{i}")(y)
            y = norm(name=f"bn{i}")(y)
        if self.stride > 1:
            stride = 1 if self.keep_size else self.stride
            y = max_pool(y, 3, stride, padding="SAME" if self.tf_padding else 1)
            x = Conv(y.shape[-1], 1, strides=stride, use_bias=False, name="shortcut_conv")(x)
            x = norm(name="shortcut_bn")(x)
        return x + DropPath(self.drop_path, name="drop_path")(y, deterministic=not train)


def _conv3x3(features: int, dilation: int, name: str) -> SeparableConv:
    return SeparableConv(features, 3, padding=dilation, dilation=dilation, use_bias=False, name=name)


class Xception(nn.Module):
    """Two convolutions, twelve blocks, two separable convolutions; arguments as for `build`."""

    drop_path: float
    epsilon: float
    tf_padding: bool
    output_stride: int

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `conv1`, `conv2` (stride 2), `block1` ... `block12` (strides 4, 8,
        16 up to the eleventh, 32), `conv3`, `conv4` (stride 32); up to `output_stride`."""
        norm = partial(BatchNorm, use_running_average=not train, epsilon=self.epsilon)
        rates = drop_path_rates(self.drop_path, len(_BLOCKS))
        x, out = images, {}
        x = Conv(32, 3, strides=2, use_bias=False, name="conv1")(x)
        x = out["conv1"] = nn.relu(norm(name="bn1")(x))
        x = Conv(64, 3, use_bias=False, name="conv2")(x)
        x = out["conv2"] = nn.relu(norm(name="bn2")(x))
        geometry = strides_and_dilations(_STEPS, 2, self.output_stride)
        for i, (widths, rate, step, (stride, (dilation, _))) in enumerate(
            zip(_BLOCKS, rates, _STEPS, geometry, strict=True), start=1
        ):
            x = out[f"block{i}"] = Block(
                widths,
                stride=step,
                relu_first=i > 1,
                drop_path=rate,
                epsilon=self.epsilon,
                tf_padding=self.tf_padding,
                dilation=dilation,
                keep_size=stride < step,
                name=f"block{i}",
            )(x, train)
        _, (_, dilation) = geometry[-1]
        for i, width in ((3, 1536), (4, 2048)):
            x = _conv3x3(width, dilation, name=f"conv{i}")(x)
            x = out[f"conv{i}"] = nn.relu(norm(name=f"bn{i}")(x))
        return out


def build(
    *,
    num_classes: CountOrZero = 1000,
    epsilon: Positive = 1e-5,
    tf_padding: bool = False,
    drop_path: Probability = 0.0,
    dropout: Probability = 0.5,
    output_stride: Literal[8, 16, 32] = 32,
) -> Classifier:
    """Xception for 299 x 299 images; accepts any of at least 32 x 32.

    Args:
        num_classes: 0 for the mean of the last maps.
        epsilon: of the batch normalizations.
        tf_padding: pads the max-pools as TensorFlow's "SAME", as in Keras: where a map has an even
            side, below and right only.
        drop_path: probability of dropping the residual branch of the last block; it grows
            linearly from the first block (Huang et al. 2016, arXiv:1603.09382).
        dropout: rate before the dense layer; 0.5 in the paper (section 4.3).
        output_stride: the largest stride of a map. Max-pools that would exceed it have stride 1, with
            the windows they had, and the convolutions behind are dilated.
    """
    return Classifier(
        backbone=Xception(drop_path, epsilon, tf_padding, output_stride),
        head=LinearHead(num_classes, dropout),
        num_classes=num_classes,
        input_size=(299, 299, 3),
        min_size=32,
    )
