"""Drawing what `jaxnets.explain` finds; each function writes a picture whose ending says the format."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np

from jaxnets.errors import InputError
from jaxnets.outputs import plain, save_figure

COLUMNS = 8


def show_attributions(
    images: np.ndarray,
    attributions: Mapping[str, Any],
    path: str | PathLike,
    titles: Sequence[str] | None = None,
) -> None:
    """Draws a row for each image: the image, and beside it every attribution over a gray copy.

    Attributions of one sign are drawn from dark to bright, those of both signs from blue through white
    to red; a bar beside each says what its colors mean. Where there are channels, those of one sign
    are shown by their maximum (Simonyan et al. 2013, section 3.1) and those of both by their sum.

    Args:
        images: uint8[N, H, W, 1 or 3], as a reader knows them.
        attributions: [N, H, W, C] or [N, h, w], by what the column is to be called.
        path: of the picture.
        titles: of the images.

    Raises:
        InputError: as many images as there are not attributions, or a path of no known format.
    """
    images = checked_pictures(images)
    maps = {name: flattened(np.asarray(values)) for name, values in attributions.items()}
    for name, values in maps.items():
        if len(values) != len(images):
            raise InputError(f"{name}: {len(values)} attributions for {len(images)} images")
    figure, axes = _grid(len(images), 1 + len(maps), images, bars=True)
    for number, image in enumerate(images):
        _picture(axes[number, 0], image)
        axes[number, 0].set_title(_wrapped(titles[number] if titles else "image", 30), fontsize=10)
        for axis, (name, values) in zip(axes[number, 1:], maps.items(), strict=True):
            _heat(axis, image, values[number], signed=values.min() < 0)
            axis.set_title(_wrapped(name, 30), fontsize=10)
    save_figure(figure, path)


def show_filters(kernels: Any, path: str | PathLike, title: str = "filters") -> None:
    """Draws filters as small images: those that read one or three channels, else their first channels.

    Filters of three channels are drawn in color, each scaled to its own range with 0 in the middle
    gray; others from blue (negative) to red with one bar for all.

    Args:
        kernels: [out, F, F, in], of `filters`.
        path: of the picture.
        title: above it.

    Raises:
        InputError: kernels of another rank, or a path of no known format.
    """
    kernels = np.asarray(kernels, np.float32)
    if kernels.ndim != 4:
        raise InputError(f"kernels has shape {kernels.shape}; wanted [out, F, F, in]")
    count, height, width, channels = kernels.shape
    shown = kernels[:64]
    columns = min(COLUMNS, len(shown))
    figure, axes = _grid(math.ceil(len(shown) / columns), columns, shown, side=0.8, title=title)
    largest = float(np.abs(shown[..., 0]).max()) or 1.0
    for number, (axis, kernel) in enumerate(zip(axes.ravel(), shown, strict=False)):
        if channels == 3:
            drawn = axis.imshow(0.5 + 0.5 * kernel / max(float(np.abs(kernel).max()), 1e-12))
        else:
            drawn = axis.imshow(kernel[..., 0], cmap="RdBu_r", vmin=-largest, vmax=largest)
        axis.set_title(str(number), fontsize=7, pad=2)
    of = f"{count} filters" if count == len(shown) else f"the first 64 of {count} filters"
    seen = "" if channels in (1, 3) else f", the first of {channels} channels"
    figure.supxlabel(f"{of} of {height} x {width}{seen}", fontsize=9)
    if channels != 3:
        figure.colorbar(drawn, ax=axes, label="weight", shrink=0.8)
    save_figure(figure, path)


def show_feature_maps(
    image: np.ndarray, maps: Any, path: str | PathLike, title: str = "feature maps"
) -> None:
    """Draws an image and the maps that a layer makes of it, with one color bar for all maps.

    Args:
        image: uint8[H, W, 1 or 3].
        maps: [h, w, c] of one image, of `feature_maps`; the first 31 are drawn.
        path: of the picture.
        title: above it.

    Raises:
        InputError: maps of another rank, or a path of no known format.
    """
    (image,) = checked_pictures(np.asarray(image)[None])
    maps = np.asarray(maps, np.float32)
    if maps.ndim != 3:
        raise InputError(f"maps has shape {maps.shape}; wanted [h, w, c] of one image")
    shown = np.moveaxis(maps, -1, 0)[: 4 * COLUMNS - 1]
    columns = min(COLUMNS, 1 + len(shown))
    rows = math.ceil((1 + len(shown)) / columns)
    figure, axes = _grid(rows, columns, image[None], side=1.1, title=title)
    _picture(axes.ravel()[0], image)
    axes.ravel()[0].set_title("image", fontsize=8, pad=2)
    low, high = min(0.0, float(shown.min())), float(shown.max())
    for number, (axis, values) in enumerate(zip(axes.ravel()[1:], shown, strict=False)):
        drawn = axis.imshow(values, cmap="magma", vmin=low, vmax=max(high, low + 1e-12))
        axis.set_title(f"unit {number}", fontsize=8, pad=2)
    height, width, count = maps.shape
    of = f"{count} maps" if count == len(shown) else f"the first {len(shown)} of {count} maps"
    figure.supxlabel(f"{of} of {height} x {width}", fontsize=9)
    figure.colorbar(drawn, ax=axes, label="activation", shrink=0.8)
    save_figure(figure, path)


def show_deconvnet(
    images: np.ndarray,
    pixels: Any,
    strengths: Any,
    path: str | PathLike,
    boxes: Any = None,
    title: str = "deconvnet",
) -> None:
    """Draws each image over what a unit's strongest activation in it projects back to.

    Args:
        images: uint8[N, H, W, 1 or 3].
        pixels: [N, H, W, C], of `deconvnet`; each is scaled to its own range, with 0 in gray.
        strengths: [N], the activations.
        path: of the picture.
        boxes: i32[N, 4], where the activations see, of `receptive_field`; drawn in red.
        title: above it.

    Raises:
        InputError: as many images as there are not projections, or a path of no known format.
    """
    from matplotlib.patches import Rectangle

    images, pixels = checked_pictures(images), np.asarray(pixels, np.float32)
    if len(pixels) != len(images):
        raise InputError(f"pixels: {len(pixels)} projections for {len(images)} images")
    columns = min(COLUMNS + 1, len(images))
    rows = math.ceil(len(images) / columns)
    figure, axes = _grid(2 * rows, columns, images, side=1.5, title=title)
    for number, (image, projection) in enumerate(zip(images, pixels, strict=True)):
        row, column = divmod(number, columns)
        above, below = axes[2 * row, column], axes[2 * row + 1, column]
        _picture(above, image)
        above.set_title(f"activation {float(strengths[number]):.3g}", fontsize=8, pad=3)
        largest = max(float(np.abs(projection).max()), 1e-12)
        scaled = 0.5 + 0.5 * projection / largest
        below.imshow(np.broadcast_to(scaled, (*image.shape[:2], 3)))
        if boxes is not None:
            left, top, right, bottom = (int(edge) for edge in boxes[number])
            for axis in (above, below):
                box = Rectangle((left - 0.5, top - 0.5), right - left, bottom - top)
                box.set(fill=False, edgecolor="red", linewidth=1.2)
                axis.add_patch(box)
    where = "\nred: the pixels that the unit depends on" if boxes is not None else ""
    figure.supxlabel(f"above: images; below: projections, 0 is gray{where}", fontsize=9)
    save_figure(figure, path)


def show_receptive_field(
    image: np.ndarray, box: Any, path: str | PathLike, title: str = "receptive field"
) -> None:
    """Draws an image, dark outside the pixels that a unit depends on.

    Args:
        image: uint8[H, W, 1 or 3].
        box: i32[4], of `receptive_field`.
        path: of the picture.
        title: above it.

    Raises:
        InputError: an image of another rank or type, or a path of no known format.
    """
    from matplotlib.patches import Rectangle

    (image,) = checked_pictures(np.asarray(image)[None])
    left, top, right, bottom = (int(edge) for edge in box)
    height, width, _ = image.shape
    figure, axes = _grid(1, 1, image[None], side=4.5, title=title)
    inside = np.zeros((height, width, 1), bool)
    inside[top:bottom, left:right] = True
    _picture(axes[0, 0], np.where(inside, image, image // 4))
    edge = Rectangle((left - 0.5, top - 0.5), right - left, bottom - top)
    axes[0, 0].add_patch(edge)
    edge.set(fill=False, edgecolor="red", linewidth=1.5)
    size = f"{bottom - top} x {right - left} of {height} x {width} pixels"
    figure.supxlabel(f"{size}: rows {top} to {bottom - 1}, columns {left} to {right - 1}", fontsize=9)
    save_figure(figure, path)


def checked_pictures(images: Any) -> np.ndarray:
    """Pictures as uint8[N, H, W, 3].

    Raises:
        InputError: they are something else.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[-1] not in (1, 3):
        raise InputError(
            f"images: wanted uint8[N, H, W, 1 or 3] to draw, got {images.dtype}{list(images.shape)}"
        )
    return np.broadcast_to(images, (*images.shape[:3], 3))


def flattened(values: np.ndarray) -> np.ndarray:
    """[N, h, w] of [N, h, w, C]: over channels the maximum, or where there are both signs the sum."""
    if values.ndim == 3:
        return values
    return values.max(-1) if values.min() >= 0 else values.sum(-1)


def _grid(
    rows: int, columns: int, pictures: np.ndarray, side: float = 2.4, bars: bool = False, title: str = ""
) -> tuple[Any, np.ndarray]:
    """A figure and its axes [rows, columns], without ticks, as high as the pictures want them."""
    from matplotlib.figure import Figure

    height, width = pictures.shape[1:3]
    wide = side * (1.22 if bars else 1.0) * columns + (0 if bars else 0.6)
    high = (side * height / width + 0.3) * rows + (0.7 if title else 0.1)
    figure = Figure(figsize=(max(wide, 4.2), high), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.ravel():
        axis.set_axis_off()
    if title:
        lines = (_wrapped(line, int(10 * figure.get_figwidth())) for line in title.splitlines())
        figure.suptitle("\n".join(lines), fontsize=11)
    return figure, axes


def _wrapped(text: str, width: int) -> str:
    return plain(textwrap.fill(text, width))


def _picture(axis: Any, image: np.ndarray) -> None:
    axis.imshow(image, vmin=0, vmax=255)


def _heat(axis: Any, image: np.ndarray, values: np.ndarray, signed: bool) -> None:
    """A map over a gray copy of its image, with its color bar."""
    height, width, _ = image.shape
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    # Under colors in which 0 is white the copy is a faint one.
    axis.imshow(image.mean(-1), cmap="gray", vmin=-400 if signed else 0, vmax=255, extent=extent)
    largest = float(np.abs(values).max()) or 1.0
    coarse = values.shape != image.shape[:2]
    drawn = axis.imshow(
        values,
        cmap="RdBu_r" if signed else "magma",
        vmin=-largest if signed else 0,
        vmax=largest,
        alpha=0.55 if coarse else 0.75,
        extent=extent,
        interpolation="bilinear" if coarse else "nearest",
    )
    axis.figure.colorbar(drawn, ax=axis, shrink=0.85)
