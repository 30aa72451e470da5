"""VGG. Simonyan and Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", arXiv:1409.1556, table 1.

Beside the paper's nets there are the later ones with batch normalization after each convolution
(`_bn`), and one whose dense layers read the mean of the last maps (`_gap`; Zhou et al. 2015,
arXiv:1512.04150). With `pool_window=3` the max-pools are those of DeepLab's program (Chen et al. 2016,
arXiv:1606.00915). Departures from the paper: last maps that are not 7 x 7 are averaged over a 7 x 7
grid, so that other images fit too; kernels are drawn as in torchvision, by He's rule over fan-out,
where the paper took the deep nets' first layers from the shallow one.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

from flax import linen as nn
from jax import Array

from jaxnets.layers import BatchNorm, Conv, MLPHead, local_response_norm, max_pool
from jaxnets.models import published
from jaxnets.models.classifier import Classifier
from jaxnets.models.settings import Count, CountOrZero, Counts, Probability
from jaxnets.models.strides import strides_and_dilations

PAPER = "Simonyan and Zisserman 2014, arXiv:1409.1556"

VARIANTS = {
    "vgg11": {"depths": (1, 1, 2, 2, 2)},
    "vgg11_lrn": {"depths": (1, 1, 2, 2, 2), "lrn": True},
    "vgg11_bn": {"depths": (1, 1, 2, 2, 2), "batch_norm": True},
    "vgg13": {"depths": (2, 2, 2, 2, 2)},
    "vgg13_bn": {"depths": (2, 2, 2, 2, 2), "batch_norm": True},
    "vgg16_c": {"depths": (2, 2, 3, 3, 3), "third_kernel": 1},
    "vgg16": {"depths": (2, 2, 3, 3, 3)},
    "vgg16_bn": {"depths": (2, 2, 3, 3, 3), "batch_norm": True},
    "vgg16_gap": {"depths": (2, 2, 3, 3, 3), "hidden": (4096,), "pool_size": 1},
    "vgg19": {"depths": (2, 2, 4, 4, 4)},
    "vgg19_bn": {"depths": (2, 2, 4, 4, 4), "batch_norm": True},
}

# torchvision's weights, which timm keeps too, without a pickle.
_OF_TORCHVISION = {"interpolation": "bilinear", "license": "BSD-3-Clause"}
_OF_SLIM = {"mean": published.VGG_MEAN, "std": published.VGG_STD}
_KERAS_FILE = "vgg{0}/vgg{0}_weights_tf_dim_ordering_tf_kernels.h5"
WEIGHTS = {
    "vgg11": (published.timm("vgg11.tv_in1k", 69.02, **_OF_TORCHVISION),),
    "vgg13": (published.timm("vgg13.tv_in1k", 69.93, **_OF_TORCHVISION),),
    "vgg16": (
        published.timm("vgg16.tv_in1k", 71.59, **_OF_TORCHVISION),
        published.keras(_KERAS_FILE.format(16), "VGG16", 71.268, "caffe", license="CC-BY-4.0"),
        published.slim("vgg_16_2016_08_28.tar.gz", "vgg_16", 71.5, **_OF_SLIM),
    ),
    "vgg19": (
        published.timm("vgg19.tv_in1k", 72.38, **_OF_TORCHVISION),
        published.keras(_KERAS_FILE.format(19), "VGG19", 71.256, "caffe", license="CC-BY-4.0"),
        published.slim("vgg_19_2016_08_28.tar.gz", "vgg_19", 71.1, **_OF_SLIM),
    ),
    "vgg11_bn": (published.timm("vgg11_bn.tv_in1k", 70.37, **_OF_TORCHVISION),),
    "vgg13_bn": (published.timm("vgg13_bn.tv_in1k", 71.59, **_OF_TORCHVISION),),
    "vgg16_bn": (published.timm("vgg16_bn.tv_in1k", 73.36, **_OF_TORCHVISION),),
    "vgg19_bn": (published.timm("vgg19_bn.tv_in1k", 74.22, **_OF_TORCHVISION),),
}

_HE_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class VGG(nn.Module):
    """Stages of 3x3 convolutions, each closed by a max-pool that halves the maps.

    Attributes:
        depths: convolutions in each stage.
        third_kernel: kernel size of each stage's third convolution.
        lrn: whether local response normalization follows the first convolution of all.
        batch_norm: whether batch normalization follows each convolution.
        pool_window, output_stride: see `build`.
    """

    depths: tuple[int, ...]
    third_kernel: int
    lrn: bool
    batch_norm: bool
    pool_window: int = 2
    output_stride: int = 32

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `stage1` ... `stage5` (strides 2 to 32, up to
        `output_stride`), each after its max-pool."""
        x, out = images, {}
        steps = [2] * len(self.depths)
        geometry = strides_and_dilations(steps, stride=1, output_stride=self.output_stride)
        for stage, (depth, (stride, (dilation, _))) in enumerate(
            zip(self.depths, geometry, strict=True), start=1
        ):
            width = min(32 * 2**stage, 512)
            for i in range(1, depth + 1):
                kernel = self.third_kernel if i == 3 else 3
                x = Conv(
                    width,
                    kernel,
                    padding=kernel // 2 * dilation,
                    dilation=dilation,
                    kernel_init=_HE_FAN_OUT,
                    name=f"stage{stage}_conv{i}",
                )(x)
                if self.batch_norm:
                    x = BatchNorm(use_running_average=not train, name=f"stage{stage}_bn{i}")(x)
                x = nn.relu(x)
                if self.lrn and stage == i == 1:
                    # The paper's alpha of 1e-4 weighs the sum over 5 channels; ours their mean.
                    x = local_response_norm(x, size=5, alpha=5e-4, beta=0.75, k=2.0)
            x = out[f"stage{stage}"] = self._pooled(x, stride)
        return out

    def _pooled(self, x: Array, stride: int) -> Array:
        if self.pool_window == 3:
            return max_pool(x, 3, stride, padding=1, ceil_mode=True)
        return max_pool(x, 2, stride, padding=0 if stride == 2 else ((0, 1), (0, 1)))


def build(
    *,
    num_classes: CountOrZero = 1000,
    depths: Counts,
    third_kernel: Count = 3,
    lrn: bool = False,
    batch_norm: bool = False,
    hidden: tuple[Count, ...] = (4096, 4096),
    pool_size: Count = 7,
    dropout: Probability = 0.5,
    pool_window: Literal[2, 3] = 2,
    output_stride: Literal[8, 16, 32] = 32,
) -> Classifier:
    """A VGG net for 224 x 224 images; accepts any of at least 32 x 32.

    Args:
        num_classes: 0 for the units of the last hidden layer.
        depths: convolutions in each stage.
        third_kernel: kernel size of each stage's third convolution; 1 is the paper's net C.
        lrn: whether local response normalization follows the first convolution.
        batch_norm: whether batch normalization follows each convolution.
        hidden: units of each hidden dense layer; () for none.
        pool_size: side of the maps that the dense layers read; 1 is global average pooling.
        dropout: rate after each hidden dense layer.
        pool_window: side of the max-pools' windows; those of 3 are padded, and round sizes up.
        output_stride: the largest stride of a map. Max-pools that would exceed it have stride 1, with
            the windows they had, and the convolutions behind are dilated (DeepLab, section 3.1).
    """
    return Classifier(
        backbone=VGG(depths, third_kernel, lrn, batch_norm, pool_window, output_stride),
        head=MLPHead(hidden, num_classes, dropout, pool_size=pool_size),
        num_classes=num_classes,
        input_size=(224, 224, 3),
        min_size=min(2 ** len(depths), output_stride),
    )


def settings_of_head(dense: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """The settings of a head by its dense layers; without any it reads the means of the maps.

    Args:
        dense: their numbers of inputs and outputs, in order; the last scores classes.
    """
    hidden = tuple(outputs for _, outputs in dense[:-1])
    pixels = dense[0][0] // 512 if dense else 1  # of the last maps, which have 512 channels
    return {"hidden": hidden, "pool_size": max(1, math.isqrt(pixels))}


def _torchvision(model: Classifier) -> tuple[tuple[str, ...], ...]:
    p = model.head.pool_size
    return (
        *_numbered_through(model.backbone),
        ("head/fc1", "classifier.0", f"(h{p} w{p} c) o -> o (c h{p} w{p})"),
        ("head/fc2", "classifier.3"),
        ("head/fc3", "classifier.6"),
    )


def _timm(model: Classifier) -> tuple[tuple[str, ...], ...]:
    """The hidden dense layers are convolutions there."""
    p = model.head.pool_size
    return (
        *_numbered_through(model.backbone),
        ("head/fc1", "pre_logits.fc1", f"(h{p} w{p} c) o -> o c h{p} w{p}"),
        ("head/fc2", "pre_logits.fc2", "i o -> o i 1 1"),
        ("head/fc3", "head.fc"),
    )


def _keras(model: Classifier) -> tuple[tuple[str, ...], ...]:
    hidden = len(model.head.widths)
    return (
        ("backbone/stage{s}_conv{i}", "block{s}_conv{i}"),
        *((f"head/fc{i}", f"fc{i}") for i in range(1, hidden + 1)),
        (f"head/fc{hidden + 1}", "predictions"),
    )


def _slim(model: Classifier) -> tuple[tuple[str, ...], ...]:
    """The dense layers are convolutions there."""
    p, scope = model.head.pool_size, model.model_name.replace("vgg", "vgg_")
    return (
        ("backbone/stage{s}_conv{i}", f"{scope}.conv{{s}}.conv{{s}}_{{i}}"),
        ("head/fc1", f"{scope}.fc6", f"(h{p} w{p} c) o -> o c h{p} w{p}"),
        ("head/fc2", f"{scope}.fc7", "i o -> o i 1 1"),
        ("head/fc3", f"{scope}.fc8", "i o -> o i 1 1"),
    )


def _numbered_through(backbone: VGG) -> list[tuple[str, str]]:
    """Both libraries keep convolutions, normalizations, ReLUs and max-pools in one sequence."""
    position, rules = 0, []
    for stage, depth in enumerate(backbone.depths, start=1):
        for i in range(1, depth + 1):
            rules.append((f"backbone/stage{stage}_conv{i}", f"features.{position}"))
            rules.append((f"backbone/stage{stage}_bn{i}", f"features.{position + 1}"))
            position += 3 if backbone.batch_norm else 2
        position += 1
    return rules


RENAMES = {"torchvision": _torchvision, "timm": _timm, "slim": _slim, "keras": _keras}
