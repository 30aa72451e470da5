"""Inception-ResNet-v2. Szegedy, Ioffe, Vanhoucke and Alemi 2016, "Inception-v4, Inception-ResNet
and the Impact of Residual Connections on Learning", arXiv:1602.07261, figures 15 to 19.

It follows the net that public weights are for, which departs from the paper: Inception v3's stem
and a module (`mixed5b`) in place of figure 3; 10, 20 and 10 residual modules in place of 5, 10 and
5; channels of its own in some chains; residuals scaled by 0.17, 0.10 and 0.20 (the paper: "between
0.1 and 0.3"), but the last residual module neither scales nor ends in an activation; and a 1x1
convolution behind it. The average pool leaves its padding out of the mean. Kernels are drawn by
He's rule.
"""

from functools import partial

from flax import linen as nn
from jax import Array

from jaxnets.layers import Conv, DropPath, LinearHead, avg_pool, drop_path_rates, max_pool
from jaxnets.models import published, slim_names
from jaxnets.models.classifier import Classifier
from jaxnets.models.inception_parts import (
    Chains,
    ConvUnit,
    Inception,
    Layer,
    branches,
    keras_numbers,
    layer_names,
    timm_names,
)
from jaxnets.models.inception_v3 import Stem
from jaxnets.models.settings import CountOrZero, Probability

PAPER = "Szegedy et al. 2016, arXiv:1602.07261"

VARIANTS = {"inception_resnet_v2": {}}

WEIGHTS = {
    "inception_resnet_v2": (
        published.timm(
            "inception_resnet_v2.tf_in1k",
            80.43,
            size=299,
            crop=0.8975,
            mean=published.HALVES,
            std=published.HALVES,
        ),
        published.keras(
            "inception_resnet_v2/inception_resnet_v2_weights_tf_dim_ordering_tf_kernels.h5",
            "InceptionResNetV2",
            80.256,
            "tf",
            size=299,
        ),
        published.slim("inception_resnet_v2_2016_08_30.tar.gz", "inception_resnet_v2", 80.4, size=299),
    ),
}

_avg_pool_keeping_size = partial(avg_pool, window=3, strides=1, padding=1, count_include_pad=False)
_halving_pool = partial(max_pool, window=3, strides=2)

_MIXED_5B: Chains = (
    (Layer("branch1x1", 96, 1),),
    (Layer("branch5x5_1", 48, 1), Layer("branch5x5_2", 64, 5)),
    (
        Layer("branch3x3dbl_1", 64, 1),
        Layer("branch3x3dbl_2", 96, 3),
        Layer("branch3x3dbl_3", 96, 3),
    ),
    (_avg_pool_keeping_size, Layer("branch_pool", 64, 1)),
)

# Figure 16.
_INCEPTION_RESNET_A: Chains = (
    (Layer("branch1x1", 32, 1),),
    (Layer("branch3x3_1", 32, 1), Layer("branch3x3_2", 32, 3)),
    (
        Layer("branch3x3dbl_1", 32, 1),
        Layer("branch3x3dbl_2", 48, 3),
        Layer("branch3x3dbl_3", 64, 3),
    ),
)

# Figure 7 and table 1: k, l, m, n = 256, 256, 384, 384.
_REDUCTION_A: Chains = (
    (Layer("branch3x3", 384, 3, strides=2, padding=0),),
    (
        Layer("branch3x3dbl_1", 256, 1),
        Layer("branch3x3dbl_2", 256, 3),
        Layer("branch3x3dbl_3", 384, 3, strides=2, padding=0),
    ),
    (_halving_pool,),
)

# Figure 17.
_INCEPTION_RESNET_B: Chains = (
    (Layer("branch1x1", 192, 1),),
    (
        Layer("branch7x7_1", 128, 1),
        Layer("branch7x7_2", 160, (1, 7)),
        Layer("branch7x7_3", 192, (7, 1)),
    ),
)

# Figure 18.
_REDUCTION_B: Chains = (
    (Layer("branch3x3a_1", 256, 1), Layer("branch3x3a_2", 384, 3, strides=2, padding=0)),
    (Layer("branch3x3b_1", 256, 1), Layer("branch3x3b_2", 288, 3, strides=2, padding=0)),
    (
        Layer("branch3x3dbl_1", 256, 1),
        Layer("branch3x3dbl_2", 288, 3),
        Layer("branch3x3dbl_3", 320, 3, strides=2, padding=0),
    ),
    (_halving_pool,),
)

# Figure 19.
_INCEPTION_RESNET_C: Chains = (
    (Layer("branch1x1", 192, 1),),
    (
        Layer("branch3x3_1", 192, 1),
        Layer("branch3x3_2", 224, (1, 3)),
        Layer("branch3x3_3", 256, (3, 1)),
    ),
)

# Figure 15: the module that leads into a stage, its residual modules, how they are scaled and how
# many there are.
_STAGES = {
    "a": ("mixed5b", _MIXED_5B, _INCEPTION_RESNET_A, 0.17, 10),
    "b": ("reduction_a", _REDUCTION_A, _INCEPTION_RESNET_B, 0.10, 20),
    "c": ("reduction_b", _REDUCTION_B, _INCEPTION_RESNET_C, 0.20, 10),
}


class InceptionResidual(nn.Module):
    """An Inception module, a 1x1 convolution `conv` back to the input's channels, and a shortcut.

    Attributes:
        chains: of the module.
        scale: what the residual is multiplied by before it is added (section 3.3).
        activate: whether a ReLU follows.
        drop_path: probability of dropping the residual branch.
    """

    chains: Chains
    scale: float
    activate: bool
    drop_path: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Maps [N, H, W, C] to [N, H, W, C]."""
        y = branches(x, train, self.chains)
        y = self.scale * Conv(x.shape[-1], 1, name="conv")(y)
        x = x + DropPath(self.drop_path, name="drop_path")(y, deterministic=not train)
        return nn.relu(x) if self.activate else x


class InceptionResNetV2(nn.Module):
    """A stem and three stages of residual Inception modules."""

    drop_path: float

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `conv2b` (stride 2), `conv4a` (4), `mixed5b`,
        `inception_resnet_a` (8), `reduction_a`, `inception_resnet_b` (16) and `reduction_b`,
        `inception_resnet_c`, `conv7b` (32), each stage after its last module.

        At 299 x 299 their sides are 147, 71, 35, 17 and 8.
        """
        out = Stem(name="stem")(images, train)
        x = max_pool(out["conv4a"], 3, strides=2)
        rates = iter(drop_path_rates(self.drop_path, sum(depth for *_, depth in _STAGES.values())))
        for stage, (entry, entry_chains, chains, scale, depth) in _STAGES.items():
            x = out[entry] = Inception(entry_chains, name=entry)(x, train)
            for i in range(1, depth + 1):
                last = (stage, i) == ("c", depth)
                x = InceptionResidual(
                    chains,
                    scale=1.0 if last else scale,
                    activate=not last,
                    drop_path=next(rates),
                    name=f"inception_resnet_{stage}{i}",
                )(x, train)
            out[f"inception_resnet_{stage}"] = x
        out["conv7b"] = ConvUnit(1536, 1, name="conv7b")(x, train)
        return out


def build(
    *, num_classes: CountOrZero = 1000, drop_path: Probability = 0.0, dropout: Probability = 0.2
) -> Classifier:
    """Inception-ResNet-v2 for 299 x 299 images; accepts any of at least 75 x 75.

    Args:
        num_classes: 0 for the mean of the last maps.
        drop_path: probability of dropping the last residual branch; it grows linearly from the
            first (Huang et al. 2016, arXiv:1603.09382).
        dropout: rate before the dense layer.
    """
    return Classifier(
        backbone=InceptionResNetV2(drop_path),
        head=LinearHead(num_classes, dropout),
        num_classes=num_classes,
        input_size=(299, 299, 3),
        min_size=75,
    )


def _timm(model: Classifier) -> list[tuple[str, str]]:
    """timm has the stages in three sequences, and the last residual module by itself."""
    rules = [
        ("backbone/stem/conv{name}/{part}", "conv2d_{name}.{part}"),
        ("backbone/conv7b/{part}", "conv2d_7b.{part}"),
        ("head/fc", "classif"),
    ]

    def add(ours: str, theirs: str, chains: Chains) -> None:
        for layer, branch in timm_names(chains).items():
            rules.append((f"{ours}/{layer}/{{part}}", f"{theirs}.{branch}.{{part}}"))
        rules.append((f"{ours}/conv", f"{theirs}.conv2d"))

    add("backbone/inception_resnet_c10", "block8", _INCEPTION_RESNET_C)
    sequences = (("mixed_5b", "repeat"), ("mixed_6a", "repeat_1"), ("mixed_7a", "repeat_2"))
    for (stage, row), (entry, sequence) in zip(_STAGES.items(), sequences, strict=True):
        ours, entry_chains, chains, *_ = row
        add(f"backbone/{ours}", entry, entry_chains)
        add(f"backbone/inception_resnet_{stage}{{i}}", f"{sequence}.{{i-1}}", chains)
    return rules


def _keras() -> list[tuple[str, str]]:
    """Most layers have no name there: convolutions are numbered through, normalizations too."""
    names = [f"stem/conv{name}" for name in ("1a", "2a", "2b", "3b", "4a")]
    rules = [
        ("backbone/conv7b/conv", "conv_7b"),
        ("backbone/conv7b/bn", "conv_7b_bn"),
        ("head/fc", "predictions"),
    ]
    for (stage, row), block in zip(_STAGES.items(), ("block35", "block17", "block8"), strict=True):
        entry, entry_chains, chains, _, depth = row
        names += [f"{entry}/{layer}" for layer in layer_names(entry_chains)]
        for i in range(1, depth + 1):
            here = f"inception_resnet_{stage}{i}"
            names += [f"{here}/{layer}" for layer in layer_names(chains)]
            rules.append((f"backbone/{here}/conv", f"{block}_{i}_conv"))
    return [*rules, *keras_numbers(names)]


def _slim() -> list[tuple[str, ...]]:
    """TF-Slim has the stages in three repeats, and the last residual module by itself. Its auxiliary
    head is none of ours."""
    scope = "InceptionResnetV2"
    rules = [
        *slim_names.unit("backbone/stem/conv3b", f"{scope}.Conv2d_3b_1x1"),
        *slim_names.unit("backbone/stem/conv{name}", f"{scope}.Conv2d_{{name}}_3x3"),
        *slim_names.unit("backbone/conv7b", f"{scope}.Conv2d_7b_1x1"),
        ("auxiliary_inception_resnet_b/{layer}", f"{scope}.AuxLogits.{{layer}}"),
        ("head/fc", f"{scope}.Logits.Logits"),
    ]

    def add(ours: str, theirs: str, chains: Chains) -> None:
        for layer, branch in slim_names.module_names(chains).items():
            # A chain of a single 1x1 convolution.
            branch = branch.replace("0a_", "") if layer == "branch1x1" else branch
            rules.extend(slim_names.unit(f"backbone/{ours}/{layer}", f"{scope}.{theirs}.{branch}"))
        rules.append((f"backbone/{ours}/conv", f"{scope}.{theirs}.Conv2d_1x1"))

    add("inception_resnet_c10", "Block8", _INCEPTION_RESNET_C)
    parts = (
        ("Mixed_5b", "Repeat.block35"),
        ("Mixed_6a", "Repeat_1.block17"),
        ("Mixed_7a", "Repeat_2.block8"),
    )
    for (stage, row), (entry, block) in zip(_STAGES.items(), parts, strict=True):
        ours, entry_chains, chains, *_ = row
        add(ours, entry, entry_chains)
        add(f"inception_resnet_{stage}{{i}}", f"{block}_{{i}}", chains)
    return rules


RENAMES = {"timm": _timm, "keras": _keras(), "slim": _slim()}
