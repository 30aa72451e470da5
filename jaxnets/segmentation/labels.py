"""Label maps as files."""

from os import PathLike
from pathlib import Path

import numpy as np

from jaxnets import outputs
from jaxnets.data.marking import label_colors
from jaxnets.errors import InputError


def check_path(path: str | PathLike) -> None:
    """Checks that a path is one that a label map can be written to.

    Raises:
        InputError: it does not end in .png, or its folder is missing.
    """
    if Path(path).suffix.lower() != ".png":
        raise InputError(f"labels: {path} does not end in .png; label maps are written as PNG alone")
    outputs.check_path(path, (".png",))


def write_labels(labels: np.ndarray, path: str | PathLike) -> None:
    """Writes a label map as a PNG whose pixels are the labels, with a palette to look at.

    Args:
        labels: integers[H, W] from 0 to 255.
        path: ends in .png.

    Raises:
        InputError: labels that do not fit into 8 bits, or a path that cannot be written.
    """
    from PIL import Image

    check_path(path)
    labels = np.asarray(labels)
    if labels.size and not 0 <= labels.min() <= labels.max() <= 255:
        raise InputError(f"labels run from {labels.min()} to {labels.max()}; a PNG holds 0 to 255")
    image = Image.fromarray(labels.astype(np.uint8), "P")
    image.putpalette(label_colors(np.arange(256)[None]).tobytes())
    try:
        image.save(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None
