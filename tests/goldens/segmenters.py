"""Which segmenters are compared with their references, and all that both programs must draw alike.

The makers and the tests share it; it needs NumPy alone. Weights are drawn by `draw.py`'s rule.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import draw
import numpy as np
from detectors import picture

DATA = Path(__file__).parent / "data" / "segmenters"

SIZE = (97, 120)
TRAINED_SIZE = (65, 73)
SMALL_STEP, LARGE_STEP = 7, 19
"""Of both axes every so many pixels are kept, and the last: primes, so that pixels everywhere between
the positions of a map are among them. The larger one is for axes above 150 pixels."""

IGNORED = 255
AUXILIARY_WEIGHT = 0.5
"""What the loss of the auxiliary head adds to that of the last one, as torchvision trains them."""


class Segmenter(NamedTuple):
    """A row of `SEGMENTERS`.

    Attributes:
        model: what jaxnets calls the model.
        parameters: how many there are, with the auxiliary head and without.
        library: whose names the weights have, a key of the family's `RENAMES`.
        overrides: the arguments of `create_model`.
        quiet: see `draw.state_dict`.
        wrong: other arguments of `create_model` that take the same weights and must give other scores.
        size, count: of the pictures.
    """

    model: str
    parameters: tuple[int, int]
    library: str = "torchvision"
    overrides: Mapping[str, Any] = {}
    quiet: str = ""
    wrong: Mapping[str, Any] = {}
    size: tuple[int, int] = SIZE
    count: int = 2


_RESNET = {"quiet": "backbone.layer*.bn3.weight"}
_MOBILENET = {"quiet": "backbone.*.block.3.1.weight"}

_COUNTS = {
    "fcn_resnet50": (35_322_218, 32_957_013),
    "fcn_resnet101": (54_314_346, 51_949_141),
    "deeplabv3_resnet50": (42_004_074, 39_638_869),
    "deeplabv3_resnet101": (60_996_202, 58_630_997),
    "deeplabv3_mobilenet_v3_large": (11_029_328, 11_025_477),
    "lraspp_mobilenet_v3_large": (3_221_538, 3_221_538),
}


def _row(model: str, backbone: Mapping[str, Any], **settings: Any) -> Segmenter:
    return Segmenter(model, parameters=_COUNTS[model], **backbone, **settings)


SEGMENTERS = {
    "fcn_resnet50": _row("fcn_resnet50", _RESNET, wrong={"output_stride": 16}),
    "fcn_resnet101": _row("fcn_resnet101", _RESNET),
    "deeplabv3_resnet50": _row("deeplabv3_resnet50", _RESNET, wrong={"rates": (11, 24, 36)}),
    # All rates reach from one place of the map to another.
    "deeplabv3_resnet50_large": _row(
        "deeplabv3_resnet50", _RESNET, size=(305, 313), count=1, wrong={"rates": (12, 24, 35)}
    ),
    "deeplabv3_resnet101": _row("deeplabv3_resnet101", _RESNET),
    "deeplabv3_mobilenet_v3_large": _row(
        "deeplabv3_mobilenet_v3_large", _MOBILENET, wrong={"output_stride": 32}
    ),
    "lraspp_mobilenet_v3_large": _row(
        "lraspp_mobilenet_v3_large", _MOBILENET, wrong={"low_map": "stage3"}
    ),
}
"""By the name of a file in `data/segmenters/`."""

TRAINED = ("fcn_resnet50", "deeplabv3_resnet50", "lraspp_mobilenet_v3_large")
"""The rows that are trained too, in float64 on pictures of `TRAINED_SIZE` and `labels()`, without
dropout: files `data/segmenters/train_NAME.npz`."""


def images(size: tuple[int, int] = SIZE, count: int = 2) -> np.ndarray:
    """Different pictures, about -2 to 2: f32[count, *size, 3]."""
    pixels = np.stack([picture(f"segmented {i}", *size) for i in range(count)])
    return ((pixels.astype(np.float32) - np.float32(127.5)) / np.float32(60)).astype(np.float32)


def labels(size: tuple[int, int] = TRAINED_SIZE, count: int = 2, classes: int = 21) -> np.ndarray:
    """Patches of classes, some of which are ignored: i64[count, *size]."""
    patch = 6
    rows, columns = (-(-side // patch) for side in size)
    drawn = draw.uniform("labels", (count, rows, columns), 0, classes * 1.2).astype(np.int64)
    drawn = np.where(drawn < classes, drawn, IGNORED)
    return drawn.repeat(patch, 1).repeat(patch, 2)[:, : size[0], : size[1]]


def shapes_of(answers: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """The shapes of the reference's tensors by their names, as `tensors_text` wrote them."""
    lines = [line.split() for line in str(answers["tensors"]).splitlines()]
    return {key: tuple(map(int, shape)) for key, *shape in lines}


def tensors_text(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return "\n".join(" ".join(map(str, (key, *shape))) for key, shape in shapes.items())


def thinned(scores: np.ndarray) -> np.ndarray:
    """The pixels [N, h, w, K] of [N, H, W, K] that are kept."""
    rows, columns = (
        [*range(0, side, SMALL_STEP if side <= 150 else LARGE_STEP), side - 1]
        for side in scores.shape[1:3]
    )
    return scores[:, rows][:, :, columns]


def moments(scores: np.ndarray) -> np.ndarray:
    """The mean and the deviation of each class in each picture, of all pixels: f64[2, N, K]."""
    scores = np.asarray(scores, np.float64)
    return np.stack([scores.mean((1, 2)), scores.std((1, 2))])


def kept(name: str, scores: np.ndarray) -> dict[str, np.ndarray]:
    """What a golden keeps of scores [N, H, W, K]: `thinned`, `moments`, and how much of their spread
    comes from the places, the bite."""
    spread = scores - scores.mean()
    return {
        name: thinned(scores).astype(np.float32),
        f"{name} moments": moments(scores),
        f"{name} bite": np.linalg.norm(scores - scores.mean((0, 1, 2))) / np.linalg.norm(spread),
    }


def error(scores: np.ndarray, name: str, answers: Mapping[str, np.ndarray]) -> float:
    """How far scores [N, H, W, K] are from those of a golden, of the largest of these."""
    largest = np.max(np.abs(answers[name]))
    scores = np.asarray(scores, np.float64)
    differences = [thinned(scores) - answers[name], moments(scores) - answers[f"{name} moments"]]
    return float(max(np.max(np.abs(d)) for d in differences) / largest)
