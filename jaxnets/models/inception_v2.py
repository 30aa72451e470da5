"""Inception v2, or BN-Inception. Ioffe and Szegedy 2015, "Batch Normalization: Accelerating Deep
Network Training by Reducing Internal Covariate Shift", arXiv:1502.03167, figure 5.

GoogLeNet with batch normalization, two 3x3 convolutions for each 5x5, and modules that halve the
maps in place of max-pools between modules. Departures from the paper, which are those of the net
that public weights are for: a plain first convolution (the paper's is depthwise separable), and
biases in front of the norms. Kernels are drawn by He's rule.
"""

from functools import partial

from flax import linen as nn
from jax import Array

from jaxnets.layers import LinearHead, avg_pool, max_pool
from jaxnets.models import published
from jaxnets.models.classifier import Classifier
from jaxnets.models.inception_parts import Chains, ConvUnit, Inception, Layer
from jaxnets.models.settings import CountOrZero, Probability

PAPER = "Ioffe and Szegedy 2015, arXiv:1502.03167"

VARIANTS = {"inception_v2": {}}

WEIGHTS = {
    "inception_v2": (
        published.cadene(
            "bn_inception-52deb4733.pth",
            "bninception",
            73.52,
            order="BGR",
            mean=(104 / 255, 117 / 255, 128 / 255),
            std=(1 / 255,) * 3,
        ),
    ),
}

RENAMES = {
    "cadene": (
        ("backbone/conv1/conv", "conv1_7x7_s2"),
        ("backbone/conv1/bn", "conv1_7x7_s2_bn"),
        ("backbone/conv2_reduce/conv", "conv2_3x3_reduce"),
        ("backbone/conv2_reduce/bn", "conv2_3x3_reduce_bn"),
        ("backbone/conv2/conv", "conv2_3x3"),
        ("backbone/conv2/bn", "conv2_3x3_bn"),
        ("backbone/inception{module}/{layer}/conv", "inception_{module}_{layer}"),
        ("backbone/inception{module}/{layer}/bn", "inception_{module}_{layer}_bn"),
        ("head/fc", "last_linear"),
    ),
}

# Figure 5: the channels of 1x1, 3x3 reduce, 3x3, double 3x3 reduce, double 3x3 and pool projection.
# A module without the first and the last halves the maps.
MODULES = {
    "3a": (64, 64, 64, 64, 96, 32),
    "3b": (64, 64, 96, 64, 96, 64),
    "3c": (0, 128, 160, 64, 96, 0),
    "4a": (224, 64, 96, 96, 128, 128),
    "4b": (192, 96, 128, 96, 128, 128),
    "4c": (160, 128, 160, 128, 160, 128),
    "4d": (96, 128, 192, 160, 192, 128),
    "4e": (0, 128, 192, 192, 256, 0),
    "5a": (352, 192, 320, 160, 224, 128),
    "5b": (352, 192, 320, 192, 224, 128),
}

_avg_pool_keeping_size = partial(avg_pool, window=3, strides=1, padding=1)
_max_pool_keeping_size = partial(max_pool, window=3, strides=1, padding=1)


def _halving_pool(x: Array) -> Array:
    """A 3x3 max-pool at stride 2 to ceil(H / 2) pixels, as many as the convolutions beside it give.

    An odd side needs padding for that; there the reference's pool is one short and it fails.
    """
    return max_pool(x, 3, strides=2, padding=(x.shape[1] % 2, x.shape[2] % 2), ceil_mode=True)


def _chains(module: str) -> Chains:
    n1x1, reduce_3x3, n3x3, reduce_double, double, pool_proj = MODULES[module]
    if n1x1 == 0:
        return (
            (Layer("3x3_reduce", reduce_3x3, 1), Layer("3x3", n3x3, 3, strides=2)),
            (
                Layer("double_3x3_reduce", reduce_double, 1),
                Layer("double_3x3_1", double, 3),
                Layer("double_3x3_2", double, 3, strides=2),
            ),
            (_halving_pool,),
        )
    pool = _max_pool_keeping_size if module == "5b" else _avg_pool_keeping_size
    return (
        (Layer("1x1", n1x1, 1),),
        (Layer("3x3_reduce", reduce_3x3, 1), Layer("3x3", n3x3, 3)),
        (
            Layer("double_3x3_reduce", reduce_double, 1),
            Layer("double_3x3_1", double, 3),
            Layer("double_3x3_2", double, 3),
        ),
        (pool, Layer("pool_proj", pool_proj, 1)),
    )


class InceptionV2(nn.Module):
    """Two plain convolutions and ten Inception modules."""

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `conv1` (stride 2), `conv2` (4), `inception3a`, `inception3b` (8),
        `inception3c`, `inception4a` ... `inception4d` (16) and `inception4e`, `inception5a`,
        `inception5b` (32)."""
        unit = partial(ConvUnit, use_bias=True, epsilon=1e-5)
        out = {}
        x = out["conv1"] = unit(64, 7, strides=2, name="conv1")(images, train)
        x = max_pool(x, 3, strides=2, ceil_mode=True)
        x = unit(64, 1, name="conv2_reduce")(x, train)
        x = out["conv2"] = unit(192, 3, name="conv2")(x, train)
        x = max_pool(x, 3, strides=2, ceil_mode=True)
        for module in MODULES:
            name = f"inception{module}"
            x = out[name] = Inception(_chains(module), unit, name=name)(x, train)
        return out


def build(*, num_classes: CountOrZero = 1000, dropout: Probability = 0.0) -> Classifier:
    """BN-Inception for 224 x 224 images; accepts any of at least 7 x 7.

    Args:
        num_classes: 0 for the mean of the last maps.
        dropout: rate before the dense layer; the paper removes GoogLeNet's (section 4.2.1).
    """
    return Classifier(
        backbone=InceptionV2(),
        head=LinearHead(num_classes, dropout),
        num_classes=num_classes,
        input_size=(224, 224, 3),
        min_size=7,
    )
