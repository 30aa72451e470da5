"""Inception v2, or BN-Inception. Ioffe and Szegedy 2015, "Batch Normalization: Accelerating Deep
Network Training by Reducing Internal Covariate Shift", arXiv:1502.03167, figure 5.

GoogLeNet with batch normalization, two 3x3 convolutions for each 5x5, and modules that halve the
maps in place of max-pools between modules. Departures from the paper, which are those of the net
Cadene's weights are for: a plain first convolution (the paper's is depthwise separable), and biases in
front of the norms. TF-Slim's net, which the settings in its row of `WEIGHTS` make, has neither, but
narrower pool projections in 4c and 4d. Kernels are drawn by He's rule.
"""

from functools import partial
from typing import Literal

from flax import linen as nn
from jax import Array

from jaxnets.errors import InputError
from jaxnets.layers import Conv, LinearHead, avg_pool, max_pool
from jaxnets.models import published, slim_names
from jaxnets.models.classifier import Classifier
from jaxnets.models.inception_parts import Chains, ConvUnit, Inception, Layer
from jaxnets.models.settings import Count, CountOrZero, Positive, Probability

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
        published.slim(
            "inception_v2_2016_08_28.tar.gz",
            "inception_v2",
            73.9,
            settings={
                "separable_stem": True,
                "pool_proj": 96,
                "use_bias": False,
                "epsilon": 1e-3,
                "tf_padding": True,
                "pool_padding": "left_out",
            },
        ),
    ),
}

_CADENE = (
    ("backbone/conv1/conv", "conv1_7x7_s2"),
    ("backbone/conv1/bn", "conv1_7x7_s2_bn"),
    ("backbone/conv2_reduce/conv", "conv2_3x3_reduce"),
    ("backbone/conv2_reduce/bn", "conv2_3x3_reduce_bn"),
    ("backbone/conv2/conv", "conv2_3x3"),
    ("backbone/conv2/bn", "conv2_3x3_bn"),
    ("backbone/inception{module}/{layer}/conv", "inception_{module}_{layer}"),
    ("backbone/inception{module}/{layer}/bn", "inception_{module}_{layer}_bn"),
    ("head/fc", "last_linear"),
)

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

_max_pool_keeping_size = partial(max_pool, window=3, strides=1, padding=1)

_tf_halving_pool = partial(max_pool, window=3, strides=2, padding="SAME")


def _halving_pool(x: Array) -> Array:
    """A 3x3 max-pool at stride 2 to ceil(H / 2) pixels, as many as the convolutions beside it give.

    An odd side needs padding for that; there the reference's pool is one short and it fails.
    """
    return max_pool(x, 3, strides=2, padding=(x.shape[1] % 2, x.shape[2] % 2), ceil_mode=True)


def _chains(module: str, pool_proj: int, tf_padding: bool, pool_padding: str) -> Chains:
    """The module of a name; the other arguments are those of `build`."""
    n1x1, reduce_3x3, n3x3, reduce_double, double, projected = MODULES[module]
    if n1x1 == 0:
        halved = {"kernel_size": 3, "strides": 2, "padding": "SAME" if tf_padding else None}
        return (
            (Layer("3x3_reduce", reduce_3x3, 1), Layer("3x3", n3x3, **halved)),
            (
                Layer("double_3x3_reduce", reduce_double, 1),
                Layer("double_3x3_1", double, 3),
                Layer("double_3x3_2", double, **halved),
            ),
            (_tf_halving_pool if tf_padding else _halving_pool,),
        )
    counted = pool_padding == "in_means"
    pool = partial(avg_pool, window=3, strides=1, padding=1, count_include_pad=counted)
    if module == "5b":
        pool = _max_pool_keeping_size
    elif module in ("4c", "4d"):
        projected = pool_proj
    return (
        (Layer("1x1", n1x1, 1),),
        (Layer("3x3_reduce", reduce_3x3, 1), Layer("3x3", n3x3, 3)),
        (
            Layer("double_3x3_reduce", reduce_double, 1),
            Layer("double_3x3_1", double, 3),
            Layer("double_3x3_2", double, 3),
        ),
        (pool, Layer("pool_proj", projected, 1)),
    )


def _slim(model: Classifier) -> list[tuple[str, ...]]:
    """TF-Slim letters a module that halves the maps with those behind it."""
    letters = dict(
        zip(MODULES, ("3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b", "5c"), strict=True)
    )
    modules = {f"inception{module}": model.backbone.chains(module) for module in MODULES}
    scopes = {f"inception{module}": f"InceptionV2.Mixed_{to}" for module, to in letters.items()}
    stem = "InceptionV2.Conv2d_1a_7x7"
    return [
        ("backbone/conv1/depthwise", f"{stem}.depthwise"),
        ("backbone/conv1/pointwise", f"{stem}.pointwise"),
        *slim_names.unit("backbone/conv1", stem),  # where it is not separable
        *slim_names.unit("backbone/conv2_reduce", "InceptionV2.Conv2d_2b_1x1"),
        *slim_names.unit("backbone/conv2", "InceptionV2.Conv2d_2c_3x3"),
        *slim_names.modules(scopes, modules),
        ("head/fc", "InceptionV2.Logits.Conv2d_1c_1x1", "i o -> o i 1 1"),
    ]


def _cadene(model: Classifier) -> tuple[tuple[str, str], ...]:
    if model.backbone.separable_stem:
        raise InputError("library: cadene's inception_v2 has no separable first convolution")
    return _CADENE


RENAMES = {"cadene": _cadene, "slim": _slim}


class SeparableStem(nn.Module):
    """A 7x7 convolution at stride 2 that makes 8 maps of each channel, `depthwise`, a 1x1 of all of
    them, `pointwise`, and ReLU; there is no norm, as in TF-Slim.

    Attributes:
        padding: of the first convolution.
    """

    padding: str | int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [N, H, W, C] to [N, H', W', 64]."""
        channels = x.shape[-1]
        x = Conv(
            8 * channels,
            7,
            strides=2,
            padding=self.padding,
            groups=channels,
            use_bias=False,
            name="depthwise",
        )(x)
        return nn.relu(Conv(64, 1, name="pointwise")(x))


class InceptionV2(nn.Module):
    """Two plain convolutions and ten Inception modules; the arguments are those of `build`."""

    separable_stem: bool
    pool_proj: int
    use_bias: bool
    epsilon: float
    tf_padding: bool
    pool_padding: str

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `conv1` (stride 2), `conv2` (4), `inception3a`, `inception3b` (8),
        `inception3c`, `inception4a` ... `inception4d` (16) and `inception4e`, `inception5a`,
        `inception5b` (32)."""
        unit = partial(ConvUnit, use_bias=self.use_bias, epsilon=self.epsilon)
        pool = partial(max_pool, window=3, strides=2, ceil_mode=True)
        padding = 3
        if self.tf_padding:
            pool, padding = _tf_halving_pool, "SAME"
        out = {}
        if self.separable_stem:
            x = SeparableStem(padding, name="conv1")(images)
        else:
            x = unit(64, 7, strides=2, padding=padding, name="conv1")(images, train)
        out["conv1"] = x
        x = pool(x)
        x = unit(64, 1, name="conv2_reduce")(x, train)
        x = out["conv2"] = unit(192, 3, name="conv2")(x, train)
        x = pool(x)
        for module in MODULES:
            name = f"inception{module}"
            x = out[name] = Inception(self.chains(module), unit, name=name)(x, train)
        return out

    def chains(self, module: str) -> Chains:
        """The chains of the module of a name."""
        return _chains(module, self.pool_proj, self.tf_padding, self.pool_padding)


def build(
    *,
    num_classes: CountOrZero = 1000,
    separable_stem: bool = False,
    pool_proj: Count = 128,
    use_bias: bool = True,
    epsilon: Positive = 1e-5,
    tf_padding: bool = False,
    pool_padding: Literal["in_means", "left_out"] = "in_means",
    dropout: Probability = 0.0,
) -> Classifier:
    """BN-Inception for 224 x 224 images; accepts any of at least 7 x 7.

    Args:
        num_classes: 0 for the mean of the last maps.
        separable_stem: whether the first convolution is depthwise separable, with 8 maps of each
            channel.
        pool_proj: channels of the pool projections in 4c and 4d.
        use_bias: whether the convolutions have biases.
        epsilon: of the batch normalizations.
        tf_padding: pads as TensorFlow's "SAME" where maps are halved: those with an even side more, or
            only, below and right.
        pool_padding: how average pools see their padding: "in_means" (it counts as zeros) or "left_out".
        dropout: rate before the dense layer; the paper removes GoogLeNet's (section 4.2.1).
    """
    return Classifier(
        backbone=InceptionV2(separable_stem, pool_proj, use_bias, epsilon, tf_padding, pool_padding),
        head=LinearHead(num_classes, dropout),
        num_classes=num_classes,
        input_size=(224, 224, 3),
        min_size=7,
    )
