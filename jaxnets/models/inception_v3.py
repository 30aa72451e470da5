"""Inception v3. Szegedy, Vanhoucke, Ioffe, Shlens and Wojna 2015, "Rethinking the Inception
Architecture for Computer Vision", arXiv:1512.00567, table 1 and figures 5 to 10.

It follows the net that public weights are for, which departs from the paper: the stem ends in a 1x1
and a 3x3 convolution and a max-pool, where table 1 has three 3x3 convolutions; widths are its own
where the paper prints none; the auxiliary classifier's dense layer has no norm. The average pools
count their padding, as torchvision's and timm's do; TensorFlow's leave it out. Kernels are drawn by He's
rule.
"""

from functools import partial
from typing import Literal

from flax import linen as nn
from flax.core import FrozenDict
from jax import Array

from jaxnets.layers import LinearHead, avg_pool, global_avg_pool, max_pool
from jaxnets.models import published, slim_names
from jaxnets.models.classifier import Classifier
from jaxnets.models.inception_parts import (
    Chains,
    ConvUnit,
    Inception,
    Layer,
    Pool,
    check_auxiliary,
    check_auxiliary_maps,
    keras_numbers,
    layer_names,
)
from jaxnets.models.settings import CountOrZero, Probability

PAPER = "Szegedy et al. 2015, arXiv:1512.00567"

VARIANTS = {"inception_v3": {}}

# torchvision turns images normalized as its others are into these before its first convolution.
_AS_THE_AUTHORS = {"mean": published.HALVES, "std": published.HALVES}
WEIGHTS = {
    "inception_v3": (
        published.timm("inception_v3.gluon_in1k", 78.81, size=299),
        published.torchvision(
            "inception_v3_google-0cc3c7bd.pth",
            "inception_v3",
            77.29,
            resize=342,
            size=299,
            **_AS_THE_AUTHORS,
        ),
        published.keras(
            "inception_v3/inception_v3_weights_tf_dim_ordering_tf_kernels.h5",
            "InceptionV3",
            77.898,
            "tf",
            size=299,
            settings={"pool_padding": "left_out"},
        ),
        published.slim(
            "inception_v3_2016_08_28.tar.gz",
            "inception_v3",
            78.0,
            size=299,
            settings={"pool_padding": "left_out"},
        ),
    ),
}

_RENAMES = (
    ("backbone/stem/conv3b/{layer}", "Conv2d_3b_1x1.{layer}"),
    ("backbone/stem/conv{name}/{layer}", "Conv2d_{name}_3x3.{layer}"),
    ("backbone/mixed{name}/{layer}", "Mixed_{name}.{layer}"),
    ("auxiliary_mixed6e/{layer}", "AuxLogits.{layer}"),
    ("head/fc", "fc"),
)

_halving_pool = partial(max_pool, window=3, strides=2)


def _module_a(pool_features: int, pool: Pool) -> Chains:
    """Figure 5, but that one chain keeps its 5x5."""
    return (
        (Layer("branch1x1", 64, 1),),
        (Layer("branch5x5_1", 48, 1), Layer("branch5x5_2", 64, 5)),
        (
            Layer("branch3x3dbl_1", 64, 1),
            Layer("branch3x3dbl_2", 96, 3),
            Layer("branch3x3dbl_3", 96, 3),
        ),
        (pool, Layer("branch_pool", pool_features, 1)),
    )


# Figure 10: from 35 x 35 to 17 x 17.
_MODULE_B: Chains = (
    (Layer("branch3x3", 384, 3, strides=2, padding=0),),
    (
        Layer("branch3x3dbl_1", 64, 1),
        Layer("branch3x3dbl_2", 96, 3),
        Layer("branch3x3dbl_3", 96, 3, strides=2, padding=0),
    ),
    (_halving_pool,),
)


def _module_c(width: int, pool: Pool) -> Chains:
    """Figure 6 with n = 7."""
    return (
        (Layer("branch1x1", 192, 1),),
        (
            Layer("branch7x7_1", width, 1),
            Layer("branch7x7_2", width, (1, 7)),
            Layer("branch7x7_3", 192, (7, 1)),
        ),
        (
            Layer("branch7x7dbl_1", width, 1),
            Layer("branch7x7dbl_2", width, (7, 1)),
            Layer("branch7x7dbl_3", width, (1, 7)),
            Layer("branch7x7dbl_4", width, (7, 1)),
            Layer("branch7x7dbl_5", 192, (1, 7)),
        ),
        (pool, Layer("branch_pool", 192, 1)),
    )


# From 17 x 17 to 8 x 8.
_MODULE_D: Chains = (
    (Layer("branch3x3_1", 192, 1), Layer("branch3x3_2", 320, 3, strides=2, padding=0)),
    (
        Layer("branch7x7x3_1", 192, 1),
        Layer("branch7x7x3_2", 192, (1, 7)),
        Layer("branch7x7x3_3", 192, (7, 1)),
        Layer("branch7x7x3_4", 192, 3, strides=2, padding=0),
    ),
    (_halving_pool,),
)


def _module_e(pool: Pool) -> Chains:
    """Figure 7."""
    return (
        (Layer("branch1x1", 320, 1),),
        (
            Layer("branch3x3_1", 384, 1),
            (Layer("branch3x3_2a", 384, (1, 3)), Layer("branch3x3_2b", 384, (3, 1))),
        ),
        (
            Layer("branch3x3dbl_1", 448, 1),
            Layer("branch3x3dbl_2", 384, 3),
            (Layer("branch3x3dbl_3a", 384, (1, 3)), Layer("branch3x3dbl_3b", 384, (3, 1))),
        ),
        (pool, Layer("branch_pool", 192, 1)),
    )


def modules(pool_padding: str = "in_means") -> dict[str, Chains]:
    """The Inception modules in order; their average pools are the same everywhere."""
    pool = partial(
        avg_pool, window=3, strides=1, padding=1, count_include_pad=pool_padding == "in_means"
    )
    return {
        "mixed5b": _module_a(32, pool),
        "mixed5c": _module_a(64, pool),
        "mixed5d": _module_a(64, pool),
        "mixed6a": _MODULE_B,
        "mixed6b": _module_c(128, pool),
        "mixed6c": _module_c(160, pool),
        "mixed6d": _module_c(160, pool),
        "mixed6e": _module_c(192, pool),
        "mixed7a": _MODULE_D,
        "mixed7b": _module_e(pool),
        "mixed7c": _module_e(pool),
    }


def _keras() -> list[tuple[str, str]]:
    """No layer has a name there: convolutions are numbered through, normalizations too."""
    stem = [f"stem/conv{name}" for name in ("1a", "2a", "2b", "3b", "4a")]
    inner = [f"{name}/{layer}" for name, chains in modules().items() for layer in layer_names(chains)]
    return [*keras_numbers([*stem, *inner]), ("head/fc", "predictions")]


def _slim() -> list[tuple[str, ...]]:
    chains = modules()
    scopes = {name: f"InceptionV3.Mixed_{name.removeprefix('mixed')}" for name in chains}
    others = {
        "mixed5c": {
            "branch5x5_1": "Branch_1.Conv2d_0b_1x1",
            "branch5x5_2": "Branch_1.Conv_1_0c_5x5",
        },
        "mixed6a": {
            "branch3x3": "Branch_0.Conv2d_1a_1x1",
            "branch3x3dbl_3": "Branch_1.Conv2d_1a_1x1",
        },
        "mixed7b": {"branch3x3_2b": "Branch_1.Conv2d_0b_3x1"},
    }
    return [
        *slim_names.unit("backbone/stem/conv3b", "InceptionV3.Conv2d_3b_1x1"),
        *slim_names.unit("backbone/stem/conv{name}", "InceptionV3.Conv2d_{name}_3x3"),
        *slim_names.modules(scopes, chains, others),
        *slim_names.unit("auxiliary_mixed6e/conv0", "InceptionV3.AuxLogits.Conv2d_1b_1x1"),
        *slim_names.unit("auxiliary_mixed6e/conv1", "InceptionV3.AuxLogits.Conv2d_2a_5x5"),
        ("auxiliary_mixed6e/fc", "InceptionV3.AuxLogits.Conv2d_2b_1x1", "i o -> o i 1 1"),
        ("head/fc", "InceptionV3.Logits.Conv2d_1c_1x1", "i o -> o i 1 1"),
    ]


RENAMES = {"torchvision": _RENAMES, "timm": _RENAMES, "keras": _keras(), "slim": _slim()}


class Stem(nn.Module):
    """The five convolutions before the first Inception module, without the max-pool behind them."""

    @nn.compact
    def __call__(self, x: Array, train: bool) -> dict[str, Array]:
        """Maps [N, H, W, C] to `conv2b` (stride 2) and `conv4a` (stride 4)."""
        out = {}
        x = ConvUnit(32, 3, strides=2, padding=0, name="conv1a")(x, train)
        x = ConvUnit(32, 3, padding=0, name="conv2a")(x, train)
        x = out["conv2b"] = ConvUnit(64, 3, name="conv2b")(x, train)
        x = max_pool(x, 3, strides=2)
        x = ConvUnit(80, 1, name="conv3b")(x, train)
        out["conv4a"] = ConvUnit(192, 3, padding=0, name="conv4a")(x, train)
        return out


class InceptionV3(nn.Module):
    """A stem and eleven Inception modules.

    Attributes:
        pool_padding: see `build`.
    """

    pool_padding: str

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `conv2b` (stride 2), `conv4a` (4), `mixed5b` ... `mixed5d` (8),
        `mixed6a` ... `mixed6e` (16) and `mixed7a` ... `mixed7c` (32).

        At 299 x 299 their sides are 147, 71, 35, 17 and 8.
        """
        out = Stem(name="stem")(images, train)
        x = max_pool(out["conv4a"], 3, strides=2)
        for name, chains in modules(self.pool_padding).items():
            x = out[name] = Inception(chains, name=name)(x, train)
        return out


class AuxiliaryHead(nn.Module):
    """A classifier on the maps of mixed6e (figure 8): average pooling from 17 x 17 to 5 x 5, a 1x1
    and a 5x5 convolution, `conv0` and `conv1`, and a dense layer `fc`."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Maps [N, H, W, C] to logits [N, num_classes].

        Raises:
            InputError: the maps are smaller than 17 x 17.
        """
        check_auxiliary_maps(x, 17, image_side=299)
        x = avg_pool(x, 5, strides=3)
        x = ConvUnit(128, 1, name="conv0")(x, train)
        x = ConvUnit(768, 5, padding=0, name="conv1")(x, train)
        return nn.Dense(self.num_classes, name="fc")(global_avg_pool(x))


def build(
    *,
    num_classes: CountOrZero = 1000,
    aux: bool = False,
    pool_padding: Literal["in_means", "left_out"] = "in_means",
    dropout: Probability = 0.5,
) -> Classifier:
    """Inception v3 for 299 x 299 images; accepts any of at least 75 x 75.

    Args:
        num_classes: 0 for the mean of the last maps.
        aux: whether there is an auxiliary classifier on `mixed6e`; then images must have
            299 x 299 or more in training.
        pool_padding: how average pools see their padding: "in_means" (as zeros) or "left_out" (as in
            TensorFlow, and Keras).
        dropout: rate before the dense layer; torchvision's 0.5.

    Raises:
        InputError: an auxiliary classifier without classes.
    """
    check_auxiliary(aux, num_classes)
    return Classifier(
        backbone=InceptionV3(pool_padding),
        head=LinearHead(num_classes, dropout),
        auxiliary=FrozenDict(mixed6e=AuxiliaryHead(num_classes)) if aux else FrozenDict(),
        num_classes=num_classes,
        input_size=(299, 299, 3),
        min_size=75,
    )
