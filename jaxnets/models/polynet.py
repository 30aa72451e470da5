"""PolyNet. Zhang, Li, Loy and Lin 2016, "PolyNet: A Pursuit of Structural Diversity in Very Deep
Networks", arXiv:1611.05725, section 3 and figures 3 and 4.

Where Inception-ResNet-v2 adds to a map x the residual F(x) of an Inception block F, a PolyInception
module adds a polynomial of blocks (figure 3): poly-2 is x + F(x) + F(F(x)), mpoly-2 is
x + F(x) + G(F(x)), 2-way is x + F(x) + G(x); order 3 goes on in the same way.

It follows the net that public weights are for, the paper's Very Deep PolyNet. There the F of a poly
module shares its convolutions from order to order, but neither its norms nor its last convolution;
ReLU stands between the orders; and residuals are scaled by 1 in the first module, falling linearly to
0.7 in the last, the odds with which training kept them. Kernels are drawn by He's rule.
"""

from functools import partial

from flax import linen as nn
from jax import Array

from jaxnets.errors import InputError, unknown_name
from jaxnets.layers import (
    BatchNorm,
    Conv,
    DropPath,
    LinearHead,
    drop_path_rates,
    max_pool,
    same_padding,
)
from jaxnets.models import published
from jaxnets.models.classifier import Classifier
from jaxnets.models.inception_parts import Chains, ConvUnit, Inception, Layer, branches
from jaxnets.models.settings import CountOrZero, Counts, Probability

PAPER = "Zhang et al. 2016, arXiv:1611.05725"

VARIANTS = {
    "polynet": {"depths": (10, 20, 10), "modules": ("2-way", "poly-3 2-way", "poly-3 2-way")},
}

WEIGHTS = {
    "polynet": (published.cadene("polynet-f71d82a5.pth", "polynet", 81.00, resize=378, size=331),),
}

KINDS = ("2-way", "3-way", "poly-2", "poly-3", "mpoly-2", "mpoly-3")

_unit = partial(ConvUnit, epsilon=1e-5)
_halving_pool = partial(max_pool, window=3, strides=2)

_STEM1: Chains = ((_halving_pool,), (Layer("conv", 96, 3, strides=2, padding=0),))
_STEM2: Chains = (
    (Layer("short_1x1", 64, 1), Layer("short_3x3", 96, 3, padding=0)),
    (
        Layer("long_1x1", 64, 1),
        Layer("long_7x1", 64, (7, 1)),
        Layer("long_1x7", 64, (1, 7)),
        Layer("long_3x3", 96, 3, padding=0),
    ),
)
_STEM3: Chains = ((_halving_pool,), (Layer("conv", 192, 3, strides=2, padding=0),))

_BLOCK_A: Chains = (
    (Layer("path0_1x1", 32, 1), Layer("path0_3x3a", 48, 3), Layer("path0_3x3b", 64, 3)),
    (Layer("path1_1x1", 32, 1), Layer("path1_3x3", 32, 3)),
    (Layer("path2", 32, 1),),
)
_BLOCK_B: Chains = (
    (Layer("path0_1x1", 128, 1), Layer("path0_1x7", 160, (1, 7)), Layer("path0_7x1", 192, (7, 1))),
    (Layer("path1", 192, 1),),
)
_BLOCK_C: Chains = (
    (Layer("path0_1x1", 192, 1), Layer("path0_1x3", 224, (1, 3)), Layer("path0_3x1", 256, (3, 1))),
    (Layer("path1", 192, 1),),
)

_REDUCTION_A: Chains = (
    (
        Layer("path0_1x1", 256, 1),
        Layer("path0_3x3a", 256, 3),
        Layer("path0_3x3b", 384, 3, strides=2, padding=0),
    ),
    (Layer("path1", 384, 3, strides=2, padding=0),),
    (_halving_pool,),
)
_REDUCTION_B: Chains = (
    (
        Layer("path0_1x1", 256, 1),
        Layer("path0_3x3a", 256, 3),
        Layer("path0_3x3b", 256, 3, strides=2, padding=0),
    ),
    (Layer("path1_1x1", 256, 1), Layer("path1_3x3", 256, 3, strides=2, padding=0)),
    (Layer("path2_1x1", 256, 1), Layer("path2_3x3", 384, 3, strides=2, padding=0)),
    (_halving_pool,),
)

# The blocks of each stage, and what leads from it to the next.
_STAGES = {"a": (_BLOCK_A, _REDUCTION_A), "b": (_BLOCK_B, _REDUCTION_B), "c": (_BLOCK_C, None)}


class PolyConvUnit(nn.Module):
    """A convolution `conv` and ReLU, with a batch normalization of its own for each order, `bn1` ...

    Attributes:
        features: output channels.
        kernel_size: the padding keeps the size.
        order: which normalization to use.
    """

    features: int
    kernel_size: int | tuple[int, int]
    strides: int = 1
    padding: int | None = None
    order: int = 1

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Maps [N, H, W, C] to [N, H, W, features]."""
        padding = same_padding(self.kernel_size)
        x = Conv(self.features, self.kernel_size, padding=padding, use_bias=False, name="conv")(x)
        return nn.relu(BatchNorm(use_running_average=not train, name=f"bn{self.order}")(x))


class Block(nn.Module):
    """An Inception block: `chains`, and a 1x1 convolution back to the input's channels, which has no
    ReLU. Called again with another order it has another last convolution and other norms."""

    chains: Chains

    @nn.compact
    def __call__(self, x: Array, train: bool, order: int = 1) -> Array:
        """Maps [N, H, W, C] to the same shape."""
        y = branches(x, train, self.chains, partial(PolyConvUnit, order=order))
        y = Conv(x.shape[-1], 1, use_bias=False, name=f"conv{order}")(y)
        return BatchNorm(use_running_average=not train, name=f"bn{order}")(y)


class PolyInception(nn.Module):
    """A polynomial of Inception blocks, added to their input, and ReLU (figure 3).

    Attributes:
        kind: one of `KINDS`.
        chains: of its blocks: `block1`, the only one in a poly module, `block2` ...
        scale: what every term of the polynomial is multiplied by.
        drop_path: probability of dropping each term of the polynomial.
    """

    kind: str
    chains: Chains
    scale: float
    drop_path: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Maps [N, H, W, C] to the same shape."""
        shared, parallel = self.kind.startswith("poly"), self.kind.endswith("way")
        (degree,) = (int(letter) for letter in self.kind if letter.isdigit())
        out = fed = x
        for i in range(1, degree + 1):
            if i == 1 or not shared:
                block = Block(self.chains, name=f"block{i}")
            y = block(fed, train, order=i if shared else 1)
            term = DropPath(self.drop_path, name=f"drop_path{i}")(self.scale * y, not train)
            out = out + term
            if not parallel:
                fed = nn.relu(y)
        return nn.relu(out)


class PolyNet(nn.Module):
    """A stem and three stages of PolyInception modules; the arguments are those of `build`."""

    depths: tuple[int, ...]
    modules: tuple[str, ...]
    drop_path: float

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> dict[str, Array]:
        """Maps [N, H, W, C] to `conv1` (stride 2), `stem2` (4), `stem3`, `stage_a` (8), `stage_b`
        (16) and `stage_c` (32). At 331 x 331 their sides are 163, 79, 39, 39, 19 and 9."""
        out = {}
        x = _unit(32, 3, strides=2, padding=0, name="conv1a")(images, train)
        x = _unit(32, 3, padding=0, name="conv1b")(x, train)
        x = out["conv1"] = _unit(64, 3, name="conv1c")(x, train)
        x = Inception(_STEM1, _unit, name="stem1")(x, train)
        x = out["stem2"] = Inception(_STEM2, _unit, name="stem2")(x, train)
        x = out["stem3"] = Inception(_STEM3, _unit, name="stem3")(x, train)
        total = sum(self.depths)
        rates = drop_path_rates(self.drop_path, total)
        rows = iter(zip(_scales(total), rates, strict=True))
        for (stage, (chains, reduction)), kinds in zip(
            _STAGES.items(), stage_kinds(self.depths, self.modules), strict=True
        ):
            for i, kind in enumerate(kinds, start=1):
                module = PolyInception(kind, chains, *next(rows), name=f"stage_{stage}{i}")
                x = module(x, train)
            out[f"stage_{stage}"] = x
            if reduction:
                x = Inception(reduction, _unit, name=f"reduction_{stage}")(x, train)
        return out


def stage_kinds(depths: tuple[int, ...], modules: tuple[str, ...]) -> list[list[str]]:
    """The kind of each module of each stage; arguments as for `build`."""
    return [
        [kinds.split()[i % len(kinds.split())] for i in range(depth)]
        for depth, kinds in zip(depths, modules, strict=True)
    ]


def _scales(total: int) -> list[float]:
    """From 1 to 0.7, to six places, as the authors wrote them down."""
    return [round(1 - 0.3 * i / max(1, total - 1), 6) for i in range(total)]


def build(
    *,
    num_classes: CountOrZero = 1000,
    depths: Counts,
    modules: tuple[str, ...],
    drop_path: Probability = 0.0,
    dropout: Probability = 0.2,
) -> Classifier:
    """A PolyNet for 331 x 331 images; accepts any of at least 75 x 75.

    Args:
        num_classes: 0 for the mean of the last maps.
        depths: modules in each of the three stages.
        modules: for each stage the kinds of module that take turns in it, for instance
            "poly-3 2-way": "2-way", "poly-2", "mpoly-2", or the same of order 3.
        drop_path: probability of dropping each term of the last module; it grows linearly
            from the first module (the paper's stochastic paths).
        dropout: rate before the dense layer.

    Raises:
        InputError: other than three stages, or an unknown kind.
    """
    if len(depths) != 3 or len(modules) != 3:
        raise InputError(
            f"depths and modules: wanted one of each for three stages, got {depths} and {modules}"
        )
    for kinds in modules:
        for kind in kinds.split() or [kinds]:
            if kind not in KINDS:
                raise unknown_name("kind of module", kind, KINDS)
    return Classifier(
        backbone=PolyNet(depths, modules, drop_path),
        head=LinearHead(num_classes, dropout),
        num_classes=num_classes,
        input_size=(331, 331, 3),
        min_size=75,
    )


def _cadene(model: Classifier) -> list[tuple[str, str]]:
    """Cadene's collection numbers the steps of a path, but names them where a poly module shares
    them."""
    rules = [("head/fc", "last_linear")]

    def add(ours: str, theirs: str, chains: Chains, paths: tuple[str, ...], norm: str = "bn") -> None:
        for chain, path in zip(chains, paths, strict=True):
            for i, layer in enumerate(step for step in chain if isinstance(step, Layer)):
                name = f"{theirs}.{path}" + (f".{i}" if len(chain) > 1 else "")
                rules.append((f"{ours}/{layer.name}/conv", f"{name}.conv"))
                rules.append((f"{ours}/{layer.name}/{norm}", f"{name}.bn"))

    for i, letter in enumerate("abc"):
        rules.append((f"backbone/conv1{letter}/{{part}}", f"stem.conv1.{i}.{{part}}"))
    add("backbone/stem1", "stem", _STEM1, ("", "conv1_branch"))
    add("backbone/stem2", "stem", _STEM2, ("conv2_short", "conv2_long"))
    add("backbone/stem3", "stem", _STEM3, ("", "conv2_branch"))
    numbered = ("path0", "path1", "path2", "path3")
    backbone = model.backbone
    for (stage, (chains, reduction)), kinds in zip(
        _STAGES.items(), stage_kinds(backbone.depths, backbone.modules), strict=True
    ):
        if reduction:
            ours = f"backbone/reduction_{stage}"
            add(ours, f"reduction_{stage}", reduction, numbered[: len(reduction)])
        for i, kind in enumerate(kinds):
            ours, theirs = f"backbone/stage_{stage}{i + 1}", f"stage_{stage}.{i}"
            if kind.startswith("poly"):
                rules += [
                    (f"{ours}/block1/conv{{n}}", f"{theirs}.conv2d_blocks.{{n-1}}.conv"),
                    (f"{ours}/block1/bn{{n}}", f"{theirs}.conv2d_blocks.{{n-1}}.bn"),
                    (f"{ours}/block1/{{layer}}/conv", f"{theirs}.{{layer}}.conv"),
                    (f"{ours}/block1/{{layer}}/bn{{n}}", f"{theirs}.{{layer}}.bn_blocks.{{n-1}}"),
                ]
                continue
            block = f"{theirs}.blocks.{{n-1}}"
            add(f"{ours}/block{{n}}", block, chains, numbered[: len(chains)], norm="bn1")
            rules.append((f"{ours}/block{{n}}/conv1", f"{block}.conv2d.conv"))
            rules.append((f"{ours}/block{{n}}/bn1", f"{block}.conv2d.bn"))
    return rules


RENAMES = {"cadene": _cadene}
