"""A convolution as one matrix product, drawn: `jaxnets.layers.im2col` and `conv_by_im2col`."""

from os import PathLike
from typing import Any

import numpy as np

from jaxnets.layers import conv_by_im2col, im2col
from jaxnets.outputs import save_figure


def show_im2col(
    images: Any,
    kernel: Any,
    path: str | PathLike,
    strides: int | tuple[int, int] = 1,
    padding: Any = 0,
) -> None:
    """Draws a convolution as the product of the matrix of all windows with the matrix of all filters.

    Each row of the first matrix is a window of the first image, each column of the second a filter,
    and each column of their product one of the maps that come out, row by row. Small images show most.

    Args:
        images: float[N, H, W, C].
        kernel: [F, F, C, out].
        path: of the picture.
        strides, padding: as for `jaxnets.layers.conv_by_im2col`.

    Raises:
        InputError: shapes that do not belong together, a window that does not fit, or a path of no
            known format.
    """
    from matplotlib.figure import Figure

    windows = np.asarray(im2col(images, np.shape(kernel)[:2], strides, padding))[0]
    maps = np.asarray(conv_by_im2col(images, kernel, strides, padding))[0]
    rows, columns, taps = windows.shape
    out = maps.shape[-1]
    matrices = (
        (np.asarray(images)[0, :, :, 0], "image\n(first channel)", "row", "column"),
        (windows.reshape(-1, taps), "windows", f"{rows} x {columns} places", f"{taps} numbers"),
        (np.asarray(kernel).reshape(-1, out), "filters", f"{taps} numbers", f"{out} filters"),
        (maps.reshape(-1, out), "windows @ filters", f"{rows} x {columns} places", f"{out} maps"),
        (maps[:, :, 0], "first map,\nplaces in rows again", "row", "column"),
    )
    figure = Figure(figsize=(14, 4), layout="constrained")
    for axis, (values, title, down, across) in zip(figure.subplots(1, 5), matrices, strict=True):
        largest = float(np.abs(values).max()) or 1.0
        drawn = axis.imshow(
            values,
            cmap="RdBu_r",
            vmin=-largest,
            vmax=largest,
            interpolation="nearest",
            aspect="equal" if down == "row" else "auto",
        )
        axis.set(title=title, ylabel=down, xlabel=across, xticks=[], yticks=[])
        figure.colorbar(drawn, ax=axis, shrink=0.7)
    save_figure(figure, path)
