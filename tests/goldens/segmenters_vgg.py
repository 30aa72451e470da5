"""The paper's FCNs and SegNet: rows as in `segmenters.py`, and how their weights are drawn.

Their references are programs that `make_segmenter_vgg_goldens.py` writes down in torch from the authors'
Caffe models, with the names of the layers there.
"""

from collections.abc import Mapping

import draw
import numpy as np
from segmenters import Segmenter

_NARROW = {"widths": (8, 12, 16, 20, 24)}
_SHORT = {**_NARROW, "depths": (2, 2, 1, 1, 1)}

SEGMENTERS = {
    "fcn32s_vgg16": Segmenter("fcn32s_vgg16", (134_346_581,) * 2, "caffe"),
    "fcn16s_vgg16": Segmenter("fcn16s_vgg16", (134_357_354,) * 2, "caffe"),
    "fcn8s_vgg16": Segmenter("fcn8s_vgg16", (134_362_751,) * 2, "caffe"),
    "fcn8s_atonce_vgg16": Segmenter("fcn8s_atonce_vgg16", (134_362_751,) * 2, "caffe"),
    "fcn32s_vgg16_narrow": Segmenter("fcn32s_vgg16", (73_689,) * 2, "caffe", {**_NARROW, "hidden": 32}),
    "fcn8s_atonce_vgg16_narrow": Segmenter(
        "fcn8s_atonce_vgg16", (74_487,) * 2, "caffe", {**_NARROW, "hidden": 32}
    ),
    "segnet_vgg16": Segmenter("segnet_vgg16", (29_449_355,) * 2, "caffe"),
    "segnet_vgg16_short": Segmenter("segnet_vgg16", (24_875,) * 2, "caffe", _SHORT),
    "segnet_vgg16_short_large": Segmenter(
        "segnet_vgg16", (24_875,) * 2, "caffe", _SHORT, size=(360, 480), count=1
    ),
    "segnet_basic": Segmenter("segnet_basic", (1_416_587,) * 2, "caffe"),
}
"""By the name of a file in `data/segmenters/`."""

TRAINED = ("fcn8s_atonce_vgg16_narrow", "segnet_vgg16_short", "segnet_basic")


def drawn(name: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The state dict of a row.

    Kernels that enlarge scores have no zeros and no symmetry, so that the place of each number counts.
    SegNet-Basic's first kernels are small, for pictures of 0 to 255, of which local response
    normalization sees something.
    """
    state = draw.state_dict(shapes)
    for key, value in state.items():
        if key.startswith("upscore"):
            state[key] = draw.uniform(key, value.shape, -0.3, 0.3)
        elif name == "segnet_basic" and key == "conv1.weight":
            state[key] = value / np.float32(60)
    return state


def as_taken(name: str, images: np.ndarray) -> np.ndarray:
    """The pictures of `segmenters.images` in the range of the row."""
    scaled = images * np.float32(60) + np.float32(127.5)
    return scaled if name == "segnet_basic" else images
