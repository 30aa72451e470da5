"""Which models are compared with which of Keras's applications, and the weights that both are given."""

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import draw
import numpy as np
from keras_layouts import LEAVES, axes_in_torch
from keras_writer import Layer

DATA = Path(__file__).parent / "data" / "keras"
TUNED_CLASSES = 5


class Application(NamedTuple):
    """A row of `APPLICATIONS`.

    Attributes:
        constructor: in `keras.applications`, or in `make_keras_goldens.SHORTENED`.
        size: side of the images.
        options: further arguments of the constructor.
        model: what jaxnets calls the model; None where it is the name of the row.
        overrides: the arguments of `create_model` that belong to `options`.
        quiet: see `draw.state_dict`.
        small: whether every run of the tests checks it.
    """

    constructor: str
    size: int = 64
    options: Mapping[str, Any] = {}
    model: str | None = None
    overrides: Mapping[str, Any] = {}
    quiet: str = ""
    small: bool = False


_RESNET, _RESNET_V2 = {"quiet": "*_3_bn.weight"}, {"quiet": "*_3_conv.weight"}
_MOBILENET_V2 = {"quiet": "block_*[24578]_project_BN.weight"}
_CELLS = {"quiet": "separable_conv_2_bn_*.weight"}
_SHORT = {"depths": (1, 2, 1, 1)}

APPLICATIONS = {
    "vgg16": Application("VGG16"),
    "vgg19": Application("VGG19"),
    "resnet50": Application("ResNet50", **_RESNET),
    "resnet101": Application("ResNet101", **_RESNET),
    "resnet152": Application("ResNet152", **_RESNET),
    "resnet50_short": Application(
        "ShortResNet", options=_SHORT, model="resnet50", overrides=_SHORT, small=True, **_RESNET
    ),
    "resnetv2_50": Application("ResNet50V2", **_RESNET_V2),
    "resnetv2_101": Application("ResNet101V2", **_RESNET_V2),
    "resnetv2_152": Application("ResNet152V2", **_RESNET_V2),
    "resnetv2_50_short": Application(
        "ShortResNetV2",
        size=75,
        options={"depths": (2, 2, 2, 2)},
        model="resnetv2_50",
        overrides={"depths": (2, 2, 2, 2)},
        small=True,
        **_RESNET_V2,
    ),
    "inception_v3": Application("InceptionV3", size=107),
    "inception_resnet_v2": Application("InceptionResNetV2", size=107),
    "xception": Application("Xception", size=96, quiet="block*_sepconv[23]_bn.weight"),
    "mobilenet_v1_100": Application("MobileNet"),
    "mobilenet_v1_050": Application("MobileNet", options={"alpha": 0.5}),
    "mobilenet_v1_025": Application("MobileNet", options={"alpha": 0.25}, small=True),
    "mobilenet_v2_100": Application("MobileNetV2", **_MOBILENET_V2),
    "mobilenet_v2_140": Application("MobileNetV2", size=75, options={"alpha": 1.4}, **_MOBILENET_V2),
    "mobilenet_v2_narrow": Application(
        "MobileNetV2",
        options={"alpha": 0.35},
        model="mobilenet_v2_100",
        overrides={"width": 0.35},
        **_MOBILENET_V2,
    ),
    "densenet121": Application("DenseNet121"),
    "densenet169": Application("DenseNet169"),
    "densenet201": Application("DenseNet201"),
    "densenet121_short": Application(
        "ShortDenseNet", options=_SHORT, model="densenet121", overrides=_SHORT, small=True
    ),
    "nasnet_mobile": Application("NASNetMobile", size=96, **_CELLS),
    "nasnet_large": Application("NASNetLarge", size=107, **_CELLS),
}
"""By the name of a file in `data/keras/`: the model's own, or another."""


def drawn(kind: str, layer: str, leaf: str, shape: Sequence[int], quiet: str = "") -> np.ndarray:
    """A variable of Keras's, by the rule of `draw` for torch's names, shapes and layouts."""
    name = f"{layer}.{LEAVES.get(leaf, leaf)}"
    axes = axes_in_torch(kind, leaf, len(shape))
    value = draw.tensor(name, tuple(shape[axis] for axis in axes))
    if quiet and fnmatch.fnmatch(name, quiet):
        value = value * np.float32(0.3)
    return np.ascontiguousarray(value.transpose(np.argsort(axes)))


def layer_of(line: str, quiet: str = "") -> Layer:
    """A layer with its drawn variables, of a line such as `Dense dense; kernel 1024 5; bias 5`."""
    start, *variables = line.split("; ")
    kind, name = start.split()
    shapes = {leaf: tuple(map(int, shape)) for leaf, *shape in map(str.split, variables)}
    values = {leaf: drawn(kind, name, leaf, shape, quiet) for leaf, shape in shapes.items()}
    return Layer(kind, name, values)


def application(lines: str, quiet: str = "") -> Layer:
    """The whole application, of the lines of its layers in the order that Keras has."""
    return Layer("Functional", "application", {}, [layer_of(line, quiet) for line in lines.splitlines()])


def tuned(whole: Layer, dense: str, nested: bool = True) -> Layer:
    """As a user fine-tunes it: without its own dense layers (in MobileNet a convolution), as a layer of
    another model or, where not `nested`, with its layers in that, and with another dense layer.

    Args:
        whole: the application.
        dense: the line of the dense layer.
        nested: whether it is a layer.
    """
    body = [layer for layer in whole.layers if layer.kind != "Dense" and layer.name != "conv_preds"]
    backbone = [whole._replace(layers=body)] if nested else body
    others = [Layer("GlobalAveragePooling2D", "means", {}), Layer("Dropout", "dropout", {})]
    return Layer("Functional", "tuned", {}, [*backbone, *others, layer_of(dense)])
