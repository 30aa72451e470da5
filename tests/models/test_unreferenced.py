"""The rows that no reference program vouches for, layer by layer as their papers print them.

Each is written out once more below as plain rows of layers, from which weights, multiply-adds and the
maps of each stage are summed up by hand.
"""

from typing import NamedTuple

import jax
import pytest


class Layer(NamedTuple):
    """A convolution, or with side 1 and kernel 1 a dense layer."""

    side: int  # of its output
    kernel: int
    inputs: int
    outputs: int
    groups: int = 1

    @property
    def weights(self):
        return self.kernel**2 * self.inputs * self.outputs // self.groups


def dense(inputs, outputs):
    return Layer(1, 1, inputs, outputs)


def zfnet():
    """The lecture's table: upper convolutions of 512, 1024 and 512 channels."""
    return [
        *(Layer(110, 7, 3, 96), Layer(26, 5, 96, 256)),
        *(Layer(13, 3, 256, 512), Layer(13, 3, 512, 1024), Layer(13, 3, 1024, 512)),
        *(dense(6 * 6 * 512, 4096), dense(4096, 4096), dense(4096, 1000)),
    ]


def nin():
    return [
        *(Layer(54, 11, 3, 96), Layer(54, 1, 96, 96), Layer(54, 1, 96, 96)),
        *(Layer(27, 5, 96, 256), Layer(27, 1, 256, 256), Layer(27, 1, 256, 256)),
        *(Layer(13, 3, 256, 384), Layer(13, 1, 384, 384), Layer(13, 1, 384, 384)),
        *(Layer(6, 3, 384, 1024), Layer(6, 1, 1024, 1024), Layer(6, 1, 1024, 1000)),
    ]


def vgg(depths, ones=(), tail=((7 * 7 * 512, 4096), (4096, 4096), (4096, 1000))):
    """Table 1 of the paper: the depth of each stage, and the stages that end in a 1x1 convolution."""
    layers, inputs = [], 3
    for stage, (depth, width) in enumerate(zip(depths, (64, 128, 256, 512, 512), strict=True)):
        for index in range(depth):
            kernel = 1 if stage in ones and index == depth - 1 else 3
            layers.append(Layer(224 >> stage, kernel, inputs, width))
            inputs = width
    return layers + [dense(*row) for row in tail]


def googlenet_paper():
    """Table 1 of the paper: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection."""
    table = [
        (28, 192, (64, 96, 128, 16, 32, 32)),
        (28, 256, (128, 128, 192, 32, 96, 64)),
        (14, 480, (192, 96, 208, 16, 48, 64)),
        (14, 512, (160, 112, 224, 24, 64, 64)),
        (14, 512, (128, 128, 256, 24, 64, 64)),
        (14, 512, (112, 144, 288, 32, 64, 64)),
        (14, 528, (256, 160, 320, 32, 128, 128)),
        (7, 832, (256, 160, 320, 32, 128, 128)),
        (7, 832, (384, 192, 384, 48, 128, 128)),
    ]
    layers = [Layer(112, 7, 3, 64), Layer(56, 1, 64, 64), Layer(56, 3, 64, 192)]
    for side, inputs, (one, reduce3, three, reduce5, five, projection) in table:
        layers += [Layer(side, 1, inputs, width) for width in (one, reduce3, reduce5, projection)]
        layers += [Layer(side, 3, reduce3, three), Layer(side, 5, reduce5, five)]
    return [*layers, dense(1024, 1000)]


def wide_resnet(depth, widening):
    """Table 1 of the paper, for 32 x 32: N basic blocks a group; 1x1 where the width changes."""
    layers, inputs = [Layer(32, 3, 3, 16)], 16
    for side, width in ((32, 16 * widening), (16, 32 * widening), (8, 64 * widening)):
        for _ in range((depth - 4) // 6):
            layers += [Layer(side, 3, inputs, width), Layer(side, 3, width, width)]
            if inputs != width:
                layers.append(Layer(side, 1, inputs, width))
            inputs = width
    return [*layers, dense(inputs, 10)]


def bottlenecks(depths, widths, groups=1):
    """ResNets of bottleneck blocks at 224 x 224, with the stride in the 3x3 convolution."""
    layers, inputs, before = [Layer(112, 7, 3, 64)], 64, 56
    for depth, width, side, outputs in zip(
        depths, widths, (56, 28, 14, 7), (256, 512, 1024, 2048), strict=True
    ):
        for _ in range(depth):
            layers += [Layer(before, 1, inputs, width), Layer(side, 3, width, width, groups)]
            layers += [Layer(side, 1, width, outputs)]
            if inputs != outputs:
                layers.append(Layer(side, 1, inputs, outputs))
            inputs, before = outputs, side
    return [*layers, dense(2048, 1000)]


def resnext(groups, d):
    """Table 2 of the paper: cardinality and the width of a group in the first stage; about 4.1 G."""
    return bottlenecks((3, 4, 6, 3), [groups * d * 2**stage for stage in range(4)], groups)


def densenet190():
    """BC, growth 40, for 32 x 32: three blocks of 31 pairs of convolutions, halved in between."""
    channels, layers = 80, [Layer(32, 3, 3, 80)]
    for block, side in enumerate((32, 16, 8)):
        for _ in range(31):
            layers += [Layer(side, 1, channels, 160), Layer(side, 3, 160, 40)]
            channels += 40
        if block < 2:
            layers.append(Layer(side, 1, channels, channels // 2))
            channels //= 2
    return [*layers, dense(channels, 10)]


def fractalnet():
    """Four columns of 1, 2, 4 and 8 convolutions in each of five blocks; pools of 2 between."""
    layers, inputs = [], 3
    for side, width in ((32, 64), (16, 128), (8, 256), (4, 512), (2, 512)):
        layers += [Layer(side, 3, inputs, width)] * 4 + [Layer(side, 3, width, width)] * 11
        inputs = width
    return [*layers, dense(512, 10)]


def highway():
    """FitNet 4's channels; a highway layer, which has two convolutions, where they stay the same."""
    layers, inputs = [], 3
    for side, widths in ((32, (32, 32, 32, 48, 48)), (16, (80,) * 6), (8, (128,) * 6)):
        for width in widths:
            layers += [Layer(side, 3, inputs, width)] * (2 if width == inputs else 1)
            inputs = width
    return [*layers, dense(128, 500), dense(500, 10)]


VGG_STAGES = {1: (112, 64), 2: (56, 128), 3: (28, 256), 4: (14, 512), 5: (7, 512)}
BOTTLENECK_MAPS = {
    "stem": (112, 64),
    "stage1": (56, 256),
    "stage2": (28, 512),
    "stage3": (14, 1024),
    "stage4": (7, 2048),
}
VGG_MAPS = {f"stage{stage}": size for stage, size in VGG_STAGES.items()}

# The layers of each row, and its maps where the family's own tests do not hold them.
ROWS = {
    "zfnet": (zfnet(), None),
    "nin": (nin(), None),
    "vgg11_lrn": (vgg((1, 1, 2, 2, 2)), VGG_MAPS),
    "vgg16_c": (vgg((2, 2, 3, 3, 3), ones=(2, 3, 4)), None),
    "vgg16_gap": (vgg((2, 2, 3, 3, 3), tail=((512, 4096), (4096, 1000))), VGG_MAPS),
    "googlenet_paper": (googlenet_paper(), None),
    "wrn_16_8": (
        wide_resnet(16, 8),
        {"stem": (32, 16), "stage1": (32, 128), "stage2": (16, 256), "stage3": (8, 512)},
    ),
    "wrn_28_10": (wide_resnet(28, 10), None),
    "densenet190_k40": (densenet190(), None),
    "fractalnet": (fractalnet(), None),
    "highway": (highway(), None),
    "resnetv2_200": (bottlenecks((3, 24, 36, 3), (64, 128, 256, 512)), BOTTLENECK_MAPS),
    "resnext50_1x64d": (resnext(1, 64), BOTTLENECK_MAPS),
    "resnext50_2x40d": (resnext(2, 40), BOTTLENECK_MAPS),
    "resnext50_4x24d": (resnext(4, 24), BOTTLENECK_MAPS),
    "resnext50_8x14d": (resnext(8, 14), BOTTLENECK_MAPS),
}

_SLOW_TO_TRACE = ("densenet190_k40", "resnetv2_200")


def of_rows(names):
    marks = {name: [pytest.mark.zoo] for name in _SLOW_TO_TRACE}
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=marks.get(name, [])) for name in names]
    )


@of_rows(ROWS)
def test_weights_are_those_of_the_layers_one_by_one(name, shapes_of):
    layers, _ = ROWS[name]
    leaves = jax.tree_util.tree_leaves_with_path(shapes_of(name)["params"])
    kernels = [leaf.size for path, leaf in leaves if path[-1].key == "kernel"]
    assert sorted(kernels) == sorted(layer.weights for layer in layers)


@of_rows(ROWS)
def test_multiply_adds_are_those_of_the_layers_one_by_one(name, multiply_adds):
    layers, _ = ROWS[name]
    assert multiply_adds(name) == sum(layer.side**2 * layer.weights for layer in layers)


@of_rows(name for name, (_, maps) in ROWS.items() if maps)
def test_stages_have_the_papers_maps(name, map_sizes):
    _, maps = ROWS[name]
    assert map_sizes(name) == maps
