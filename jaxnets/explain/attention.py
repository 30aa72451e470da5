"""Where a captioner looked for each word."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxnets.errors import InputError
from jaxnets.outputs import plain, save_figure

COLUMNS = 6


def plot_attention(image: np.ndarray, words: Sequence[str], maps: np.ndarray, path: str | Path) -> None:
    """Draws the image, and for each word the image lit where the decoder looked (Xu et al. 2015).

    Brightness is attention over that of the word's most looked-at place; the number above each word
    is the attention at that place.

    Args:
        image: uint8[H, W, 1 or 3].
        words: T of them.
        maps: f32[T, h, w], attention that sums to 1 for each word.
        path: of the picture; its ending says the format.

    Raises:
        InputError: as many maps as there are not words, or none.
    """
    from matplotlib.figure import Figure
    from PIL import Image

    if not len(words) or len(words) != len(maps):
        raise InputError(f"{len(words)} words and {len(maps)} maps; wanted as many of both, and some")
    height, width, _ = image.shape
    shown = np.broadcast_to(image, (height, width, 3)) / 255
    columns = min(COLUMNS, 1 + len(words))
    rows = math.ceil((1 + len(words)) / columns)
    figure = Figure(figsize=(2.1 * columns, 2.4 * rows * height / width), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    axes[0].imshow(shown)
    axes[0].set_title("image")
    for axis, word, places in zip(axes[1:], words, maps, strict=False):
        lit = Image.fromarray((places / places.max()).astype(np.float32))
        lit = np.asarray(lit.resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)
        axis.imshow(shown * (0.25 + 0.75 * lit[..., None]))
        axis.set_title(f"{plain(word)} ({places.max():.2f})")
    save_figure(figure, path, dpi=110)
