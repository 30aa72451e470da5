"""Which detectors are compared with torchvision's, and all that both programs must draw alike.

`make_detector_goldens.py` and `test_detectors.py` share it; it needs NumPy alone. Weights are drawn by
`draw.py`'s rule, but a random detector detects nothing, so the last layer of each head is set by what
it answers: the weights of a channel are multiplied by a scale and its bias is replaced such that its
answers over the pictures, each level and picture counting alike, have the mean and the deviation that
`LAST_LAYERS` asks for. Scales and biases are kept in the golden, two numbers a channel.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import draw
import numpy as np

DATA = Path(__file__).parent / "data" / "detectors"

QUIET = "*layer*.bn3.weight"
"""The last scale of each residual branch, see `draw.state_dict`."""

PICTURES = {"picture 4": (97, 120), "picture 1": (427, 640), "picture 12": (500, 333)}
"""Heights and widths by the names they are drawn by; a detector takes them one by one."""

NUM_CLASSES = 91


class Detector(NamedTuple):
    """A row of `DETECTORS`.

    Attributes:
        model: torchvision's and jaxnets' name of it, built without any weights.
        epsilon: of the batch normalization in the backbone, where it is replaced by a frozen one of
            this epsilon, as in the first published files; None keeps it as built.
        seed: put before the names of tensors by which they are drawn, to draw others.
        background: mean of the background's logit, of R-CNNs.
        logit: mean of the logits of the classes, of one-stage detectors.
        deviation: of the logits of the classes.
    """

    model: str
    epsilon: float | None = None
    seed: str = ""
    background: float = 0.0
    logit: float = 0.0
    deviation: float = 2.0


DETECTORS = {
    "fasterrcnn_resnet50_fpn": Detector("fasterrcnn_resnet50_fpn", background=10.3),
    "fasterrcnn_resnet50_fpn_epsilon0": Detector(
        "fasterrcnn_resnet50_fpn", epsilon=0.0, background=10.3
    ),
    "maskrcnn_resnet50_fpn": Detector("maskrcnn_resnet50_fpn", background=10.3),
    "retinanet_resnet50_fpn": Detector("retinanet_resnet50_fpn", logit=-17.4),
    "retinanet_resnet50_fpn_v2": Detector("retinanet_resnet50_fpn_v2", logit=-16.3),
    "fcos_resnet50_fpn": Detector("fcos_resnet50_fpn", logit=-23.0, deviation=3.0),
}
"""By the name of a file in `data/detectors/`."""


def last_layers(row: Detector) -> list[dict[str, tuple[np.ndarray, np.ndarray]]]:
    """What the last layers are to answer: (means, deviations) of their channels by their names.

    In stages, because what a layer gets depends on those of the stages before.
    """
    sides = (0.15, 0.15, 0.3, 0.3)

    def channels(count, mean, deviation):
        return np.resize(mean, count), np.resize(deviation, count)

    if row.model.startswith(("fasterrcnn", "maskrcnn")):
        classes = channels(NUM_CLASSES, 0.0, row.deviation)
        classes[0][0] = row.background
        stages = [
            {
                "rpn.head.cls_logits": channels(3, -2.0, 1.0),
                "rpn.head.bbox_pred": channels(12, 0.0, sides),
            },
            {
                "roi_heads.box_predictor.cls_score": classes,
                "roi_heads.box_predictor.bbox_pred": channels(4 * NUM_CLASSES, 0.0, 0.7),
            },
        ]
        if row.model.startswith("maskrcnn"):
            stages.append({"roi_heads.mask_predictor.mask_fcn_logits": channels(NUM_CLASSES, 0.0, 2.0)})
        return stages
    anchors = 9 if row.model.startswith("retinanet") else 1
    stage = {
        "head.classification_head.cls_logits": channels(anchors * NUM_CLASSES, row.logit, row.deviation),
        "head.regression_head.bbox_reg": channels(4 * anchors, 0.0, sides),
    }
    if anchors == 1:
        stage["head.regression_head.bbox_reg"] = channels(4, 2.0, 0.7)
        stage["head.regression_head.bbox_ctrness"] = channels(1, 2.0, 2.0)
    return [stage]


def drawn(
    shapes: Mapping[str, tuple[int, ...]], seed: str, kept: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The state dict of a row.

    Args:
        shapes: those of the reference's tensors, by name.
        seed: the row's.
        kept: `scale NAME` and `bias NAME`, f32[channels], of each last layer; others are ignored.
    """
    state = draw.state_dict({seed + name: shape for name, shape in shapes.items()}, QUIET)
    state = {name.removeprefix(seed): value for name, value in state.items()}
    for key, value in kept.items():
        kind, _, layer = key.partition(" ")
        if kind == "scale":
            weight = state[f"{layer}.weight"]
            state[f"{layer}.weight"] = weight * value.reshape(-1, *[1] * (weight.ndim - 1))
        elif kind == "bias":
            state[f"{layer}.bias"] = value
    return state


def picture(name: str, height: int, width: int) -> np.ndarray:
    """Colored blobs and boxes on a colored ground under noise: u8[height, width, 3]."""
    y, x = (np.mgrid[:height, :width] + 0.5) / np.array([height, width]).reshape(2, 1, 1)
    image = np.broadcast_to(draw.uniform(f"{name} ground", (3,), 80, 170), (height, width, 3))
    for blob in range(12):
        row, column, radius = draw.uniform(f"{name} place {blob}", (3,), 0, 1)
        color = draw.uniform(f"{name} color {blob}", (3,), -110, 110)
        distance = np.hypot(y - row, x - column) / (0.03 + 0.15 * radius)
        box = np.maximum(abs(y - row), abs(x - column) / (0.5 + radius)) < 0.03 + 0.12 * radius
        image = image + (np.exp(-(distance**2) / 2) if blob % 2 else box)[:, :, None] * color
    image = image + draw.uniform(f"{name} noise", (height, width, 3), -25, 25)
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


def pictures() -> list[np.ndarray]:
    return [picture(name, *size) for name, size in PICTURES.items()]


OLD_NAMES = (
    (r"^(backbone\.fpn\.\w+_blocks\.\d+)\.0\.", lambda found: f"{found[1]}."),
    (r"^rpn\.head\.conv\.0\.0\.", lambda found: "rpn.head.conv."),
    (
        r"^roi_heads\.mask_head\.(\d)\.0\.",
        lambda found: f"roi_heads.mask_head.mask_fcn{int(found[1]) + 1}.",
    ),
    (r"^(head\.\w+_head\.conv)\.(\d)\.0\.", lambda found: f"{found[1]}.{2 * int(found[2])}."),
)
"""Names of today, in models without a norm in their pyramid (all but `_v2`), and those of the same
tensors in torchvision before 0.13, which wrote their files. What FCOS's heads are called is older."""


def old_name(name: str) -> str:
    """What a published v1 file calls a tensor."""
    for pattern, written in OLD_NAMES:
        name = re.sub(pattern, written, name)
    return name


def old_names(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A state dict as a published v1 file has it, which counts no batches."""
    return {old_name(key): value for key, value in state.items() if not key.endswith("_tracked")}


TRAINED = {
    name: Detector(name, epsilon=1e-5, background=2.0, logit=-7.0, deviation=1.0)
    for name in (
        "fasterrcnn_resnet50_fpn",
        *("retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2", "fcos_resnet50_fpn"),
    )
}
"""Trained in float64 on `training_batches`, by the name of a file `data/detectors/train_NAME.npz`.

All is as torchvision builds it (proposals before and after suppression: 2000; anchors sampled: 256 an
image, half of them positive at most; regions sampled: 512, a quarter positive at most), but: batch
normalization of the backbone is frozen, everything has gradients, pictures keep their size, and the
samplers take the first of what they choose from, by index, instead of random ones.
"""

TRAINED_SIZE = (192, 256)

BOXES = (
    ((20.25, 30.5, 60.75, 72.25), (100.0, 20.0, 240.5, 180.75), (150.25, 150.0, 166.75, 163.5)),
    ((64.5, 48.25, 180.0, 140.75),),
)
LABELS = ((5, 17, 90), (17,))
"""What is in either training picture, of numbers that float32 holds; in a second batch the second
picture has nothing in it."""


def ellipses(boxes: np.ndarray) -> np.ndarray:
    """The mask of an object fills its box but for the corners: bool[objects, height, width]."""
    y, x = np.mgrid[: TRAINED_SIZE[0], : TRAINED_SIZE[1]] + 0.5
    left, top, right, bottom = np.asarray(boxes).reshape(-1, 4).T[:, :, None, None]
    across = (2 * x - left - right) / (right - left)
    return across**2 + ((2 * y - top - bottom) / (bottom - top)) ** 2 < 1


def training_pictures() -> list[np.ndarray]:
    return [picture(f"training picture {i}", *TRAINED_SIZE) for i in range(2)]


def training_batches() -> list[list[dict[str, np.ndarray]]]:
    """For each batch, for each picture: boxes f32[M, 4], labels i64[M] and masks bool[M, H, W]."""
    truths = [
        {
            "boxes": np.array(boxes, np.float32).reshape(-1, 4),
            "labels": np.array(labels, np.int64),
            "masks": ellipses(boxes),
        }
        for boxes, labels in zip((*BOXES, ()), (*LABELS, ()), strict=True)
    ]
    return [[truths[0], truths[1]], [truths[0], truths[2]]]
