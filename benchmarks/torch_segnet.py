"""SegNet on VGG-16 in torch, for its time beside ours. Badrinarayanan et al. 2015, arXiv:1511.00561."""

import itertools

from torch import nn
from torch.nn import functional

DEPTHS, WIDTHS = (2, 2, 3, 3, 3), (64, 128, 256, 512, 512)


class SegNet(nn.Module):
    """Pooling hands its indices to the unpooling of the same size."""

    def __init__(self, num_classes: int):
        super().__init__()
        down, up, before = [], [], 3
        for depth, width in zip(DEPTHS, WIDTHS, strict=True):
            down.append(_block([before] + [width] * depth))
            up.append([width] * depth + [before])
            before = width
        up[0][-1] = num_classes
        self.down = nn.ModuleList(down)
        self.up = nn.ModuleList(_block(widths, last=i == 0) for i, widths in enumerate(up))

    def forward(self, x):
        pooled = []
        for block in self.down:
            x = block(x)
            size = x.shape[2:]
            x, indices = functional.max_pool2d(x, 2, 2, ceil_mode=True, return_indices=True)
            pooled.append((indices, size))
        for block, (indices, size) in zip(reversed(self.up), reversed(pooled), strict=True):
            x = block(functional.max_unpool2d(x, indices, 2, 2, output_size=size))
        return x


def _block(widths: list[int], last: bool = False) -> nn.Sequential:
    layers = []
    for k, (before, after) in enumerate(itertools.pairwise(widths), start=2):
        layers.append(nn.Conv2d(before, after, 3, padding=1))
        if not (last and k == len(widths)):
            layers += [nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
