"""RefineNet on any backbone. Lin, Milan, Shen and Reid 2016, "RefineNet: Multi-Path Refinement Networks
for High-Resolution Semantic Segmentation", arXiv:1611.06612; and its light-weight form, Nekrasov, Shen
and Reid 2018, arXiv:1810.03272, which has 1x1 convolutions in place of 3x3 and no residual units.

From the coarsest map on, a map is refined, enlarged to the next finer one and fused with it.

As the published programs have it (Nekrasov's, which load the authors' weights): four stages of chained
pooling, where the paper draws two; three residual units behind, where it has one; and each change of
channels is a convolution without bias. Maps are enlarged with aligned corners, the scores of the finest,
at a quarter of the pictures' size, without, as these programs train.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from flax import linen as nn
from jax import Array

from jaxnets.layers import Conv, Dropout, max_pool, resize_bilinear
from jaxnets.models.settings import Count, Probability, takes_fields_of
from jaxnets.segmentation.building import (
    Settings,
    backbone_of,
    class_names,  # noqa: F401  (what public weights score)
    map_of,
    resnet_rules,
    shared_parts,
)
from jaxnets.segmentation.segmenter import Segmenter

PAPER = "Lin et al. 2016, arXiv:1611.06612 (light-weight: Nekrasov et al. 2018, arXiv:1810.03272)"

VARIANTS = {
    "refinenet": {},
    "refinenet_lw": {"light": True},
    "refinenet_resnet50": {"backbone": "resnet50", "min_size": None},
    "refinenet_resnet101": {"backbone": "resnet101", "min_size": None},
    "refinenet_resnet152": {"backbone": "resnet152", "min_size": None},
    "refinenet_lw_resnet50": {"backbone": "resnet50", "light": True, "min_size": None},
    "refinenet_lw_resnet101": {"backbone": "resnet101", "light": True, "min_size": None},
    "refinenet_lw_resnet152": {"backbone": "resnet152", "light": True, "min_size": None},
}

STRIDES = (32, 16, 8, 4)
POOLINGS = 4


class ResidualUnits(nn.Module):
    """Two convolutions, each behind a ReLU, and a shortcut; several times.

    Attributes:
        count: how many times.
    """

    count: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for i in range(1, self.count + 1):
            y = Conv(x.shape[-1], 3, padding=1, name=f"conv{i}_1")(nn.relu(x))
            y = Conv(x.shape[-1], 3, padding=1, use_bias=False, name=f"conv{i}_2")(nn.relu(y))
            x = x + y
        return x


class ChainedPooling(nn.Module):
    """Adds to a map what ever wider surroundings tell: a 5x5 max-pool and a convolution, of what the
    stage before gave.

    Attributes:
        kernel: side of the convolutions.
    """

    kernel: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = x
        for i in range(1, POOLINGS + 1):
            y = max_pool(y, 5, strides=1, padding=2)
            y = _conv(x.shape[-1], self.kernel, name=f"conv{i}")(y)
            x = x + y
        return x


class RefineNetDecoder(nn.Module):
    """Refinement from the coarsest map to the finest, and scores of the finest.

    Attributes:
        num_classes: how many.
        maps: by name, from the coarsest.
        width: channels of what is refined; twice as many at the coarsest.
        light: whether it is the light-weight form.
        dropout: rate of units in the two coarsest maps and, unless it is light, before the scores.
    """

    num_classes: int
    maps: tuple[str, ...]
    width: int
    light: bool
    dropout: float

    @nn.compact
    def __call__(self, maps: Mapping[str, Array], size: tuple[int, int], train: bool) -> Array:
        drop = partial(Dropout, self.dropout, deterministic=not train)
        kernel = 1 if self.light else 3
        path = None
        for level, name in enumerate(self.maps, start=1):
            x = maps[name]
            if level <= 2:
                x = drop(name=f"level{level}_dropout")(x)
            width = 2 * self.width if level == 1 else self.width
            x = _conv(width, kernel, name=f"level{level}_reduce")(x)
            if not self.light:
                x = ResidualUnits(2, name=f"level{level}_adapt")(x)
            if path is not None:
                x = _conv(self.width, kernel, name=f"level{level}_fuse")(x)
                x = x + resize_bilinear(path, x.shape[1:3], align_corners=True)
            x = ChainedPooling(kernel, name=f"level{level}_pooling")(nn.relu(x))
            if not self.light:
                x = ResidualUnits(3, name=f"level{level}_refine")(x)
            if level < len(self.maps):
                path = _conv(self.width, kernel, name=f"level{level}_out")(x)
        if not self.light:
            x = drop(name="dropout")(x)
        return Conv(self.num_classes, 3, padding=1, name="score")(x)


def _conv(features: int, kernel: int, name: str) -> nn.Conv:
    return Conv(features, kernel, padding=kernel // 2, use_bias=False, name=name)


@takes_fields_of(Settings)
def build(
    *,
    num_classes: Count = 21,
    light: bool = False,
    width: Count = 256,
    dropout: Probability = 0.5,
    **settings: Any,
) -> Segmenter:
    """A RefineNet for pictures of any size.

    Args:
        num_classes: the background among them.
        light: whether it is the light-weight form.
        width: channels of what is refined.
        dropout: rate of units in the two coarsest maps and, unless it is light, before the scores.
        **settings: see `building.Settings`.

    Raises:
        InputError: as of `building.backbone_of`, or the backbone lacks a map of stride 4, 8, 16 or 32.
    """
    shared = Settings(**settings)
    backbone, by_stride, _, smallest = backbone_of(shared, 32)
    maps = tuple(map_of(by_stride, stride, shared.backbone) for stride in STRIDES)
    return Segmenter(
        backbone=backbone,
        decoder=RefineNetDecoder(num_classes, maps, width, light, dropout),
        min_size=smallest,
        **shared_parts(shared, num_classes),
    )


RENAMES = {
    "drsleep": resnet_rules(
        "",
        ("decoder/level{l}_reduce", "p_ims1d2_outl{l}_dimred"),
        ("decoder/level{l}_adapt/conv{i}_1", "adapt_stage{l}_b.0.{i}_conv"),
        ("decoder/level{l}_adapt/conv{i}_2", "adapt_stage{l}_b.0.{i}_conv_relu_varout_dimred"),
        ("decoder/level{l}_fuse", "adapt_stage{l}_b2_joint_varout_dimred"),
        ("decoder/level{l}_pooling/conv{i}", "mflow_conv_g{l}_pool.0.{i}_outvar_dimred"),
        ("decoder/level{l}_refine/conv{i}_1", "mflow_conv_g{l}_b.0.{i}_conv"),
        ("decoder/level{l}_refine/conv{i}_2", "mflow_conv_g{l}_b.0.{i}_conv_relu_varout_dimred"),
        ("decoder/level{l}_out", "mflow_conv_g{l}_b3_joint_varout_dimred"),
        ("decoder/score", "clf_conv"),
    )
}
