"""Strides of backbones: dilation in place of a stride, and what a model's maps have."""

import functools

import jax
import jax.numpy as jnp

from jaxnets.models.classifier import Classifier

_ENLARGED = 64  # times; of so many positions those at the edges do not count


def strides_and_dilations(
    stages: int, stride: int, output_stride: int
) -> list[tuple[int, tuple[int, int]]]:
    """How the stages of a net go on to a stride no larger than wanted.

    Each stage but the first halves its maps, in its first block. Where that would exceed
    `output_stride` the maps keep their size, and the convolutions that would have seen halved maps
    are dilated by 2 more ("a trous": Chen et al. 2017, "Rethinking Atrous Convolution for Semantic
    Image Segmentation", arXiv:1706.05587, section 3.1). The convolution that loses its stride still
    sees the maps it saw before, and keeps *their* dilation. So the net computes what it did, at the
    places between as well.

    Args:
        stages: how many there are.
        stride: of the maps that the first reads.
        output_stride: the largest that is allowed.

    Returns:
        for each stage the stride of its first block, and two dilations: that of the convolutions up
        to the one with the stride, and that of all behind it.

    >>> strides_and_dilations(4, stride=4, output_stride=16)
    [(1, (1, 1)), (2, (1, 1)), (2, (1, 1)), (1, (1, 2))]
    """
    rows, dilation = [], 1
    for stage in range(stages):
        step, before = 1 if stage == 0 else 2, dilation
        if stride * step > output_stride:
            dilation, step = dilation * step, 1
        stride *= step
        rows.append((step, (before, dilation)))
    return rows


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
