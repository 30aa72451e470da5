"""Inception v4. Szegedy, Ioffe, Vanhoucke and Alemi 2016, "Inception-v4, Inception-ResNet and the
Impact of Residual Connections on Learning", arXiv:1602.07261, figures 3 to 9.

The average pools leave their padding out of the mean, as in TensorFlow, where public weights come
from. Kernels are drawn by He's rule.
"""

from functools import partial

from flax import linen as nn
from jax import Array

from jaxnets.layers import LinearHead, avg_pool, max_pool
from jaxnets.models import published, slim_names
from jaxnets.models.classifier import Classifier
from jaxnets.models.inception_parts import (
    Chains,
    ConvUnit,
    Inception,
    Layer,
    timm_names,
)
from jaxnets.models.settings import CountOrZero, Probability

PAPER = "Szegedy et al. 2016, arXiv:1602.07261"

VARIANTS = {"inception_v4": {}}

WEIGHTS = {
    "inception_v4": (
        published.timm(
            "inception_v4.tf_in1k", 80.14, size=299, mean=published.HALVES, std=published.HALVES
        ),
        published.slim("inception_v4_2016_09_09.tar.gz", "inception_v4", 80.2, size=299),
    ),
}

_avg_pool_keeping_size = partial(avg_pool, window=3, strides=1, padding=1, count_include_pad=False)
_halving_pool = partial(max_pool, window=3, strides=2)

# Figure 3, the stem, whose three forks are modules too.
_MIXED_3A: Chains = ((_halving_pool,), (Layer("conv", 96, 3, strides=2, padding=0),))
_MIXED_4A: Chains = (
    (Layer("branch3x3_1", 64, 1), Layer("branch3x3_2", 96, 3, padding=0)),
    (
        Layer("branch7x7x3_1", 64, 1),
        Layer("branch7x7x3_2", 64, (1, 7)),
        Layer("branch7x7x3_3", 64, (7, 1)),
        Layer("branch7x7x3_4", 96, 3, padding=0),
    ),
)
_MIXED_5A: Chains = ((Layer("conv", 192, 3, strides=2, padding=0),), (_halving_pool,))

# Figure 4.
_INCEPTION_A: Chains = (
    (Layer("branch1x1", 96, 1),),
    (Layer("branch3x3_1", 64, 1), Layer("branch3x3_2", 96, 3)),
    (
        Layer("branch3x3dbl_1", 64, 1),
        Layer("branch3x3dbl_2", 96, 3),
        Layer("branch3x3dbl_3", 96, 3),
    ),
    (_avg_pool_keeping_size, Layer("branch_pool", 96, 1)),
)

# Figure 7 and table 1: k, l, m, n = 192, 224, 256, 384.
_REDUCTION_A: Chains = (
    (Layer("branch3x3", 384, 3, strides=2, padding=0),),
    (
        Layer("branch3x3dbl_1", 192, 1),
        Layer("branch3x3dbl_2", 224, 3),
        Layer("branch3x3dbl_3", 256, 3, strides=2, padding=0),
    ),
    (_halving_pool,),
)

# Figure 5.
_INCEPTION_B: Chains = (
    (Layer("branch1x1", 384, 1),),
    (
        Layer("branch7x7_1", 192, 1),
        Layer("branch7x7_2", 224, (1, 7)),
        Layer("branch7x7_3", 256, (7, 1)),
    ),
    (
        Layer("branch7x7dbl_1", 192, 1),
        Layer("branch7x7dbl_2", 192, (7, 1)),
        Layer("branch7x7dbl_3", 224, (1, 7)),
        Layer("branch7x7dbl_4", 224, (7, 1)),
        Layer("branch7x7dbl_5", 256, (1, 7)),
    ),
    (_avg_pool_keeping_size, Layer("branch_pool", 128, 1)),
)

# Figure 8.
_REDUCTION_B: Chains = (
    (Layer("branch3x3_1", 192, 1), Layer("branch3x3_2", 192, 3, strides=2, padding=0)),
    (
        Layer("branch7x7x3_1", 256, 1),
        Layer("branch7x7x3_2", 256, (1, 7)),
        Layer("branch7x7x3_3", 320, (7, 1)),
        Layer("branch7x7x3_4", 320, 3, strides=2, padding=0),
    ),
    (_halving_pool,),
)

# Figure 6.
_INCEPTION_C: Chains = (
    (Layer("branch1x1", 256, 1),),
    (
        Layer("branch3x3_1", 384, 1),
        (Layer("branch3x3_2a", 256, (1, 3)), Layer("branch3x3_2b", 256, (3, 1))),
    ),
    (
        Layer("branch3x3dbl_1", 384, 1),
        Layer("branch3x3dbl_2", 448, (3, 1)),
        Layer("branch3x3dbl_3", 512, (1, 3)),
        (Layer("branch3x3dbl_4a", 256, (1, 3)), Layer("branch3x3dbl_4b", 256, (3, 1))),
    ),
    (_avg_pool_keeping_size, Layer("branch_pool", 256, 1)),
)

# Figure 9, from the bottom up.
MODULES = {
    "mixed3a": _MIXED_3A,
    "mixed4a": _MIXED_4A,
    "mixed5a": _MIXED_5A,
    **{f"inception_a{i}": _INCEPTION_A for i in range(1, 5)},
    "reduction_a": _REDUCTION_A,
    **{f"inception_b{i}": _INCEPTION_B for i in range(1, 8)},
    "reduction_b": _REDUCTION_B,
    **{f"inception_c{i}": _INCEPTION_C for i in range(1, 4)},
}


class InceptionV4(nn.Module):
    """Three convolutions, and modules all the way up."""

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `conv2b` (stride 2), `mixed3a`, `mixed4a` (4), `mixed5a`,
        `inception_a1` ... `inception_a4` (8), `reduction_a`, `inception_b1` ... `inception_b7` (16)
        and `reduction_b`, `inception_c1` ... `inception_c3` (32).

        At 299 x 299 their sides are 147, 73 (`mixed4a`: 71), 35, 17 and 8.
        """
        out = {}
        x = ConvUnit(32, 3, strides=2, padding=0, name="conv1a")(images, train)
        x = ConvUnit(32, 3, padding=0, name="conv2a")(x, train)
        x = out["conv2b"] = ConvUnit(64, 3, name="conv2b")(x, train)
        for name, chains in MODULES.items():
            x = out[name] = Inception(chains, name=name)(x, train)
        return out


def build(*, num_classes: CountOrZero = 1000, dropout: Probability = 0.2) -> Classifier:
    """Inception v4 for 299 x 299 images; accepts any of at least 75 x 75.

    Args:
        num_classes: 0 for the mean of the last maps.
        dropout: rate before the dense layer.
    """
    return Classifier(
        backbone=InceptionV4(),
        head=LinearHead(num_classes, dropout),
        num_classes=num_classes,
        input_size=(299, 299, 3),
        min_size=75,
    )


def _timm(model: Classifier) -> list[tuple[str, str]]:
    """timm numbers everything through."""
    rules = [("head/fc", "last_linear")]
    for position, name in enumerate(("conv1a", "conv2a", "conv2b")):
        rules.append((f"backbone/{name}/{{part}}", f"features.{position}.{{part}}"))
    for position, (name, chains) in enumerate(MODULES.items(), start=3):
        rules.append((f"backbone/{name}/conv/{{part}}", f"features.{position}.conv.{{part}}"))
        for layer, branch in timm_names(chains).items():
            ours, theirs = f"backbone/{name}/{layer}", f"features.{position}.{branch}"
            rules.append((f"{ours}/{{part}}", f"{theirs}.{{part}}"))
    return rules


def _slim(model: Classifier) -> list[tuple[str, ...]]:
    """TF-Slim letters the modules of a stage through. Its auxiliary head is none of ours."""
    letters = {"a": "bcde", "b": "bcdefgh", "c": "bcd"}
    scopes = {"mixed3a": "Mixed_3a", "mixed4a": "Mixed_4a", "mixed5a": "Mixed_5a"}
    scopes |= {"reduction_a": "Mixed_6a", "reduction_b": "Mixed_7a"}
    for number, stage in enumerate("abc", start=5):
        for i, letter in enumerate(letters[stage], start=1):
            scopes[f"inception_{stage}{i}"] = f"Mixed_{number}{letter}"
    scopes = {name: f"InceptionV4.{scope}" for name, scope in scopes.items()}
    return [
        *slim_names.unit("backbone/conv{name}", "InceptionV4.Conv2d_{name}_3x3"),
        *slim_names.modules(scopes, MODULES, {"mixed3a": {"conv": "Branch_1.Conv2d_0a_3x3"}}),
        ("auxiliary_inception_b7/{layer}", "InceptionV4.AuxLogits.{layer}"),
        ("head/fc", "InceptionV4.Logits.Logits"),
    ]


RENAMES = {"timm": _timm, "slim": _slim}
