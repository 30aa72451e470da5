"""What NASNet and PNASNet are built of: cells, each fed by the two cells before it.

A cell is written as data, as its paper draws it. Its states are numbered: 0 is the output of the
cell before, 1 that of the one before that, both brought to the cell's channels; 2 and up are its
sums, in order. Maps are padded as by TensorFlow's "SAME", in which these nets were made: where a map
with an even side is halved, more below and right than above and left.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax import Array

from jaxnets.errors import InputError
from jaxnets.layers import (
    BatchNorm,
    Conv,
    DropPath,
    LinearHead,
    SeparableConv,
    adaptive_avg_pool,
    avg_pool,
    drop_path_rates,
    max_pool,
)
from jaxnets.models.classifier import Classifier
from jaxnets.models.inception_parts import check_auxiliary

_EPSILON = 1e-3

POOL_PADDINGS = ("left_out", "in_means", "zeros")


class Sum(NamedTuple):
    """Two operations on two states, added up.

    An operation is "identity" or a kind ("separable", "avg", "max") and the side of its window, for
    instance "max3".
    """

    left: str
    left_state: int
    right: str
    right_state: int


class Plan(NamedTuple):
    """A kind of cell: its sums and, in order, which states are concatenated as its output."""

    sums: tuple[Sum, ...]
    outputs: tuple[int, ...]


class Projection(nn.Module):
    """ReLU, a 1x1 convolution `conv` and batch normalization `bn`.

    Attributes:
        features: output channels.
        strides: of the convolution.
        relu: whether ReLU comes first.
    """

    features: int
    strides: int = 1
    relu: bool = True

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Maps [N, H, W, C] to [N, H', W', features]."""
        x = nn.relu(x) if self.relu else x
        x = Conv(self.features, 1, strides=self.strides, use_bias=False, name="conv")(x)
        return BatchNorm(use_running_average=not train, epsilon=_EPSILON, name="bn")(x)


class FactorizedReduction(nn.Module):
    """ReLU, two 1x1 convolutions that see every other pixel, one of them a pixel further down and
    right than the other, concatenated, and batch normalization `bn`."""

    features: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Maps [N, H, W, C] to [N, ceil(H / 2), ceil(W / 2), features]."""
        x = nn.relu(x)
        shifted = jnp.pad(x[:, 1:, 1:], ((0, 0), (0, 1), (0, 1), (0, 0)))
        half = self.features // 2
        conv = partial(Conv, kernel_size=1, strides=2, use_bias=False)
        x = jnp.concatenate(
            [
                conv(half, name="path1_conv")(x),
                conv(self.features - half, name="path2_conv")(shifted),
            ],
            axis=-1,
        )
        return BatchNorm(use_running_average=not train, epsilon=_EPSILON, name="bn")(x)


class SeparableTwice(nn.Module):
    """ReLU, a separable convolution and batch normalization, twice over (appendix A.4 of NASNet).

    Attributes:
        features: output channels.
        kernel_size: of both convolutions.
        strides: of the first.
    """

    features: int
    kernel_size: int
    strides: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Maps [N, H, W, C] to [N, H', W', features]."""
        for i, strides in ((1, self.strides), (2, 1)):
            conv = SeparableConv(
                self.features,
                self.kernel_size,
                strides=strides,
                padding="SAME",
                use_bias=False,
                name=f"sepconv{i}",
            )
            norm = BatchNorm(use_running_average=not train, epsilon=_EPSILON, name=f"bn{i}")
            x = norm(conv(nn.relu(x)))
        return x


class Cell(nn.Module):
    """A cell (figure 4 of NASNet's paper, figure 1 of PNASNet's).

    Attributes:
        plan: its operations.
        features: channels of every state.
        strides: 2 to halve the maps: that of each operation on state 0 or 1.
        drop_path: probability of dropping an operation; identities are never dropped.
        pool_padding: see `NASNet`.
    """

    plan: Plan
    features: int
    strides: int = 1
    drop_path: float = 0.0
    pool_padding: str = "left_out"

    @nn.compact
    def __call__(self, x: Array, previous: Array | None, train: bool) -> Array:
        """Maps the outputs of the last two cells, both [N, H, W, C] of their own sizes, to one.

        Args:
            x: of the last cell.
            previous: of the one before it, of x's size or twice that; None in the first cell, whose
                state 1 is x as it is.
            train: as for a backbone.
        """
        states = [Projection(self.features, name="project_input")(x, train)]
        if previous is None:
            states.append(x)
        elif previous.shape[1:3] == x.shape[1:3]:
            states.append(Projection(self.features, name="project_previous")(previous, train))
        else:
            states.append(FactorizedReduction(self.features, name="halve_previous")(previous, train))
        for i, (left, left_state, right, right_state) in enumerate(self.plan.sums, start=1):
            sides = ("left", left, left_state), ("right", right, right_state)
            outs = []
            for side, operation, state in sides:
                strides = self.strides if state < 2 else 1
                name = f"sum{i}_{side}"
                y = self._operation(operation, states[state], strides, name, train)
                if operation != "identity":
                    y = DropPath(self.drop_path, name=f"{name}_drop_path")(y, not train)
                outs.append(y)
            states.append(outs[0] + outs[1])
        return jnp.concatenate([states[state] for state in self.plan.outputs], axis=-1)

    def _operation(self, operation: str, x: Array, strides: int, name: str, train: bool) -> Array:
        if operation == "identity":
            if strides == 1 and x.shape[-1] == self.features:
                return x
            return Projection(self.features, strides, name=name)(x, train)
        kind, window = operation[:-1], int(operation[-1])
        if kind == "separable":
            return SeparableTwice(self.features, window, strides, name=name)(x, train)
        x = _pool(kind, x, window, strides, self.pool_padding)
        if x.shape[-1] == self.features:
            return x
        return Projection(self.features, relu=False, name=name)(x, train)


def _pool(kind: str, x: Array, window: int, strides: int, padding: str) -> Array:
    """Pools with a padding of which only strides of 2 can tell that it is not left out."""
    if strides > 1 and padding == "zeros":
        # A side n is padded by window - 1 - (n + 1) % 2, the odd pixel at the end.
        total = (window - 1 - (side + 1) % 2 for side in x.shape[1:3])
        x = jnp.pad(x, ((0, 0), *((t // 2, t - t // 2) for t in total), (0, 0)))
        return {"avg": avg_pool, "max": max_pool}[kind](x, window, strides)
    if kind == "max":
        return max_pool(x, window, strides, padding="SAME")
    counted = strides > 1 and padding == "in_means"
    return avg_pool(x, window, strides, padding="SAME", count_include_pad=counted)


class Step(NamedTuple):
    """A cell in its place in a net.

    Attributes:
        plan: what kind of cell it is.
        name: of the module.
        scale: its channels, as a multiple of the net's `features`.
        strides: 2 where it halves the maps.
        feature: what its output is called among the maps of the backbone; None where it is not one.
        skipped: whether the cell behind it reads, beside it, the one but last cell before it.
    """

    plan: Plan
    name: str
    scale: float
    strides: int = 1
    feature: str | None = None
    skipped: bool = False


def stage_of_cells(plan: Plan, stage: int, scale: float, depth: int, strides: int = 1) -> list[Step]:
    """Equal cells, of which the first has the strides and the last gives the stage's map."""
    return [
        Step(
            plan,
            f"stage{stage}_cell{i}",
            scale,
            strides if i == 1 else 1,
            feature=f"stage{stage}" if i == depth else None,
        )
        for i in range(1, depth + 1)
    ]


def chain(
    net: nn.Module,
    steps: Sequence[Step],
    images: Array,
    train: bool,
    pool_padding: str = "left_out",
) -> dict[str, Array]:
    """A convolution and cells, each of which reads the two before it; inside `net`'s compact method.

    Args:
        net: with `features`, `stem_features` and `drop_path`, which grows linearly over the cells.
        steps: the cells in order.
        images: [N, H, W, C].
        train: as for a backbone.
        pool_padding: see `NASNet`.

    Returns:
        the map `conv0` and those that the steps name; the last has passed a ReLU.
    """
    x = Conv(net.stem_features, 3, strides=2, use_bias=False, name="conv0")(images)
    x = BatchNorm(use_running_average=not train, epsilon=_EPSILON, name="bn0")(x)
    out, previous = {"conv0": x}, None
    for step, rate in zip(steps, drop_path_rates(net.drop_path, len(steps)), strict=True):
        y = Cell(
            step.plan,
            features=int(net.features * step.scale),
            strides=step.strides,
            drop_path=rate,
            pool_padding=pool_padding,
            name=step.name,
        )(x, previous, train)
        previous, x = (previous if step.skipped else x), y
        if step.feature:
            out[step.feature] = x
    out[steps[-1].feature] = nn.relu(x)
    return out


class AuxiliaryHead(nn.Module):
    """The classifier that reads the last cell of the second stage in training.

    The papers only mention it; this is the one of their program: ReLU, means of 5x5 windows 3 apart,
    a 1x1 convolution `conv1` to 128 channels, another, `conv2`, of the whole grid to 768, each with
    norm and ReLU, and a dense layer `fc`.

    Attributes:
        num_classes: of `fc`.
        grid: side of the grid of windows at the net's own image size; others are averaged to it.
    """

    num_classes: int
    grid: int

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Maps [N, H, W, C] to logits [N, num_classes]."""
        norm = partial(BatchNorm, use_running_average=not train, epsilon=_EPSILON)
        x = nn.relu(x)
        if min(x.shape[1:3]) >= 5:
            x = avg_pool(x, 5, strides=3)
        x = adaptive_avg_pool(x, self.grid)
        x = nn.relu(norm(name="bn1")(Conv(128, 1, use_bias=False, name="conv1")(x)))
        x = nn.relu(norm(name="bn2")(Conv(768, self.grid, use_bias=False, name="conv2")(x)))
        return nn.Dense(self.num_classes, name="fc")(x.reshape(x.shape[0], -1))


def classifier(
    backbone: nn.Module, num_classes: int, image_size: int, aux: bool, dropout: float
) -> Classifier:
    """A NASNet or PNASNet with its heads; arguments as for `build`."""
    if backbone.features < 4:
        raise InputError(f"features: wanted at least 4, got {backbone.features}")
    check_auxiliary(aux, num_classes)
    # Windows of 5, 3 apart, on the maps of stride 16.
    windows = (-(-image_size // 16) - 5) // 3 + 1
    auxiliary = {"stage2": AuxiliaryHead(num_classes, max(windows, 1))} if aux else {}
    return Classifier(
        backbone=backbone,
        head=LinearHead(num_classes, dropout),
        auxiliary=FrozenDict(auxiliary),
        num_classes=num_classes,
        input_size=(image_size, image_size, 3),
        min_size=32,
    )


def cell_renames(cells: dict[str, str], previous: str) -> tuple[tuple[str, str], ...]:
    """The rules for the parts of cells that timm and Cadene's collection name alike.

    Args:
        cells: their patterns here, and what they are called there.
        previous: what stands before the parts of a `FactorizedReduction` there.
    """
    there = "comb_iter_{n-1}_{side}"
    parts = (
        ("project_input/{layer}", "conv_1x1.{layer}"),
        ("project_previous/{layer}", "conv_prev_1x1.{layer}"),
        ("halve_previous/path{p}_conv", f"{previous}path_{{p}}.conv"),
        ("halve_previous/bn", f"{previous}final_path_bn"),
        ("sum{n}_{side}/sepconv{k}/{part}", there + ".separable_{k}.{part}_conv2d"),
        ("sum{n}_{side}/bn{k}", there + ".bn_sep_{k}"),
        ("sum{n}_{side}/{layer}", there + ".{layer}"),
    )
    return tuple(
        (f"backbone/{ours}/{part}", f"{theirs}.{name}")
        for ours, theirs in cells.items()
        for part, name in parts
    )
