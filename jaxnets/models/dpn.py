"""DPN: dual path networks. Chen, Li, Xiao, Jin, Yan and Feng 2017, "Dual Path Networks",
arXiv:1707.01629, section 3.3, figure 2 (d) and table 1.

One block serves two paths: some of its channels are added to those that came in, as in a ResNet, the
others are concatenated, as in a DenseNet. Normalization and ReLU come before each convolution,
with an epsilon of 1e-3 (that of the authors' weights), and after the last sum. DPN-68 and DPN-107 are
from the authors' program. (timm names an ELU for the end, but computes the ReLU.)

Departure from the paper: He's initialization.
"""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from jaxnets.errors import InputError
from jaxnets.layers import BatchNorm, Conv, DropPath, LinearHead, drop_path_rates, max_pool
from jaxnets.models import published
from jaxnets.models.classifier import Classifier
from jaxnets.models.settings import Count, CountOrZero, Counts, Probability

PAPER = "Chen et al. 2017, arXiv:1707.01629"

VARIANTS = {
    "dpn68": {
        "depths": (3, 4, 12, 3),
        "increments": (16, 32, 32, 64),
        "bottleneck_width": 128,
        "residual_width": 64,
        "stem_width": 10,
        "stem_kernel": 3,
    },
    "dpn92": {
        "depths": (3, 4, 20, 3),
        "increments": (16, 32, 24, 128),
        "bottleneck_width": 96,
    },
    "dpn98": {
        "depths": (3, 6, 20, 3),
        "increments": (16, 32, 32, 128),
        "bottleneck_width": 160,
        "groups": 40,
        "stem_width": 96,
    },
    "dpn107": {
        "depths": (4, 8, 20, 3),
        "increments": (20, 64, 64, 128),
        "bottleneck_width": 200,
        "groups": 50,
        "stem_width": 128,
    },
    "dpn131": {
        "depths": (4, 8, 28, 3),
        "increments": (16, 32, 32, 128),
        "bottleneck_width": 160,
        "groups": 40,
        "stem_width": 128,
    },
}

_MXNET = {"mean": (124 / 255, 117 / 255, 104 / 255), "std": (1 / (0.0167 * 255),) * 3}
WEIGHTS = {
    "dpn68": (published.timm("dpn68.mx_in1k", 76.30, **_MXNET),),
    "dpn92": (published.timm("dpn92.mx_in1k", 80.03, **_MXNET),),
    "dpn98": (published.timm("dpn98.mx_in1k", 79.66, **_MXNET),),
    "dpn107": (published.timm("dpn107.mx_in1k", 80.17, **_MXNET),),
    "dpn131": (published.timm("dpn131.mx_in1k", 79.84, **_MXNET),),
}

_BLOCK = "features.conv{s+1}_{b}"
RENAMES = {
    "timm": (
        ("backbone/conv1", "features.conv1_1.conv"),
        ("backbone/bn1", "features.conv1_1.bn"),
        ("backbone/stage1_block1/projection_{kind}", "features.conv2_1.c1x1_w_s1.{kind}"),
        ("backbone/stage{s}_block{b}/projection_{kind}", f"{_BLOCK}.c1x1_w_s2.{{kind}}"),
        ("backbone/stage{s}_block{b}/{kind}1", f"{_BLOCK}.c1x1_a.{{kind}}"),
        ("backbone/stage{s}_block{b}/{kind}2", f"{_BLOCK}.c3x3_b.{{kind}}"),
        ("backbone/stage{s}_block{b}/{kind}3", f"{_BLOCK}.c1x1_c.{{kind}}"),
        ("backbone/norm", "features.conv5_bn_ac.bn"),
        ("head/fc", "classifier", "i o -> o i 1 1"),
    )
}

_conv = partial(Conv, use_bias=False)
_norm = partial(BatchNorm, epsilon=1e-3)


class DualPathBlock(nn.Module):
    """A bottleneck whose output is partly added to its input and partly concatenated.

    Attributes:
        bottleneck_width: channels of the first 1x1 convolution and of the 3x3.
        residual_width: channels that are added, the first ones of input and output.
        increment: channels that are concatenated, behind the others.
        groups: of the 3x3.
        stride: of the 3x3.
        projects: whether the input passes a 1x1 convolution to the residual path and twice the
            increment, as in each stage's first block.
        drop_path: probability of adding nothing to the residual path; the dense path always grows.
    """

    bottleneck_width: int
    residual_width: int
    increment: int
    groups: int
    stride: int
    projects: bool
    drop_path: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        norm = partial(_norm, use_running_average=not train)
        width, residual = self.bottleneck_width, self.residual_width
        y = _conv(width, 1, name="conv1")(nn.relu(norm(name="bn1")(x)))
        y = nn.relu(norm(name="bn2")(y))
        y = _conv(width, 3, strides=self.stride, padding=1, groups=self.groups, name="conv2")(y)
        y = nn.relu(norm(name="bn3")(y))
        y = _conv(residual + self.increment, 1, name="conv3")(y)
        if self.projects:
            x = nn.relu(norm(name="projection_bn")(x))
            out = residual + 2 * self.increment
            x = _conv(out, 1, strides=self.stride, name="projection_conv")(x)
        added = DropPath(self.drop_path, name="drop_path")(y[..., :residual], deterministic=not train)
        return jnp.concatenate(
            [x[..., :residual] + added, x[..., residual:], y[..., residual:]], axis=-1
        )


class DPN(nn.Module):
    """A stem, stages of dual path blocks, and a last normalization; the arguments are those of
    `build`."""

    depths: tuple[int, ...]
    increments: tuple[int, ...]
    bottleneck_width: int
    residual_width: int
    groups: int
    stem_width: int
    stem_kernel: int
    drop_path: float

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `stem` (stride 2, before the max-pool) and `stage1` ... `stage4`
        (strides 4 to 32), the residual path's channels before those of the dense path. Only the last
        map is normalized and has passed a ReLU."""
        norm = partial(_norm, use_running_average=not train)
        rates = iter(drop_path_rates(self.drop_path, sum(self.depths)))
        kernel, out = self.stem_kernel, {}
        x = _conv(self.stem_width, kernel, strides=2, padding=kernel // 2, name="conv1")(images)
        x = out["stem"] = nn.relu(norm(name="bn1")(x))
        x = max_pool(x, 3, strides=2, padding=1)
        for stage, (depth, increment) in enumerate(
            zip(self.depths, self.increments, strict=True), start=1
        ):
            for i in range(1, depth + 1):
                x = DualPathBlock(
                    bottleneck_width=self.bottleneck_width * 2 ** (stage - 1),
                    residual_width=self.residual_width * 2 ** (stage - 1),
                    increment=increment,
                    groups=self.groups,
                    stride=2 if i == 1 and stage > 1 else 1,
                    projects=i == 1,
                    drop_path=next(rates),
                    name=f"stage{stage}_block{i}",
                )(x, train)
            out[f"stage{stage}"] = x
        out[f"stage{len(self.depths)}"] = nn.relu(norm(name="norm")(x))
        return out


def build(
    *,
    num_classes: CountOrZero = 1000,
    depths: Counts,
    increments: Counts,
    bottleneck_width: Count,
    residual_width: Count = 256,
    groups: Count = 32,
    stem_width: Count = 64,
    stem_kernel: Count = 7,
    drop_path: Probability = 0.0,
    dropout: Probability = 0.0,
) -> Classifier:
    """A dual path network for 224 x 224 images; accepts any of at least 32 x 32.

    Args:
        num_classes: 0 for the mean of the last maps.
        depths: blocks in each stage.
        increments: channels that each block of a stage adds to the dense path.
        bottleneck_width: channels of the 3x3 convolutions in the first stage; they double with
            each stage.
        residual_width: channels of the residual path in the first stage; they double as well.
        groups: groups of the 3x3 convolutions.
        stem_width: channels of the first convolution.
        stem_kernel: kernel size of the first convolution; odd.
        drop_path: probability that the last block adds nothing to the residual path; it grows
            linearly from the first (Huang et al. 2016, "Deep Networks with Stochastic Depth",
            arXiv:1603.09382).
        dropout: rate before the dense layer.

    Raises:
        InputError: other than one increment for each stage.
    """
    if len(increments) != len(depths):
        raise InputError(f"increments: wanted one for each of {len(depths)} stages, got {increments}")
    return Classifier(
        backbone=DPN(
            depths,
            increments,
            bottleneck_width,
            residual_width,
            groups,
            stem_width,
            stem_kernel,
            drop_path,
        ),
        head=LinearHead(num_classes, dropout),
        num_classes=num_classes,
        input_size=(224, 224, 3),
        min_size=4 * 2 ** (len(depths) - 1),
    )
