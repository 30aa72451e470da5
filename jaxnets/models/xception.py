"""Xception. Chollet 2016, "Xception: Deep Learning with Depthwise Separable Convolutions",
arXiv:1610.02357, figure 5.

The max-pools are padded on all sides, as in timm. Weights from Keras want the `tf_padding=True` and
`epsilon=1e-3` they were trained with. Kernels are drawn by He's rule.
"""

from functools import partial

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


class Block(nn.Module):
    """Separable convolutions, a max-pool where maps are halved, and a linear shortcut.

    Attributes:
        widths: output channels of each separable convolution.
        stride: 2 to halve the maps.
        relu_first: whether ReLU precedes the first convolution too; it does the others.
        drop_path: probability of dropping the residual branch.
        epsilon: of the batch normalizations.
        tf_padding: see `build`.
    """

    widths: tuple[int, ...]
    stride: int
    relu_first: bool
    drop_path: float
    epsilon: float
    tf_padding: bool

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        norm = partial(BatchNorm, use_running_average=not train, epsilon=self.epsilon)
        y = x
        for i, width in enumerate(self.widths, start=1):
            if i > 1 or self.relu_first:
                y = nn.relu(y)
            y = SeparableConv(width, 3, padding=1, use_bias=False, name=f"sepconv{i}")(y)
            y = norm(name=f"bn{i}")(y)
        if self.stride > 1:
            y = max_pool(y, 3, self.stride, padding="SAME" if self.tf_padding else 1)
            x = Conv(y.shape[-1], 1, strides=self.stride, use_bias=False, name="shortcut_conv")(x)
            x = norm(name="shortcut_bn")(x)
        return x + DropPath(self.drop_path, name="drop_path")(y, deterministic=not train)


class Xception(nn.Module):
    """Two convolutions, twelve blocks, two separable convolutions; arguments as for `build`."""

    drop_path: float
    epsilon: float
    tf_padding: bool

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `conv1`, `conv2` (stride 2), `block1` ... `block12` (strides 4, 8,
        16 up to the eleventh, 32), `conv3`, `conv4` (stride 32)."""
        norm = partial(BatchNorm, use_running_average=not train, epsilon=self.epsilon)
        rates = drop_path_rates(self.drop_path, len(_BLOCKS))
        x, out = images, {}
        x = Conv(32, 3, strides=2, use_bias=False, name="conv1")(x)
        x = out["conv1"] = nn.relu(norm(name="bn1")(x))
        x = Conv(64, 3, use_bias=False, name="conv2")(x)
        x = out["conv2"] = nn.relu(norm(name="bn2")(x))
        for i, (widths, rate) in enumerate(zip(_BLOCKS, rates, strict=True), start=1):
            x = out[f"block{i}"] = Block(
                widths,
                stride=1 if i in _MIDDLE else 2,
                relu_first=i > 1,
                drop_path=rate,
                epsilon=self.epsilon,
                tf_padding=self.tf_padding,
                name=f"block{i}",
            )(x, train)
        for i, width in ((3, 1536), (4, 2048)):
            x = SeparableConv(width, 3, padding=1, use_bias=False, name=f"conv{i}")(x)
            x = out[f"conv{i}"] = nn.relu(norm(name=f"bn{i}")(x))
        return out


def build(
    *,
    num_classes: CountOrZero = 1000,
    epsilon: Positive = 1e-5,
    tf_padding: bool = False,
    drop_path: Probability = 0.0,
    dropout: Probability = 0.5,
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
    """
    return Classifier(
        backbone=Xception(drop_path, epsilon, tf_padding),
        head=LinearHead(num_classes, dropout),
        num_classes=num_classes,
        input_size=(299, 299, 3),
        min_size=32,
    )
