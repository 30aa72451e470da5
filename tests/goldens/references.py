"""Which models are compared with which reference, and how."""

from collections.abc import Mapping
from typing import Any, NamedTuple


AUXILIARY_WEIGHT = 0.3
"""What the loss of an auxiliary head adds to that of the last one."""


class Reference(NamedTuple):
    """A row of `GOLDENS`.

    Attributes:
        library: whose names the weights have, a key of the family's `RENAMES`.
        constructor: what the library calls the model.
        size: side of the images. Small, for quick runs, but each stage should keep a map of several
            pixels, and a dense layer that reads a grid should see it in full.
        images: how many of them.
        options: further arguments of the constructor.
        model: what jaxnets calls the model; None where it is the name of the row.
        overrides: the arguments of `create_model` that belong to `options`.
        quiet: see `draw.state_dict`.
        small: whether this is its family's small member, which every run of the tests checks, its
            gradients and statistics in training too. Not one with grouped convolutions: their
            gradients are slow on a CPU.
    """

    library: str
    constructor: str
    size: int = 64
    images: int = 4
    options: Mapping[str, Any] = {}
    model: str | None = None
    overrides: Mapping[str, Any] = {}
    quiet: str = ""
    small: bool = False


def _torchvision(*constructors: str, **settings: Any) -> dict[str, Reference]:
    """Rows of models that have the same name here and there."""
    return {name: Reference("torchvision", name, **settings) for name in constructors}


_BASIC, _BOTTLENECK = {"quiet": "layer*.bn2.weight"}, {"quiet": "layer*.bn3.weight"}

GOLDENS = {
    "alexnet_owt": Reference("torchvision", "alexnet", size=224, images=2, small=True),
    **_torchvision("resnet18", **_BASIC, small=True),
    **_torchvision("resnet34", **_BASIC),
    **_torchvision("resnet50", "resnet101", "resnet152", **_BOTTLENECK),
    **_torchvision("wide_resnet50_2", "wide_resnet101_2", **_BOTTLENECK),
    **_torchvision("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", **_BOTTLENECK),
    "resnext101_32x4d": Reference("timm", "resnext101_32x4d", **_BOTTLENECK),
    **_torchvision("vgg11", "vgg13", "vgg16", "vgg19", size=224, images=2),
    **_torchvision("vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn", size=224, images=2),
    "vgg11_bn_narrow": Reference(
        "timm",
        "vgg11_bn",
        options={"mlp_ratio": 1 / 64},
        model="vgg11_bn",
        overrides={"hidden": (64, 4096)},
        small=True,
    ),
}
"""By the name of a file in `data/`: the model's own, or another where it has several rows."""
