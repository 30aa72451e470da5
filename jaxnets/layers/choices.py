"""Which form convolutions and pooling take, and the measurements that the choice rests on.

All of it is decided by shapes alone. Figures are milliseconds by XLA's own operation and by ours, of
the forward and the backward pass of 8 images in float32 on a 2-core Intel Xeon, as
`python benchmarks/layers.py` prints them; benchmarks/README.md has the whole table. "Processor ms" are
of one core, as `python benchmarks/thresholds.py` prints them.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from jaxnets.layers.geometry import PaddingPairs, Pair


class Window(NamedTuple):
    """How a kernel moves over an image: each of the three over (height, width).

    Attributes:
        strides: from one window to the next.
        pads: zeros around the image, ((top, bottom), (left, right)).
        dilation: from one tap to the next.
    """

    strides: Pair
    pads: PaddingPairs
    dilation: Pair


class Shapes(NamedTuple):
    """The shapes of a convolution.

    Attributes:
        image: [N, H, W, in].
        kernel: [F, F, in / groups, out].
        window: how the kernel moves over the image.
        groups: how many.
    """

    image: tuple[int, ...]
    kernel: tuple[int, ...]
    window: Window
    groups: int = 1


# Windows of more taps are not put together from neighbors: each tap is a slice, and slices take long to
# compile. Processor ms, and in parentheses seconds of the first call, by XLA's own and by neighbors:
#   3x3, 2 x 2, 512 to 512                  305              9.4
#   5x5, 4 x 4, 256 to 256                  705              14
#   7x7, 4 x 4, 128 to 128                  92.4 (0.97)      10.9 (1.72)
#   11x11, stride 4, 32 x 32, 3 to 96       9.47 (0.70)      4.15 (4.06)
#   16x16, stride 16, 224 x 224, 3 to 768   356 (1.18)       275 (9.52)
MOST_TAPS = 49

# Merged groups have 16 channels together at least, and are merged further, up to 64 channels, where more
# than 16 convolutions would be left: a convolution of fewer input channels leaves vector units idle, and
# each takes its time to compile. Processor ms of 3x3 of 32 groups, with 1, 2, 4 and 8 of them merged:
#   4 channels, 56 x 56                     272     189     155     178
#   8 channels, 28 x 28                     99.9    92.6    79.2    120
#   16 channels, 14 x 14                    27.5    23.5    38.1    57.6
#   32 channels, 7 x 7                      24.3    29.3    46.1    86.5
LEAST_CHANNELS, MOST_CHANNELS = 16, 64
MOST_CONVOLUTIONS = 16

# Of so few pixels, all images together, a transposed convolution is XLA's own in the forward pass: to
# reorder the kernel for another takes longer. Processor ms of 4x4, stride 2, by XLA's own and by whole
# strides:
#   128 pixels, 1024 to 512                 126     172
#   512 pixels, 512 to 256                  91.2    97.5
#   1024 pixels, 256 to 128                 43.8    44.8
#   2048 pixels, 256 to 128                 87.9    83.9
#   6272 pixels, 256 to 128                 319     265
FEW_PIXELS = 1024

# A product for each tap leaves padding out, but adds to every output once a tap: it is faster where at
# most so much of the taps meets pixels, and the channels become so many times fewer. Processor ms of
# 3x3, one image, forward and gradient, by XLA's own with our gradients and by taps:
#   65 x 65, rate 12, 2048 to 256 (0.77)    790, 2360       490, 1790
#   65 x 65, rate 36, 2048 to 256 (0.40)    1480, 3230      262, 929
#   65 x 65, rate 12, 1024 to 256 (0.77)    347, 1050       259, 1090
#   65 x 65, rate 24, 256 to 256 (0.57)     61.8, 235       41.4, 339
#   33 x 33, rate 6, 2048 to 256 (0.77)     175, 519        132, 433
#   33 x 33, rate 6, 512 to 128 (0.77)      17.5, 67.6      16.1, 89.6
MOST_MET, FEWER = 0.8, 8

# Where maxima are taken by slices: on CPUs 115 and 35.3 ms (3x3, stride 2, 112 x 112, 64 channels), 71.9
# and 11.8 (2x2), 44.8 and 6.2 (3x3, stride 1, 28 x 28, 192); on an H200, 256 images in bfloat16, 2.5 and
# 2.35, 1.51 and 1.13, 2.34 and 0.386.
MAX_BY_SLICES = ("cpu", "cuda")


def form_of(shapes: Shapes) -> str:
    """The form of a convolution on a CPU: the first row of `CONVOLUTIONS` whose condition holds."""
    return next(form for form, holds in CONVOLUTIONS if holds(shapes))


def is_cropped(shapes: Shapes) -> bool:
    """Whether padding is negative."""
    return min(map(min, shapes.window.pads)) < 0


def is_depthwise(shapes: Shapes) -> bool:
    return shapes.groups > 1 and shapes.groups == shapes.image[-1]


def is_grouped(shapes: Shapes) -> bool:
    return shapes.groups > 1


def is_1x1(shapes: Shapes) -> bool:
    """Whether the kernel has one tap, and the image no padding."""
    return shapes.kernel[:2] == (1, 1) and not any(map(any, shapes.window.pads))


def is_small(shapes: Shapes) -> bool:
    """Whether the image or the output is smaller than the window, which has few taps."""
    size, window = output_size(shapes), shapes.kernel[:2]
    smaller = any(f > min(h, out) for h, f, out in zip(shapes.image[1:3], window, size, strict=True))
    return smaller and min(size) > 0 and math.prod(window) <= MOST_TAPS


def mostly_padding(shapes: Shapes) -> bool:
    """Whether taps of a dilated convolution often meet padding, and channels become far fewer."""
    (channels, out), size, window = shapes.kernel[2:], output_size(shapes), shapes.window
    dilated = window.strides == (1, 1) and min(window.dilation) > 1
    if not dilated or channels < FEWER * out or min(size) < 1:
        return False
    met = math.prod(
        sum(stop - start for start, stop, _ in taps) / (len(taps) * outputs)
        for taps, outputs in zip(taps_that_meet(shapes), size, strict=True)
    )
    return met <= MOST_MET


def outgrows(shapes: Shapes) -> bool:
    """Whether the output has more rows or more columns than the image."""
    return any(out > h for h, out in zip(shapes.image[1:3], output_size(shapes), strict=True))


# XLA has fast kernels only for windows that are no larger than the image, padding apart. The gradient
# by the image is a convolution of the output's gradient, and that by the kernel is one whose window is
# the output's gradient; so the output may be no smaller than the window, and no larger than the image.
CONVOLUTIONS: tuple[tuple[str, Callable[[Shapes], bool]], ...] = (
    # Nothing in the library crops, and nothing was measured.
    ("native", is_cropped),
    # 3x3, 56 x 56, 144 channels: 393 and 11.2 ms; 7 x 7, 960: 73.8 and 2.2; stride 2, 112 x 112, 96: 716
    # and 30.8.
    ("sum of taps", is_depthwise),
    # 3x3 of 32 groups, 56 x 56, 128 channels: 9,720 and 58.5 ms; 14 x 14, 512: 2,520 and 17.4.
    ("merged groups", is_grouped),
    # 56 x 56, 64 to 256 channels: 74.8 and 19 ms; 7 x 7, 512 to 2048: 18.6 and 11.
    ("product of pixels", is_1x1),
    # 3x3, padding 1, 2 x 2, 512 to 512 channels, 32 images, processor ms: forward 934 and 6.5, gradient
    # by the image 920 and 5.0, by the kernel 6.1 and 5.5. Stride 2, 4 x 4: 10.7 and 6.0, 601 and 5.4,
    # 8.6 and 6.2.
    ("product of neighbors", is_small),
    # 3x3, rate 24, 65 x 65, 2048 to 256 channels, one image, processor ms: forward 1,100 and 352, the
    # gradient 2,770 and 1,300.
    ("product for each tap", mostly_padding),
    # 3x3, padding 2, 14 x 14, 64 channels, the gradient by the kernel: 59 and 0.97 ms.
    ("padded first", outgrows),
    # 3x3, 56 x 56, 64 channels: 103 and 76.7 ms; 224 x 224, 64: 2,620 and 905; 14 x 14, 512: 149 and
    # 141, and in a loop 5,710 and 138.
    ("own gradients", lambda shapes: True),
)
"""Forms of convolutions on a CPU, and the condition of each; the first that holds decides.

On other platforms convolutions are XLA's own. On an H200, 256 images in bfloat16, these forms are little
faster or slower: 0.423 and 0.401 ms for 1x1, 56 x 56, 64 to 256 channels, 1.23 and 3.41 for 3x3 of 32
groups, 0.667 and 125 for depthwise 3x3.
"""


def groups_to_merge(groups: int, channels: int) -> int:
    """How many groups of so many input channels share a plain convolution: a divisor of groups.

    The fewest that have 16 channels together; more, up to 64 channels, if that leaves at most 16
    convolutions.
    """
    for merged in (d for d in range(1, groups + 1) if groups % d == 0):
        few = groups // merged <= MOST_CONVOLUTIONS or merged * channels >= MOST_CHANNELS
        if merged * channels >= LEAST_CHANNELS and few:
            return merged
    return groups


def has_few_pixels(image: tuple[int, ...], kernel: tuple[int, ...]) -> bool:
    """Whether a transposed convolution of image [N, H, W, in] is XLA's own in the forward pass.

    XLA's own is some 40 times slower where the kernel is larger than the image. Where `jax.export`
    leaves the number of images open, they count as many.
    """
    fits = all(f <= h for f, h in zip(kernel[:2], image[1:3], strict=True))
    return fits and isinstance(image[0], int) and math.prod(image[:3]) <= FEW_PIXELS


def output_size(shapes: Shapes) -> tuple[int, ...]:
    """The height and width of the output."""
    axes = zip(shapes.image[1:3], shapes.kernel[:2], *shapes.window, strict=True)
    return tuple((h + sum(p) - (f - 1) * d - 1) // s + 1 for h, f, s, p, d in axes)


def taps_that_meet(shapes: Shapes) -> list[list[tuple[int, int, int]]]:
    """Along the height and the width, for each tap: the first output for which it meets a pixel, the end
    of these, and the pixel that it would meet for the output 0."""
    axes = zip(shapes.image[1:3], shapes.kernel[:2], *shapes.window, output_size(shapes), strict=True)
    return [
        [
            (
                first := max(0, -(pixel // stride)),
                max(first, min(out, -((pixel - length) // stride))),
                pixel,
            )
            for pixel in (tap * dilation - low for tap in range(taps))
        ]
        for length, taps, stride, (low, _), dilation, out in axes
    ]
