"""RefineNets: rows as in `segmenters.py`. Their references are the published torch programs."""

from collections.abc import Mapping

import draw
import numpy as np
from segmenters import Segmenter

_SHORT = {"backbone_settings": {"depths": (1, 1, 1, 1)}}

SEGMENTERS = {
    "refinenet_resnet50": Segmenter("refinenet_resnet50", (99_060_309,) * 2, library="drsleep"),
    "refinenet_resnet101": Segmenter("refinenet_resnet101", (118_052_437,) * 2, library="drsleep"),
    "refinenet_resnet152": Segmenter("refinenet_resnet152", (133_696_085,) * 2, library="drsleep"),
    "refinenet_short": Segmenter(
        "refinenet_resnet50", (83_568_213,) * 2, overrides=_SHORT, library="drsleep"
    ),
    "refinenet_lw_resnet50": Segmenter("refinenet_lw_resnet50", (27_357_525,) * 2, library="drsleep"),
    "refinenet_lw_resnet101": Segmenter("refinenet_lw_resnet101", (46_349_653,) * 2, library="drsleep"),
    "refinenet_lw_resnet152": Segmenter("refinenet_lw_resnet152", (61_993_301,) * 2, library="drsleep"),
    "refinenet_lw_short": Segmenter(
        "refinenet_lw_resnet50", (11_865_429,) * 2, overrides=_SHORT, library="drsleep"
    ),
}
"""By the name of a file in `data/segmenters/`. The short ones have a block in each stage."""

TRAINED = ("refinenet_short", "refinenet_lw_short")

DEPTHS = {"50": (3, 4, 6, 3), "101": (3, 4, 23, 3), "152": (3, 8, 36, 3), "short": (1, 1, 1, 1)}
"""Blocks in each stage, by the end of a row's name without "resnet"."""


def drawn(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The state dict of a row. The last convolution of each residual branch is small, see `draw.py`."""
    state = draw.state_dict(shapes, "layer*.bn3.weight")
    for key, value in state.items():
        if key.endswith(("_conv_relu_varout_dimred.weight", "_outvar_dimred.weight")):
            state[key] = value * np.float32(0.3)
        elif key.startswith("p_ims1d2_"):  # maps grow with depth, and no normalization follows
            state[key] = value * np.float32(0.1)
    return state
