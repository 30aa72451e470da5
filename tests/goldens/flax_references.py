"""Programs in Flax whose files are read: how large their nets are here, and what weights they get."""

import math
from collections.abc import Mapping

import numpy as np
from draw import uniform

CLASSES, SIZE, IMAGES = 5, 48, 2

VIT = {"depth": 2, "width": 32, "heads": 2, "patch_size": 16, "image_size": SIZE}
RESNET = {"depths": (1, 2)}


def variables(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """All variables of a program, by their paths and shapes, with slashes."""
    return {path: _variable(path, tuple(shape)) for path, shape in shapes.items()}


def _variable(path: str, shape: tuple[int, ...]) -> np.ndarray:
    module, _, leaf = path.rpartition("/")
    if leaf == "kernel":
        to_heads = len(shape) == 3 and not module.endswith("/out")
        limit = math.sqrt(6 / (shape[0] if to_heads else math.prod(shape[:-1])))
        return uniform(path, shape, -limit, limit)
    if leaf in ("scale", "var"):
        return uniform(path, shape, 0.7, 1.3)
    return uniform(path, shape, -0.3, 0.3)
