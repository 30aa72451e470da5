"""DeepLab v2 and v3+ in torch, written from the papers, for `make_deeplab_goldens.py`.

The first has the names of kazuto1011/deeplab-pytorch or, on VGG, of Caffe's layers; the second has the
structure and the names of chainercv, whose weights are those of the authors.
"""

import torch
from torch import nn
from torch.nn.functional import interpolate, relu


def conv_norm(inputs: int, outputs: int, size: int = 1, epsilon: float = 1e-5, **geometry) -> nn.Module:
    parts = nn.Module()
    parts.conv = nn.Conv2d(inputs, outputs, size, bias=False, **geometry)
    parts.bn = nn.BatchNorm2d(outputs, eps=epsilon)
    parts.forward = lambda x: parts.bn(parts.conv(x))
    return parts


class Bottleneck(nn.Module):
    def __init__(self, inputs, width, stride, dilation, first):
        super().__init__()
        self.reduce = conv_norm(inputs, width, stride=stride)
        self.conv3x3 = conv_norm(width, width, 3, padding=dilation, dilation=dilation)
        self.increase = conv_norm(width, 4 * width)
        if first:
            self.shortcut = conv_norm(inputs, 4 * width, stride=stride)

    def forward(self, x):
        y = relu(self.conv3x3.forward(relu(self.reduce.forward(x))))
        own = self.shortcut.forward(x) if hasattr(self, "shortcut") else x
        return relu(own + self.increase.forward(y))


class DeepLabV2ResNet(nn.Module):
    def __init__(self, depths, rates, classes):
        super().__init__()
        self.base = base = nn.Module()
        base.layer1 = nn.Module()
        base.layer1.conv1 = conv_norm(3, 64, 7, stride=2, padding=3)
        channels, geometry = 64, ((64, 1, 1), (128, 2, 1), (256, 1, 2), (512, 1, 4))
        self.blocks = []
        for stage, (depth, (width, stride, dilation)) in enumerate(
            zip(depths, geometry, strict=True), start=2
        ):
            layer = nn.Module()
            for i in range(depth):
                block = Bottleneck(channels, width, stride if i == 0 else 1, dilation, i == 0)
                setattr(layer, f"block{i + 1}", block)
                self.blocks.append(block)
                channels = 4 * width
            setattr(base, f"layer{stage}", layer)
        base.aspp = nn.Module()
        for i, rate in enumerate(rates):
            branch = nn.Conv2d(channels, classes, 3, padding=rate, dilation=rate)
            setattr(base.aspp, f"c{i}", branch)

    def forward(self, images):
        x = relu(self.base.layer1.conv1.forward(images))
        x = nn.functional.max_pool2d(x, 3, 2, 1, ceil_mode=True)
        for block in self.blocks:
            x = block(x)
        scores = sum(branch(x) for branch in self.base.aspp.children())
        return interpolate(scores, images.shape[2:], mode="bilinear", align_corners=True)


class DeepLabV2VGG(nn.Module):
    def __init__(self, depths, rates, classes):
        super().__init__()
        self.depths, self.branches, channels = depths, [], 3
        for stage, depth in enumerate(depths, start=1):
            width = min(32 * 2**stage, 512)
            dilation = 2 if stage == 5 else 1
            for i in range(1, depth + 1):
                layer = nn.Conv2d(channels, width, 3, padding=dilation, dilation=dilation)
                setattr(self, f"conv{stage}_{i}", layer)
                channels = width
        for i, rate in enumerate(rates, start=1):
            end = "" if len(rates) == 1 else f"_{i}"
            names = [f"{name}{end}" for name in ("fc6", "fc7", "fc8_voc12")]
            setattr(self, names[0], nn.Conv2d(channels, 1024, 3, padding=rate, dilation=rate))
            setattr(self, names[1], nn.Conv2d(1024, 1024, 1))
            setattr(self, names[2], nn.Conv2d(1024, classes, 1))
            self.branches.append(names)

    def forward(self, images):
        x = images
        for stage, depth in enumerate(self.depths, start=1):
            for i in range(1, depth + 1):
                x = relu(getattr(self, f"conv{stage}_{i}")(x))
            x = nn.functional.max_pool2d(x, 3, 1 if stage > 3 else 2, 1, ceil_mode=True)
        scores = 0
        for first, second, last in self.branches:
            y = relu(getattr(self, second)(relu(getattr(self, first)(x))))
            scores = scores + getattr(self, last)(y)
        return interpolate(scores, images.shape[2:], mode="bilinear", align_corners=True)


class Separable(nn.Module):
    def __init__(self, inputs, outputs, stride=1, dilation=1, epsilon=1e-5, activated=True):
        super().__init__()
        geometry = {"stride": stride, "padding": dilation, "dilation": dilation}
        self.depthwise = nn.Conv2d(inputs, inputs, 3, groups=inputs, bias=False, **geometry)
        self.dw_bn = nn.BatchNorm2d(inputs, eps=epsilon)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.pw_bn = nn.BatchNorm2d(outputs, eps=epsilon)
        self.activated = activated

    def forward(self, x):
        x = self.dw_bn(self.depthwise(x))
        x = self.pw_bn(self.pointwise(relu(x) if self.activated else x))
        return relu(x) if self.activated else x


class XceptionBlock(nn.Module):
    """The ReLU before a convolution is this block's; `kind` is "conv", "sum" or "none"."""

    def __init__(self, inputs, widths, stride, dilation, kind):
        super().__init__()
        self.kind = kind
        for i, width in enumerate(widths, start=1):
            channels = inputs if i == 1 else widths[i - 2]
            own = stride if i == 3 else 1
            layer = Separable(channels, width, own, dilation, 1e-3, activated=kind == "none")
            setattr(self, f"separable{i}", layer)
        if kind == "conv":
            self.conv = conv_norm(inputs, widths[-1], epsilon=1e-3, stride=stride)

    def forward(self, x):
        activate = (lambda y: y) if self.kind == "none" else relu
        second = self.separable2(activate(self.separable1(activate(x))))
        y = self.separable3(activate(second))
        own = {"conv": lambda: self.conv.forward(x), "sum": lambda: x, "none": lambda: 0}[self.kind]()
        return y + own, second


class DeepLabV3Plus(nn.Module):
    """On Xception-65 at output stride 8."""

    def __init__(self, rates, classes):
        super().__init__()
        self.feature_extractor = own = nn.Module()
        own.entryflow_conv1 = conv_norm(3, 32, 3, 1e-3, stride=2, padding=1)
        own.entryflow_conv2 = conv_norm(32, 64, 3, 1e-3, padding=1)
        own.entryflow_block1 = XceptionBlock(64, (128,) * 3, 2, 1, "conv")
        own.entryflow_block2 = XceptionBlock(128, (256,) * 3, 2, 1, "conv")
        own.entryflow_block3 = XceptionBlock(256, (728,) * 3, 1, 1, "conv")
        for i in range(1, 17):
            setattr(own, f"middleflow_block{i}", XceptionBlock(728, (728,) * 3, 1, 2, "sum"))
        own.exitflow_block1 = XceptionBlock(728, (728, 1024, 1024), 1, 2, "conv")
        own.exitflow_block2 = XceptionBlock(1024, (1536, 1536, 2048), 1, 4, "none")
        self.aspp = nn.Module()
        self.aspp.image_pooling_conv = conv_norm(2048, 256)
        self.aspp.conv1x1 = conv_norm(2048, 256)
        for i, rate in enumerate(rates, start=1):
            setattr(self.aspp, f"atrous{i}", Separable(2048, 256, dilation=rate))
        self.aspp.proj = conv_norm(5 * 256, 256)
        self.decoder = nn.Module()
        self.decoder.feature_proj = conv_norm(256, 48)
        self.decoder.conv1 = Separable(304, 256)
        self.decoder.conv2 = Separable(256, 256)
        self.decoder.conv_logits = nn.Conv2d(256, classes, 1)

    def forward(self, images):
        x, low = images, None
        for name, part in self.feature_extractor.named_children():
            if isinstance(part, XceptionBlock):
                x, second = part(x)
                low = second if name == "entryflow_block2" else low
            else:
                x = relu(part.forward(x))
        pooled = relu(self.aspp.image_pooling_conv.forward(x.mean((2, 3), keepdim=True)))
        branches = [pooled.expand(-1, -1, *x.shape[2:]), relu(self.aspp.conv1x1.forward(x))]
        branches += [getattr(self.aspp, f"atrous{i}")(x) for i in (1, 2, 3)]
        x = relu(self.aspp.proj.forward(torch.cat(branches, 1)))
        x = interpolate(x, low.shape[2:], mode="bilinear", align_corners=True)
        x = torch.cat([x, relu(self.decoder.feature_proj.forward(low))], 1)
        x = self.decoder.conv_logits(self.decoder.conv2(self.decoder.conv1(x)))
        return interpolate(x, images.shape[2:], mode="bilinear", align_corners=True)
