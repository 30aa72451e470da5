"""What captum explains in `make_explain_goldens.py`, and we in tests/explain/test_captum.py."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Explained(NamedTuple):
    """A network.

    Attributes:
        model: what jaxnets calls it.
        overrides: further arguments of `create_model`.
        size: side of the images.
        layer: a feature map.
        reference_layer: what the reference calls it.
        library: whose weights it has.
        quiet: see `draw.state_dict`.
    """

    model: str
    overrides: Mapping[str, Any]
    size: int
    layer: str
    reference_layer: str
    library: str
    quiet: str = ""


EXPLAINED = {
    "vgg": Explained(
        model="vgg11",
        overrides={"hidden": (64, 4096), "num_classes": 10},
        size=32,
        layer="stage3",
        reference_layer="features.10",
        library="timm",
    ),
    "resnet": Explained(
        model="resnet18",
        overrides={"depths": (1, 1, 1, 1), "num_classes": 10},
        size=32,
        layer="stage2",
        reference_layer="layer2",
        library="torchvision",
        quiet="layer*.bn2.weight",
    ),
}

BASELINE = 0.25  # of integrated gradients, and what the occluder is made of
STEPS = 4
OCCLUDER, STRIDE = (20, 18), (10, 7)
