"""Strides of backbones: dilation in place of a stride, and what a model's maps have."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxnets.models.classifier import Classifier

_ENLARGED = 64  # times; of so many positions those at the edges do not count


def strides_and_dilations(
    stages: int | Sequence[int], stride: int, output_stride: int
) -> list[tuple[int, tuple[int, int]]]:
    """How the stages of a net go on to a stride no larger than wanted.

    A stage has its stride in its first block. Where that would exceed `output_stride` the maps keep
    their size, and the convolutions that would have seen halved maps are dilated by 2 more ("a trous":
    Chen et al. 2017, "Rethinking Atrous Convolution for Semantic Image Segmentation", arXiv:1706.05587,
    section 3.1). The convolution that loses its stride still sees the maps it saw before, and keeps
    *their* dilation. So the net computes what it did, at the places between as well.

    Args:
        stages: the stride of each, or how many there are, of which all but the first halve their maps.
        stride: of the maps that the first reads.
        output_stride: the largest that is allowed.

    Returns:
        for each stage the stride of its first block, and two dilations: that of the convolutions up
        to the one with the stride, and that of all behind it.

    >>> strides_and_dilations(4, stride=4, output_stride=16)
    [(1, (1, 1)), (2, (1, 1)), (2, (1, 1)), (1, (1, 2))]
    """
    steps = [1] + [2] * (stages - 1) if isinstance(stages, int) else stages
    rows, dilation = [], 1
    for step in steps:
        before = dilation
        if stride * step > output_stride:
            dilation, step = dilation * step, 1
        stride *= step
        rows.append((step, (before, dilation)))
    return rows


def steps_of_stages(stages: int, stride_last: bool) -> list[int]:
    """The stride of each stage of a residual net: 1 for the first, which reads pooled maps, or for the
    last, where each stage halves the maps for the next."""
    return [2] * (stages - 1) + [1] if stride_last else [1] + [2] * (stages - 1)


def blocks_of_stage(
    depth: int, stride: int, dilations: tuple[int, int], stride_last: bool
) -> list[tuple[int, tuple[int, int]]]:
    """The stride of each block of a stage, and two dilations: those of its convolutions before and
    behind the one with the stride, which is in the first block, or in the last."""
    where, (before, after) = depth - 1 if stride_last else 0, dilations
    others = [(1, (before, before))] * where + [(1, (after, after))] * (depth - 1 - where)
    return [*others[:where], (stride, dilations), *others[where:]]


def feature_info(model: Classifier) -> dict[str, tuple[int, int]]:
    """Channels and stride of each feature map of a model, from shallow to deep; nothing is computed.

    A stride is the side of a large image over that of its map, rounded; where the map is a single
    position whatever the image, it is the side of the images that the model was made for.

    Args:
        model: of `create_model`.

    Returns:
        (channels, stride) by the names that `features` gives the maps.

    >>> from jaxnets.models import create_model
    >>> feature_info(create_model("resnet18", output_stride=16))["stage4"]
    (512, 16)
    """
    return dict(_channels_and_strides(model))


@functools.cache
def _channels_and_strides(model: Classifier) -> tuple[tuple[str, tuple[int, int]], ...]:
    side, _, channels = model.input_size
    large = side * _ENLARGED
    images = jax.ShapeDtypeStruct((1, large, large, channels), jnp.float32)
    shapes = {}

    def run(key: jax.Array, images: jax.Array) -> None:
        maps, _ = model.backbone.init_with_output(key, images)
        shapes.update({name: value.shape for name, value in maps.items()})

    jax.eval_shape(run, jax.random.key(0), images)
    return tuple(
        (name, (channels, round(large / rows) if rows > 1 else side))
        for name, (_, rows, _, channels) in shapes.items()
    )
