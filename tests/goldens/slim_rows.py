"""Which of TF-Slim's nets are compared, how their weights are drawn and how they are kept.

Nothing here needs TensorFlow: `make_slim_goldens.py` and `test_slim.py` share it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import draw
import numpy as np

AVERAGE = "ExponentialMovingAverage"  # below a variable
BACKGROUND = 1001


class Slim(NamedTuple):
    """A row of `GOLDENS`.

    Attributes:
        constructor: slim's module and function, below `nets`.
        scope: the function beside it that gives the scope of arguments.
        size: side of the images.
        classes: of the published weights.
        options: further arguments of the constructor.
        model: what jaxnets calls the model; None where it is the name of the row.
        overrides: the arguments of `create_model` that belong to `options`.
        quiet: see `draw.state_dict`.
        small: whether every run of the tests checks the row.
    """

    constructor: str
    scope: str
    size: int = 96
    classes: int = BACKGROUND
    options: Mapping[str, Any] = {}
    model: str | None = None
    overrides: Mapping[str, Any] = {}
    quiet: str = ""
    small: bool = False


_POOLED = {"options": {"global_pool": True}}


def _mobilenet_v1(width: float, **settings: Any) -> Slim:
    options = {"depth_multiplier": width, "global_pool": True}
    scope = "mobilenet_v1.mobilenet_v1_arg_scope"
    return Slim("mobilenet_v1.mobilenet_v1", scope, 64, options=options, **settings)


def _mobilenet_v2(width: float) -> Slim:
    module = "mobilenet.mobilenet_v2"
    options = {"depth_multiplier": width}
    quiet = "*_*[02468].project.BatchNorm.weight"
    return Slim(f"{module}.mobilenet", f"{module}.training_scope", 64, options=options, quiet=quiet)


def _nasnet(module: str, name: str) -> Slim:
    scope = f"{module}.{name}_arg_scope"
    return Slim(f"{module}.build_{name}", scope, 96, quiet="*.bn_sep_*_2.weight")


GOLDENS = {
    "googlenet": Slim("inception_v1.inception_v1", "inception_v1.inception_v1_arg_scope", **_POOLED),
    "inception_v2": Slim("inception_v2.inception_v2", "inception_v2.inception_v2_arg_scope", **_POOLED),
    "vgg16": Slim("vgg.vgg_16", "vgg.vgg_arg_scope", 224, 1000),
    "vgg19": Slim("vgg.vgg_19", "vgg.vgg_arg_scope", 224, 1000),
    "inception_v3": Slim("inception_v3.inception_v3", "inception_v3.inception_v3_arg_scope", 299),
    "inception_v4": Slim("inception_v4.inception_v4", "inception_v4.inception_v4_arg_scope", 139),
    "inception_resnet_v2": Slim(
        "inception_resnet_v2.inception_resnet_v2",
        "inception_resnet_v2.inception_resnet_v2_arg_scope",
        139,
        quiet="*.[Bb]lock*.Conv2d_1x1.weight",
    ),
    **{
        f"resnet{layers}": Slim(
            f"resnet_v1.resnet_v1_{layers}",
            "resnet_v1.resnet_arg_scope",
            64,
            1000,
            quiet="*.conv3.BatchNorm.weight",
        )
        for layers in (50, 101, 152)
    },
    **{
        f"resnetv2_{layers}": Slim(
            f"resnet_v2.resnet_v2_{layers}",
            "resnet_v2.resnet_arg_scope",
            64,
            quiet="*.bottleneck_v2.conv3.weight",
        )
        for layers in (50, 101, 152)
    },
    "nasnet_mobile": _nasnet("nasnet.nasnet", "nasnet_mobile"),
    "nasnet_large": _nasnet("nasnet.nasnet", "nasnet_large"),
    "pnasnet5_mobile": _nasnet("nasnet.pnasnet", "pnasnet_mobile"),
    "pnasnet5_large": _nasnet("nasnet.pnasnet", "pnasnet_large"),
    "mobilenet_v2_100": _mobilenet_v2(1.0),
    "mobilenet_v2_140": _mobilenet_v2(1.4),
    "mobilenet_v1_100": _mobilenet_v1(1.0),
    "mobilenet_v1_050": _mobilenet_v1(0.5),
    "mobilenet_v1_025": _mobilenet_v1(0.25, small=True),
}
"""By the name of a file in `data/slim/`: the model's own, or another."""

IMAGES = 2

_LEAVES = {
    "weights": "weight",
    "biases": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "depthwise_weights": "depthwise.weight",
    "pointwise_weights": "pointwise.weight",
}


def drawn(shapes: Mapping[str, tuple[int, ...]], quiet: str) -> dict[str, np.ndarray]:
    """The variables of a net, by slim's names and in slim's layouts.

    Each is drawn by the rule of the other goldens, as torch would name and order it.
    """
    there = {}
    for name, shape in shapes.items():
        scope, _, leaf = name.rpartition("/")
        axes = _axes(leaf, shape)
        if leaf == "biases" and f"{scope}/pointwise_weights" in shapes:
            scope += "/pointwise"
        there[name] = f"{scope.replace('/', '.')}.{_LEAVES[leaf]}", axes
    tensors = draw.state_dict(
        {key: tuple(shapes[name][axis] for axis in axes) for name, (key, axes) in there.items()}, quiet
    )
    return {name: tensors[key].transpose(np.argsort(axes)) for name, (key, axes) in there.items()}


def _axes(leaf: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Which axis of slim's comes first in torch, which second, ..."""
    if len(shape) == 4:
        return (2, 3, 0, 1) if leaf == "depthwise_weights" else (3, 2, 0, 1)
    return (1, 0) if len(shape) == 2 else (0,)
