"""SENet: residual nets whose branches weigh their channels. Hu, Shen, Albanie, Sun and Wu 2018,
"Squeeze-and-Excitation Networks", arXiv:1709.01507, section 3, table 1 and (SENet-154) the appendix.

The nets are those of the paper's own Caffe weights, timm's `legacy_*`: the first max-pool is not
padded but counts a last window that hangs over the edge ("ceil mode"), and the SE-ResNet's stride is
in the first 1x1 convolution. timm's `seresnet50` and `seresnext50_32x4d` are the same parameters in
another net: `padded_pool=True, stride_in_1x1=False` gives it.

Departure from the paper: kernels are drawn by He's rule over fan-out.
"""

from functools import partial
from typing import Any

from flax import linen as nn
from jax import Array

from jaxnets.layers import (
    BatchNorm,
    Conv,
    DropPath,
    LinearHead,
    SqueezeExcite,
    drop_path_rates,
    max_pool,
)
from jaxnets.models import published
from jaxnets.models.classifier import Classifier
from jaxnets.models.settings import Count, CountOrZero, Counts, Probability, takes_fields_of

PAPER = "Hu et al. 2018, arXiv:1709.01507"

VARIANTS = {
    "seresnet50": {"depths": (3, 4, 6, 3), "stride_in_1x1": True},
    "seresnext50_32x4d": {"depths": (3, 4, 6, 3), "groups": 32, "width_per_group": 4},
    "seresnext101_32x4d": {"depths": (3, 4, 23, 3), "groups": 32, "width_per_group": 4},
    "senet154": {
        "depths": (3, 8, 36, 3),
        "groups": 64,
        "width_per_group": 4,
        "half_first": True,
        "downsample_kernel": 3,
        "deep_stem": True,
        "dropout": 0.2,
    },
}

# timm trained its own as it trains any ResNet, and keeps those of the authors as "legacy".
_AS_A_RESNET = {"padded_pool": True, "stride_in_1x1": False}
_LEGACY_FILES = {
    "library": "timm_legacy",
    "interpolation": "bilinear",
    "resize": 256,
    "size": 224,
}
WEIGHTS = {
    "seresnet50": (
        published.timm("seresnet50.ra2_in1k", 81.29, size=288, crop=0.95, settings=_AS_A_RESNET),
        published.PublishedWeights(
            "timm:v0.1-cadene/se_resnet50-ce0d4300.pth",
            architecture="legacy_seresnet50",
            claims={published.TOP1: 77.64},
            **_LEGACY_FILES,
        ),
    ),
    "seresnext50_32x4d": (
        published.timm("seresnext50_32x4d.racm_in1k", 82.19, size=288, crop=0.95, settings=_AS_A_RESNET),
        published.PublishedWeights(
            "timm:v0.1-weights/legacy_se_resnext50_32x4d-f3651bad.pth",
            architecture="legacy_seresnext50_32x4d",
            claims={published.TOP1: 79.08},
            **_LEGACY_FILES,
        ),
    ),
    "seresnext101_32x4d": (
        published.timm("seresnext101_32x4d.gluon_in1k", 80.89, settings=_AS_A_RESNET),
        published.PublishedWeights(
            "timm:v0.1-weights/legacy_se_resnext101_32x4d-37725eac.pth",
            architecture="legacy_seresnext101_32x4d",
            claims={published.TOP1: 80.27},
            **_LEGACY_FILES,
        ),
    ),
    "senet154": (
        published.PublishedWeights(
            "timm:v0.1-weights/legacy_senet154-e9eb9fe6.pth",
            architecture="legacy_senet154",
            claims={published.TOP1: 81.32},
            **_LEGACY_FILES,
        ),
        published.timm("senet154.gluon_in1k", 81.23, settings={"padded_pool": True}),
    ),
}

_RENAMES = (
    ("backbone/stage{s}_block{b}/downsample_conv", "layer{s}.{b-1}.downsample.0"),
    ("backbone/stage{s}_block{b}/downsample_bn", "layer{s}.{b-1}.downsample.1"),
)
_LEGACY = (
    ("backbone/stem/{layer}", "layer0.{layer}"),
    *_RENAMES,
    ("backbone/stage{s}_block{b}/se/{layer}", "layer{s}.{b-1}.se_module.{layer}"),
    ("backbone/stage{s}_block{b}/{layer}", "layer{s}.{b-1}.{layer}"),
    ("head/fc", "last_linear"),
)


def _timm(model: Classifier) -> tuple[tuple[str, ...], ...]:
    """The nets that timm builds as it does any ResNet; it keeps a deep stem in a sequence."""
    deep = (
        ("backbone/stem/conv1", "conv1.0"),
        ("backbone/stem/bn1", "conv1.1"),
        ("backbone/stem/conv2", "conv1.3"),
        ("backbone/stem/bn2", "conv1.4"),
        ("backbone/stem/conv3", "conv1.6"),
        ("backbone/stem/bn3", "bn1"),
    )
    return (
        *(deep if model.backbone.deep_stem else (("backbone/stem/{layer}", "{layer}"),)),
        *_RENAMES,
        ("backbone/stage{s}_block{b}/{layer}", "layer{s}.{b-1}.{layer}"),
        ("head/fc", "fc"),
    )


RENAMES = {"timm_legacy": _LEGACY, "timm": _timm}

_HE_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
_conv = partial(Conv, use_bias=False, kernel_init=_HE_FAN_OUT)


class Stem(nn.Module):
    """The first convolution, 7x7 to 64 channels, or three of 3x3 to 128; at stride 2."""

    deep: bool

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        norm = partial(BatchNorm, use_running_average=not train)
        if not self.deep:
            x = _conv(64, 7, strides=2, padding=3, name="conv1")(x)
            return nn.relu(norm(name="bn1")(x))
        for i, (width, stride) in enumerate(((64, 2), (64, 1), (128, 1)), start=1):
            x = _conv(width, 3, strides=stride, padding=1, name=f"conv{i}")(x)
            x = nn.relu(norm(name=f"bn{i}")(x))
        return x


class SEBottleneck(nn.Module):
    """A bottleneck, its channels weighed by squeeze and excitation, and a shortcut (figure 3).

    Attributes:
        planes: a quarter of the channels that come out.
        stride: of the 3x3, or of the first 1x1.
        drop_path: probability of dropping the residual branch.
        groups: of the 3x3.
        width_per_group: channels in a group of the 3x3 where `planes` is 64.
        half_first: whether the first 1x1 has half the channels of the 3x3.
        stride_in_1x1: where the stride is.
        downsample_kernel: kernel size of the shortcut where it halves the maps.
    """

    planes: int
    stride: int
    drop_path: float
    groups: int
    width_per_group: int
    half_first: bool
    stride_in_1x1: bool
    downsample_kernel: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        norm = partial(BatchNorm, use_running_average=not train)
        width, out = self.planes * self.width_per_group // 64 * self.groups, 4 * self.planes
        stride1, stride2 = (self.stride, 1) if self.stride_in_1x1 else (1, self.stride)
        y = _conv(width // 2 if self.half_first else width, 1, strides=stride1, name="conv1")(x)
        y = nn.relu(norm(name="bn1")(y))
        y = _conv(width, 3, strides=stride2, padding=1, groups=self.groups, name="conv2")(y)
        y = nn.relu(norm(name="bn2")(y))
        y = _conv(out, 1, name="conv3")(y)
        y = SqueezeExcite(reduction=16, name="se")(norm(name="bn3")(y))
        y = DropPath(self.drop_path, name="drop_path")(y, deterministic=not train)
        if self.stride != 1 or x.shape[-1] != out:
            kernel = self.downsample_kernel if self.stride != 1 else 1
            x = _conv(out, kernel, strides=self.stride, padding=kernel // 2, name="downsample_conv")(x)
            x = norm(name="downsample_bn")(x)
        return nn.relu(x + y)


class SENet(nn.Module):
    """A stem and stages of bottlenecks.

    Attributes:
        depths: blocks in each stage.
        groups: groups of the bottleneck's 3x3 convolution.
        width_per_group: channels of each group in the first stage; they double with each stage.
        half_first: whether a bottleneck's first 1x1 has half the channels of its 3x3.
        stride_in_1x1: whether that convolution, and not the 3x3, halves the maps.
        downsample_kernel: kernel size of the shortcuts that halve the maps; odd.
        deep_stem: whether three 3x3 convolutions stand for the first 7x7.
        padded_pool: whether the first max-pool is padded by 1, as in a ResNet.
        drop_path: probability of dropping the residual branch of the last block; it grows linearly
            from the first (Huang et al. 2016, "Deep Networks with Stochastic Depth",
            arXiv:1603.09382).
    """

    depths: Counts
    groups: Count = 1
    width_per_group: Count = 64
    half_first: bool = False
    stride_in_1x1: bool = False
    downsample_kernel: Count = 1
    deep_stem: bool = False
    padded_pool: bool = False
    drop_path: Probability = 0.0

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `stem` (stride 2, before the max-pool) and `stage1` ... `stage4`
        (strides 4 to 32)."""
        block = partial(
            SEBottleneck,
            groups=self.groups,
            width_per_group=self.width_per_group,
            half_first=self.half_first,
            stride_in_1x1=self.stride_in_1x1,
            downsample_kernel=self.downsample_kernel,
        )
        rates = iter(drop_path_rates(self.drop_path, sum(self.depths)))
        out = {}
        x = out["stem"] = Stem(self.deep_stem, name="stem")(images, train)
        padding = {"padding": 1} if self.padded_pool else {"ceil_mode": True}
        x = max_pool(x, 3, strides=2, **padding)
        for stage, depth in enumerate(self.depths, start=1):
            for i in range(1, depth + 1):
                x = block(
                    planes=32 * 2**stage,
                    stride=2 if i == 1 and stage > 1 else 1,
                    drop_path=next(rates),
                    name=f"stage{stage}_block{i}",
                )(x, train)
            out[f"stage{stage}"] = x
        return out


@takes_fields_of(SENet)
def build(*, num_classes: CountOrZero = 1000, dropout: Probability = 0.0, **settings: Any) -> Classifier:
    """A squeeze-and-excitation net for 224 x 224 images; accepts any of at least 32 x 32.

    Args:
        num_classes: 0 for the mean of the last maps.
        dropout: rate before the dense layer.
        **settings: see `SENet`.
    """
    backbone = SENet(**settings)
    return Classifier(
        backbone=backbone,
        head=LinearHead(num_classes, dropout),
        num_classes=num_classes,
        input_size=(224, 224, 3),
        min_size=4 * 2 ** (len(backbone.depths) - 1),
    )
