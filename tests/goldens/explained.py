"""What captum explains in `make_explain_goldens.py`, and we in tests/explain/test_captum.py."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Explained(NamedTuple):
    """A network.

    Attributes:
        model: what jaxnets calls it.
        overrides: further arguments of `create_model`.
        size: side of the images.
        layers: the reference's names of feature maps, by ours.
        library: whose weights it has.
        quiet: see `draw.state_dict`.
    """

    model: str
    overrides: Mapping[str, Any]
    size: int
    layers: Mapping[str, str]
    library: str
    quiet: str = ""


EXPLAINED = {
    "vgg": Explained(
        model="vgg11",
        overrides={"hidden": (64, 4096), "num_classes": 10},
        size=32,
        layers={"stage2": "features.5", "stage4": "features.15"},
        library="timm",
    ),
    "resnet": Explained(
        model="resnet18",
        overrides={"depths": (1, 1, 1, 1), "num_classes": 10},
        size=32,
        layers={"stage1": "layer1", "stage3": "layer3"},
        library="torchvision",
        quiet="layer*.bn2.weight",
    ),
}

BASELINE = 0.25  # of integrated gradients, and what the occluder is made of
STEPS = 6
OCCLUDER, STRIDE = (12, 10), (6, 5)
UNIT = 7
