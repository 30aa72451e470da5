"""References put together from a library's own modules, shorter and narrower than it offers them.

Their parameters have the names that they have in the whole nets.
"""

import functools

import torch
from torch import nn


def shortened_polynet(depths: tuple[int, int, int]) -> nn.Module:
    """PolyNet of Cadene's collection with the first modules of each stage."""
    from pretrainedmodels.models.polynet import PolyNet

    model = PolyNet()
    model.stage_a, model.stage_b, model.stage_c = (
        stage[:depth]
        for stage, depth in zip((model.stage_a, model.stage_b, model.stage_c), depths, strict=True)
    )
    modules = [*model.stage_a, *model.stage_b, *model.stage_c]
    for i, module in enumerate(modules):  # from 1 to 0.7, as in the whole net
        module.scale = round(1 - 0.3 * i / (len(modules) - 1), 6)
    return model


def shortened_resnet(
    depths: tuple[int, ...],
    replace_stride_with_dilation: tuple[bool, ...] = (False, False, False),
    norm: str = "batch",
) -> nn.Module:
    """torchvision's ResNet of bottlenecks with other depths and normalizations."""
    from torchvision.models.resnet import Bottleneck, ResNet
    from torchvision.ops.misc import FrozenBatchNorm2d

    norms = {
        "batch": nn.BatchNorm2d,
        "frozen": FrozenBatchNorm2d,
        "group": functools.partial(nn.GroupNorm, 32),
    }
    return ResNet(
        Bottleneck,
        depths,
        replace_stride_with_dilation=list(replace_stride_with_dilation),
        norm_layer=norms[norm],
    )


class _Cells(nn.Module):
    """What the shortened NASNet and PNASNet have in common."""

    def stem(self, library, features: int, stem_features: int) -> nn.Module:
        def norm(width: int, **kwargs) -> nn.Module:
            return nn.BatchNorm2d(width, eps=0.001)

        self.last_linear = nn.Linear(features, 10)
        return library.ConvNormAct(
            3, stem_features, 3, stride=2, padding=0, norm_layer=norm, apply_act=False
        )

    def classified(self, x: torch.Tensor) -> torch.Tensor:
        return self.last_linear(torch.relu(x).mean((2, 3)))


class shortened_nasnetalarge(_Cells):  # noqa: N801
    """timm's with one normal cell in each stage."""

    def __init__(self, features: int, stem_features: int) -> None:
        from timm.models import nasnet

        super().__init__()
        f, pad = features, {"pad_type": "same"}
        self.conv0 = self.stem(nasnet, 24 * f, stem_features)
        self.cell_stem_0 = nasnet.CellStem0(stem_features, f // 4, **pad)
        self.cell_stem_1 = nasnet.CellStem1(stem_features, f // 2, **pad)
        self.cell_0 = nasnet.FirstCell(f, f // 2, 2 * f, f, **pad)
        self.reduction_cell_0 = nasnet.ReductionCell0(2 * f, 2 * f, 6 * f, 2 * f, **pad)
        self.cell_6 = nasnet.FirstCell(2 * f, f, 8 * f, 2 * f, **pad)
        self.reduction_cell_1 = nasnet.ReductionCell1(8 * f, 4 * f, 12 * f, 4 * f, **pad)
        self.cell_12 = nasnet.FirstCell(8 * f, 2 * f, 16 * f, 4 * f, **pad)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        conv0 = self.conv0(x)
        stem0 = self.cell_stem_0(conv0)
        stem1 = self.cell_stem_1(conv0, stem0)
        stage1 = self.cell_0(stem1, stem0)
        reduced1 = self.reduction_cell_0(stage1, stem1)
        stage2 = self.cell_6(reduced1, stem1)
        reduced2 = self.reduction_cell_1(stage2, reduced1)
        return self.classified(self.cell_12(reduced2, reduced1))


class shortened_pnasnet5large(_Cells):  # noqa: N801
    """timm's with one cell in each stage."""

    def __init__(self, features: int, stem_features: int) -> None:
        from timm.models import pnasnet

        super().__init__()
        f = features
        halving, unequal = {"is_reduction": True}, {"match_prev_layer_dims": True}
        self.conv_0 = self.stem(pnasnet, 20 * f, stem_features)
        self.cell_stem_0 = pnasnet.CellStem0(
            stem_features, f // 4, stem_features, f // 4, pad_type="same"
        )
        cell = functools.partial(pnasnet.Cell, pad_type="same")
        self.cell_stem_1 = cell(stem_features, f // 2, 5 * f // 4, f // 2, **halving, **unequal)
        self.cell_0 = cell(5 * f // 4, f, 5 * f // 2, f, **unequal)
        self.cell_1 = cell(5 * f // 2, 2 * f, 5 * f, 2 * f, **halving)
        self.cell_2 = cell(5 * f, 4 * f, 10 * f, 4 * f, **halving, **unequal)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        previous = self.conv_0(x)
        x = self.cell_stem_0(previous)
        for cell in (self.cell_stem_1, self.cell_0, self.cell_1, self.cell_2):
            previous, x = x, cell(previous, x)
        return self.classified(x)
